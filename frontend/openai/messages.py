"""Messages and tools of a chat request, in the forms that clients send, and as chat templates take them."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, model_validator

from ..schema import WHOLE, Strict, Text

MAX_TOOLS = 128
MAX_CALLS = 128

Ignored = Annotated[Any, Field(repr=False)]
"""What servers and frameworks put beside a message that they sent; it says nothing to the model."""


class CacheControl(Strict):
    """Which part of the prompt to cache. Here all of it always is."""

    type: Text
    ttl: Text | None = None


def _text_only(value: object) -> object:
    if isinstance(value, str) and value not in ("text", "input_text", "output_text", "refusal"):
        raise ValueError(f"must be text: this model does not read {value}")
    return value


class TextPart(Strict):
    """A part of a message. `refusal` in one that the assistant refused with."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "properties": {
                        "type": {"enum": ["text", "input_text", "output_text"]},
                        "text": {"type": "string"},
                        "refusal": {"type": "null"},
                    },
                    "required": ["text"],
                },
                {
                    "properties": {
                        "type": {"const": "refusal"},
                        "refusal": {"type": "string"},
                        "text": {"type": "null"},
                    },
                    "required": ["refusal"],
                },
            ]
        }
    )

    type: Annotated[Literal["text", "input_text", "output_text", "refusal"], BeforeValidator(_text_only)]
    text: Text | None = None
    refusal: Text | None = None
    annotations: list[Any] | None = None
    cache_control: CacheControl | None = None

    @model_validator(mode="after")
    def _has_its_text(self) -> TextPart:
        wanted, other = (self.refusal, self.text) if self.type == "refusal" else (self.text, self.refusal)
        if wanted is None or other is not None:
            raise ValueError(f"needs {'refusal' if self.type == 'refusal' else 'text'} and no other content")
        return self


def _kind_of_content(value: object) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


Content = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[TextPart], Tag("<parts>")],
    Discriminator(_kind_of_content),
]


def _kind_of_arguments(value: object) -> str:
    return "<object>" if isinstance(value, dict) else "<text>"


Arguments = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[dict[str, Any], Tag("<object>")],
    Discriminator(_kind_of_arguments),
]


class Function(Strict):
    """The function that a tool call names; `arguments` is a JSON object, as such or written as a string."""

    name: Annotated[Text, Field(min_length=1)]
    arguments: Arguments | None = None
    parsed_arguments: Ignored = None

    def for_model(self) -> dict[str, Any]:
        """As templates take it: arguments as an object, where they are one."""
        arguments = self.arguments
        if isinstance(arguments, str):
            arguments = _loaded(arguments)
        return {"name": self.name, "arguments": {} if arguments is None else arguments}


def _loaded(text: str) -> Any:
    if not text.strip():
        return {}
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class ToolCall(Strict):
    """A call that the assistant made earlier in the conversation."""

    function: Function
    id: Text | None = None
    type: Literal["function"] | None = None
    index: Annotated[int, WHOLE] | None = None
    cache_control: CacheControl | None = None
    extra_content: Ignored = None
    provider_specific_fields: Ignored = None


Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Message(Strict):
    """One turn. A `content` of null is an empty text, where the assistant or a tool says it."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                {
                    "if": {"properties": {"role": {"enum": ["system", "developer", "user"]}}},
                    "then": {
                        "required": ["content"],
                        "properties": {"content": {"type": ["string", "array"]}},
                    },
                },
                {
                    "if": {"not": {"properties": {"role": {"const": "assistant"}}}},
                    "then": {
                        "properties": {
                            "tool_calls": {"anyOf": [{"type": "null"}, {"type": "array", "maxItems": 0}]},
                            "function_call": {"type": "null"},
                            "prefix": {"enum": [None, False]},
                        }
                    },
                },
            ]
        }
    )

    role: Role
    content: Content | None = None
    name: Text | None = None
    reasoning: Text | None = None
    reasoning_content: Text | None = None
    refusal: Text | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_CALLS)] | None = None
    tool_call_id: Text | None = None
    function_call: Function | None = None
    prefix: bool | None = None
    annotations: Ignored = None
    audio: Annotated[None, Field(repr=False)] = None
    cache_control: CacheControl | None = None
    id: Ignored = None
    images: Annotated[list[Any] | None, Field(max_length=0, repr=False)] = None
    parsed: Ignored = None
    provider_specific_fields: Ignored = None
    reasoning_details: Ignored = None
    thinking_blocks: Ignored = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and self.role in ("system", "developer", "user"):
            raise ValueError("needs content")
        if self.role != "assistant":
            for name in ("tool_calls", "function_call", "prefix"):
                if getattr(self, name):
                    raise ValueError(
                        f"has {name}, which only assistant messages may have, not role {self.role}"
                    )
        return self

    def for_model(self) -> dict[str, Any]:
        """The message as chat templates expect it: content a string, a call's arguments an object."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text or part.refusal or "" for part in content)
        calls = [call.function for call in self.tool_calls or []]
        ids = [call.id for call in self.tool_calls or []]
        if not calls and self.function_call is not None:
            calls, ids = [self.function_call], [None]
        if content is None and not calls:
            content = self.refusal or ""
        roles = {"developer": "system", "function": "tool"}
        message: dict[str, Any] = {"role": roles.get(self.role, self.role), "content": content}
        reasoning = self.reasoning_content if self.reasoning is None else self.reasoning
        given = {"name": self.name, "reasoning_content": reasoning, "tool_call_id": self.tool_call_id}
        message |= {name: value for name, value in given.items() if value is not None}
        if calls:
            message["tool_calls"] = [
                {"id": id_ or f"call_{at}", "type": "function", "function": call.for_model()}
                for at, (id_, call) in enumerate(zip(ids, calls, strict=True))
            ]
        return message


class FunctionDefinition(Strict):
    """What a tool is called, does and takes (a JSON schema). `strict`: calls are held to the schema."""

    name: Annotated[Text, Field(min_length=1, max_length=64)]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: Annotated[bool | None, Field(repr=False)] = None


def _function_only(value: object) -> object:
    if isinstance(value, str) and value != "function":
        raise ValueError(f"must be function: tools of type {value} are not supported")
    return value


class Tool(Strict):
    """A function that the model may ask the caller to run."""

    type: Annotated[Literal["function"], BeforeValidator(_function_only)]
    function: FunctionDefinition
    cache_control: CacheControl | None = None
    defer_loading: Annotated[bool | None, Field(repr=False)] = None

    def for_model(self) -> dict[str, Any]:
        """As templates take it."""
        function = self.function.model_dump(exclude_none=True, exclude={"defer_loading"})
        return {"type": "function", "function": function}


class NamedFunction(Strict):
    """A function of the request's tools."""

    name: Annotated[Text, Field(min_length=1)]


class NamedTool(Strict):
    """The tool that is to be called."""

    type: Literal["function"]
    function: NamedFunction


class AllowedTools(Strict):
    """Some of the request's tools, and whether one of them is to be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[NamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedChoice(Strict):
    """A choice among some of the request's tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _kind_of_choice(value: object) -> str:
    if isinstance(value, dict):
        return "<allowed>" if value.get("type") == "allowed_tools" else "<named>"
    return "<word>"


ToolChoice = Annotated[
    Annotated[Literal["auto", "none", "required", "any"], Tag("<word>")]
    | Annotated[NamedTool, Tag("<named>")]
    | Annotated[AllowedChoice, Tag("<allowed>")],
    Discriminator(_kind_of_choice),
]
