"""What `/v1/responses` answers: responses, items, events of a stream, lists. `timings` is beyond OpenAI.

What is built for each piece of a stream is a TypedDict, whose keys are given in the order declared.
"""

from __future__ import annotations

from typing import Any, Literal, get_args, get_type_hints

from typing_extensions import NotRequired, TypedDict
from youtu_client import Answer

from ..openai.replies import ScoredToken
from ..replies import Reply, Timings
from .items import Status


class OutputText(TypedDict):
    """Text of the answer; `logprobs` where they were asked for."""

    type: Literal["output_text"]
    text: str
    annotations: list[None]
    logprobs: list[ScoredToken]


class ReasoningText(TypedDict):
    """The thinking."""

    type: Literal["reasoning_text"]
    text: str


class SummaryText(TypedDict):
    """The thinking, where a summary was asked for; it is not shortened."""

    type: Literal["summary_text"]
    text: str


class OutputMessage(TypedDict):
    """What the model says."""

    id: str
    type: Literal["message"]
    status: Status
    role: Literal["assistant"]
    content: list[OutputText]


class OutputReasoning(TypedDict):
    """What the model thought before. `encrypted_content` holds it, too, to be sent back; it hides nothing."""

    id: str
    type: Literal["reasoning"]
    status: Status
    summary: list[SummaryText]
    content: list[ReasoningText]
    encrypted_content: str | None


class OutputCall(TypedDict):
    """A function that the model asks the caller to run; `arguments` is a JSON object in a string."""

    id: str
    type: Literal["function_call"]
    status: Status
    call_id: str
    name: str
    arguments: str


OutputItem = OutputMessage | OutputReasoning | OutputCall
PartOfItem = OutputText | ReasoningText


class InputDetails(Reply):
    """Tokens of the prompt that came out of the prefix cache. Nobody is charged for writing it."""

    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(Reply):
    """Tokens that came until the thinking ended."""

    reasoning_tokens: int


class ResponseUsage(Reply):
    """Tokens, as the engine counted them."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int

    @classmethod
    def of(cls, answer: Answer) -> ResponseUsage:
        usage = answer.usage
        return cls(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=usage.cached_tokens, cache_write_tokens=0),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputDetails(reasoning_tokens=answer.reasoning_tokens or 0),
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        )


class Failure(TypedDict):
    """Why a response failed; `code` is one of OpenAI's."""

    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str
    type: str
    param: str | None


class Incomplete(TypedDict):
    """Why a response is incomplete: `max_output_tokens`, or the context was full."""

    reason: Literal["max_output_tokens"]


class ResponseReply(Reply):
    """A response: what the model answered, thought and wants to be run, and what it was asked with.

    `error` where it failed, `incomplete_details` where it was cut off; `usage` and `timings` at its end.
    """

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    background: Literal[False]
    error: Failure | None
    incomplete_details: Incomplete | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt_cache_key: str | None
    reasoning: dict[str, Any]
    safety_identifier: str | None
    service_tier: Literal["default"]
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled", "auto"]
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]
    timings: Timings | None = None


class Deleted(Reply):
    """The response is forgotten."""

    id: str
    object: Literal["response"]
    deleted: Literal[True]


class InputItems(Reply):
    """A page of the items that a response was made from, the latest first unless `order` is asc."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InputTokens(Reply):
    """How many tokens the prompt has, as the model would get it."""

    object: Literal["response.input_tokens"]
    input_tokens: int


class ResponseEvent(TypedDict):
    """The response as it is now: at the beginning, and at its end."""

    type: Literal[
        "response.created",
        "response.in_progress",
        "response.completed",
        "response.incomplete",
        "response.failed",
    ]
    sequence_number: int
    response: ResponseReply


class ItemEvent(TypedDict):
    """An item begins or is whole."""

    type: Literal["response.output_item.added", "response.output_item.done"]
    sequence_number: int
    output_index: int
    item: OutputItem


class PartEvent(TypedDict):
    """A part of an item begins or is whole."""

    type: Literal["response.content_part.added", "response.content_part.done"]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: int
    part: PartOfItem


class SummaryPartEvent(TypedDict):
    """The summary of the thinking begins or is whole."""

    type: Literal["response.reasoning_summary_part.added", "response.reasoning_summary_part.done"]
    sequence_number: int
    item_id: str
    output_index: int
    summary_index: int
    part: SummaryText


class DeltaEvent(TypedDict):
    """New text: of the answer, of the thinking or its summary, or the arguments of a call."""

    type: Literal[
        "response.output_text.delta",
        "response.reasoning_text.delta",
        "response.reasoning_summary_text.delta",
        "response.function_call_arguments.delta",
    ]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: NotRequired[int]
    summary_index: NotRequired[int]
    delta: str
    logprobs: NotRequired[list[ScoredToken]]


class DoneEvent(TypedDict):
    """The whole of what came in deltas: `text`, or of a call its `name` and `arguments`."""

    type: Literal[
        "response.output_text.done",
        "response.reasoning_text.done",
        "response.reasoning_summary_text.done",
        "response.function_call_arguments.done",
    ]
    sequence_number: int
    item_id: str
    output_index: int
    content_index: NotRequired[int]
    summary_index: NotRequired[int]
    text: NotRequired[str]
    name: NotRequired[str]
    arguments: NotRequired[str]
    logprobs: NotRequired[list[ScoredToken]]


EVENTS = (ResponseEvent, ItemEvent, PartEvent, SummaryPartEvent, DeltaEvent, DoneEvent)


def event_names(kind: type[Any]) -> tuple[str, ...]:
    """The names of the events of one of EVENTS: each is named as its `type` says."""
    return get_args(get_type_hints(kind)["type"])
