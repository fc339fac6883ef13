"""The fields of Anthropic's `/v1/messages` that are honoured here, and the chat request that they become.

What only Anthropic's servers have (their tools, containers, faster modes) is refused by its name, unless its
value asks for nothing. Independent of HTTP.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, create_model
from youtu_contract.rows import SAMPLING_OPTIONS

from ..openai.messages import MAX_TOOLS
from ..schema import No, Strict, Text
from ..translation import Count, extension_fields, extensions, of_types, only_null
from .blocks import CacheControl, Message, SystemText, joined

MAX_MESSAGES = 1000


class Tool(Strict):
    """A tool that the model may ask the caller to run; `input_schema` is a JSON schema."""

    type: Literal["custom"] | None = None
    name: Annotated[Text, Field(min_length=1, max_length=64)]
    description: Text | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None
    cache_control: CacheControl | None = None
    input_examples: list[dict[str, Any]] | None = None
    eager_input_streaming: bool | None = None
    defer_loading: No | None = None
    allowed_callers: list[Literal["direct"]] | None = None

    def function(self) -> dict[str, Any]:
        """The same as chat completions have it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": self.input_schema,
            "strict": self.strict,
        }
        return {name: value for name, value in function.items() if value is not None}


class ToolChoice(Strict):
    """Whether tools are called: auto, any (at least one), none."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class NamedTool(Strict):
    """The tool that must be called."""

    type: Literal["tool"]
    name: Text
    disable_parallel_tool_use: bool | None = None


def _kind_of_choice(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<named>" if kind == "tool" else "<mode>"


class Thinking(Strict):
    """Whether the model thinks first. `budget_tokens` is no limit: `max_tokens` is. With `display` omitted
    thinking blocks come without their text."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Count | None = None
    display: Literal["summarized", "omitted"] | None = None


class OutputFormat(Strict):
    """The JSON schema that the answer is held to."""

    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(Strict):
    """The form of the answer; `effort` has no effect: `thinking` decides."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class Metadata(Strict):
    """A label of the caller's own."""

    user_id: Text | None = None


_TOOL = of_types(("custom",), "only client tools (type custom) are supported")


class CountRequest(Strict):
    """What decides about the prompt: the fields that `/v1/messages` and its count of tokens share."""

    model: Text | None = None
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    system: SystemText | None = None
    tools: Annotated[list[Annotated[Tool, _TOOL]], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: (
        Annotated[
            Annotated[ToolChoice, Tag("<mode>")] | Annotated[NamedTool, Tag("<named>")],
            Discriminator(_kind_of_choice),
        ]
        | None
    ) = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    speed: Literal["standard"] | None = None
    user_profile_id: Text | None = None
    workspace_id: Text | None = None
    chat_template_kwargs: dict[str, Any] | None = None

    @property
    def thinks(self) -> bool:
        """Whether thinking was asked for. Who asks for none expects no thinking blocks."""
        return self.thinking is not None and self.thinking.type != "disabled"

    def chat(self) -> tuple[dict[str, Any], dict[str, str]]:
        """The fields of the chat request, and what the caller calls them."""
        messages: list[dict[str, Any]] = []
        names = dict(_NAMES)
        if self.system is not None:
            names["messages[0]"] = "system"
            messages.append({"role": "system", "content": joined(self.system)})
        for at, message in enumerate(self.messages):
            for each in message.chat():
                names[f"messages[{len(messages)}]"] = f"messages[{at}]"
                messages.append(each)
        last = messages[-1]
        prefill = last["role"] == "assistant" and bool(last.get("content")) and "tool_calls" not in last
        names |= {f"tools[{at}].function": f"tools[{at}]" for at in range(len(self.tools or []))}
        found = {
            "model": self.model,
            "messages": messages,
            "tools": [{"type": "function", "function": tool.function()} for tool in self.tools or []] or None,
            "chat_template_kwargs": self.chat_template_kwargs,
            "continue_final_message": prefill or None,
            "response_format": self._format(),
            **self._choice(),
        }
        if "enable_thinking" not in (self.chat_template_kwargs or {}):
            found["enable_thinking"] = self.thinks
        return {name: value for name, value in found.items() if value is not None}, names

    def _choice(self) -> dict[str, Any]:
        choice = self.tool_choice
        if choice is None or not (self.tools or choice.type in ("any", "tool")):
            return {}
        if isinstance(choice, NamedTool):
            value: Any = {"type": "function", "function": {"name": choice.name}}
        else:
            value = "required" if choice.type == "any" else choice.type
        return {
            "tool_choice": value,
            "parallel_tool_calls": False if choice.disable_parallel_tool_use else None,
        }

    def _format(self) -> dict[str, Any] | None:
        if self.output_config is None or self.output_config.format is None:
            return None
        schema = {"name": "answer", "schema": self.output_config.format.schema_}
        return {"type": "json_schema", "json_schema": schema}


_NAMES = {
    "tool_choice.function": "tool_choice",
    "response_format": "output_config.format",
    "response_format.json_schema": "output_config.format",
    "enable_thinking": "thinking",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "max_completion_tokens": "max_tokens",
    "stop": "stop_sequences",
    "stop_words": "stop_sequences",
}

Stops = Annotated[
    list[Annotated[Text, Field(min_length=1)]], Field(max_length=SAMPLING_OPTIONS["stop"].max_values)
]

_Extended: Any = create_model(
    "_Extended",
    __base__=CountRequest,
    **extension_fields("max_tokens", "stop", "enable_thinking", *CountRequest.model_fields),
)


class MessagesRequest(_Extended):  # type: ignore[misc]
    """`POST /v1/messages`. null means absent; absent values are the deployment's defaults."""

    max_tokens: Count
    stop_sequences: Stops | None = None
    stream: bool | None = None
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
    inference_geo: Text | None = None
    container: Annotated[None, only_null("this server has no containers")] = None
    diagnostics: Annotated[None, only_null("this server has no diagnostics")] = None
    mcp_servers: Annotated[list[Any], Field(max_length=0)] | None = None
    context_management: Annotated[None, only_null("this server does not compact contexts")] = None

    def chat(self) -> tuple[dict[str, Any], dict[str, str]]:
        """See CountRequest."""
        fields, names = super().chat()
        fields |= extensions(self) | {"max_tokens": self.max_tokens}
        if self.stop_sequences:
            fields["stop"] = self.stop_sequences
        return fields, names
