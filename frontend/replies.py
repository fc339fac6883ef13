"""The forms of what goes out, for `/openapi.json`; the routes make plain dicts of these shapes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class Form(BaseModel):
    """Every key named here is there; others may come."""

    model_config = ConfigDict(extra="allow")


class Fault(Form):
    """What went wrong, in words and for programs; `param` is the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class Error(Form):
    """The one shape of all errors."""

    error: Fault


class Timings(Form):
    """From the model server's clock: seconds to the first and to the last token; decode speed."""

    ttft_s: float
    total_s: float
    tokens_per_second: float


class CachedTokens(Form):
    """Tokens of the prompt that came out of the prefix cache."""

    cached_tokens: int


class Usage(Form):
    """Tokens, as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatUsage(Usage):
    """`usage` of `POST /chat`."""

    cached_tokens: int


class CompletionUsage(Usage):
    """`usage` of OpenAI's routes."""

    prompt_tokens_details: CachedTokens


class ChatReply(Form):
    """Of `POST /chat`."""

    response: str
    time_cost: str
    token_count: int
    finish_reason: Literal["stop", "length"]
    usage: ChatUsage
    timings: Timings
    model: str
    request_id: str


class ToolCallFunction(Form):
    """Name of the function, and its arguments as JSON in a string."""

    name: str
    arguments: str


class CalledTool(Form):
    """A function that the model asks the caller to run."""

    id: str
    type: Literal["function"]
    function: ToolCallFunction


class AssistantMessage(Form):
    """What the model says; `reasoning_content` and `tool_calls` where there are any."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str = ""
    tool_calls: list[CalledTool] = []


class ChatChoice(Form):
    """One of `n` answers."""

    index: int
    message: AssistantMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletionReply(Form):
    """Of `POST /v1/chat/completions`."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    timings: Timings


class TextChoice(Form):
    """One of the answers."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class CompletionReply(Form):
    """Of `POST /v1/completions`."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage
    timings: Timings


class Model(Form):
    """The model that is served; `max_model_len` in tokens."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class Models(Form):
    """A list of one."""

    object: Literal["list"]
    data: list[Model]


class Health(Form):
    """healthy, ready, live, loading, unhealthy or draining."""

    status: str
