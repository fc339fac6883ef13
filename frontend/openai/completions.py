"""`POST /v1/completions`: raw text continued, in OpenAI's forms. Choices run prompt by prompt."""

from __future__ import annotations

from typing import Any

from youtu_client import Answer, ModelInfo, Piece

from ..errors import ApiError, unsupported
from ..schema import timings
from . import schema
from .forms import DONE, Offsets, event, usage
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


class Chunks:
    """The form of `answering.Format`."""

    def __init__(self, wanted: Completion, head: dict[str, Any]) -> None:
        self._wanted = wanted
        self._head = head | {"object": "text_completion"}
        self._offsets: dict[int, Offsets] = {}
        self._usage = bool(wanted.stream_options and wanted.stream_options.include_usage)

    def piece(self, index: int, piece: Piece, thinking: bool) -> str:
        opening = self._open(index)
        log_probs = None
        if self._wanted.logprobs is not None and piece.tokens:
            log_probs = self._offsets[index].log_probs(piece.tokens, self._wanted.logprobs)
        if not piece.text and log_probs is None:
            return opening
        return opening + self._chunk(index, piece.text, log_probs=log_probs)

    def answer(self, index: int, answer: Answer) -> str:
        opening = self._open(index)
        return opening + self._chunk(index, "", finish_reason=answer.finish_reason, timings=timings([answer]))

    def end(self, answers: list[Answer]) -> str:
        if not self._usage:
            return DONE
        figures = usage(_by_prompt(self._wanted, answers))
        return event(self._head | {"choices": [], "usage": figures, "timings": timings(answers)}) + DONE

    def error(self, error: ApiError) -> str:
        return event(error.body())

    def _open(self, index: int) -> str:
        if index in self._offsets:
            return ""
        self._offsets[index] = Offsets()
        echoed = _echoed(self._wanted, index)
        return self._chunk(index, echoed) if echoed else ""

    def _chunk(
        self,
        index: int,
        text: str,
        *,
        log_probs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
        **further: Any,
    ) -> str:
        choice = {"index": index, "text": text, "logprobs": log_probs, "finish_reason": finish_reason}
        value = self._head | {"choices": [choice]} | further
        return event(value | {"usage": None} if self._usage else value)
