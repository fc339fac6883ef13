"""Many connections that send as slowly as they can, all the time; and one connection in raw bytes."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class _Sender:
    start: bytes
    rest: bytes
    source: str
    connection: socket.socket = field(init=False)
    sent: int = 0
    got: bytes = b""


class Crowd:
    """`count` connections that each send one of `texts`: `start` at once, then a byte of `rest` a second.

    They come from the addresses `sources` in turn. One that is closed is replaced, so that there are always
    as many; what they were answered is in `answers`.
    """

    def __init__(
        self, port: int, count: int, texts: Sequence[tuple[bytes, bytes]], sources: Sequence[str]
    ) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self.answers: list[bytes] = []
        self._port = port
        self._senders = [_Sender(*texts[at % len(texts)], sources[at % len(sources)]) for at in range(count)]
        self._end = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Crowd:
        for sender in self._senders:
            self._dial(sender)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        for sender in self._senders:
            sender.connection.close()
        self._selector.close()

    def _dial(self, sender: _Sender) -> None:
        sender.connection = socket.create_connection(
            ("127.0.0.1", self._port), timeout=60, source_address=(sender.source, 0)
        )
        sender.connection.sendall(sender.start)
        sender.connection.setblocking(False)
        sender.sent, sender.got = 0, b""
        self._selector.register(sender.connection, selectors.EVENT_READ, sender)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._end.is_set():
            for key, _ in self._selector.select(0.1):
                self._read(key.data)
            if time.monotonic() < due:
                continue
            due = time.monotonic() + 1
            for sender in self._senders:
                with contextlib.suppress(OSError):
                    sender.sent += sender.connection.send(sender.rest[sender.sent : sender.sent + 1])

    def _read(self, sender: _Sender) -> None:
        try:
            data = sender.connection.recv(65536)
        except OSError:
            data = b""
        sender.got += data
        if not data:
            self.answers.append(sender.got)
            self._selector.unregister(sender.connection)
            sender.connection.close()
            with contextlib.suppress(OSError):
                self._dial(sender)


def exchange(port: int, sent: bytes, *, close: bool = False) -> bytes:
    """All that comes back until the server closes. `close`: shut down the sending half first."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        with contextlib.suppress(ConnectionError):  # it may have been refused half-way
            connection.sendall(sent)
            if close:
                connection.shutdown(socket.SHUT_WR)
        return rest(connection)


def rest(connection: socket.socket) -> bytes:
    """All that still comes."""
    return b"".join(iter(lambda: connection.recv(65536), b""))
