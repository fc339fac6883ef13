"""Which servers of a client work: each is asked all the time, and names are looked up again and again.

A server that does not answer is asked last; so is one whose model is not ready. One that hangs, which says so
or leaves two questions in a row without an answer, is given up by the streams that wait for it (`core`), as
far as they are polled. Independent of HTTP; for threads only.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence

from .client import Client, result_of
from .errors import DeadlineExceeded, EngineStalled, YoutuError
from .servers import Server

EVERY_S = 1.0
"""Between two questions to a server: its death is noticed within that."""

LOOK_UP_S = 5.0
"""Between two questions for the addresses of names."""

MISSED = 2
"""Questions in a row without an answer after which a server counts as hung."""


class Health:
    """Watches the servers of `client` from `start` on until `close`.

    `servers`: addresses; a name with several addresses is as many servers. `hang_timeout`: seconds without an
    answer after which a server hangs; 0: it never does. `changed` is called when one has come or gone.
    """

    def __init__(
        self, client: Client, servers: Sequence[str], hang_timeout: float, changed: Callable[[], None]
    ) -> None:
        self._client, self._given, self._changed = client, servers, changed
        self._hang_timeout = hang_timeout
        # The first of two questions is sent up to EVERY_S after the server has stopped.
        self._answer_s = max(EVERY_S, (hang_timeout - EVERY_S) / MISSED) if hang_timeout else 10.0
        self._closing = threading.Event()

    def start(self) -> None:
        """Look the names up once, and go on in threads."""
        for server in self._client.servers:
            self._watch_in_thread(server)
        self._look_up()
        if any(resolvable(address) for address in self._given):
            threading.Thread(target=self._look_up_again, name="look-up", daemon=True).start()

    def close(self) -> None:
        """Ask no more. Does not wait for questions that are on their way."""
        self._closing.set()

    def _look_up_again(self) -> None:
        while not self._closing.wait(LOOK_UP_S):
            self._look_up()

    def _look_up(self) -> None:
        try:
            found = resolved(self._given)
        except OSError:  # the servers that are known may work all the same
            return
        if found != [server.address for server in self._client.servers]:
            for server in self._client.replace_servers(found):
                self._watch_in_thread(server)
            self._changed()

    def _watch_in_thread(self, server: Server) -> None:
        threading.Thread(target=self._watch, args=[server], name="health", daemon=True).start()

    def _watch(self, server: Server) -> None:
        missed = 0
        was_down: bool | None = None
        while server in self._client.servers and not self._closing.is_set():
            missed = self._ask(server, missed)
            if server.down is not was_down:
                was_down = server.down
                self._changed()
            if not missed:
                self._closing.wait(EVERY_S)

    def _ask(self, server: Server, missed: int) -> int:
        """Ask it once; returns how many questions in a row have had no answer."""
        if not missed:
            server.asked_at = time.monotonic()
        try:
            result_of(self._client._probe_of(server, self._answer_s))
        except DeadlineExceeded:
            missed += 1
            server.hung = server.hung or bool(self._hang_timeout and missed >= MISSED)
            return missed
        except EngineStalled:
            server.hung = bool(self._hang_timeout)
            server.failed()
        except YoutuError:
            server.hung = False  # what it has not answered yet fails by itself
            server.failed()
        server.asked_at = None
        return 0


def resolvable(address: str) -> bool:
    """Whether the host of an address is a name."""
    host = address.rpartition(":")[0].strip("[]")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return False
    return not address.startswith("unix:")


def resolved(addresses: Sequence[str]) -> list[str]:
    """The addresses, each name replaced by all that it has. OSError when a name has none."""
    found: list[str] = []
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not resolvable(address):
            found.append(address)
            continue
        for family, _, _, _, sockaddr in sorted(socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)):
            ip = str(sockaddr[0])
            found.append(f"[{ip}]:{port}" if family == socket.AF_INET6 else f"{ip}:{port}")
    return list(dict.fromkeys(found))
