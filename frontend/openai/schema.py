"""The fields of OpenAI's requests that are honoured here; every other is refused by its name.

What OpenAI documents and this server has no use for is taken in only with the value that asks for nothing
(`store: false`), or where it is a mere label (`user`, `metadata`). Fields that OpenAI does not have are the
usual extensions of vLLM and llama.cpp: rows of `youtu_contract`, `chat_template_kwargs`, `enable_thinking`.
Knows no HTTP; what a value may be has the model behind Triton the last word on.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from ..schema import INT32_MAX, UINT64_MAX, WHOLE, Strict, Text, sampling_fields, sampling_options

MAX_CHOICES = 16
"""Answers to one request: `n`, or the number of prompts times `n`."""

MAX_TOP_LOGPROBS = 20
MAX_TOOLS = 128


class TextPart(Strict):
    """A part of a message; of OpenAI's kinds only text."""

    type: Literal["text"]
    text: Text


class Function(Strict):
    """The function that a tool call names; `arguments` is a JSON object written as a string."""

    name: Annotated[Text, Field(min_length=1)]
    arguments: Text


class ToolCall(Strict):
    """A call that the assistant made earlier in the conversation."""

    id: Text
    type: Literal["function"]
    function: Function
    index: int | None = None


def _kind_of_content(value: object) -> str:
    return "<parts>" if isinstance(value, list) else "<text>"


Content = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[TextPart], Field(min_length=1), Tag("<parts>")],
    Discriminator(_kind_of_content),
]


class Message(Strict):
    """One turn. `content` may be null only where the assistant called tools instead."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["content"], "properties": {"content": {"type": ["string", "array"]}}},
                {
                    "required": ["tool_calls"],
                    "properties": {
                        "role": {"const": "assistant"},
                        "tool_calls": {"type": "array", "minItems": 1},
                    },
                },
            ]
        }
    )

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: Text | None = None
    reasoning_content: Text | None = None
    refusal: None = None
    audio: None = None
    function_call: None = None
    annotations: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS)] | None = None
    tool_call_id: Text | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Message:
        if self.content is None and not (self.role == "assistant" and self.tool_calls):
            raise ValueError("needs content")
        if self.tool_calls and self.role != "assistant":
            raise ValueError(f"has tool_calls, which only the assistant makes, not {self.role}")
        return self

    def for_model(self) -> dict[str, Any]:
        """The message as chat templates expect it: content a string, a call's arguments an object."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        message: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": content,
        }
        for name in ("name", "reasoning_content", "tool_call_id"):
            if (value := getattr(self, name)) is not None:
                message[name] = value
        if self.tool_calls:
            message["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": _arguments(call.function.arguments),
                    },
                }
                for call in self.tool_calls
            ]
        return message


def _arguments(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


class FunctionDefinition(Strict):
    """What a tool is called, does and takes (a JSON schema)."""

    name: Annotated[Text, Field(min_length=1, max_length=64)]
    description: Text | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] | None = None


class Tool(Strict):
    """A function that the model may ask the caller to run."""

    type: Literal["function"]
    function: FunctionDefinition


class JsonSchema(Strict):
    """A named schema. The answer is always held to it, so `strict` makes no difference."""

    name: Text
    description: Text | None = None
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Strict):
    """`{"type": "text"}`, `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {…}}`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def _schema_where_named(self) -> ResponseFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema goes with type json_schema, and the other way round")
        return self

    def guide(self) -> tuple[str | None, str | None]:
        """Type and text of the guide for the engine."""
        if self.json_schema is not None:
            return "json_schema", json.dumps(self.json_schema.schema_, ensure_ascii=False)
        return ("json", None) if self.type == "json_object" else (None, None)


class StreamOptions(Strict):
    """`include_usage`: a last chunk with the usage of the whole request."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


Count = Annotated[int, Field(ge=1, le=INT32_MAX), WHOLE]

# Where OpenAI's own range is another than ours.
_Sampling: Any = create_model(
    "_Sampling",
    __base__=Strict,
    **sampling_fields(
        temperature=Annotated[float, Field(ge=0, le=2)],
        seed=Annotated[int, Field(ge=-(2**63), le=UINT64_MAX), WHOLE],
        top_k=Annotated[int, Field(ge=-1, le=INT32_MAX), WHOLE],
    ),
)


class GenerationRequest(_Sampling):  # type: ignore[misc]
    """What both routes share. null means absent; absent values are the deployment's defaults."""

    model: Text | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Text | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> GenerationRequest:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream true")
        return self

    def sampling(self, choice: int) -> dict[str, Any]:
        """Options for the client of the answer with this number; each gets a seed of its own."""
        return sampling_options(self) | {
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "logit_bias": self.logit_bias or None,
            "seed": None if self.seed is None else (self.seed + choice) % (UINT64_MAX + 1),
        }


