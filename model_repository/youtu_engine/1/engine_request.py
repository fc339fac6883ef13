"""One request to the engine: its input, and its progress so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from sampling import Guide, SamplingParams, log_probs, most_probable
from youtu_contract.errors import Error


@dataclass(slots=True)
class LogProbs:
    """One of `values` per token; `top_ids` and `top_values` have as many per token as were asked for,
    likeliest first."""

    values: list[float] = field(default_factory=list)
    top_ids: list[int] = field(default_factory=list)
    top_values: list[float] = field(default_factory=list)

    def add(self, logits: NDArray[np.float32], token: int, top: int) -> None:
        """`token` came where the model predicted `logits` [vocab_size]."""
        best = most_probable(logits, top)
        own, *others = log_probs(logits, [token, *best])
        self.values.append(own)
        self.top_ids += best
        self.top_values += others


@dataclass(eq=False, slots=True)
class EngineRequest:
    """One request to the engine and its progress.

    `tokens` only grows, on the engine's thread; the sender keeps its own position in it.
    With `return_log_probs`, `log_probs` has the log-probabilities of these tokens; with
    `return_prompt_log_probs`, `prompt_log_probs` has those of the prompt's tokens after the first, complete
    before the first token is made.
    Times are nanoseconds of time.time_ns(). `error` is set when the engine could not finish it.
    """

    prompt: NDArray[np.int32]
    max_new_tokens: int
    sampling: SamplingParams
    stop_words: tuple[tuple[int, ...], ...] = ()
    return_log_probs: bool = False
    return_prompt_log_probs: bool = False
    top_log_probs: int = 0
    guide: Guide | None = None
    changed: Callable[[EngineRequest], None] = lambda _request: None

    tokens: list[int] = field(default_factory=list)
    log_probs: LogProbs = field(default_factory=LogProbs)
    prompt_log_probs: LogProbs = field(default_factory=LogProbs)
    cached_tokens: int = 0
    arrival_ns: int = 0
    scheduled_ns: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0
    finished: bool = False
    cancelled: bool = False
    error: Error | None = None

    def ended_by(self, token: int) -> bool:
        """Whether `token`, just appended, is the last one."""
        if token in self.sampling.ends or len(self.tokens) >= self.max_new_tokens:
            return True
        if self.guide is not None and self.guide.complete:
            return True
        if len(self.tokens) <= self.sampling.min_tokens:
            return False
        return any(tuple(self.tokens[-len(word) :]) == word for word in self.stop_words)
