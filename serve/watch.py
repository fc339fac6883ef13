"""Polls the health of one program, in its own thread, and reports when it hangs.

A program that has been up counts as hung when it has not responded for `hang_timeout` seconds, or when it
reports that its work does not progress (`Stalled`). A probe is a function that takes its time limit in
seconds and raises an exception unless the answer is good.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

Probe = Callable[[float], None]

READY_TIMEOUT = 2.0  # s for the answer of a program that is starting
READY_EVERY = 0.25  # s between two questions to a program that is starting
MISSED = 2  # unanswered questions that it takes at least, however long they were on their way
ANSWER_SHARE = 0.6  # of the hang timeout that one answer may take, so that two unanswered ones are over it
ANSWER_TIMEOUT = 10.0  # s for an answer where nothing counts as a hang


class Stalled(Exception):
    """The program answers, and says that it has made no progress for too long."""


class Watch:
    """Watches one program. `ready` is asked until it is answered once, then `working`; 0 s: never hung."""

    def __init__(self, ready: Probe, working: Probe, hang_timeout: float) -> None:
        self._ready, self._working, self._hang_timeout = ready, working, hang_timeout
        self._lock = threading.Lock()
        self._life = 0  # counts the program's starts: an answer that belongs to an earlier one is ignored
        self._up = False
        self._fault: str | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ask no more. Does not wait for a question that is on its way."""
        self._closing.set()

    def restarted(self) -> None:
        """The program has been restarted: it is not up until it reports so."""
        with self._lock:
            self._life += 1
            self._up, self._fault = False, None

    @property
    def up(self) -> bool:
        """Whether the program has reported that it is ready since its last start."""
        return self._up

    @property
    def fault(self) -> str | None:
        """Why the program counts as hung; None while it does not."""
        return self._fault

    def _run(self) -> None:
        pause = max(0.2, min(3.0, self._hang_timeout / 5)) if self._hang_timeout else 3.0
        timeout = ANSWER_SHARE * self._hang_timeout or ANSWER_TIMEOUT
        missed, since, life = 0, 0.0, -1
        while not self._closing.wait(pause if self._up and not missed else READY_EVERY):
            if life != self._life:
                missed, life = 0, self._life
            asked = time.monotonic()
            fault = None
            try:
                if self._up:
                    self._working(timeout)
                else:
                    self._ready(READY_TIMEOUT)
            except Stalled as error:
                fault = str(error)
            except Exception as error:
                since = since if missed else asked
                missed += 1
                if missed >= MISSED and time.monotonic() - since >= self._hang_timeout:
                    fault = f"no answer for {time.monotonic() - since:.0f} s ({error})"
            else:
                missed = 0
                with self._lock:
                    self._up = self._up or life == self._life
                continue
            with self._lock:
                if fault and self._up and life == self._life and self._hang_timeout:
                    self._fault = fault
