"""When the next piece of a stream goes out: the stream interval. Knows neither tokens nor who gets them."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from typing import Generic, TypeVar

_LOOK, _END = "look", "end"


class Paced:
    """One stream. `sent_at`: when its last piece went out (time.monotonic()); `due`: when one that is held
    back goes out at the latest; `queued`: it is about to be taken; `done`: nothing more goes out."""

    def __init__(self) -> None:
        self.sent_at = -float("inf")
        self.due: float | None = None
        self.queued = False
        self.done = False


P = TypeVar("P", bound=Paced)


class Outbox(Generic[P]):
    """The streams that have something to send, in the order in which they are to do it.

    New tokens leave at once when the last piece of their stream is at least `interval` seconds old.
    Otherwise they leave with the next token after that, and none waits for longer than `interval`. The first
    piece and the last one never wait. What comes while others are sent joins what has not been taken yet.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._lock = threading.Lock()
        self._ready: queue.SimpleQueue[P | str] = queue.SimpleQueue()
        # In the order of their times; those whose stream has another one by now have been sent.
        self._held: deque[tuple[float, P]] = deque()

    def post(self, stream: P, *, last: bool) -> None:
        """There is something new for it. From any thread."""
        now = time.monotonic()
        with self._lock:
            if stream.done or stream.queued:
                return
            if last or now - stream.sent_at >= self._interval:
                stream.queued, stream.due = True, None
                self._ready.put(stream)
            elif stream.due is None:
                stream.due = now + self._interval
                self._held.append((stream.due, stream))
                if len(self._held) == 1:  # `take` may wait without a limit
                    self._ready.put(_LOOK)

    def take(self) -> P | None:
        """The next one to send for, waited for; None once all is closed."""
        while True:
            with self._lock:
                now, wait = time.monotonic(), None
                while self._held and self._held[0][1].due != self._held[0][0]:
                    self._held.popleft()
                if self._held:
                    due, stream = self._held[0]
                    if due <= now:
                        self._held.popleft()
                        return self._taken(stream, now)
                    wait = due - now
            try:
                ready = self._ready.get(timeout=wait)
            except queue.Empty:
                continue
            if ready is _END:
                return None
            if not isinstance(ready, str):
                with self._lock:
                    return self._taken(ready, time.monotonic())

    def close(self) -> None:
        """Have `take` return None after all that is to go out at once."""
        self._ready.put(_END)

    @staticmethod
    def _taken(stream: P, now: float) -> P:
        stream.queued, stream.due, stream.sent_at = False, None, now
        return stream
