"""The requests of OpenAI's routes: every field that OpenAI, vLLM and llama-server take is decided here.

Supported fields are fields of these models; fields without effect or support are in `labels`; any other
field is refused by name. The model behind Triton checks the values. Independent of HTTP.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    create_model,
    model_validator,
)
from typing_extensions import Self
from youtu_contract.rows import FUNCTION, SAMPLING_OPTIONS

from ..schema import (
    INT32_MAX,
    UINT64_MAX,
    WHOLE,
    DocumentName,
    No,
    Strict,
    Text,
    sampling_fields,
    sampling_options,
)
from .guides import GuidedRequest
from .labels import (
    LABELS,
    LABELS_OF_CHAT,
    LACKING_ANYWHERE,
    LACKING_IN_CHAT,
    LACKING_IN_COMPLETIONS,
    silent_fields,
)
from .messages import MAX_TOOLS, AllowedChoice, Message, NamedTool, Tool, ToolChoice
from .rules import NOT_TRUE, NULL, TRUE, either, has, unless

MAX_CHOICES = 16
"""Answers to one prompt: `n`."""

MAX_ANSWERS = 1024
"""Answers to one request: prompts times `n`."""

MAX_TOP_LOGPROBS = 20
MAX_MESSAGES = 1000

EFFORTS: dict[str, bool] = {
    "none": False,
    "minimal": False,
    "low": True,
    "medium": True,
    "high": True,
    "xhigh": True,
    "max": True,
}
"""`reasoning_effort` -> whether the model thinks."""


class StreamOptions(Strict):
    """`include_usage`: a last chunk with the usage; `continuous_usage_stats`: that so far in each chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: Annotated[No | None, Field(repr=False)] = None


def _no_end(value: int) -> int | None:
    return None if value == -1 else value


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("must be at least 1, or -1 for no limit; got 0")
    return value


_LIMIT = {"type": "integer", "maximum": INT32_MAX}
Upto = Annotated[
    Annotated[int, Field(ge=-1, le=INT32_MAX), WHOLE],
    AfterValidator(_no_end),
    WithJsonSchema(_LIMIT | {"minimum": -1}),
]
"""A length; -1 is no limit."""

Length = Annotated[
    Annotated[int, Field(ge=-1, le=INT32_MAX), WHOLE],
    AfterValidator(_not_zero),
    AfterValidator(_no_end),
    WithJsonSchema({"anyOf": [_LIMIT | {"minimum": 1}, {"const": -1}]}),
]
"""The same of an answer that is not empty."""

Top = Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS), WHOLE]
Choices = Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE]

# Where the range of OpenAI's field, or of vLLM's and llama-server's of that name, is wider than the row's.
_Sampling: Any = create_model(
    "_Sampling",
    __base__=Strict,
    **sampling_fields(
        max_tokens=Length,
        seed=Annotated[int, Field(ge=-(2**63), le=UINT64_MAX), WHOLE],
        top_k=Annotated[int, Field(ge=-1, le=INT32_MAX), WHOLE],
    ),
    **silent_fields(LABELS, LACKING_ANYWHERE),
)
_REPETITION = _Sampling.model_fields["repetition_penalty"].annotation

STREAM_RULE: Any = either(unless(stream_options=NULL), has(stream=TRUE))
"""Of `GenerationRequest`, as JSON schema."""


class GenerationRequest(_Sampling, GuidedRequest):  # type: ignore[misc]
    """What both routes share. null means absent; absent values are the deployment's defaults.

    `n_predict`, `repeat_penalty`, `n_cmpl` and `return_tokens` are llama-server's names of `max_tokens`,
    `repetition_penalty`, `n` and `return_token_ids`; as there, they win over the others.
    """

    model: Text | None = None
    n: Choices | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prompt_logprobs: Top | None = None
    return_token_ids: bool | None = None
    n_predict: Length | None = None
    n_cmpl: Choices | None = None
    repeat_penalty: _REPETITION = None  # type: ignore[valid-type]
    return_tokens: bool | None = None

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options requires stream true")
        return self

    @property
    def choices(self) -> int:
        """Answers to one prompt."""
        return self.n_cmpl or self.n or 1

    @property
    def tells_ids(self) -> bool:
        """Whether the caller wants the ids of tokens."""
        return bool(self.return_token_ids or self.return_tokens)

    @property
    def counts_along(self) -> bool:
        """Whether each chunk is to have the usage so far."""
        return bool(self.stream_options and self.stream_options.continuous_usage_stats)

    @property
    def length_field(self) -> str:
        """By which name the caller limits the length."""
        return "max_tokens" if self.n_predict is None else "n_predict"

    def sampling(self, choice: int) -> dict[str, Any]:
        """Options for the client of the answer with this number; each gets a seed of its own."""
        _, (kind, guide) = self.guide()
        seed = None if self.seed in (None, -1) else (self.seed + choice) % (UINT64_MAX + 1)
        penalty = self.repetition_penalty if self.repeat_penalty is None else self.repeat_penalty
        scores = self.prompt_logprobs is not None
        return sampling_options(self) | {
            "max_tokens": getattr(self, self.length_field),
            "top_k": None if self.top_k is None else max(0, self.top_k),
            "logit_bias": self.logit_bias or None,
            "repetition_penalty": penalty,
            "seed": seed,
            "ignore_eos": self.ignore_eos or None,
            "guided_decoding_guide_type": kind,
            "guided_decoding_guide": guide,
            "return_log_probs": scores or None,
            "return_prompt_log_probs": scores or None,
            "top_log_probs": self.prompt_logprobs or None,
            "return_token_ids": self.tells_ids or self.counts_along or scores or None,
        }


