"""What the tests ask of a runtime that computes exactly: the log-probabilities of what comes next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float64]


class Exact(ABC):
    """One model, one sequence."""

    @abstractmethod
    def log_probs(self, tokens: list[int]) -> Rows:
        """Decode `tokens` after what came before; the natural log of what follows each of them [n, vocab]."""

    def greedy(self, prompt: list[int], count: int) -> tuple[list[int], Rows]:
        """`count` greedy tokens after the prompt, and the distribution each was taken from [count, vocab]."""
        tokens: list[int] = []
        rows = [self.log_probs(prompt)[-1]]
        while True:
            tokens.append(int(rows[-1].argmax()))
            if len(tokens) == count:
                return tokens, np.stack(rows)
            rows.append(self.log_probs(tokens[-1:])[0])


def log_softmax(logits: npt.NDArray[Any]) -> Rows:
    """Along the last axis, in f64."""
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=-1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=-1, keepdims=True))
    return rows
