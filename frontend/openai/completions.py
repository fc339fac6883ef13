"""`POST /v1/completions`: raw text continued, in OpenAI's forms. Choices run prompt by prompt."""

from __future__ import annotations

from typing import Literal, cast

from youtu_client import Answer, ModelInfo, Piece

from ..errors import unsupported
from ..replies import Timings
from ..schema import NAMES as SAMPLING_NAMES
from . import forms
from .forms import Offsets, with_text
from .replies import (
    CompletionChunk,
    CompletionReply,
    CompletionUsage,
    FinishReason,
    Head,
    TextChoice,
    TextChunkChoice,
    TextLogProbs,
)
from .schema import Completion

NAMES = SAMPLING_NAMES | {
    "return_log_probs": "logprobs",
    "text_input": "prompt",
    "input_ids": "prompt",
    "top_log_probs": "logprobs",
}
"""What the caller calls the inputs of the model."""


def check(request: Completion, info: ModelInfo) -> None:
    """Refuse what this engine cannot do, with ApiError 400 that names the field."""
    if (request.logprobs or 0) > info.top_log_probs:
        words = f"this engine tells of {info.top_log_probs} tokens, not {request.logprobs}"
        raise unsupported("logprobs", words)
    if request.scores_prompt and not info.prompt_log_probs:
        raise unsupported("echo", "this engine tells log-probabilities of its own tokens only")


def whole(request: Completion, head: Head, answers: list[Answer]) -> CompletionReply:
    """The reply with all choices."""
    return CompletionReply(
        **head,
        object="text_completion",
        choices=[_choice(request, index, answer) for index, answer in enumerate(answers)],
        usage=CompletionUsage.of(_by_prompt(request, answers)),
        timings=Timings.of(answers),
    )


def _choice(request: Completion, index: int, answer: Answer) -> TextChoice:
    prompt = b"".join(token.data for token in answer.prompt_tokens or ()).decode("utf-8", "replace")
    echoed = _echoed(request, index, prompt)
    log_probs = None
    if answer.prompt_tokens is not None:
        # Whoever scores a text counts its tokens: none is left out. A token that the tokenizer put before a
        # text stands before its first character.
        tokens = [*answer.prompt_tokens, *(answer.tokens or ())]
        log_probs = Offsets(len(echoed) - len(prompt)).log_probs(tokens, request.logprobs or 0)
    elif request.logprobs is not None:
        log_probs = Offsets().log_probs(with_text(answer.tokens or ()), request.logprobs)
    return TextChoice(
        index=index,
        text=echoed + answer.text,
        logprobs=log_probs,
        finish_reason=cast(FinishReason, answer.finish_reason),
    )


def _echoed(request: Completion, index: int, spelled: str = "") -> str:
    """What an answer's text begins with; `spelled`: a prompt that was sent as token ids, put together."""
    if not request.echo:
        return ""
    prompt = request.prompt[index // (request.n or 1)]
    return prompt if isinstance(prompt, str) else spelled


def _by_prompt(request: Completion, answers: list[Answer]) -> list[list[Answer]]:
    each = request.n or 1
    return [answers[at : at + each] for at in range(0, len(answers), each)]


class Chunks(forms.Chunks):
    """The form of `inference.Format`."""

    object: Literal["text_completion"] = "text_completion"

    def __init__(self, request: Completion, head: Head) -> None:
        super().__init__(request, head)
        self._request = request
        self._offsets: dict[int, Offsets] = {}

    def piece(self, index: int, piece: Piece) -> str:
        opening = self._open(index)
        log_probs = None
        if self._request.logprobs is not None and piece.tokens:
            log_probs = self._offsets[index].log_probs(with_text(piece.tokens), self._request.logprobs)
        if not piece.text and log_probs is None:
            return opening
        return opening + self.event(self._chunk(index, piece.text, log_probs))

    def answer(self, index: int, answer: Answer) -> str:
        opening = self._open(index)
        end = self._chunk(index, "", finish_reason=cast(FinishReason, answer.finish_reason))
        end["timings"] = Timings.of([answer])
        return opening + self.event(end)

    def end(self, answers: list[Answer]) -> str:
        return self.last(_by_prompt(self._request, answers))

    def _open(self, index: int) -> str:
        if index in self._offsets:
            return ""
        self._offsets[index] = Offsets()
        echoed = _echoed(self._request, index)
        return self.event(self._chunk(index, echoed)) if echoed else ""

    def _chunk(
        self,
        index: int,
        text: str,
        log_probs: TextLogProbs | None = None,
        finish_reason: FinishReason | None = None,
    ) -> CompletionChunk:
        choice: TextChunkChoice = {
            "index": index,
            "text": text,
            "logprobs": log_probs,
            "finish_reason": finish_reason,
        }
        chunk: CompletionChunk = self.frame(choice)
        return chunk