class Thinking(Strict):
    """Whether the model thinks: `enabled`, `disabled`, or by its template (`auto`, `adaptive`)."""

    type: Literal["enabled", "disabled", "auto", "adaptive"]
    budget_tokens: Annotated[int | None, WHOLE, Field(repr=False)] = None
    display: Annotated[Text | None, Field(repr=False)] = None


TemplateOrOurs = Annotated[
    Annotated[dict[str, Any], Tag("<object>")] | Annotated[DocumentName, Tag("<name>")],
    Discriminator(lambda item: "<name>" if isinstance(item, str) else "<object>"),
]
"""An object for the chat template, or a document of this server by its id."""


class ChatPrompt(Strict):
    """What a conversation becomes a prompt by."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    add_generation_prompt: bool | None = None
    add_special_tokens: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    continue_final_message: bool | None = None
    documents: list[dict[str, Any]] | None = None
    enable_thinking: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    thinking: Thinking | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] | None = None

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> Self:
        if self.enable_thinking is not None and "enable_thinking" in (self.chat_template_kwargs or {}):
            raise ValueError("enable_thinking is set twice: as a field and in chat_template_kwargs")
        return self

    @property
    def thinks(self) -> bool | None:
        """What the request says of it, the plainest field first; None leaves it to the deployment."""
        if self.enable_thinking is not None:
            return self.enable_thinking
        if self.thinking is not None and self.thinking.type in ("enabled", "disabled"):
            return self.thinking.type == "enabled"
        return None if self.reasoning_effort is None else EFFORTS[self.reasoning_effort]

    def offered(self) -> list[Tool]:
        """The tools that the model is told of."""
        return self.tools or []

    @property
    def uses_tools(self) -> bool:
        """Whether the prompt lists tools."""
        return bool(self.offered())

    @property
    def continues(self) -> bool:
        """Whether the last message is continued, not answered, whatever `add_generation_prompt` says."""
        prefix = bool(self.messages and self.messages[-1].prefix)
        return prefix if self.continue_final_message is None else self.continue_final_message

    def conversation(self) -> list[dict[str, Any]]:
        """The messages for the model."""
        return [message.for_model() for message in self.messages]

    def prompt_options(self) -> dict[str, Any]:
        """The options of the client that say how the conversation becomes a prompt."""
        kwargs = dict(self.chat_template_kwargs or {})
        if self.thinks is not None:
            kwargs.setdefault("enable_thinking", self.thinks)
        if for_template := [each for each in self.documents or [] if not isinstance(each, str)]:
            kwargs["documents"] = for_template
        if offered := self.offered():
            kwargs["tools"] = [tool.for_model() for tool in offered]
        return {
            "chat_template_kwargs": kwargs or None,
            "add_generation_prompt": self.add_generation_prompt,
            "add_special_tokens": self.add_special_tokens,
            "continue_final_message": self.continues or None,
        }


_ChatSilent: Any = create_model(
    "_ChatSilent", __base__=Strict, **silent_fields(LABELS_OF_CHAT, LACKING_IN_CHAT)
)


class ChatCompletion(ChatPrompt, GenerationRequest, _ChatSilent):  # type: ignore[misc]
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                STREAM_RULE,
                either(unless(top_logprobs={"enum": [0, None]}), has(logprobs=TRUE)),
                either(
                    unless(tool_choice={"enum": ["auto", "none", None]}),
                    has(tools={"type": "array", "minItems": 1}),
                ),
            ]
        }
    )

    documents: list[TemplateOrOurs] | None = None  # type: ignore[assignment]
    include_reasoning: bool | None = None
    logprobs: bool | None = None
    max_completion_tokens: Length | None = None
    modalities: list[Literal["text"]] | None = None
    parallel_tool_calls: bool | None = None
    parse_tool_calls: Literal[True] | None = None
    reasoning_format: Literal["auto", "deepseek"] | None = None
    tool_choice: ToolChoice | None = None
    top_logprobs: Top | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ChatCompletion:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs requires logprobs true")
        if self.must_call != "auto" and not self.tools:
            raise ValueError("tool_choice requires tools")
        known = {tool.function.name for tool in self.tools or []}
        for name in sorted(self._named() - known):
            raise ValueError(f"tool_choice names {name}, which is not in tools")
        return self

    def document_names(self) -> list[str]:
        """The documents of this server, whose text goes into the last question."""
        return [each for each in self.documents or [] if isinstance(each, str)]

    def _named(self) -> set[str]:
        """The functions that `tool_choice` names."""
        if isinstance(self.tool_choice, NamedTool):
            return {self.tool_choice.function.name}
        if isinstance(self.tool_choice, AllowedChoice):
            return {tool.function.name for tool in self.tool_choice.allowed_tools.tools}
        return set()

    @property
    def must_call(self) -> str:
        """Whether a tool has to be called, as the model behind takes it."""
        choice = self.tool_choice
        if isinstance(choice, NamedTool):
            return FUNCTION + choice.function.name
        mode = choice.allowed_tools.mode if isinstance(choice, AllowedChoice) else choice
        return "required" if mode in ("required", "any") else "auto"

    def offered(self) -> list[Tool]:
        """See ChatPrompt."""
        if self.tool_choice == "none":
            return []
        only = self._named() if isinstance(self.tool_choice, AllowedChoice) else None
        return [tool for tool in self.tools or [] if only is None or tool.function.name in only]

    @property
    def length_field(self) -> str:
        """See GenerationRequest; the newer name wins, as at OpenAI's."""
        return super().length_field if self.max_completion_tokens is None else "max_completion_tokens"

    def sampling(self, choice: int) -> dict[str, Any]:
        """See GenerationRequest."""
        options = super().sampling(choice) | self.prompt_options() | {"return_parts": True}
        if self.logprobs:
            options["return_log_probs"] = True
            options["top_log_probs"] = max(self.top_logprobs or 0, self.prompt_logprobs or 0) or None
        if self.uses_tools:
            options["tool_choice"] = None if self.must_call == "auto" else self.must_call
            options["parallel_tool_calls"] = (
                None if self.parallel_tool_calls is None else self.parallel_tool_calls
            )
        return options


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
SeveralPrompts = Annotated[list[Prompt], Field(min_length=1, max_length=MAX_ANSWERS)]
Prompts = Annotated[
    SeveralPrompts,
    BeforeValidator(
        _prompts,
        json_schema_input_type=TextPrompt
        | TokenPrompt
        | Annotated[list[TextPrompt | TokenPrompt], Field(min_length=1, max_length=MAX_ANSWERS)],
    ),
]

