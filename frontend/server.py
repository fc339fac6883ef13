"""gunicorn around the app: one process of threads, and an end that waits for running answers.

One worker, so that whatever counts requests counts all of them; threads, so that gRPC works untouched. Every
running answer and every place in the queue holds one thread, and SPARE_THREADS more answer the probes and the
refusals meanwhile. Knows gunicorn and sockets; no routes.
"""

from __future__ import annotations

import ctypes
import json
import resource
import signal
import socket
import struct
import sys
from concurrent.futures import Future
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException  # type: ignore[import-untyped]
from gunicorn.util import close_graceful  # type: ignore[import-untyped]
from gunicorn.workers.gthread import _DEFER, ThreadWorker  # type: ignore[import-untyped]

from serve.settings import Settings

from . import create_app
from .errors import ApiError, too_slow
from .patience import Patience, reading

SPARE_THREADS = 64
READ_S = 15.0
"""Seconds in which a request's head and body must have come; one that dawdles holds a thread meanwhile."""

SEND_S = 5
"""Seconds in which a caller must take some of what is sent; it is given up after one or two of these."""

DRAIN_BYTES = 256 * 2**20
"""How much of a refused body is taken and thrown away, within gunicorn's two seconds."""

PR_SET_PDEATHSIG = 1


class CannotListen(Exception):
    """The address cannot be bound; the message says what to do."""


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
            f"cannot listen on {host} port {port}: {reason}. End what uses it, or set YOUTU_HOST, YOUTU_PORT."
        ) from error
    return listener


class Server(BaseApplication):  # type: ignore[misc]
    """Serves the app on `listener` until SIGTERM, then up to `drain_timeout` seconds for what still runs."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        settings = self._settings
        threads = settings.slots + settings.queue + SPARE_THREADS
        for name, value in {
            "bind": f"fd://{self._listener.detach()}",
            "worker_class": Worker,
            "workers": 1,
            "threads": threads,
            "worker_connections": min(2 * threads + 4000, _descriptors() - threads - 200),
            # Longer than callers keep a connection that they are done with (5 s, most of them): if we close
            # it first, their next request may meet the end of it.
            "keepalive": 20,
            # At drain_timeout the app cuts off what still runs, with an error; gunicorn kills a little later.
            "graceful_timeout": int(settings.drain_timeout) + 2,
            "loglevel": settings.log_level,
            "logger_class": QuietLogger,
            "control_socket_disable": True,
            "post_fork": _die_with_parent,
            "proc_name": "youtu-frontend",
        }.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        # Called in the worker: the gRPC channel must not cross the fork.
        return create_app(self._settings)


def _descriptors() -> int:
    """How many files may be open, made as many as the system allows: at the limit gunicorn would die."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _die_with_parent(_server: Any, _worker: Any) -> None:
    """An orphaned worker would keep the port, and the next start would find it taken."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class QuietLogger(Logger):  # type: ignore[misc]
    """gunicorn's messages in our log, in our form; no access log, since `access` writes one line itself."""

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """With its traceback; but that a caller takes nothing any more (SEND_S) is no fault of ours."""
        if isinstance(sys.exc_info()[1], BlockingIOError):
            self.debug("a caller took nothing for %s seconds", SEND_S)
        else:
            super().exception(msg, *args, **kwargs)

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Worker(ThreadWorker):  # type: ignore[misc]
    """A gthread worker that tells the app of its end, and refuses what is not HTTP in the one shape, too.

    A connection gets a thread once it has sent something, READ_S to send all of a request, and SEND_S for
    each bit of the answer that it does not take.
    """

    def enqueue_req(self, conn: Any) -> None:
        """Straight to the poller with a new connection: gunicorn gives a thread to one that says nothing."""
        if conn.initialized or conn.data_ready or not self.alive:
            super().enqueue_req(conn)
        else:
            nothing: Future[object] = Future()
            nothing.set_result(_DEFER)
            self.finish_request(conn, nothing)

    def init_process(self) -> None:
        """After the fork: threads do not survive one."""
        self._patience = Patience(READ_S)
        super().init_process()

    def handle(self, conn: Any) -> Any:
        """Serve one request of a connection, in a thread of the pool."""
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_S, 0))
        with self._patience.reading(conn.sock) as reading:
            kept = super().handle(conn)
        if reading.over:
            kept = False
            if not reading.head:
                self._refuse(conn.sock, too_slow())
        if not kept:
            # gunicorn would do it in the thread that accepts, and waits there until the caller closes, too. A
            # caller whose body was refused unread reads why only once somebody takes the rest of it.
            conn.sock.setblocking(True)
            close_graceful(conn.sock, max_drain=DRAIN_BYTES)
            conn.close = lambda graceful=False: None
        return kept

    def handle_request(self, req: Any, conn: Any) -> Any:
        """The head of a request is there."""
        if (head := reading()) is not None:
            head.head = True
        return super().handle_request(req, conn)

    def handle_exit(self, sig: int, frame: Any) -> None:
        app = getattr(self, "wsgi", None)  # Absent until the app is loaded.
        if isinstance(app, Flask):
            app.extensions["drain"].begin()
        super().handle_exit(sig, frame)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Goes on accepting while answers finish: whoever comes is told 503 instead of waiting in vain."""
        super().set_accept_enabled(enabled or not self.alive)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        if isinstance(exc, LimitRequestLine):
            refusal = ApiError(414, "line_too_long", "the request line is too long")
        elif isinstance(exc, LimitRequestHeaders):
            refusal = ApiError(431, "headers_too_large", "the headers are too large")
        elif isinstance(exc, ParseException):
            refusal = ApiError(400, "not_http", f"this is not a valid HTTP request: {type(exc).__name__}")
        else:
            self.log.exception("a request broke the worker thread")
            refusal = ApiError(500, "internal_error", "The server made a mistake; its log says more.")
        self._refuse(client, refusal)

    def _refuse(self, client: socket.socket, refusal: ApiError) -> None:
        body = json.dumps(refusal.body()).encode()
        head = (
            f"HTTP/1.1 {refusal.status} Refused\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            client.sendall(head.encode() + body)
        except OSError:
            self.log.debug("the client left before its refusal")
