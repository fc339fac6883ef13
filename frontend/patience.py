"""A time limit for callers who send slowly: what has not come by then comes no more.

A thread that reads from a socket cannot look at the clock, so another does: when time is up it shuts the
reading half of the connection, the read ends short, and the answer can still be sent. Knows sockets; no HTTP.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

_of_this_thread = threading.local()


@dataclass
class Reading:
    """One request that is being read. `over`: time was up before it had come. `head`: its head had."""

    connection: socket.socket
    over: bool = False
    head: bool = False
    done: bool = False


def reading() -> Reading | None:
    """What this thread reads under a time limit, if anything."""
    return getattr(_of_this_thread, "reading", None)


class Patience:
    """Watches any number of readings, each with the same `seconds`, in one thread of its own."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # All have the same patience: the oldest is due first.
        self._queue: deque[tuple[float, Reading]] = deque()
        self._changed = threading.Condition()
        threading.Thread(target=self._watch, name="patience", daemon=True).start()

    @contextlib.contextmanager
    def reading(self, connection: socket.socket) -> Iterator[Reading]:
        """What this thread reads from `connection` within; it may set `done` before."""
        one = Reading(connection)
        _of_this_thread.reading = one
        with self._changed:
            self._queue.append((time.monotonic() + self._seconds, one))
            if len(self._queue) == 1:
                self._changed.notify()
        try:
            yield one
        finally:
            one.done = True
            _of_this_thread.reading = None

    def _watch(self) -> None:
        while True:
            with self._changed:
                while not self._queue:
                    self._changed.wait()
                due, one = self._queue[0]
                left = due - time.monotonic()
                if left > 0 and not one.done:
                    self._changed.wait(left)
                    continue
                self._queue.popleft()
            if not one.done:
                one.over = True
                with contextlib.suppress(OSError):  # closed in this very moment
                    one.connection.shutdown(socket.SHUT_RD)
