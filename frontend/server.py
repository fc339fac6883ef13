"""uvicorn around the app: one process, an event loop that reads and sends, and threads that answer.

Every running answer and every place in the queue holds one thread, and SPARE_THREADS more answer the probes
and the refusals meanwhile. A request gets its thread only when it is complete (`connection`, `bridge`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import structlog
import uvicorn

from serve.settings import Settings

from . import create_app
from .bridge import Bridge
from .connection import Connection, Waiting
from .documents import routes as documents
from .fleet import MOST_SLOTS
from .handover import offer
from .render import MAX_BODY
from .service import Drain

log = structlog.get_logger()

SPARE_THREADS = 64
BACKLOG = 2048
ACCEPTS_AT_ONCE = 100
RETRY_ACCEPT_S = 0.1
READY_EVERY_S = 0.25
KEPT_S = 10.0
"""Seconds in which callers with kept connections may ask once more, after a successor has taken over."""

AFTER_DRAIN_S = 2.0
"""At drain_timeout the app ends what still runs with an error; a little later the process ends."""


class CannotListen(Exception):
    """The address cannot be bound; the message says what to do."""


class CannotStart(Exception):
    """The system does not give what the settings need; the message says what to do."""


def listen(host: str, port: int) -> socket.socket:
    """A socket bound to the address, not yet listening. Raises CannotListen."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise CannotListen(
            f"cannot listen on {host} port {port}: {reason}. Stop the program that uses it, "
            "or set YOUTU_HOST, YOUTU_PORT."
        ) from error
    return listener


def serve(
    settings: Settings, listener: socket.socket, *, offer_at: Path | None = None, wait: bool = False
) -> None:
    """Answer on `listener` until SIGTERM, then up to `drain_timeout` seconds for what still runs.

    `offer_at`: where a successor may take the listener over (`handover`). `wait`: accept nothing before the
    model is ready, since a predecessor still does. Raises CannotStart.
    """
    server = Server(settings, listener, offer_at, wait)
    server.run(sockets=[])
    if server.bridge.running:  # a thread that does not end would keep the process
        logging.shutdown()
        os._exit(0)


class Server(uvicorn.Server):
    """uvicorn's server, except that it limits its connections, and accepts new ones while it drains."""

    def __init__(
        self, settings: Settings, listener: socket.socket, offer_at: Path | None, wait: bool
    ) -> None:
        app = create_app(settings)
        slots = MOST_SLOTS if settings.triton_servers else settings.slots
        threads = slots + settings.queue + SPARE_THREADS
        self._drain: Drain = app.extensions["drain"]
        self._ready: Callable[[], str] = app.extensions["state"]
        self._listener = listener
        self._offer_at, self._wait = offer_at, wait
        self._handed_over = False
        self._waiting = Waiting()
        self._most = max(50, min(2 * threads + 4000, _descriptors() - 200))
        self._full = False
        max_body = max(settings.max_body, MAX_BODY)
        try:
            self.bridge = Bridge(
                app,
                threads=threads,
                max_body=max_body,
                closing=lambda: self._drain.begun,
                larger={documents.PATH: settings.document_size},
            )
        except RuntimeError as error:
            raise CannotStart(
                f"cannot start {threads} threads ({error}); raise the limit on processes and threads, "
                "or lower YOUTU_QUEUE"
            ) from error
        logging.getLogger("uvicorn").setLevel(logging.ERROR)  # it warns of invalid requests, which we answer
        super().__init__(
            uvicorn.Config(
                self.bridge,
                loop="asyncio",
                http=Connection,
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_config=None,
                access_log=False,  # `access` writes one line itself
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=settings.keep_alive,
                timeout_graceful_shutdown=round(AFTER_DRAIN_S),
            )
        )

    def busy(self) -> bool:
        """Whether requests are being answered."""
        return any(connection.busy for connection in self.server_state.connections)  # type: ignore[union-attr]

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal begins to drain, the second ends at once."""
        self.force_exit = self.should_exit
        self.should_exit = True
        if self._handed_over:  # The other accepts; connections that are kept get one more answer here.
            self._loop.call_soon_threadsafe(self._stop_accepting)
        self._drain.begin(leave=KEPT_S if self._handed_over else 0)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)
        if self._wait:
            self._accepting = self._loop.create_task(self._accept_when_ready())
        else:
            self._begin()

    async def _accept_when_ready(self) -> None:
        while await asyncio.to_thread(self._ready) != "ready":
            await asyncio.sleep(READY_EVERY_S)
        self._begin()

    def _begin(self) -> None:
        if not self.should_exit:
            self._loop.add_reader(self._listener, self._accept)
            if self._offer_at is not None:
                offer(self._offer_at, self._listener, self._taken)

    def _taken(self) -> None:
        self._handed_over = True

    def _stop_accepting(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop: not while requests are answered, unless their time is over."""
        if not await super().on_tick(counter):
            return False
        gone = self._handed_over and not self.server_state.connections
        done = (self._drain.refuses or gone) and not self.busy()
        return self.force_exit or self._drain.over_for(AFTER_DRAIN_S) or done

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stop_accepting()
        await super().shutdown(sockets)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_AT_ONCE):
            if len(self.server_state.connections) >= self._most and not self._waiting.give_up_oldest():
                return self._pause("no idle connection to close")
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                self._full = False
                return None
            except ConnectionAbortedError:
                continue
            except OSError as error:  # no descriptor or no memory is left
                self._waiting.give_up_oldest()
                return self._pause(error.strerror or str(error))
            connection.setblocking(False)
            task = self._loop.create_task(self._connect(connection))
            self.server_state.tasks.add(task)
            task.add_done_callback(self.server_state.tasks.discard)
        return None

    async def _connect(self, connection: socket.socket) -> None:
        def protocol() -> Connection:
            return Connection(self.config, self.server_state, self._waiting)

        try:
            await self._loop.connect_accepted_socket(protocol, connection)
        except OSError as error:
            log.debug("connection_lost", error=str(error))
            connection.close()

    def _pause(self, reason: str) -> None:
        if not self._full:
            self._full = True
            log.warning("no_more_connections", reason=reason, open=len(self.server_state.connections))
        self._loop.remove_reader(self._listener)
        self._loop.call_later(RETRY_ACCEPT_S, self._resume)

    def _resume(self) -> None:
        if self._listener.fileno() >= 0:
            self._loop.add_reader(self._listener, self._accept)


def _descriptors() -> int:
    """How many files may be open, made as many as the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most
