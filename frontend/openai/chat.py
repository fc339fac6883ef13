"""`POST /v1/chat/completions`: requests in, answers and chunks out, in OpenAI's forms."""

from __future__ import annotations

from typing import Any

from youtu_client import Answer, ModelInfo, Piece

from ..errors import unsupported
from ..schema import timings
from . import forms, schema
from .forms import chat_log_probs, usage
from .reading import Call, Content, Part, Reader, Reasoning
from .schema import ChatCompletion


def names(wanted: ChatCompletion) -> dict[str, str]:
    """What the caller calls the inputs of the model."""
    return schema.NAMES | {
        "messages": "messages",
        "chat_template_kwargs": "chat_template_kwargs",
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
        reader = Reader(thinking=answer.starts_in_thinking, tools=wanted.uses_tools)
        parts = [*reader.feed(answer.text), *reader.end()]
        message: dict[str, Any] = {"role": "assistant", "content": _joined(parts, Content), "refusal": None}
        if reasoning := _joined(parts, Reasoning):
            message["reasoning_content"] = reasoning
        if calls := [part for part in parts if isinstance(part, Call)]:
            message["content"] = message["content"] or None
            message["tool_calls"] = [_call(call) for call in calls]
        choices.append(
            {
                "index": index,
                "message": message,
                "logprobs": chat_log_probs(answer.tokens or ()) if wanted.logprobs else None,
                "finish_reason": _finish_reason(answer, reader),
            }
        )
    return head | {
        "object": "chat.completion",
        "choices": choices,
        "usage": usage([answers]),
        "timings": timings(answers),
    }


def _joined(parts: list[Part], kind: type[Content] | type[Reasoning]) -> str:
    return "".join(part.text for part in parts if isinstance(part, kind))


def _call(call: Call) -> dict[str, Any]:
    return {
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    }


def _finish_reason(answer: Answer, reader: Reader) -> str:
    return "tool_calls" if reader.calls and answer.finish_reason == "stop" else answer.finish_reason


class Chunks(forms.Chunks):
    """The form of `answering.Format`."""

    def __init__(self, wanted: ChatCompletion, head: dict[str, Any]) -> None:
        super().__init__(wanted, head | {"object": "chat.completion.chunk"})
        self._wanted = wanted
        self._readers: dict[int, Reader] = {}

    def piece(self, index: int, piece: Piece, thinking: bool) -> str:
        opening = self._open(index, thinking)
        reader = self._readers[index]
        log_probs = chat_log_probs(piece.tokens or ()) if self._wanted.logprobs and piece.tokens else None
        deltas = [self._delta(part, reader) for part in reader.feed(piece.text)]
        if log_probs is not None and not deltas:
            deltas.append({"content": ""})  # Text that is held back has tokens all the same.
        events = [self.chunk(index, {"delta": delta}) for delta in deltas[:-1]]
        events += [self.chunk(index, {"delta": delta}, log_probs=log_probs) for delta in deltas[-1:]]
        return opening + "".join(events)

    def answer(self, index: int, answer: Answer) -> str:
        opening = self._open(index, answer.starts_in_thinking)
        reader = self._readers[index]
        events = [self.chunk(index, {"delta": self._delta(part, reader)}) for part in reader.end()]
        end = self.chunk(
            index, {"delta": {}}, finish_reason=_finish_reason(answer, reader), timings=timings([answer])
        )
        return opening + "".join(events) + end

    def end(self, answers: list[Answer]) -> str:
        return self.last([answers])

    def _open(self, index: int, thinking: bool) -> str:
        if index in self._readers:
            return ""
        self._readers[index] = Reader(thinking=thinking, tools=self._wanted.uses_tools)
        return self.chunk(index, {"delta": {"role": "assistant", "content": ""}})

    def _delta(self, part: Part, reader: Reader) -> dict[str, Any]:
        if isinstance(part, Reasoning):
            return {"reasoning_content": part.text}
        if isinstance(part, Call):
            return {"tool_calls": [{"index": reader.calls - 1} | _call(part)]}
        return {"content": part.text}
