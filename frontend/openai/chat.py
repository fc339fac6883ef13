"""`POST /v1/chat/completions`: requests in, answers and chunks out, in OpenAI's forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from youtu_client import Answer, ModelInfo, Piece
from youtu_contract.parts import ToolCall

from ..errors import unsupported
from ..schema import NAMES, timings
from . import forms
from .forms import chat_log_probs, usage
from .schema import ChatCompletion


def names(wanted: ChatCompletion) -> dict[str, str]:
    """What the caller calls the inputs of the model."""
    return NAMES | {
        "return_log_probs": "logprobs",
        "max_tokens": wanted.length_field,
        "top_log_probs": "top_logprobs",
        "guided_decoding_guide_type": "response_format",
        "guided_decoding_guide": "response_format",
    }


def check(wanted: ChatCompletion, info: ModelInfo) -> None:
    """Refuse what this model or its engine cannot do, with ApiError 400 that names the field."""
    if wanted.uses_tools and not info.tools:
        raise unsupported("tools", f"the chat template of {info.id} has no place for tools")
    guided = wanted.response_format is not None and wanted.response_format.type != "text"
    if guided and not info.guided_decoding:
        raise unsupported(
            "response_format", "this engine cannot hold its output to a schema; only text is possible"
        )
    if wanted.logprobs and (wanted.top_logprobs or 0) > info.top_log_probs:
        raise unsupported(
            "top_logprobs", f"this engine tells of {info.top_log_probs} tokens, not {wanted.top_logprobs}"
        )


def whole(wanted: ChatCompletion, head: dict[str, Any], answers: list[Answer]) -> dict[str, Any]:
    """The JSON of all choices."""
    choices = []
    for index, answer in enumerate(answers):
        message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": None}
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["content"] = answer.content or None
            message["tool_calls"] = [_call(call) for call in answer.tool_calls]
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": chat_log_probs(answer.tokens or ()) if wanted.logprobs else None,
                "finish_reason": _finish_reason(answer),
            }
        )
    return head | {
        "object": "chat.completion",
        "choices": choices,
        "usage": usage([answers]),
        "timings": timings(answers),
    }


def _call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _finish_reason(answer: Answer) -> str:
    return "tool_calls" if answer.tool_calls and answer.finish_reason == "stop" else answer.finish_reason


class Chunks(forms.Chunks):
    """The form of `answering.Format`."""

    def __init__(self, wanted: ChatCompletion, head: dict[str, Any]) -> None:
        super().__init__(wanted, head | {"object": "chat.completion.chunk"})
        self._wanted = wanted
        self._calls: dict[int, int] = {}  # of each answer that has begun: its calls of tools so far

    def piece(self, index: int, piece: Piece, thinking: bool) -> str:
        opening = self._open(index)
        log_probs = chat_log_probs(piece.tokens or ()) if self._wanted.logprobs and piece.tokens else None
        deltas = list(self._deltas(index, piece))
        if log_probs is not None and not deltas:
            deltas.append({"content": ""})  # Text that is held back has tokens all the same.
        events = [self.chunk(index, {"delta": delta}) for delta in deltas[:-1]]
        events += [self.chunk(index, {"delta": delta}, log_probs=log_probs) for delta in deltas[-1:]]
        return opening + "".join(events)

    def answer(self, index: int, answer: Answer) -> str:
        end = self.chunk(
            index, {"delta": {}}, finish_reason=_finish_reason(answer), timings=timings([answer])
        )
        return self._open(index) + end

    def end(self, answers: list[Answer]) -> str:
        return self.last([answers])

    def _open(self, index: int) -> str:
        if index in self._calls:
            return ""
        self._calls[index] = 0
        return self.chunk(index, {"delta": {"role": "assistant", "content": ""}})

    def _deltas(self, index: int, piece: Piece) -> Iterator[dict[str, Any]]:
        if piece.reasoning:
            yield {"reasoning_content": piece.reasoning}
        if piece.content:
            yield {"content": piece.content}
        for call in piece.tool_calls:
            yield {"tool_calls": [{"index": self._calls[index]} | _call(call)]}
            self._calls[index] += 1
