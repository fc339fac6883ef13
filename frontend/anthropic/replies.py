"""What Anthropic's routes answer: messages, the events of a stream, errors. `timings` is beyond Anthropic.

What is built for each piece of a stream is a TypedDict, whose keys are given in the order declared.
"""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import NotRequired, TypedDict
from youtu_client import Answer

from ..errors import ApiError
from ..replies import Reply, Timings

StopReason = Literal["end_turn", "max_tokens", "model_context_window_exceeded", "stop_sequence", "tool_use"]


class SaidText(TypedDict):
    """Text of the answer."""

    type: Literal["text"]
    text: str


class Thought(TypedDict):
    """What the model thought before. The signature says only that this server wrote it."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUse(TypedDict):
    """A tool that the model asks the caller to run."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


ReplyBlock = SaidText | Thought | ToolUse


class ThinkingDetails(Reply):
    """Tokens that came until the thinking ended."""

    thinking_tokens: int


class MessageUsage(Reply):
    """Tokens, as the engine counted them: of the prompt those that it read, and those that came out of the
    prefix cache. Before the end only the prompt is known, and counts as read."""

    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: ThinkingDetails | None = None

    @classmethod
    def begun(cls, prompt_tokens: int) -> MessageUsage:
        return cls(
            input_tokens=prompt_tokens,
            cache_creation_input_tokens=0,
            cache_read_input_tokens=0,
            output_tokens=0,
        )

    @classmethod
    def of(cls, answer: Answer) -> MessageUsage:
        usage = answer.usage
        return cls(
            input_tokens=usage.prompt_tokens - usage.cached_tokens,
            cache_creation_input_tokens=0,
            cache_read_input_tokens=usage.cached_tokens,
            output_tokens=usage.completion_tokens,
            output_tokens_details=ThinkingDetails(thinking_tokens=answer.reasoning_tokens or 0),
        )


class MessageReply(Reply):
    """The whole answer; `stop_sequence` where one of them ended it."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ReplyBlock]
    stop_reason: StopReason | None
    stop_sequence: str | None
    usage: MessageUsage
    timings: Timings | None = None


class TokenCount(Reply):
    """How many tokens the prompt has, as the model would get it."""

    input_tokens: int


class MessageFault(Reply):
    """What went wrong, of one of Anthropic's kinds and in words."""

    type: str
    message: str


class MessageError(Reply):
    """An error of these routes; `code` and `param` as in the errors of all others."""

    type: Literal["error"]
    error: MessageFault
    code: str
    param: str | None
    request_id: str | None


TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
OVERLOADED = ("queue_full", "too_busy")
"""Codes of the server's own overload: no caller asked too much."""


def error_reply(error: ApiError, request_id: str | None) -> MessageError:
    """An error in Anthropic's shape."""
    kind = TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return MessageError(
        type="error",
        error=MessageFault(
            type="overloaded_error" if error.code in OVERLOADED else kind, message=error.message
        ),
        code=error.code,
        param=error.param,
        request_id=request_id,
    )


class MessageStart(TypedDict):
    """The message begins, without content; its usage comes at the end."""

    type: Literal["message_start"]
    message: MessageReply


class BlockStart(TypedDict):
    """A block begins, empty."""

    type: Literal["content_block_start"]
    index: int
    content_block: ReplyBlock


class Delta(TypedDict):
    """New text, thinking, or JSON of a tool's input; or the signature of the thinking."""

    type: Literal["text_delta", "thinking_delta", "signature_delta", "input_json_delta"]
    text: NotRequired[str]
    thinking: NotRequired[str]
    signature: NotRequired[str]
    partial_json: NotRequired[str]


class BlockDelta(TypedDict):
    """News of a block."""

    type: Literal["content_block_delta"]
    index: int
    delta: Delta


class BlockStop(TypedDict):
    """A block is whole."""

    type: Literal["content_block_stop"]
    index: int


class StopDelta(TypedDict):
    """Why it ended."""

    stop_reason: StopReason
    stop_sequence: str | None


class MessageDelta(TypedDict):
    """The end of the message, with its usage."""

    type: Literal["message_delta"]
    delta: StopDelta
    usage: MessageUsage
    timings: Timings


class Bare(TypedDict):
    """A sign of life, or the end of the stream."""

    type: Literal["ping", "message_stop"]
