"""Which server a request goes to: the one with the fewest running, or the one that knows its beginning.

With affinity, requests that begin alike go to the same server, whose prefix cache then has that beginning:
each server draws a number from the beginning and its own address, and the highest draw is its home
(rendezvous hashing: when a server comes or goes, only the conversations of that server move). A home that is
busy is passed over: it has as many as one may have on average and a quarter more (the bound of "Consistent
Hashing with Bounded Loads", Mirrokni, Thorup, Zadimoghaddam, 2016), or as many as it has slots. It does not
know what is asked.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from .servers import Server

OVER_THE_MEAN = 1.25


class Balancer:
    """The servers of a client. The list may be replaced while requests run; any thread may ask."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = tuple(servers)
        self.slots: int | None = None
        """How many requests one server answers at once, once that is known."""
        self._turn = itertools.count()

    def order(self, beginning: bytes = b"") -> list[Server]:
        """All servers, in the order in which one request should try them; none is ever left out.

        `beginning`: what later requests of the same conversation have in common with this one; "": whatever.
        """
        servers = self.servers
        at = next(self._turn) % len(servers)
        by_load = sorted(servers[at:] + servers[:at], key=load)
        home = self._home(servers, beginning) if beginning else None
        return by_load if home is None else [home, *(server for server in by_load if server is not home)]

    def _home(self, servers: Iterable[Server], beginning: bytes) -> Server | None:
        """The first that is not busy in the order that belongs to this beginning."""
        up = [server for server in servers if not server.down]
        most = math.ceil(OVER_THE_MEAN * (sum(server.running for server in up) + 1) / max(1, len(up)))
        if self.slots is not None:
            most = min(most, self.slots)
        free = [server for server in up if server.running < most]
        return max(free, key=lambda server: _draw(beginning, server.address), default=None)

    def release(self) -> list[Any]:
        """Give up the channels that are open, for the caller to close in its own manner."""
        return [channel for server in self.servers if (channel := server.release()) is not None]


def load(server: Server) -> tuple[bool, int]:
    """Sorts servers: those that work before those that failed lately, then by how much runs on them."""
    return server.down, server.running


def _draw(beginning: bytes, address: str) -> bytes:
    return hashlib.blake2b(beginning, key=address.encode()[:64], digest_size=8).digest()
