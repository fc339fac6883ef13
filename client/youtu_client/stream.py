"""A stream for threads: the events of one call in order, its failover and its clean-up.

It knows nothing of tensors (`transcript`) and of who opened it (`client`).
"""

from __future__ import annotations

import _thread
import contextlib
import queue
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import grpc  # type: ignore[import-untyped]

from .answers import Answer, Piece
from .errors import ELSEWHERE, Cancelled, YoutuError, from_message, from_rpc
from .servers import Server
from .transcript import Transcript

if TYPE_CHECKING:
    from typing_extensions import Self

BEGIN_S = 5.0
"""Seconds in which a thread that was started must have begun; on a busy machine it takes some."""

LOOK_EVERY_S = 1.0
"""How long a wait without a limit may last before the reading thread is looked at again."""


class Stream(Iterator[Piece]):
    """The pieces of one answer, in order. Iterate, or `poll`; then `answer` holds the whole.

    Leaving it early (the end of a `with`, `close()`, dropping the last reference) cancels the call, and the
    server frees the slot. Read by one thread; `close` may come from any.
    """

    def __init__(
        self,
        servers: list[Server],
        request: Any,
        timeout: float,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.request_id: str = request.id
        self._request = request
        self._metadata = tuple((metadata or {}).items())
        self._deadline = time.monotonic() + timeout
        self._servers = iter(servers)
        self._transcript = Transcript(request.id)
        self._failure: YoutuError | None = None
        self._done = False
        self._closed = False
        self._reader: _Reader | None = None
        self._server: Server
        self._call: Any = None
        self._start(next(self._servers))

    @property
    def done(self) -> bool:
        """Whether no more pieces come: the answer is whole, or the stream failed or was closed."""
        return self._done

    @property
    def starts_in_thinking(self) -> bool:
        """Whether the text begins in the midst of the model's thinking. Known from the first piece on."""
        return self._transcript.starts_in_thinking

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises what the stream failed with; RuntimeError before the end is reached."""
        if self._failure is not None:
            raise self._failure
        if not self._done:
            raise RuntimeError("the stream has not been read to its end")
        return self._transcript.answer()

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
        until = time.monotonic() + timeout
        if self._reader is None and not self._done:
            self._reader = _Reader(self._call)
        while not self._done:
            piece = self._step(max(0.0, until - time.monotonic()))
            if piece is not None or time.monotonic() >= until:
                return piece
        return None

    def close(self) -> None:
        """Leave: cancels the call unless it is over. Reading on raises Cancelled."""
        call = self._call  # another thread may be letting go of it
        if not self._done and call is not None:
            self._closed = True
            self._failure = Cancelled("the stream was closed before its end", server=self._server.address)
            self._done = True
            call.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_call", None) is not None:
            with contextlib.suppress(Exception):
                self.close()

    def _start(self, server: Server) -> None:
        self._server = server
        left = max(0.0, self._deadline - time.monotonic())
        self._call = server.infer(self._request, timeout=left, metadata=self._metadata)
        if self._reader is not None:
            self._reader = _Reader(self._call)
        if self._closed:
            self._call.cancel()

    def _step(self, timeout: float | None) -> Piece | None:
        """Handle one event of the call: a response, its end, its failure. None also when time is up."""
        try:
            response = next(self._call) if self._reader is None else self._reader.get(timeout)
            if response.error_message:
                raise from_message(response.error_message, self._server.address)
            piece = self._transcript.feed(response)
            self._server.answered()
            return piece
        except queue.Empty:
            return None
        except StopIteration:
            self._finish()
        except grpc.RpcError as error:
            self._failed(from_rpc(error, self._server.address))
        except YoutuError as error:
            self._call.cancel()
            self._failed(error)
        except BaseException:
            # Ctrl-C while waiting: the call must not run on behind the caller's back.
            self.close()
            raise
        return None

    def _finish(self) -> None:
        if self._closed:
            raise cast(YoutuError, self._failure)
        self._done = True
        self._transcript.answer()

    def _failed(self, failure: YoutuError) -> None:
        """Turn to the next server where that is allowed, else raise."""
        if self._closed:
            raise cast(YoutuError, self._failure) from None
        if self._transcript.finished and not self._done:  # The answer is whole; only the goodbye was lost.
            self._finish()
            return
        if isinstance(failure, ELSEWHERE):
            self._server.failed()
            following = None if self._transcript.started else next(self._servers, None)
            if following is not None:
                self._start(following)
                return
        self._failure = failure
        self._done = True
        # The error's traceback and this stream hold one another, so the call would live until the interpreter
        # ends, where gRPC's own __del__ may wait for a lock that a thread of its own took along.
        self._call = self._reader = None
        raise failure from None


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
        """The next response; raises queue.Empty after `timeout` s, and at the end what the call raised.

        RuntimeError when the thread has died, for lack of memory: nothing more would come.
        """
        while True:
            try:
                item = self._box.get(timeout=LOOK_EVERY_S if timeout is None else timeout)
            except queue.Empty:
                late = not self._reading.begun and time.monotonic() - self._started > BEGIN_S
                if late or (self._reading.ended and self._box.empty()):
                    raise RuntimeError("the thread that reads the answer has died") from None
                if timeout is not None:
                    raise
                continue
            if isinstance(item, BaseException):
                raise item
            return item


class _Reading:
    """How far a reading thread has come."""

    begun = ended = False


def _read(call: Any, box: queue.SimpleQueue[Any], reading: _Reading) -> None:
    reading.begun = True
    try:
        for response in call:
            box.put(response)
        box.put(StopIteration())
    except Exception as error:
        box.put(error)
    finally:
        reading.ended = True
