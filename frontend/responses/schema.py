"""The fields of OpenAI's `/v1/responses` that are honoured here, and the chat request that they become.

What only OpenAI's servers have (their tools, conversations, prompts, background work) is refused by its name,
unless its value asks for nothing. Independent of the store and HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, create_model, field_validator, model_validator

from ..openai.messages import MAX_TOOLS
from ..openai.rules import either, has
from ..openai.schema import MAX_TOP_LOGPROBS
from ..schema import WHOLE, No, Strict, Text
from ..translation import Count, extension_fields, extensions, of_types, only_null
from .items import Conversation, Item, Label

MAX_ITEMS = 1000
ENCRYPTED = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

_FUNCTION = of_types(("function",), "only tools of type function are supported; the caller runs them")


class FunctionTool(Strict):
    """A function that the model may ask the caller to run; `parameters` is a JSON schema."""

    type: Literal["function"]
    name: Annotated[Text, Field(min_length=1, max_length=64)]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: No | None = None
    allowed_callers: list[Literal["direct"]] | None = None
    output_schema: dict[str, Any] | None = None
    async_: Annotated[No | None, Field(alias="async")] = None

    def function(self) -> dict[str, Any]:
        """The same as chat completions have it."""
        return self.model_dump(include={"name", "description", "parameters", "strict"}, exclude_none=True)


class NamedTool(Strict):
    """The function that must be called."""

    type: Literal["function"]
    name: Text

    def chat(self) -> dict[str, Any]:
        """The same as chat completions have it."""
        return {"type": "function", "function": {"name": self.name}}


class AllowedTools(Strict):
    """Of the tools only these may be called, or one of them must be (`required`)."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


def _kind_of_choice(value: object) -> str:
    if isinstance(value, str):
        return "<mode>"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<allowed>" if kind == "allowed_tools" else "<named>"


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[NamedTool, Tag("<named>")]
    | Annotated[AllowedTools, Tag("<allowed>")],
    Discriminator(_kind_of_choice),
]


class TextFormat(Strict):
    """`{"type": "text"}`, `{"type": "json_object"}`, or type json_schema with `name` and `schema`."""

    model_config = ConfigDict(
        json_schema_extra=either(
            {"properties": {"type": {"enum": ["text", "json_object"]}}},
            has(name={"type": "string"}, schema={"type": "object"}),
        )
    )

    type: Literal["text", "json_object", "json_schema"]
    name: Text | None = None
    description: Text | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_its_schema(self) -> TextFormat:
        if self.type == "json_schema" and (self.schema_ is None or self.name is None):
            raise ValueError("needs name and schema when type is json_schema")
        return self

    def response_format(self) -> dict[str, Any]:
        """The same as chat completions have it."""
        if self.type != "json_schema":
            return {"type": self.type}
        schema = {"name": self.name, "schema": self.schema_, "strict": self.strict}
        return {
            "type": self.type,
            "json_schema": {name: each for name, each in schema.items() if each is not None},
        }


class TextConfig(Strict):
    """The form of the answer; `verbosity` has no effect."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class Reasoning(Strict):
    """`effort` as `reasoning_effort` of chat completions; with `summary` the thinking comes as a summary."""

    effort: Text | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class CacheOptions(Strict):
    """Labels for a cache of OpenAI's; the prefix cache here needs none."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m", "12h"] | None = None


class StreamOptions(Strict):
    """Nothing is padded here."""

    include_obfuscation: No | None = None


Input = Annotated[
    Annotated[Text, Field(min_length=1), Tag("<text>")]
    | Annotated[list[Item], Field(min_length=1, max_length=MAX_ITEMS), Tag("<items>")],
    Discriminator(lambda value: "<items>" if isinstance(value, list) else "<text>"),
]


