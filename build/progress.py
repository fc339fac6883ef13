"""Progress of a long step, on stderr: a bar on a terminal, plain lines with percent elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

Report = Callable[[str, int, int], None]  # step, bytes done, bytes in all

LINE_SECONDS = 5.0  # between two plain lines of one step


def silent(step: str, done: int, total: int) -> None:
    """A Report that shows nothing."""


class TerminalProgress:
    """A Report for people. A new step's text begins a new bar; a step ends when whole or at the next."""

    def __init__(self) -> None:
        self._step = ""
        self._bar: tqdm[Any] | None = None
        self._next_line = 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        begins = step != self._step
        if begins:
            self.close()
            self._step = step
        if sys.stderr.isatty():
            if self._bar is None and (begins or done < total):
                self._bar = tqdm(
                    desc=step, total=total, initial=done, unit="B", unit_scale=True, dynamic_ncols=True
                )
            if self._bar is not None:
                self._bar.update(done - self._bar.n)
                if done >= total:
                    self.close()
        elif begins or time.monotonic() >= self._next_line or done >= total:
            self._next_line = time.monotonic() + LINE_SECONDS
            sys.stderr.write(f"{step}: {done / total if total else 1:4.0%} of {total / 1e6:,.1f} MB\n")
            sys.stderr.flush()

    def close(self) -> None:
        """End the bar that is open, so that what is written next begins on its own line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
