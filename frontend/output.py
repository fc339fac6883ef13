"""What a connection sends: joins writes, disconnects callers who read nothing. Independent of HTTP."""

from __future__ import annotations

import array
import asyncio
import fcntl
import termios
from collections.abc import Callable
from typing import Any

SEND_S = 10.0
"""Seconds in which a caller must take some of what is sent, else the connection is closed."""

WRITE_BUFFER_BYTES = 64 * 2**10


class Output:
    """The transport as uvicorn sees it. Calls `finish` when uvicorn closes it, `cut` when it is not read."""

    def __init__(
        self, transport: asyncio.Transport, finish: Callable[[], None], cut: Callable[[], None]
    ) -> None:
        transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.closing = False
        self._transport = transport
        self._finish = finish
        self._cut = cut
        self._held: list[bytes] | None = None
        self._written = 0
        self._watch: asyncio.TimerHandle | None = None

    def hold(self) -> None:
        """Keep what is written until `flush`: uvicorn writes a head, its body and its end one by one."""
        self._held = []

    def flush(self) -> None:
        """Send what was kept."""
        held, self._held = self._held, None
        if held:
            self.write(b"".join(held))

    def write(self, data: bytes) -> None:
        if self._held is not None:
            self._held.append(data)
        elif data and not self.closing:
            self._written += len(data)
            self._transport.write(data)
            self._watch_caller()

    def close(self) -> None:
        self._finish()

    def is_closing(self) -> bool:
        return self.closing or self._transport.is_closing()

    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def lost(self) -> None:
        """The connection is gone."""
        self.closing = True
        if self._watch is not None:
            self._watch.cancel()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _watch_caller(self) -> None:
        if self._watch is None and self.unsent():
            loop = asyncio.get_running_loop()
            self._watch = loop.call_later(SEND_S, self._look, self._taken())

    def _look(self, taken: int) -> None:
        self._watch = None
        if self.unsent() and self._taken() == taken:
            self._cut()
        else:
            self._watch_caller()

    def _taken(self) -> int:
        # What the kernel holds counts, too: it asks for more only when a third of its megabytes is free.
        held = array.array("i", [0])
        fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held)
        return self._written - self.unsent() - held[0]
