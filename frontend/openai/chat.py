"""`POST /v1/chat/completions`: requests in, replies and chunks out, in OpenAI's forms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, cast

from youtu_client import Answer, ModelInfo, Piece
from youtu_contract.parts import ToolCall

from ..errors import unsupported
from ..replies import QuotedSource, Timings
from ..schema import NAMES
from . import forms
from .forms import chat_log_probs, check_generation, prompt_facts, prompt_log_probs
from .replies import (
    AssistantMessage,
    CalledTool,
    ChatChoice,
    ChatChunkChoice,
    ChatCompletionChunk,
    ChatCompletionReply,
    ChatFinishReason,
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
    field, _ = request.guide()
    guide = "tools" if field is None or request.must_call != "auto" else field
    return NAMES | {
        "return_log_probs": "logprobs",
        "return_prompt_log_probs": "prompt_logprobs",
        "max_tokens": request.length_field,
        "top_log_probs": "prompt_logprobs" if request.prompt_logprobs else "top_logprobs",
        "guided_decoding_guide_type": guide,
        "guided_decoding_guide": guide,
    }


def check(request: ChatCompletion, info: ModelInfo) -> None:
    """Refuse what this model or its engine cannot do, with ApiError 400 that names the field."""
    check_tools(request, info)
    check_generation(request, info)
    if request.must_call != "auto" and not info.guided_decoding:
        raise unsupported("tool_choice", "this engine cannot force a tool call; use auto or none")
    if request.logprobs and (request.top_logprobs or 0) > info.top_log_probs:
        raise unsupported(
            "top_logprobs", f"this engine returns at most {info.top_log_probs}, not {request.top_logprobs}"
        )


def check_tools(request: ChatPrompt, info: ModelInfo) -> None:
    """Refuse tools for a model that cannot be told of them, with ApiError 400."""
    if request.uses_tools and not info.tools:
        raise unsupported("tools", f"the chat template of {info.id} does not support tools")


def whole(
    request: ChatCompletion, head: Head, answers: list[Answer], sources: list[QuotedSource]
) -> ChatCompletionReply:
    """The reply with all choices."""
    quoted: dict[str, Any] = {"sources": sources} if sources else {}
    return ChatCompletionReply(
        **head,
        object="chat.completion",
        choices=[_choice(request, index, answer) for index, answer in enumerate(answers)],
        usage=CompletionUsage.of([answers]),
        timings=Timings.of(answers),
        **prompt_facts(request, answers[0]),
        **quoted,
    )


def _choice(request: ChatCompletion, index: int, answer: Answer) -> ChatChoice:
    message = AssistantMessage(role="assistant", content=answer.content, refusal=None)
    if answer.reasoning and request.include_reasoning is not False:
        message.reasoning_content = answer.reasoning
    if answer.tool_calls:
        message.content = message.content or None
        message.tool_calls = [
            CalledTool(id=call.id, type="function", function=_function(call)) for call in answer.tool_calls
        ]
    return ChatChoice(
        index=index,
        message=message,
        logprobs=chat_log_probs(answer.tokens or (), request.top_logprobs or 0) if request.logprobs else None,
        finish_reason=_finish_reason(answer),
        stop_reason=answer.stop_reason,
        **({"token_ids": list(answer.token_ids or ())} if request.tells_ids else {}),
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

    def __init__(self, request: ChatCompletion, head: Head, sources: list[QuotedSource]) -> None:
        super().__init__(request, head)
        self._request = request
        self._sources = sources
        self._calls: dict[int, int] = {}  # of each answer that has begun: its calls of tools so far

    def piece(self, index: int, piece: Piece) -> str:
        self.count(index, piece)
        opening = self._open(index, piece.prompt_token_ids)
        log_probs = None
        if self._request.logprobs and piece.tokens:
            log_probs = chat_log_probs(piece.tokens, self._request.top_logprobs or 0)
        ids = list(piece.token_ids or ()) if self._tells_ids else []
        deltas = list(self._deltas(index, piece))
        if (log_probs is not None or ids) and not deltas:
            deltas.append({"content": ""})  # Text that is held back has tokens all the same.
        chunks = [self._chunk(index, delta) for delta in deltas]
        if chunks:
            chunks[-1]["choices"][0]["logprobs"] = log_probs
            if ids:
                chunks[-1]["choices"][0]["token_ids"] = ids
        return opening + "".join(map(self.event, chunks))

    def answer(self, index: int, answer: Answer) -> str:
        opening = self._open(index, answer.prompt_token_ids)
        end = self._chunk(index, {}, finish_reason=_finish_reason(answer))
        end["choices"][0]["stop_reason"] = answer.stop_reason
        if self._request.prompt_logprobs is not None:
            end["prompt_logprobs"] = prompt_log_probs(answer, self._request.prompt_logprobs)
        end["timings"] = Timings.of([answer])
        return opening + self.event(end)

    def end(self, answers: list[Answer]) -> str:
        return self.last([answers])

    def _open(self, index: int, prompt_ids: Sequence[int] | None) -> str:
        if index in self._calls:
            return ""
        self._calls[index] = 0
        chunk = self._chunk(index, {"role": "assistant", "content": ""})
        if self._tells_ids and prompt_ids is not None:
            chunk["prompt_token_ids"] = list(prompt_ids)
        if self._sources:
            chunk["sources"] = self._sources
        return self.event(chunk)

    def _deltas(self, index: int, piece: Piece) -> Iterator[Delta]:
        if piece.reasoning and self._request.include_reasoning is not False:
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
        finish_reason: ChatFinishReason | None = None,
    ) -> ChatCompletionChunk:
        choice: ChatChunkChoice = {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        chunk: ChatCompletionChunk = self.frame(choice)
        return chunk
