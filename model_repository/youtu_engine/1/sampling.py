"""From one row of logits to one token, as TensorRT-LLM's decoder does it.

Order: embedding bias; repetition penalty over prompt and output; presence and frequency penalties over the
output alone; bad words and min_tokens; a guide's mask; temperature; top_k; min_p; top_p; one draw.
TensorRT-LLM 1.2 counts the prompt for all three penalties. Pure numpy: no engine, no text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# Where the nucleus is looked for: among tokens of at least so much of the best one's weight.
_THRESHOLDS = (np.float32(2**-7), np.float32(2**-20), np.float32(0))
_LEVEL_BITS = 17  # of a float's 23: 64 levels from one power of two to the next


class GuideError(Exception):
    """A guide cannot go on; the request that it belongs to fails."""


class Guide(Protocol):
    """The constraint of an answer, token by token. The methods raise GuideError."""

    @property
    def complete(self) -> bool:
        """Whether nothing can follow any more."""

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocab_size]."""

    def take(self, token: int) -> None:
        """This one came."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What the token contract says about choosing tokens.

    top_k 0, top_p 1 and min_p 0 mean no cut. ends: tokens that end the answer, which min_tokens holds back.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    min_tokens: int = 0
    seed: int | None = None
    ends: frozenset[int] = frozenset()
    bad_words: tuple[tuple[int, ...], ...] = ()
    bias: NDArray[np.float32] | None = None

    @property
    def greedy(self) -> bool:
        return self.temperature == 0.0 or self.top_k == 1


class Sampler:
    """Chooses the tokens of one request; keeps the counts of its tokens and its own random stream."""

    def __init__(
        self,
        params: SamplingParams,
        prompt: NDArray[np.int32],
        vocab_size: int,
        guide: Guide | None = None,
    ) -> None:
        self.params = params
        self._guide = guide
        self._random = np.random.default_rng(params.seed)
        self._history: list[int] = prompt.tolist() if params.bad_words else []
        self._made = 0
        self._seen = np.unique(prompt) if params.repetition_penalty != 1.0 else None
        counted = params.presence_penalty != 0.0 or params.frequency_penalty != 0.0
        self._counts = np.zeros(vocab_size, np.int32) if counted else None
        self._counted = np.array([], np.int32)

    def __call__(self, logits: NDArray[np.float32]) -> int:
        """The next token for `logits` [vocab_size]; remembers it. The array is left as it was.

        Raises GuideError.
        """
        token = self._choose(self._adjusted(logits))
        self._made += 1
        if self._guide is not None:
            self._guide.take(token)
        if self.params.bad_words:
            self._history.append(token)
        if self._seen is not None and not (self._seen == token).any():
            self._seen = np.append(self._seen, token)
        if self._counts is not None:
            if self._counts[token] == 0:
                self._counted = np.append(self._counted, token)
            self._counts[token] += 1
        return token

    def _adjusted(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        p = self.params
        banned = [word[-1] for word in p.bad_words if self._ends_with(word[:-1])]
        if self._made < p.min_tokens:
            banned += p.ends
        penalised = self._seen is not None or self._counts is not None
        if p.bias is None and not penalised and not banned and self._guide is None:
            return logits
        out = logits + p.bias if p.bias is not None else logits.copy()
        if self._seen is not None:
            row = out[self._seen]
            out[self._seen] = np.where(row > 0, row / p.repetition_penalty, row * p.repetition_penalty)
        if self._counts is not None:
            made = self._counted
            out[made] -= p.presence_penalty + p.frequency_penalty * self._counts[made]
        out[banned] = -np.inf
        if self._guide is not None:
            out[~self._guide.allowed()] = -np.inf
            if out.max() == -np.inf:
                raise GuideError("min_tokens and bad_words_list exclude every token that it allows here")
        return out

    def _ends_with(self, prefix: tuple[int, ...]) -> bool:
        return not prefix or tuple(self._history[-len(prefix) :]) == prefix

    def _choose(self, logits: NDArray[np.float32]) -> int:
        p = self.params
        if p.greedy:
            return int(np.argmax(logits))
        candidates: NDArray[Any] | None = None
        if 0 < p.top_k < len(logits):
            candidates = np.argpartition(logits, -p.top_k)[-p.top_k :]
            logits = logits[candidates]
        # Weights relative to the best token: exp never overflows, and no normalising is needed. In f32, which
        # numpy computes many at a time: a row of a large vocabulary costs as much as a step on a card.
        weights = np.exp((logits - logits.max()) / np.float32(p.temperature))
        order: NDArray[Any] | None = None
        if p.min_p > 0.0:
            order = np.flatnonzero(weights >= p.min_p)
            weights = weights[order]
        if p.top_p < 1.0:
            nucleus = _nucleus(weights, p.top_p)
            order = nucleus if order is None else order[nucleus]
            weights = weights[nucleus]
        cumulative = np.cumsum(weights, dtype=np.float64)
        drawn = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
        chosen = min(drawn, len(weights) - 1)
        if order is not None:
            chosen = order[chosen]
        return int(candidates[chosen] if candidates is not None else chosen)


def _nucleus(weights: NDArray[np.float32], top_p: float) -> NDArray[Any]:
    """Indices of the smallest set of the heaviest that holds `top_p` of the weight. The heaviest weighs 1.

    Sorting a whole vocabulary takes longer than the step it came from: light ones are left out first, then
    the rest is counted by levels of weight, and only the level at which the set ends is sorted.
    """
    mass = top_p * weights.sum(dtype=np.float64)
    for threshold in _THRESHOLDS:
        head = np.flatnonzero(weights >= threshold)
        heavy = weights[head]
        if heavy.sum(dtype=np.float64) >= mass:
            break
    levels = (
        heavy.view(np.int32) >> _LEVEL_BITS
    )  # the bits of positive floats are in the order of their values
    levels -= levels.min()
    from_the_top = np.cumsum(np.bincount(levels, weights=heavy)[::-1])
    crossing = min(int(np.searchsorted(from_the_top, mass)), len(from_the_top) - 1)
    before = from_the_top[crossing - 1] if crossing else 0.0
    level = len(from_the_top) - 1 - crossing
    edge = head[levels == level]
    edge = edge[np.argsort(-weights[edge], kind="stable")]
    needed = int(np.searchsorted(np.cumsum(weights[edge], dtype=np.float64), mass - before)) + 1
    return np.concatenate([head[levels > level], edge[:needed]])


def log_probs(logits: NDArray[np.float32], tokens: list[int]) -> list[float]:
    """Natural logarithm of the model's own probability of each of `tokens`: no penalty, no temperature."""
    wide = logits.astype(np.float64)
    top = wide.max()
    values: list[float] = (wide[tokens] - top - np.log(np.exp(wide - top).sum())).tolist()
    return values


def most_probable(logits: NDArray[np.float32], count: int) -> list[int]:
    """The `count` tokens that the model itself finds likeliest, likeliest first; of equals the lower id."""
    if count == 0:
        return []
    # Everything as good as the last one taken: which of equals stand in a partition is chance.
    least = np.partition(logits, -count)[-count]
    candidates = np.flatnonzero(logits >= least)
    ids: list[int] = candidates[np.argsort(-logits[candidates], kind="stable")][:count].tolist()
    return ids
