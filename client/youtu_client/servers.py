"""The servers of a client: addresses, one shared channel each, what runs there, and which failed lately.

It does not know what is asked, nor which server a request goes to (`balancing`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc.experimental  # type: ignore[import-untyped]

from .wire import stream_infer, stub

MESSAGE_BYTES = 64 * 2**20
DOWN_SECONDS = 2.0
"""A server that failed is asked last for this long."""

SLOW_SECONDS = 2.0
"""So is one that has not answered a question about its health for this long, until it does."""

OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    # A host that vanishes sends no reset. What it was sent and does not acknowledge is noticed within the
    # timeout; a call that only waits, by a ping. Triton hangs up (too_many_pings) on a client that pings more
    # than thrice into silence, less than 300 s apart, and a long prefill is silence: hence rare pings.
    ("grpc.keepalive_time_ms", 310_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # gRPC waits up to two minutes before it tries a lost server again; a restart takes seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.min_reconnect_backoff_ms", 5_000),
)

SYNC_OPTIONS: tuple[tuple[str, Any], ...] = (
    # The thread that reads a call takes its events itself. Otherwise gRPC starts a thread for them, and if it
    # cannot (no memory), every later call on the channel waits for ever.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
)
"""Of a channel for threads, beside OPTIONS."""

_LOOPBACK = ("localhost", "127.", "[::1]", "unix:")


def channel_options(address: str) -> list[tuple[str, Any]]:
    """gRPC channel arguments for one server."""
    # A proxy of the environment cannot reach this very machine, but gRPC would ask it.
    direct = [("grpc.enable_http_proxy", 0)] if address.startswith(_LOOPBACK) else []
    return [*OPTIONS, *direct]


def addresses(servers: str | Sequence[str]) -> list[str]:
    """The server list as given by a caller: one address, several with commas, or a list of them.

    An address is `host:port` without a scheme. Raises ValueError on anything else.
    """
    given = servers.split(",") if isinstance(servers, str) else list(servers)
    found = [address.strip() for address in given if address.strip()]
    if not found:
        raise ValueError("no server given; expected an address such as localhost:8001")
    for address in found:
        host, colon, port = address.rpartition(":")
        if not address.startswith("unix:") and not (colon and host and port.isdigit() and "/" not in host):
            raise ValueError(
                f"server {address!r} is not an address such as localhost:8001 (Triton's gRPC port)"
            )
    return found


class Server:
    """One server. Its channel opens at the first use, so that a parent process may build it before a fork."""

    def __init__(self, address: str, open_channel: Callable[[str, list[tuple[str, Any]]], Any]) -> None:
        self.address = address
        self._open_channel = open_channel
        self._lock = threading.Lock()
        self._open: tuple[Any, Any, Any] | None = None
        self._process = 0
        self._down_until = 0.0
        self._running: set[int] = set()
        self.asked_at: float | None = None
        """When the question about its health was sent that it has not answered (`health`)."""
        self.hung = False
        """It makes no progress: no request should wait for it any longer."""

    @property
    def stub(self) -> Any:
        """The generated stub, for the calls with one response."""
        return self._opened()[1]

    @property
    def infer(self) -> Any:
        """The streaming call: `infer(request, timeout=..., metadata=...)`."""
        return self._opened()[2]

    def _opened(self) -> tuple[Any, Any, Any]:
        with self._lock:
            if self._open is None:
                channel = self._open_channel(self.address, channel_options(self.address))
                self._open = (channel, stub(channel), stream_infer(channel))
                self._process = os.getpid()
            elif self._process != os.getpid():
                raise RuntimeError("this client was used before the process forked; create one per process")
            return self._open

    @property
    def down(self) -> bool:
        """Whether others should be asked first: it failed a moment ago, hangs, or may hang."""
        now, asked = time.monotonic(), self.asked_at
        return self.hung or now < self._down_until or (asked is not None and now - asked > SLOW_SECONDS)

    def failed(self) -> None:
        self._down_until = time.monotonic() + DOWN_SECONDS

    def answered(self) -> None:
        self._down_until = 0.0
        self.hung = False

    @property
    def running(self) -> int:
        """How many streams of this client wait for it or read from it."""
        return len(self._running)

    def begin(self, stream: object) -> None:
        """A stream has been started here."""
        self._running.add(id(stream))

    def end(self, stream: object) -> None:
        """It is over, or has moved. More than once does no harm."""
        self._running.discard(id(stream))

    def release(self) -> Any:
        """Give the channel up; returns it, or None when none is open."""
        with self._lock:
            opened, self._open = self._open, None
            return opened[0] if opened else None
