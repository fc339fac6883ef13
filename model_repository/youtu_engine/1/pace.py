"""How many prompt tokens a step may read while answers are running."""

from __future__ import annotations

# A step with pieces of prompts takes at most about 1 + 1.6 times as long as one without: readers of running
# answers wait less than three times as long for a token.
_LONGER = 1.6
_LEAST = 4
_WEIGHT = 0.25  # of the newest measurement


class Pace:
    """Learns from each step's time. most: tokens of prompts in a step beside which nobody generates."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._alone_s: dict[int, float] = {}  # a step without prompts, by the number of answers in it
        self._per_token_s: float | None = None  # of a prompt

    def prompt_tokens(self, generating: int) -> int:
        """The most that the next step may read of prompts."""
        if not generating:
            return self._most
        alone = self._alone_s.get(generating)
        if alone is None or not self._per_token_s:
            return max(1, self._most // 4)
        return min(self._most, max(_LEAST, int(_LONGER * alone / self._per_token_s)))

    def took(self, generating: int, prompt_tokens: int, seconds: float) -> None:
        """A step with so many answers and tokens of prompts took `seconds`."""
        if not prompt_tokens:
            self._alone_s[generating] = _average(self._alone_s.get(generating), seconds)
            return
        if generating:
            seconds -= self._alone_s.get(generating, seconds)
        if seconds > 0 and prompt_tokens >= _LEAST:
            self._per_token_s = _average(self._per_token_s, seconds / prompt_tokens)


def _average(before: float | None, now: float) -> float:
    return now if before is None else before + _WEIGHT * (now - before)
