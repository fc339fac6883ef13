"""A limit on wrong API keys per address, which leaves alone the callers there whose keys are known.

After ATTEMPTS wrong keys within WINDOW_S an address is locked until the window ends: a key that was accepted
from there before goes on working; any other is refused, right or wrong, since the answer would tell which. At
most MOST addresses, and as many keys with theirs, are remembered. Independent of HTTP.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
import time
from collections import OrderedDict
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

ATTEMPTS = 10
WINDOW_S = 60.0
MOST = 10_000


class Locked(Exception):
    """The address is locked for `seconds` more. `first`: nobody was refused for it in this window so far."""

    def __init__(self, seconds: float, first: bool) -> None:
        super().__init__(seconds)
        self.seconds = seconds
        self.first = first


class Guessing:
    """One per process; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()  # Start of the window, wrong keys.
        self._accepted: OrderedDict[tuple[str, bytes], None] = OrderedDict()

    def check(self, address: str, key: bytes, right: bool) -> None:
        """`key` was sent from `address`. Raises Locked."""
        address, now = _network(address), time.monotonic()
        pair = (address, hashlib.sha256(key).digest())
        with self._lock:
            since, wrong = self._wrong.get(address, (now, 0))
            if now - since >= WINDOW_S:
                since, wrong = now, 0
                self._wrong.pop(address, None)
            if right and (wrong < ATTEMPTS or pair in self._accepted):
                _remember(self._accepted, pair, None)
                return
            if wrong <= ATTEMPTS:  # Beyond ATTEMPTS by one: the first refusal was made.
                _remember(self._wrong, address, (since, wrong + 1))
            if wrong >= ATTEMPTS:
                raise Locked(since + WINDOW_S - now, wrong == ATTEMPTS)


def _remember(known: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    known[key] = value
    known.move_to_end(key)
    if len(known) > MOST:
        known.popitem(last=False)


def _network(address: str) -> str:
    """One caller can have all addresses of an IPv6 network of 64 bits."""
    try:
        if isinstance(ip := ipaddress.ip_address(address), ipaddress.IPv6Address) and ip.ipv4_mapped is None:
            return str(ipaddress.ip_network((int(ip), 64), strict=False))
    except ValueError:
        pass
    return address
