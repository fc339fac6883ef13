"""The end of this process: when it began, and when what still runs must be done. Knows only a clock."""

from __future__ import annotations

import time


class Drain:
    """Shared by the server, which begins it, and the routes, which heed it."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: float | None = None

    def begin(self) -> None:
        """From now on nothing new is taken in; what runs has `seconds` left. Safe in a signal handler."""
        if self._ends is None:
            self._ends = time.monotonic() + self._seconds

    @property
    def begun(self) -> bool:
        return self._ends is not None

    @property
    def over(self) -> bool:
        """Whether the time of running answers is up."""
        return self.over_for(0)

    def over_for(self, seconds: float) -> bool:
        """Whether it has been up for `seconds`."""
        return self._ends is not None and time.monotonic() >= self._ends + seconds
