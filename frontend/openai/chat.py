"""`POST /v1/chat/completions`: requests in, replies and chunks out, in OpenAI's forms."""

from __future__ import annotations

from typing import Literal, cast

from youtu_client import Answer, ModelInfo, Piece

from ..errors import unsupported
from ..replies import Timings
from . import forms, schema
from .forms import chat_log_probs
from .reading import Call, Content, Part, Reader, Reasoning
from .replies import (
    AssistantMessage,
    CalledTool,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatCompletionReply,
    ChatFinishReason,
    ChatLogProbs,
    CompletionUsage,
    Delta,
    FinishReason,
    Head,
    ToolCallDelta,
    ToolCallFunction,
)
from .schema import ChatCompletion


def names(request: ChatCompletion) -> dict[str, str]:
    """What the caller calls the inputs of the model."""
    return schema.NAMES | {
        "messages": "messages",
        "chat_template_kwargs": "chat_template_kwargs",
        "max_tokens": request.length_field,
        "top_log_probs": "top_logprobs",
        "guided_decoding_guide_type": "response_format",
        "guided_decoding_guide": "response_format",
    }


def check(request: ChatCompletion, info: ModelInfo) -> None:
    """Refuse what this model or its engine cannot do, with ApiError 400 that names the field."""
    if request.uses_tools and not info.tools:
        raise unsupported("tools", f"the chat template of {info.id} has no place for tools")
    guided = request.response_format is not None and request.response_format.type != "text"
    if guided and not info.guided_decoding:
        raise unsupported(
            "response_format", "this engine cannot hold its output to a schema; only text is possible"
        )
    if request.logprobs and (request.top_logprobs or 0) > info.top_log_probs:
        raise unsupported(
            "top_logprobs", f"this engine tells of {info.top_log_probs} tokens, not {request.top_logprobs}"
        )


def whole(request: ChatCompletion, head: Head, answers: list[Answer]) -> ChatCompletionReply:
    """The reply with all choices."""
    return ChatCompletionReply(
        **head,
        object="chat.completion",
        choices=[_choice(request, index, answer) for index, answer in enumerate(answers)],
        usage=CompletionUsage.of([answers]),
        timings=Timings.of(answers),
    )


def _choice(request: ChatCompletion, index: int, answer: Answer) -> ChatChoice:
    reader = Reader(thinking=answer.starts_in_thinking, tools=request.uses_tools)
    parts = [*reader.feed(answer.text), *reader.end()]
    message = AssistantMessage(role="assistant", content=_joined(parts, Content), refusal=None)
    if reasoning := _joined(parts, Reasoning):
        message.reasoning_content = reasoning
    if calls := [part for part in parts if isinstance(part, Call)]:
        message.content = message.content or None
        message.tool_calls = [
            CalledTool(id=call.id, type="function", function=_function(call)) for call in calls
        ]
    return ChatChoice(
        index=index,
        message=message,
        logprobs=chat_log_probs(answer.tokens or ()) if request.logprobs else None,
        finish_reason=_finish_reason(answer, reader),
    )


def _joined(parts: list[Part], kind: type[Content] | type[Reasoning]) -> str:
    return "".join(part.text for part in parts if isinstance(part, kind))


def _function(call: Call) -> ToolCallFunction:
    return ToolCallFunction(name=call.name, arguments=call.arguments)


def _finish_reason(answer: Answer, reader: Reader) -> ChatFinishReason:
    if reader.calls and answer.finish_reason == "stop":
        return "tool_calls"
    return cast(FinishReason, answer.finish_reason)


class Chunks(forms.Chunks):
    """The form of `inference.Format`."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"

    def __init__(self, request: ChatCompletion, head: Head) -> None:
        super().__init__(request, head)
        self._request = request
        self._readers: dict[int, Reader] = {}

    def piece(self, index: int, piece: Piece, thinking: bool) -> str:
        opening = self._open(index, thinking)
        reader = self._readers[index]
        log_probs = chat_log_probs(piece.tokens or ()) if self._request.logprobs and piece.tokens else None
        deltas = [self._delta(part, reader) for part in reader.feed(piece.text)]
        if log_probs is not None and not deltas:
            deltas.append({"content": ""})  # Text that is held back has tokens all the same.
        events = [self.event(self._chunk(index, delta)) for delta in deltas[:-1]]
        events += [self.event(self._chunk(index, delta, log_probs)) for delta in deltas[-1:]]
        return opening + "".join(events)

    def answer(self, index: int, answer: Answer) -> str:
        opening = self._open(index, answer.starts_in_thinking)
        reader = self._readers[index]
        events = [self.event(self._chunk(index, self._delta(part, reader))) for part in reader.end()]
        end = self._chunk(index, {}, finish_reason=_finish_reason(answer, reader))
        end["timings"] = Timings.of([answer])
        return opening + "".join(events) + self.event(end)

    def end(self, answers: list[Answer]) -> str:
        return self.last([answers])

    def _open(self, index: int, thinking: bool) -> str:
        if index in self._readers:
            return ""
        self._readers[index] = Reader(thinking=thinking, tools=self._request.uses_tools)
        return self.event(self._chunk(index, {"role": "assistant", "content": ""}))

    def _delta(self, part: Part, reader: Reader) -> Delta:
        if isinstance(part, Reasoning):
            return {"reasoning_content": part.text}
        if isinstance(part, Call):
            number = reader.calls - 1
            call = ToolCallDelta(index=number, id=part.id, type="function", function=_function(part))
            return {"tool_calls": [call]}
        return {"content": part.text}

    def _chunk(
        self,
        index: int,
        delta: Delta,
        log_probs: ChatLogProbs | None = None,
        finish_reason: ChatFinishReason | None = None,
    ) -> ChatCompletionChunk:
        choice: ChatChunkChoice = {
            "index": index,
            "delta": delta,
            "logprobs": log_probs,
            "finish_reason": finish_reason,
        }
        return {
            "id": self.head["id"],
            "object": self.object,
            "created": self.head["created"],
            "model": self.head["model"],
            "choices": [choice],
        }
