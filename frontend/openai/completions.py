"""`POST /v1/completions`: raw text continued, in OpenAI's forms. Choices run prompt by prompt."""

from __future__ import annotations

from typing import Any

from youtu_client import Answer, ModelInfo, Piece

from ..errors import unsupported
from ..schema import timings
from . import forms, schema
from .forms import Offsets, usage
from .schema import Completion

NAMES = schema.NAMES | {"max_tokens": "max_tokens", "text_input": "prompt", "top_log_probs": "logprobs"}
"""What the caller calls the inputs of the model."""


def check(wanted: Completion, info: ModelInfo) -> None:
    """Refuse what this engine cannot do, with ApiError 400 that names the field."""
    if (wanted.logprobs or 0) > info.top_log_probs:
        words = f"this engine tells of {info.top_log_probs} tokens, not {wanted.logprobs}"
        raise unsupported("logprobs", words)


def whole(wanted: Completion, head: dict[str, Any], answers: list[Answer]) -> dict[str, Any]:
    """The JSON of all choices."""
    choices = [
        {
            "index": index,
            "text": _echoed(wanted, index) + answer.text,
            "logprobs": _log_probs(wanted, answer),
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


def _echoed(wanted: Completion, index: int) -> str:
    return wanted.prompt[index // (wanted.n or 1)] if wanted.echo else ""


def _log_probs(wanted: Completion, answer: Answer) -> dict[str, Any] | None:
    if wanted.logprobs is None:
        return None
    return Offsets().log_probs(answer.tokens or (), wanted.logprobs)


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
            log_probs = self._offsets[index].log_probs(piece.tokens, self._wanted.logprobs)
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