_TextSilent: Any = create_model("_TextSilent", __base__=Strict, **silent_fields({}, LACKING_IN_COMPLETIONS))


class Completion(GenerationRequest, _TextSilent):  # type: ignore[misc]
    """`POST /v1/completions`: text or token ids, continued. Several prompts: the answers of each in turn.

    `max_tokens` 0 makes nothing: with `echo` and `logprobs` the prompt is scored.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                STREAM_RULE,
                either(unless(stream=NOT_TRUE), unless(echo=NOT_TRUE), unless(logprobs=NULL)),
            ]
        }
    )

    prompt: Prompts
    max_tokens: Upto | None = Field(default=None, description=SAMPLING_OPTIONS["max_tokens"].meaning)
    n_predict: Upto | None = None
    add_special_tokens: bool | None = None
    best_of: Choices | None = None
    echo: bool | None = None
    logprobs: Top | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Completion:
        if self.best_of is not None and self.best_of != self.choices:
            raise ValueError(f"best_of must equal n, which is {self.choices}, not {self.best_of}")
        if self.scores_prompt and self.stream:
            raise ValueError("echo with logprobs requires stream false")
        if (count := len(self.prompt) * self.choices) > MAX_ANSWERS:
            raise ValueError(f"prompt times n may give {MAX_ANSWERS} answers, not {count}")
        return self

    @property
    def scores_prompt(self) -> bool:
        """Whether the log-probabilities of the prompt's tokens are asked for as part of the text."""
        return bool(self.echo) and self.logprobs is not None

    def sampling(self, choice: int) -> dict[str, Any]:
        """See GenerationRequest."""
        options = super().sampling(choice) | {"add_special_tokens": self.add_special_tokens}
        if self.logprobs is not None:
            options["return_log_probs"] = True
            options["top_log_probs"] = max(self.logprobs, self.prompt_logprobs or 0) or None
        if self.scores_prompt:
            options["return_prompt_log_probs"] = True
        return options
