"""What comes back: the pieces of an answer, the answer, and the facts about a model. Plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Piece:
    """A bit of new text; whole characters, one or more tokens."""

    text: str
    log_probs: tuple[float, ...] | None = None
    """Natural log-probability of each token in this piece, when asked for."""


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
    """A whole answer. `finish_reason` is "stop" (the model was done) or "length" (`max_tokens`, context)."""

    text: str
    finish_reason: str
    usage: Usage
    timings: Timings
    request_id: str
    log_probs: tuple[float, ...] | None = None


@dataclass(frozen=True)
class ModelInfo:
    """What a server says about its model. `context` in tokens; `slots` answers run at once, `queue` wait."""

    id: str
    demo: bool
    description: str
    context: int
    slots: int
    queue: int
    defaults: dict[str, float]
    """The deployment's sampling: temperature, top_p, repetition_penalty."""
