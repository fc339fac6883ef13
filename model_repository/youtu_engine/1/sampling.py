"""From one row of logits to one token, as TensorRT-LLM's decoder does it.

Order: embedding bias; repetition, presence and frequency penalties over prompt and output; bad words and
min_tokens; a guide's mask; temperature; top_k; min_p; top_p; one draw. Pure numpy: no engine, no text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class GuideError(Exception):
    """A guide cannot go on; the request that it belongs to fails."""


class Guide(Protocol):
    """What an answer is held to, token by token. The methods raise GuideError."""

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
        self._penalised = (
            params.repetition_penalty != 1.0
            or params.presence_penalty != 0.0
            or params.frequency_penalty != 0.0
        )
        self._counts = np.bincount(prompt, minlength=vocab_size) if self._penalised else None
        self._seen = np.flatnonzero(self._counts) if self._counts is not None else None

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
        if self._counts is not None and self._seen is not None:
            if self._counts[token] == 0:
                self._seen = np.append(self._seen, token)
            self._counts[token] += 1
        return token

    def _adjusted(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        p = self.params
        banned = [word[-1] for word in p.bad_words if self._ends_with(word[:-1])]
        if self._made < p.min_tokens:
            banned += p.ends
        if p.bias is None and self._counts is None and not banned and self._guide is None:
            return logits
        out = logits + p.bias if p.bias is not None else logits.copy()
        if self._counts is not None and self._seen is not None:
            seen = self._seen
            row = out[seen]
            row = np.where(row > 0, row / p.repetition_penalty, row * p.repetition_penalty)
            row -= p.presence_penalty + p.frequency_penalty * self._counts[seen]
            out[seen] = row
        out[banned] = -np.inf
        if self._guide is not None:
            out[~self._guide.allowed()] = -np.inf
            if out.max() == -np.inf:
                raise GuideError(
                    "of the tokens that it allows here, min_tokens and bad_words_list leave none"
                )
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
        # Weights relative to the best token: exp never overflows, and no normalising is needed.
        weights = np.exp((logits - logits.max()).astype(np.float64) / p.temperature)
        order: NDArray[Any] = np.flatnonzero(weights >= p.min_p)
        weights = weights[order]
        if p.top_p < 1.0:
            nucleus = _nucleus(weights, p.top_p)
            order, weights = order[nucleus], weights[nucleus]
        cumulative = np.cumsum(weights)
        drawn = int(np.searchsorted(cumulative, self._random.random() * cumulative[-1], side="right"))
        chosen = order[min(drawn, len(order) - 1)]
        return int(candidates[chosen] if candidates is not None else chosen)


def _nucleus(weights: NDArray[np.float64], top_p: float) -> NDArray[Any]:
    """Indices, heaviest first, of the smallest set that holds `top_p` of the weight."""
    mass = top_p * weights.sum()
    size = min(256, len(weights))
    while True:  # a nucleus is mostly small: sort a few, and all only when they do not suffice
        top = np.argpartition(weights, -size)[-size:] if size < len(weights) else np.arange(len(weights))
        top = top[np.argsort(-weights[top], kind="stable")]
        cumulative = np.cumsum(weights[top])
        if cumulative[-1] >= mass or size == len(weights):
            return top[: int(np.searchsorted(cumulative, mass)) + 1]
        size = min(size * 8, len(weights))


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
