"""What comes back: the pieces of an answer, the answer, and the facts about a model. Plain values."""

from __future__ import annotations

from dataclasses import dataclass

from youtu_contract.parts import ToolCall as ToolCall


@dataclass(frozen=True)
class Token:
    """One token that the model made, with `return_log_probs`.

    `data` is what it gave to the text, maybe half a character: the tokens in a row are the text. It is empty
    for the end of the text, other special tokens and what a stop word swallowed. `top` are the likeliest
    tokens at its place and their log-probabilities, likeliest first, `top_log_probs` of them; special tokens
    stand there by their names. `top_ids`: their ids, of a prompt's tokens with `return_token_ids`.
    """

    data: bytes
    log_prob: float
    top: tuple[tuple[bytes, float], ...] = ()
    top_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tokens:
    """A prompt as the model reads it: the ids of its tokens, and the bytes of each, special ones by name."""

    ids: tuple[int, ...]
    data: tuple[bytes, ...]

    @property
    def text(self) -> str:
        """Their text; bytes that are no characters stand as U+FFFD."""
        return b"".join(self.data).decode("utf-8", "replace")


@dataclass(frozen=True)
class Piece:
    """A bit of new text; whole characters, one or more tokens; no text where the tokens gave none."""

    text: str
    log_probs: tuple[float, ...] | None = None
    """Natural log-probability of each token in this piece, when asked for."""
    tokens: tuple[Token, ...] | None = None
    """With `return_log_probs`: those whose last byte this piece shows (one may end inside a character)."""
    reasoning: str = ""
    """With `return_parts`: new thinking."""
    content: str = ""
    """With `return_parts`: new text that is neither thinking nor a call of a tool."""
    tool_calls: tuple[ToolCall, ...] = ()
    """With `return_parts`: calls of tools that are complete now."""
    token_ids: tuple[int, ...] | None = None
    """With `return_token_ids`: the tokens that were made since the piece before."""
    prompt_token_ids: tuple[int, ...] | None = None
    """With `return_token_ids`, in the first piece: those of the prompt."""


@dataclass(frozen=True)
class Usage:
    """Tokens, as the engine counted them. `cached_tokens` of the prompt came from its prefix cache."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True)
class Timings:
    """Three moments on the server's clock (nanoseconds since 1970), and what follows from them."""

    arrival_ns: int
    first_token_ns: int
    last_token_ns: int
    tokens: int

    @property
    def ttft(self) -> float:
        """Seconds from arrival to the first token; 0.0 when none was made."""
        return max(0, self.first_token_ns - self.arrival_ns) / 1e9 if self.tokens else 0.0

    @property
    def total(self) -> float:
        """Seconds from arrival to the last token; 0.0 when none was made."""
        return max(0, self.last_token_ns - self.arrival_ns) / 1e9 if self.tokens else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Decode speed: tokens after the first, over the time they took; 0.0 when there are none."""
        span = self.last_token_ns - self.first_token_ns
        return (self.tokens - 1) * 1e9 / span if self.tokens > 1 and span > 0 else 0.0


@dataclass(frozen=True)
class Answer:
    """A whole answer. `finish_reason` is "stop" (the model was done) or "length" (`max_tokens`, context).

    `starts_in_thinking`: the prompt ended inside <think>, so the text begins inside the thinking.
    """

    text: str
    finish_reason: str
    usage: Usage
    timings: Timings
    request_id: str
    log_probs: tuple[float, ...] | None = None
    tokens: tuple[Token, ...] | None = None
    prompt_tokens: tuple[Token, ...] | None = None
    """With `return_prompt_log_probs`: all of the prompt's, special ones by their names. The log_prob of
    the first is nan: nothing predicts it."""
    starts_in_thinking: bool = False
    reasoning: str = ""
    """With `return_parts`: the thinking before the answer, without its marks."""
    content: str = ""
    """With `return_parts`: the text without thinking and calls of tools."""
    tool_calls: tuple[ToolCall, ...] = ()
    """With `return_parts`: the tools that the model calls."""
    token_ids: tuple[int, ...] | None = None
    """With `return_token_ids`: of all tokens that were made, the one that ended the answer included."""
    prompt_token_ids: tuple[int, ...] | None = None
    """With `return_token_ids`: of the prompt."""
    reasoning_tokens: int | None = None
    """With `return_parts` and `return_token_ids`: how many of the tokens came until the thinking ended."""
    stop_reason: str | int | None = None
    """Which of `stop` (a text) or of `stop_token_ids` (an id) ended the answer, if any did."""


@dataclass(frozen=True)
class ModelInfo:
    """What a server says about its model. `context` in tokens; `slots` answers run at once, `queue` wait.

    `guided_decoding`: it can hold its output to a schema; `top_log_probs`: the most that may be asked for;
    `prompt_log_probs`: it returns those of the prompt too; `tools`: its chat template has a place for tools.
    """

    id: str
    demo: bool
    description: str
    context: int
    slots: int
    queue: int
    defaults: dict[str, float]
    """The deployment's sampling: temperature, top_p, repetition_penalty."""
    guided_decoding: bool = False
    top_log_probs: int = 0
    prompt_log_probs: bool = False
    tools: bool = False


@dataclass(frozen=True)
class Probed:
    """How a server that takes requests is. `stalled_s`: seconds without progress although there is work.

    `device_memory`: bytes in use and bytes in all of the card that our engine computes on; None on a CPU, and
    with TensorRT-LLM, whose memory Triton's own metrics tell.
    """

    stalled_s: float
    device_memory: tuple[int, int] | None = None
