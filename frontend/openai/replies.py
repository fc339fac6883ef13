"""OpenAI's replies: whole, in chunks, and models. `timings` and `reasoning_content` are beyond OpenAI.

What is built for every piece of a stream is a TypedDict, which costs half of a pydantic model: its keys are
given in the order declared here.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from typing_extensions import NotRequired, TypedDict
from youtu_client import Answer

from ..replies import QuotedSource, Reply, Timings, Usage

FinishReason = Literal["stop", "length"]
ChatFinishReason = Literal["stop", "length", "tool_calls"]
StopReason = str | int | None
"""The text of `stop`, or the id of `stop_token_ids`, that ended an answer; vLLM's key."""


class Head(TypedDict):
    """The keys that all replies to one request begin with."""

    id: str
    created: int
    model: str


class CachedTokens(Reply):
    """Tokens of the prompt that came out of the prefix cache."""

    cached_tokens: int


class CompletionUsage(Usage):
    """Tokens, as the engine counted them."""

    prompt_tokens_details: CachedTokens

    @classmethod
    def of(cls, prompts: list[list[Answer]]) -> CompletionUsage:
        """Of answers grouped by their prompt. A prompt counts once, as often as it was answered; of it were
        cached what the first answer found in the cache."""
        read = sum(answers[0].usage.prompt_tokens for answers in prompts)
        made = sum(answer.usage.completion_tokens for answers in prompts for answer in answers)
        cached = sum(answers[0].usage.cached_tokens for answers in prompts)
        return cls(
            prompt_tokens=read,
            completion_tokens=made,
            total_tokens=read + made,
            prompt_tokens_details=CachedTokens(cached_tokens=cached),
        )


class ToolCallFunction(Reply):
    """Name of the function, and its arguments as JSON in a string."""

    name: str
    arguments: str


class CalledTool(Reply):
    """A function that the model asks the caller to run."""

    id: str
    type: Literal["function"]
    function: ToolCallFunction


class AssistantMessage(Reply):
    """What the model says; `reasoning_content` and `tool_calls` where there are any."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: str = ""
    tool_calls: list[CalledTool] = Field(default=[])


class LikelyToken(TypedDict):
    """A token that was likely at a place. `bytes` are its UTF-8, which may be part of a character only."""

    token: str
    logprob: float
    bytes: list[int]


class ScoredToken(LikelyToken):
    """A token of the answer, and the likeliest at its place."""

    top_logprobs: list[LikelyToken]


class ChatLogProbs(TypedDict):
    """The tokens of the answer with their natural log-probabilities."""

    content: list[ScoredToken]
    refusal: None


class PromptLogProb(TypedDict):
    """A token at a place of the prompt: `rank` 1 is the likeliest, null one that is not among those told."""

    logprob: float
    rank: int | None
    decoded_token: str


PromptLogProbs = list[dict[str, PromptLogProb] | None]
"""vLLM's: at each place of the prompt, by token id, its token and the likeliest; null at the first."""


class ChatChoice(Reply):
    """One of `n` answers. `token_ids` with `return_token_ids`: of all tokens that were made."""

    index: int
    message: AssistantMessage
    logprobs: ChatLogProbs | None
    finish_reason: ChatFinishReason
    stop_reason: StopReason
    token_ids: list[int] = Field(default=[])


class ChatCompletionReply(Reply):
    """The whole answers, `n` of them. Of the prompt, where it was asked for: ids and log-probabilities."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: CompletionUsage
    timings: Timings
    prompt_token_ids: list[int] = Field(default=[])
    prompt_logprobs: PromptLogProbs = Field(default=[])
    sources: list[QuotedSource] = Field(default=[])


class ToolCallDelta(Reply):
    """A whole tool call; `index` is its number in the answer."""

    index: int
    id: str
    type: Literal["function"]
    function: ToolCallFunction


class Delta(TypedDict):
    """What is new: the role at the beginning, then text, thinking and tool calls; nothing at the end."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCallDelta]]


class ChatChunkChoice(TypedDict):
    """News of one of `n` answers; `finish_reason` in its last chunk."""

    index: int
    delta: Delta
    logprobs: ChatLogProbs | None
    finish_reason: ChatFinishReason | None
    stop_reason: NotRequired[StopReason]
    token_ids: NotRequired[list[int]]


class ChatCompletionChunk(TypedDict):
    """News of one answer. `sources` in its first chunk, `timings` in its last; `usage` where asked for."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    timings: NotRequired[Timings]
    usage: NotRequired[Usage | None]
    prompt_token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[PromptLogProbs]
    sources: NotRequired[list[QuotedSource]]


class TextLogProbs(TypedDict):
    """The tokens with their natural log-probabilities, the likeliest at each place, and where in the text
    each begins (in characters). The first token of a prompt has no log-probability."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(Reply):
    """One of the answers."""

    index: int
    text: str
    logprobs: TextLogProbs | None
    finish_reason: FinishReason
    stop_reason: StopReason
    token_ids: list[int] = Field(default=[])
    prompt_token_ids: list[int] = Field(default=[])
    prompt_logprobs: PromptLogProbs = Field(default=[])


class CompletionReply(Reply):
    """The whole answers, `n` for each prompt in turn."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: CompletionUsage
    timings: Timings


class TextChunkChoice(TypedDict):
    """News of one of the answers; `finish_reason` in its last chunk."""

    index: int
    text: str
    logprobs: TextLogProbs | None
    finish_reason: FinishReason | None
    stop_reason: NotRequired[StopReason]
    token_ids: NotRequired[list[int]]
    prompt_token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[PromptLogProbs]


class CompletionChunk(TypedDict):
    """News of one answer. `timings` in its last chunk; `usage` where it was asked for."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChunkChoice]
    timings: NotRequired[Timings]
    usage: NotRequired[Usage | None]


class UsageChunk(Reply):
    """The last chunk, where `stream_options.include_usage` asks for it: the usage of the whole request."""

    id: str
    object: Literal["chat.completion.chunk", "text_completion"]
    created: int
    model: str
    choices: list[None] = Field(max_length=0)
    usage: CompletionUsage
    timings: Timings


class Model(Reply):
    """The model that is served; `max_model_len` in tokens."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class Models(Reply):
    """A list of one: the model that is served."""

    object: Literal["list"]
    data: list[Model]
