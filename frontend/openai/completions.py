"""`POST /v1/completions`: raw text continued, in OpenAI's forms. Choices run prompt by prompt."""

from __future__ import annotations

from typing import Any

from youtu_client import Answer, ModelInfo, Piece

from .. import schema
from ..errors import unsupported
from ..schema import timings
from . import forms
from .forms import Offsets, usage, with_text
from .schema import Completion

NAMES = schema.NAMES | {
    "return_log_probs": "logprobs",
    "text_input": "prompt",
    "input_ids": "prompt",
    "top_log_probs": "logprobs",
}
"""What the caller calls the inputs of the model."""


def check(wanted: Completion, info: ModelInfo) -> None:
    """Refuse what this engine cannot do, with ApiError 400 that names the field."""
    if (wanted.logprobs or 0) > info.top_log_probs:
        words = f"this engine tells of {info.top_log_probs} tokens, not {wanted.logprobs}"
        raise unsupported("logprobs", words)
    if wanted.scores_prompt and not info.prompt_log_probs:
        raise unsupported("echo", "this engine tells log-probabilities of its own tokens only")


def whole(wanted: Completion, head: dict[str, Any], answers: list[Answer]) -> dict[str, Any]:
    """The JSON of all choices."""
    choices = [_choice(wanted, index, answer) for index, answer in enumerate(answers)]
    return head | {
        "object": "text_completion",
        "choices": choices,
        "usage": usage(_by_prompt(wanted, answers)),
        "timings": timings(answers),
    }


def _choice(wanted: Completion, index: int, answer: Answer) -> dict[str, Any]:
    prompt = b"".join(token.data for token in answer.prompt_tokens or ()).decode("utf-8", "replace")
    echoed = _echoed(wanted, index, prompt)
    log_probs = None
    if answer.prompt_tokens is not None:
        # Whoever scores a text counts its tokens: none is left out. A token that the tokenizer put before a
        # text stands before its first character.
        tokens = [*answer.prompt_tokens, *(answer.tokens or ())]
        log_probs = Offsets(len(echoed) - len(prompt)).log_probs(tokens, wanted.logprobs or 0)
    elif wanted.logprobs is not None:
        log_probs = Offsets().log_probs(with_text(answer.tokens or ()), wanted.logprobs)
    return {
        "index": index,
        "text": echoed + answer.text,
        "logprobs": log_probs,
        "finish_reason": answer.finish_reason,
    }


def _echoed(wanted: Completion, index: int, spelled: str = "") -> str:
    """What an answer's text begins with; `spelled`: a prompt that was sent as token ids, put together."""
    if not wanted.echo:
        return ""
    prompt = wanted.prompt[index // (wanted.n or 1)]
    return prompt if isinstance(prompt, str) else spelled


def _by_prompt(wanted: Completion, answers: list[Answer]) -> list[list[Answer]]:
    each = wanted.n or 1
    return [answers[at : at + each] for at in range(0, len(answers), each)]


class Chunks(forms.Chunks):
    """The form of `answering.Format`."""

    def __init__(self, wanted: Completion, head: dict[str, Any]) -> None:
        super().__init__(wanted, head | {"object": "text_completion"})
        self._wanted = wanted
        self._offsets: dict[int, Offsets] = {}

    def piece(self, index: int, piece: Piece, thinking: bool) -> str:
        opening = self._open(index)
        log_probs = None
        if self._wanted.logprobs is not None and piece.tokens:
            log_probs = self._offsets[index].log_probs(with_text(piece.tokens), self._wanted.logprobs)
        if not piece.text and log_probs is None:
            return opening
        return opening + self.chunk(index, {"text": piece.text}, log_probs=log_probs)

    def answer(self, index: int, answer: Answer) -> str:
        opening = self._open(index)
        return opening + self.chunk(
            index, {"text": ""}, finish_reason=answer.finish_reason, timings=timings([answer])
        )

    def end(self, answers: list[Answer]) -> str:
        return self.last(_by_prompt(self._wanted, answers))

    def _open(self, index: int) -> str:
        if index in self._offsets:
            return ""
        self._offsets[index] = Offsets()
        echoed = _echoed(self._wanted, index)
        return self.chunk(index, {"text": echoed}) if echoed else ""
