"""`POST /v1/completions`: raw text continued, in OpenAI's forms. Choices run prompt by prompt."""

from __future__ import annotations

from typing import Any

from youtu_client import Answer, ModelInfo, Piece

from ..errors import unsupported
from ..schema import timings
from . import forms, schema
from .forms import Offsets, usage, with_text
from .schema import Completion

NAMES = schema.NAMES | {
    "max_tokens": "max_tokens",
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
    if wanted.echo and wanted.logprobs is not None and not info.prompt_log_probs:
        raise unsupported("echo", "this engine tells log-probabilities of its own tokens only")


def whole(wanted: Completion, head: dict[str, Any], answers: list[Answer]) -> dict[str, Any]:
    """The JSON of all choices."""
    choices = [
        {
            "index": index,
            "text": _echoed(wanted, index, answer) + answer.text,
            "logprobs": _log_probs(wanted, index, answer),
            "finish_reason": answer.finish_reason,
        }
        for index, answer in enumerate(answers)
    ]
    return head | {
        "object": "text_completion",
        "choices": choices,
        "usage": usage(_by_prompt(wanted, answers)),
        "timings": timings(answers),
    }


def _echoed(wanted: Completion, index: int, answer: Answer | None = None) -> str:
    if not wanted.echo:
        return ""
    prompt = wanted.prompt[index // (wanted.n or 1)]
    return prompt if isinstance(prompt, str) else _spelled(answer)


def _spelled(answer: Answer | None) -> str:
    """The prompt, put together from its tokens."""
    tokens = (answer.prompt_tokens if answer else None) or ()
    return b"".join(token.data for token in tokens).decode("utf-8", "replace")


def _log_probs(wanted: Completion, index: int, answer: Answer) -> dict[str, Any] | None:
    if wanted.logprobs is None:
        return None
    made = answer.tokens or ()
    if answer.prompt_tokens is None:
        return Offsets().log_probs(with_text(made), wanted.logprobs)
    # Whoever scores a text counts its tokens: none is left out. What the tokenizer put before a text, as a
    # token that begins it, stands before the text's first character.
    start = len(_echoed(wanted, index, answer)) - len(_spelled(answer))
    return Offsets(start).log_probs([*answer.prompt_tokens, *made], wanted.logprobs)


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
