"""A stream for threads: reads its call itself, or, once it is polled, by a thread of its own.

Independent of tensors (`wire`), the meaning of events (`core`), and who opened it (`client`).
"""

from __future__ import annotations

import _thread
import queue
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]

from .answers import Piece
from .core import END, PENDING, BaseStream
from .errors import Cancelled, from_rpc

if TYPE_CHECKING:
    from typing_extensions import Self

BEGIN_S = 5.0
"""Seconds in which a thread that was started must have begun; on a busy machine it takes some."""

LOOK_EVERY_S = 1.0
"""How long a wait without a limit may last before the reading thread is looked at again."""


class Stream(BaseStream, Iterator[Piece]):
    """The pieces of one answer, in order. Iterate, or `poll`; then `answer` holds the whole.

    Leaving it early (the end of a `with`, `close()`, dropping the last reference) cancels the call, and the
    server frees the slot. Read by one thread; `close` may come from any.
    """

    _polled = False

    def __next__(self) -> Piece:
        while not self._done:
            piece = self._step(None)
            if piece is not None:
                return piece
        if isinstance(self._failure, Cancelled):
            raise self._failure
        raise StopIteration

    def poll(self, timeout: float) -> Piece | None:
        """The next piece, waiting at most `timeout` seconds; None when there is none (see `done`).

        From the first poll on a thread reads the call; it ends with the stream.
        """
        self._polled = True
        until = time.monotonic() + timeout
        while not self._done:
            piece = self._step(max(0.0, until - time.monotonic()))
            if piece is not None or time.monotonic() >= until:
                return piece
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _step(self, timeout: float | None) -> Piece | None:
        """Handle one event of the call. None also when time is up."""
        try:
            return self._handle(self._read(timeout))
        except BaseException:
            # Ctrl-C while waiting: the call must not run on behind the caller's back.
            self.close()
            raise

    def _read(self, timeout: float | None) -> Any:
        """The next event of the call, see `core`."""
        if self._polled and self._reader is None:
            self._reader = _Reader(self._call)
        try:
            event = next(self._call, END) if self._reader is None else self._reader.get(timeout)
        except queue.Empty:
            return PENDING
        except grpc.RpcError as error:
            event = error
        if isinstance(event, grpc.RpcError):
            return from_rpc(event, self._server.address)
        if isinstance(event, Exception):
            raise event
        return event


class _Reader:
    """A thread that reads a call into a queue, so that a reader with a timeout need not cancel it."""

    def __init__(self, call: Any) -> None:
        self._box: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._reading = _Reading()
        self._started = time.monotonic()
        # The thread holds the call and the queue but not the stream, which may so be dropped and cancel it.
        # Not threading.Thread: its start() waits for ever for a thread that got no memory.
        _thread.start_new_thread(_read, (call, self._box, self._reading))

    def get(self, timeout: float | None) -> Any:
        """The next response; at the end END, or the error that the call raised.

        Raises queue.Empty after `timeout` s, and RuntimeError when the thread has died for lack of memory:
        nothing more would come.
        """
        while True:
            try:
                return self._box.get(timeout=LOOK_EVERY_S if timeout is None else timeout)
            except queue.Empty:
                late = not self._reading.begun and time.monotonic() - self._started > BEGIN_S
                if late or (self._reading.ended and self._box.empty()):
                    raise RuntimeError("the thread that reads the answer has died") from None
                if timeout is not None:
                    raise


class _Reading:
    """How far a reading thread has come."""

    begun = ended = False


def _read(call: Any, box: queue.SimpleQueue[Any], reading: _Reading) -> None:
    reading.begun = True
    try:
        for response in call:
            box.put(response)
        box.put(END)
    except Exception as error:
        box.put(error.with_traceback(None))  # which holds the call
    finally:
        reading.ended = True
