"""`POST /v1/chat/completions`: requests in, replies and chunks out, in OpenAI's forms."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, cast

from youtu_client import Answer, ModelInfo, Piece
from youtu_contract.parts import ToolCall

from ..errors import unsupported
from ..replies import Timings
from ..schema import NAMES
from . import forms
from .forms import chat_log_probs
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
from .schema import ChatCompletion, ChatPrompt


def names(request: ChatCompletion) -> dict[str, str]:
    """What the caller calls the inputs of the model."""
    return NAMES | {
        "return_log_probs": "logprobs",
        "max_tokens": request.length_field,
        "top_log_probs": "top_logprobs",
        "guided_decoding_guide_type": "response_format",
        "guided_decoding_guide": "response_format",
    }


def check(request: ChatCompletion, info: ModelInfo) -> None:
    """Refuse what this model or its engine cannot do, with ApiError 400 that names the field."""
    check_tools(request, info)
    guided = request.response_format is not None and request.response_format.type != "text"
    if guided and not info.guided_decoding:
        raise unsupported(
            "response_format", "this engine cannot hold its output to a schema; only text is possible"
        )
    if request.logprobs and (request.top_logprobs or 0) > info.top_log_probs:
        raise unsupported(
            "top_logprobs", f"this engine tells of {info.top_log_probs} tokens, not {request.top_logprobs}"
        )


def check_tools(request: ChatPrompt, info: ModelInfo) -> None:
    """Refuse tools for a model that cannot be told of them, with ApiError 400."""
    if request.uses_tools and not info.tools:
        raise unsupported("tools", f"the chat template of {info.id} has no place for tools")


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
    message = AssistantMessage(role="assistant", content=answer.content, refusal=None)
    if answer.reasoning:
        message.reasoning_content = answer.reasoning
    if answer.tool_calls:
        message.content = message.content or None
        message.tool_calls = [
            CalledTool(id=call.id, type="function", function=_function(call)) for call in answer.tool_calls
        ]
    return ChatChoice(
        index=index,
        message=message,
        logprobs=chat_log_probs(answer.tokens or ()) if request.logprobs else None,
        finish_reason=_finish_reason(answer),
    )


def _function(call: ToolCall) -> ToolCallFunction:
    return ToolCallFunction(name=call.name, arguments=call.arguments)


def _finish_reason(answer: Answer) -> ChatFinishReason:
    if answer.tool_calls and answer.finish_reason == "stop":
        return "tool_calls"
    return cast(FinishReason, answer.finish_reason)


class Chunks(forms.Chunks):
    """The form of `inference.Format`."""

    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"

    def __init__(self, request: ChatCompletion, head: Head) -> None:
        super().__init__(request, head)
        self._request = request
        self._calls: dict[int, int] = {}  # of each answer that has begun: its calls of tools so far

    def piece(self, index: int, piece: Piece) -> str:
        opening = self._open(index)
        log_probs = chat_log_probs(piece.tokens or ()) if self._request.logprobs and piece.tokens else None
        deltas = list(self._deltas(index, piece))
        if log_probs is not None and not deltas:
            deltas.append({"content": ""})  # Text that is held back has tokens all the same.
        events = [self.event(self._chunk(index, delta)) for delta in deltas[:-1]]
        events += [self.event(self._chunk(index, delta, log_probs)) for delta in deltas[-1:]]
        return opening + "".join(events)

    def answer(self, index: int, answer: Answer) -> str:
        end = self._chunk(index, {}, finish_reason=_finish_reason(answer))
        end["timings"] = Timings.of([answer])
        return self._open(index) + self.event(end)

    def end(self, answers: list[Answer]) -> str:
        return self.last([answers])

    def _open(self, index: int) -> str:
        if index in self._calls:
            return ""
        self._calls[index] = 0
        return self.event(self._chunk(index, {"role": "assistant", "content": ""}))

    def _deltas(self, index: int, piece: Piece) -> Iterator[Delta]:
        if piece.reasoning:
            yield {"reasoning_content": piece.reasoning}
        if piece.content:
            yield {"content": piece.content}
        for call in piece.tool_calls:
            number = self._calls[index]
            self._calls[index] += 1
            made = ToolCallDelta(index=number, id=call.id, type="function", function=_function(call))
            yield {"tool_calls": [made]}

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
        chunk: ChatCompletionChunk = self.frame(choice)
        return chunk