class InputRequest(Strict):
    """What decides about the prompt: the fields that `/v1/responses` and its count of tokens share."""

    model: Text | None = None
    input: Input
    instructions: Text | None = None
    previous_response_id: Label | None = None
    tools: Annotated[list[Annotated[FunctionTool, _FUNCTION]], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    conversation: Annotated[
        None, only_null("this server stores no conversations; send previous_response_id or all items")
    ] = None

    def fields(self, conversation: Conversation) -> dict[str, Any]:
        """Of the chat request: those that decide about the prompt."""
        tools = [{"type": "function", "function": tool.function()} for tool in self.tools or []]
        found = {
            "model": self.model,
            "messages": conversation.messages,
            "tools": tools or None,
            "tool_choice": self._choice(),
            "parallel_tool_calls": self.parallel_tool_calls if tools else None,
            "response_format": self.text.format.response_format() if self.text and self.text.format else None,
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
            "chat_template_kwargs": self.chat_template_kwargs,
            "enable_thinking": self.enable_thinking,
        }
        return {name: value for name, value in found.items() if value is not None}

    def _choice(self) -> Any:
        choice = self.tool_choice
        if isinstance(choice, NamedTool):
            return choice.chat()
        if isinstance(choice, AllowedTools):
            allowed = {"mode": choice.mode, "tools": [tool.chat() for tool in choice.tools]}
            return {"type": "allowed_tools", "allowed_tools": allowed}
        return choice

    def names(self, conversation: Conversation) -> dict[str, str]:
        """What the caller calls the fields of the chat request, and through them the inputs of the model."""
        names = {f"messages[{at}]": path for at, path in enumerate(conversation.paths)}
        names |= {f"tools[{at}].function": f"tools[{at}]" for at in range(len(self.tools or []))}
        return names | {
            "messages": "input",
            "tool_choice.function": "tool_choice",
            "tool_choice.allowed_tools": "tool_choice",
            "response_format": "text.format",
            "response_format.json_schema": "text.format",
            "reasoning_effort": "reasoning.effort",
        }


_Extended: Any = create_model(
    "_Extended", __base__=InputRequest, **extension_fields("max_tokens", *InputRequest.model_fields)
)

Metadata = Annotated[dict[Text, Text], Field(max_length=16)]


class ResponseRequest(_Extended):  # type: ignore[misc]
    """`POST /v1/responses`. null means absent; absent values are the deployment's defaults."""

    max_output_tokens: Count | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    include: (
        list[
            Literal[
                "reasoning.encrypted_content",
                "message.output_text.logprobs",
                "message.input_image.image_url",
                "file_search_call.results",
                "web_search_call.results",
                "web_search_call.action.sources",
                "computer_call_output.output.image_url",
                "code_interpreter_call.outputs",
            ]
        ]
        | None
    ) = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), WHOLE] | None = None
    metadata: Metadata | None = None
    truncation: Literal["disabled"] | None = None
    background: No | None = None
    max_tool_calls: Count | None = None
    service_tier: Literal["auto", "default"] | None = None
    user: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: CacheOptions | None = None
    prompt: Annotated[None, only_null("this server stores no prompts; send instructions and input")] = None
    moderation: Annotated[None, only_null("this server does not moderate")] = None
    context_management: Annotated[None, only_null("this server does not compact contexts")] = None

    @field_validator("background", mode="before")
    @classmethod
    def _in_the_foreground(cls, background: object) -> object:
        if background is True:
            raise ValueError("must be false: this server does not run responses in the background")
        return background

    @property
    def scores_text(self) -> bool:
        """Whether log-probabilities of the text are asked for."""
        return bool(self.top_logprobs) or LOGPROBS in (self.include or [])

    def fields(self, conversation: Conversation) -> dict[str, Any]:
        """Of the chat request."""
        found = super().fields(conversation) | extensions(self)
        found |= {
            "max_completion_tokens": self.max_output_tokens,
            "logprobs": self.scores_text or None,
            "top_logprobs": self.top_logprobs or None,
        }
        return {name: value for name, value in found.items() if value is not None}

    def names(self, conversation: Conversation) -> Mapping[str, str]:
        """See InputRequest."""
        names: dict[str, str] = super().names(conversation)
        return names | {
            "max_completion_tokens": "max_output_tokens",
            "max_tokens": "max_output_tokens",
        }
