"""From ASGI, uvicorn's interface, to the Flask app: complete requests go to a pool of threads.

A body is buffered before a thread gets the request: at most the largest that any route takes. As soon as it
is known to be longer, the app gets what there is, to refuse it. What the app yields goes out at once.
"""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import structlog
from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from .connection import Connection
from .environ import CALLER_KEY, Caller, environ
from .errors import too_busy, unexpected

log = structlog.get_logger()

BODIES_BYTES = 64 * 2**20
"""How much all bodies that no thread has taken may have together; or twice the largest, if that is more."""

SMALL_BYTES = 16 * 2**10

AHEAD_BYTES = 64 * 2**10
"""How far a thread that streams may be ahead of what its caller takes."""

MOST_UNSTARTED = 512
"""Complete requests that wait for a thread at most; more are refused, which needs none."""

STUCK_S = 15.0
"""When requests wait for a thread and none has been given one for so many seconds, all threads hang."""

LIVE = "/health/live"
"""Answered in the event loop, so that an overload of requests is not taken for a hang."""

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Bridge:
    """The ASGI app. `threads`: how many requests are handled at once. `max_body`: of all routes, in bytes,
    but those whose paths are in `larger`, which have their own.

    `closing`: whether the server ends, so that connections are not kept. Raises RuntimeError when the system
    does not give it as many threads.
    """

    def __init__(
        self,
        app: Wsgi,
        *,
        threads: int,
        max_body: int,
        closing: Callable[[], bool],
        larger: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._larger = larger or {}
        self._closing = closing
        self.running: set[Future[None]] = set()
        self._pool = _started(threads)
        self._bodies = Bodies(max(BODIES_BYTES, 2 * max(max_body, *self._larger.values(), 0)))
        self._starting = threading.Lock()
        self._submitted = self._started = 0
        self._started_at = time.monotonic()  # when a thread last took a request, or there was none to take

    async def __call__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        connection: Connection = scope["state"]["connection"]
        length = next((int(value) for name, value in scope["headers"] if name == b"content-length"), 0)
        most = self._larger.get(scope["path"].rstrip("/"), self._max_body)
        body, complete = bytearray(), length <= most
        try:
            more = complete
            while more:
                message = await receive()
                if message["type"] != "http.request":
                    return
                body += message["body"]
                more = message["more_body"]
                if more:
                    self._bodies.hold(connection, len(body))
                if len(body) > most:
                    more = complete = False
            if scope["path"] == LIVE and scope["method"] in ("GET", "HEAD"):
                await self._send_live(scope, connection, send)
                return
            if self._submitted - self._started >= MOST_UNSTARTED:
                connection.refuse(too_busy())
                return
            loop = asyncio.get_running_loop()
            answer = Answer(environ(scope, bytes(body)), loop)
            connection.work(answer.caller, complete=complete)
            if len(body) > SMALL_BYTES:
                # It counts until a thread takes it.
                self._bodies.hold(connection, len(body))
                answer.taken = lambda: loop.call_soon_threadsafe(self._bodies.release, connection)
            else:
                self._bodies.release(connection)
            del body
            if self._submitted == self._started:
                self._started_at = time.monotonic()
            making = self._pool.submit(self._make, answer)
            self._submitted += 1
            self.running.add(making)
            making.add_done_callback(self.running.discard)
            await self._send(answer, connection, send)
        except RuntimeError as error:  # the interpreter ends
            log.error("no_thread", error=str(error))
            connection.refuse(too_busy())
        finally:
            self._bodies.release(connection)

    def _make(self, answer: Answer) -> None:
        with self._starting:
            self._started += 1
            self._started_at = time.monotonic()
        answer.make(self._app)

    async def _send_live(self, scope: HTTPScope, connection: Connection, send: ASGISendCallable) -> None:
        connection.work(Caller(), complete=True)
        unstarted = self._submitted - self._started
        stuck = unstarted > 0 and time.monotonic() - self._started_at > STUCK_S
        body = b'{"status":"stuck"}\n' if stuck else b'{"status":"live"}\n'
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if self._closing():
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": 503 if stuck else 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        connection.output.flush()

    async def _send(self, answer: Answer, connection: Connection, send: ASGISendCallable) -> None:
        started = False
        try:
            while True:
                head, data, over = await answer.take()
                connection.output.hold()
                if not started and head is not None:
                    started = True
                    headers = [(n.encode("latin-1"), v.encode("latin-1")) for n, v in head[1]]
                    if self._closing() or not connection.keeps:
                        headers.append((b"connection", b"close"))
                    await send({"type": "http.response.start", "status": head[0], "headers": headers})
                if answer.failed:
                    if started:
                        connection.cut()  # so that half an answer is not taken for a whole one
                    else:
                        connection.refuse(unexpected())
                    return
                if data or over:
                    await send({"type": "http.response.body", "body": data, "more_body": not over})
                connection.output.flush()
                if started and answer.waits:
                    answer.sink = connection
                if over or (connection.closing and answer.caller.gone()):
                    return
        except asyncio.CancelledError:  # the server ends
            connection.cut()
        except Exception:
            log.exception("answer_not_sent")
            connection.cut()
        finally:
            answer.drop()


def _started(threads: int) -> ThreadPoolExecutor:
    """A pool whose threads run already: a thread that cannot be started may block the one that starts it."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="request")
    begin = threading.Event()
    try:
        for _ in range(threads):
            pool.submit(begin.wait)
    finally:
        begin.set()
    return pool


class Bodies:
    """How much of bodies is held for threads, in all; over `limit` the oldest is given up."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[Connection, int] = {}
        self._sum = 0

    def hold(self, connection: Connection, size: int) -> None:
        """`size` bytes of its body have come."""
        self._sum += size - self._held.get(connection, 0)
        self._held[connection] = size
        while self._sum > self._limit:
            oldest = next(iter(self._held))
            self.release(oldest)
            oldest.refuse(too_busy())

    def release(self, connection: Connection) -> None:
        self._sum -= self._held.pop(connection, 0)


class Answer:
    """One answer on its way from the thread that makes it to the event loop that sends it."""

    def __init__(self, environ: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None:
        self.caller = Caller()
        self.failed = False
        self.taken: Callable[[], object] = bool
        self._environ = {**environ, CALLER_KEY: self.caller}
        self._loop = loop
        self._came = asyncio.Event()
        self._changed = threading.Condition()
        self._head: tuple[int, list[tuple[str, str]]] | None = None
        self._pieces: collections.deque[bytes] = collections.deque()
        self._size = 0
        self._over = False
        self._dropped = False
        self.waits = True
        self.sink: Connection | None = None
        self._taken = False
        self._notified = False
        self._sent = False

    # In the thread

    def make(self, app: Wsgi) -> None:
        """Run the app. Never raises."""
        self.taken()
        if self._dropped:
            return
        pieces: Iterable[bytes] = ()
        try:
            pieces = app(self._environ, self._start)
            for piece in pieces:
                if not self._put(piece):
                    break
        except Exception:
            log.exception("app_failed")
            self.failed = True
        finally:
            self._environ = {}
            try:
                if (close := getattr(pieces, "close", None)) is not None:
                    close()
            except Exception:
                log.exception("app_failed")
            self._over = True
            self._notify()

    def _start(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], Any]:
        if exc_info and self._sent:
            raise exc_info[1].with_traceback(exc_info[2])
        self._head = int(status[:3]), headers
        # One whose length is known lies in memory as it is; its thread need not wait for a slow reader.
        self.waits = not any(name.lower() == "content-length" for name, _ in headers)
        return self._put

    def _put(self, piece: bytes) -> bool:
        """Send it. False when nobody is there to take it."""
        if piece:
            with self._changed:
                self._pieces.append(piece)
                self._size += len(piece)
            self._notify()
            if self.waits and self._size > AHEAD_BYTES:
                with self._changed:
                    self._changed.wait_for(lambda: self._dropped or self._size <= AHEAD_BYTES)
        return not self._dropped

    def _notify(self) -> None:
        if not self._notified:
            self._notified = True
            try:
                self._loop.call_soon_threadsafe(self._arrived)
            except RuntimeError:  # the loop has ended
                self.drop()

    # In the event loop

    def _arrived(self) -> None:
        """Send what has come, without a task's detour where the caller keeps up."""
        if self.sink is None or self._taken or not self.sink.keeps_up:
            self._came.set()
            return
        self._notified = False
        if self._over:
            self._came.set()
        else:
            self.sink.send_piece(self._grab())

    def _grab(self) -> bytes:
        with self._changed:
            data = b"".join(self._pieces)
            self._pieces.clear()
            self._size = 0
            self._changed.notify()
        return data

    async def take(self) -> tuple[tuple[int, list[tuple[str, str]]] | None, bytes, bool]:
        """Status and headers once they are known, what has come since, and whether that was all.

        It is to be sent before the next call.
        """
        self._taken = False
        await self._came.wait()
        self._came.clear()
        self._taken = True
        self._notified = False
        over = self._over
        data = self._grab()
        self._sent = self._head is not None
        return self._head, data, over

    def drop(self) -> None:
        """Nothing more is sent; a thread that still makes the answer ends at its next piece."""
        with self._changed:
            self._dropped = True
            self._pieces.clear()
            self._changed.notify()
