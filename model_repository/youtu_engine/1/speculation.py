"""Proposals for the next tokens from the prompt and the answer so far.

No second model: if the last few tokens have occurred before, the tokens that followed are proposed. The
engine has the model verify the proposals in one step and keeps those that it would have generated itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GRAM = 3  # tokens that must have occurred before
_FIRST_GUESSES = 3
_MOST_MISSES = 8  # so many attempts in a row without an accepted guess, and no more are made


class Guesser:
    """Guesses for one request; knows the tokens of its prompt and answer."""

    def __init__(self, prompt: NDArray[np.int32]) -> None:
        self._tokens: list[int] = []
        self._followed: dict[tuple[int, ...], int] = {}  # where the token stands that followed last time
        self._length = _FIRST_GUESSES
        self._misses = 0
        for token in prompt.tolist():
            self.take(token)

    def take(self, token: int) -> None:
        """`token` is the next one of the prompt or the answer."""
        if len(self._tokens) >= _GRAM:
            self._followed[tuple(self._tokens[-_GRAM:])] = len(self._tokens)
        self._tokens.append(token)

    def guesses(self, most: int) -> list[int]:
        """What may come next, at most `most` tokens; often nothing."""
        if most <= 0 or self._misses >= _MOST_MISSES:
            return []
        start = self._followed.get(tuple(self._tokens[-_GRAM:]))
        return [] if start is None else self._tokens[start : start + min(most, self._length)]

    def verified(self, guessed: int, accepted: int) -> None:
        """Of `guessed` tokens the first `accepted` were right: adapt how many to guess."""
        self._misses = 0 if accepted else self._misses + 1
        self._length = 2 * self._length if accepted == guessed else accepted + 1
