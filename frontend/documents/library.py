"""The documents that callers sent, in memory: each caller has its own. A restart forgets them.

Bounded are how many one caller has, how many bytes all have together, and how long ago one was last used; the
one that was used longest ago goes first. The id follows from caller, name and bytes, so that who sends a file
again gets the same. May be called from any thread. Knows no HTTP.
"""

from __future__ import annotations

import collections
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from .reader import Contents

COUNT = 100
"""Documents of one caller."""
BYTES = 256 * 2**20
"""Of all documents together, in memory."""
AGE_S = 86_400.0
"""Since the last use."""


@dataclass(frozen=True)
class Document:
    """A document under the name that it came with; `id` is what a request calls it."""

    id: str
    name: str
    contents: Contents


def id_of(owner: str, name: str, data: bytes) -> str:
    """The id of this file of this caller."""
    digest = hashlib.sha256(data)
    digest.update(f"\0{name}\0{owner}".encode())
    return f"doc-{digest.hexdigest()[:32]}"


class Library:
    """`clock`: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: collections.OrderedDict[tuple[str, str], Document] = collections.OrderedDict()
        self._used: dict[tuple[str, str], float] = {}
        self._size = 0

    def add(self, owner: str, document: Document) -> None:
        """Keep it, instead of others where there is no room."""
        with self._lock:
            key = (owner, document.id)
            if key in self._kept:
                self._drop(key)
            self._kept[key] = document
            self._used[key] = self._clock()
            self._size += document.contents.size
            own = [each for each in self._kept if each[0] == owner]
            for each in own[: max(0, len(own) - COUNT)]:
                self._drop(each)
            while self._size > BYTES and len(self._kept) > 1:
                self._drop(next(iter(self._kept)))

    def get(self, owner: str, id: str) -> Document | None:
        """The caller's document; None if there is none, or none any more."""
        with self._lock:
            self._forget_old()
            key = (owner, id)
            if (found := self._kept.get(key)) is not None:
                self._used[key] = self._clock()
                self._kept.move_to_end(key)
            return found

    def remove(self, owner: str, id: str) -> bool:
        """Forget it; whether it was there."""
        with self._lock:
            if (owner, id) not in self._kept:
                return False
            self._drop((owner, id))
            return True

    def _drop(self, key: tuple[str, str]) -> None:
        self._size -= self._kept.pop(key).contents.size
        del self._used[key]

    def _forget_old(self) -> None:
        before = self._clock() - AGE_S
        while self._kept and self._used[oldest := next(iter(self._kept))] < before:
            self._drop(oldest)