class ChatPrompt(Strict):
    """What a conversation becomes a prompt by."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    add_generation_prompt: bool | None = None
    add_special_tokens: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    enable_thinking: bool | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.enable_thinking is not None and "enable_thinking" in (self.chat_template_kwargs or {}):
            raise ValueError("enable_thinking is given twice: as a field and in chat_template_kwargs")
        if self.continue_final_message and self.add_generation_prompt:
            raise ValueError("continue_final_message and add_generation_prompt exclude each other")
        return self

    @property
    def uses_tools(self) -> bool:
        """Whether the prompt lists tools."""
        return bool(self.tools)

    def conversation(self) -> list[dict[str, Any]]:
        """The messages for the model."""
        return [message.for_model() for message in self.messages]

    def prompt_options(self) -> dict[str, Any]:
        """The options of the client that say how the conversation becomes a prompt."""
        kwargs = dict(self.chat_template_kwargs or {})
        if self.enable_thinking is not None:
            kwargs["enable_thinking"] = self.enable_thinking
        if self.uses_tools:
            kwargs["tools"] = [tool.model_dump(exclude_none=True) for tool in self.tools or []]
        names = ("add_generation_prompt", "add_special_tokens", "continue_final_message")
        return {"chat_template_kwargs": kwargs or None} | {name: getattr(self, name) for name in names}


class ChatCompletion(ChatPrompt, GenerationRequest):
    """`POST /v1/chat/completions`."""

    logprobs: bool | None = None
    max_completion_tokens: Count | None = None
    metadata: Annotated[dict[Text, Text], Field(max_length=16)] | None = None
    modalities: list[Literal["text"]] | None = None
    parallel_tool_calls: Literal[True] | None = None
    prompt_cache_key: Text | None = None
    response_format: ResponseFormat | None = None
    safety_identifier: Text | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), WHOLE] | None = None

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _free_choice(cls, choice: object) -> object:
        if choice == "required" or isinstance(choice, dict):
            raise ValueError("can be auto or none: the model cannot be made to call a tool")
        return choice

    @model_validator(mode="after")
    def _fits_together(self) -> ChatCompletion:
        limits = (self.max_tokens, self.max_completion_tokens)
        if None not in limits and limits[0] != limits[1]:
            raise ValueError(
                f"max_tokens is {limits[0]} and max_completion_tokens {limits[1]}; give one of them"
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs true")
        if self.tool_choice == "auto" and not self.tools:
            raise ValueError("tool_choice needs tools")
        return self

    @property
    def uses_tools(self) -> bool:
        """Whether the prompt lists tools."""
        return bool(self.tools) and self.tool_choice != "none"

    @property
    def length_field(self) -> str:
        """By which name the caller limits the length."""
        return "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"

    def sampling(self, choice: int) -> dict[str, Any]:
        """See GenerationRequest."""
        guide_type, guide = self.response_format.guide() if self.response_format else (None, None)
        own = super().sampling(choice) | self.prompt_options()
        return own | {
            "max_tokens": self.max_completion_tokens or self.max_tokens,
            "return_parts": True,
            "return_log_probs": self.logprobs or None,
            "top_log_probs": self.top_logprobs or None,
            "guided_decoding_guide_type": guide_type,
            "guided_decoding_guide": guide,
        }


def _prompts(value: object) -> object:
    """One prompt as a list of one: a text, or a list of token ids."""
    one = isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int))
    return [value] if one else value


def _kind_of_prompt(value: object) -> str:
    return "<ids>" if isinstance(value, list) else "<text>"


TextPrompt = Annotated[Text, Field(min_length=1)]
TokenPrompt = Annotated[list[Annotated[int, Field(ge=0, le=INT32_MAX), WHOLE]], Field(min_length=1)]
Prompt = Annotated[
    Annotated[TextPrompt, Tag("<text>")] | Annotated[TokenPrompt, Tag("<ids>")],
    Discriminator(_kind_of_prompt),
]
Prompts = Annotated[
    list[Prompt],
    BeforeValidator(
        _prompts,
        json_schema_input_type=TextPrompt
        | TokenPrompt
        | Annotated[list[TextPrompt | TokenPrompt], Field(min_length=1, max_length=MAX_CHOICES)],
    ),
    Field(min_length=1, max_length=MAX_CHOICES),
]


class Completion(GenerationRequest):
    """`POST /v1/completions`: text or token ids, continued. Several prompts: the answers of each in turn."""

    prompt: Prompts
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), WHOLE] | None = None
    suffix: Literal[""] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Completion:
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError(f"best_of must be as n, which is {self.n or 1}, not {self.best_of}")
        if self.scores_prompt and self.stream:
            raise ValueError("echo with logprobs needs stream false")
        if self.echo and not (self.scores_prompt or all(isinstance(each, str) for each in self.prompt)):
            raise ValueError("echo of token ids needs logprobs, with which their text comes")
        if len(self.prompt) * (self.n or 1) > MAX_CHOICES:
            raise ValueError(
                f"prompt times n may give {MAX_CHOICES} answers, not {len(self.prompt) * (self.n or 1)}"
            )
        return self

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt's tokens are asked for."""
        return bool(self.echo) and self.logprobs is not None

    def sampling(self, choice: int) -> dict[str, Any]:
        """See GenerationRequest."""
        return super().sampling(choice) | {
            "return_log_probs": self.logprobs is not None or None,
            "return_prompt_log_probs": self.scores_prompt or None,
            "top_log_probs": self.logprobs or None,
        }
