"""Responses stored in memory for a limited time, so that a later request can continue them.

Each caller has its own store, in which other callers' responses do not exist. Limits: responses per caller,
bytes of all together (beyond, the oldest response of the caller with the most bytes is removed), and the time
since the last use. May be called from any thread. Independent of HTTP.
"""

from __future__ import annotations

import collections
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

OVERHEAD_BYTES = 2048
"""What a response takes in memory beside its JSON, roughly, and its JSON once more as objects."""

OBJECT_FACTOR = 3
"""A JSON value as Python objects takes about so many bytes for each of its text."""


@dataclass(frozen=True)
class Stored:
    """A response and what was asked for it: the `input` items of this request alone, each with an id.

    `previous`: the id of the response that it goes on from.
    """

    response: dict[str, Any]
    input: list[dict[str, Any]]
    previous: str | None

    @property
    def id(self) -> str:
        return str(self.response["id"])

    @property
    def output(self) -> list[dict[str, Any]]:
        return list(self.response["output"])

    def items(self) -> list[dict[str, Any]]:
        """What was asked and answered, in order."""
        return [*self.input, *self.output]


@dataclass
class _Kept:
    stored: Stored
    size: int
    used: float


class Gone(LookupError):
    """There is no response with this id, or none any more: its id."""

    def __init__(self, id: str) -> None:
        super().__init__(id)
        self.id = id


_Owned = collections.OrderedDict[str, _Kept]
"""The one that was used longest ago first."""


class Store:
    """count: of one owner; size: bytes of all together; age: seconds since the last use."""

    def __init__(
        self, count: int, size: int, age: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._count, self._limit, self._age, self._clock = count, size, age, clock
        self._lock = threading.Lock()
        self._owned: dict[str, _Owned] = {}
        self._sizes: collections.Counter[str] = collections.Counter()
        # Owner and id of an item -> ids of the responses that have it, as keys.
        self._items: dict[tuple[str, str], dict[str, None]] = {}

    @property
    def size(self) -> int:
        """Bytes, roughly, of all that is kept."""
        with self._lock:
            return self._sizes.total()

    def add(self, owner: str, stored: Stored) -> None:
        """Keep it, instead of others where there is no room."""
        text = len(json.dumps([stored.response, stored.input], ensure_ascii=False).encode(errors="replace"))
        kept = _Kept(stored, OBJECT_FACTOR * text + OVERHEAD_BYTES, self._clock())
        with self._lock:
            self._forget_old()
            owned = self._owned.setdefault(owner, collections.OrderedDict())
            owned[stored.id] = kept
            self._sizes[owner] += kept.size
            for item in stored.items():
                self._items.setdefault((owner, item["id"]), {})[stored.id] = None
            while len(owned) > self._count:
                self._drop(owner, next(iter(owned)))
            while self._sizes.total() > self._limit:
                most, _ = self._sizes.most_common(1)[0]
                self._drop(most, next(iter(self._owned[most])))

    def get(self, owner: str, id: str) -> Stored:
        """The owner's response. Raises Gone."""
        with self._lock:
            self._forget_old()
            return self._use(owner, id)

    def chain(self, owner: str, id: str) -> list[Stored]:
        """Those that led to this response, and itself last. Raises Gone for the first that is not there."""
        found: list[Stored] = []
        with self._lock:
            self._forget_old()
            following: str | None = id
            while following is not None:
                found.append(self._use(owner, following))
                following = found[-1].previous
            found.reverse()
            for stored in found:  # so that of these, too, the oldest goes first
                self._use(owner, stored.id)
        return found

    def item(self, owner: str, id: str) -> dict[str, Any]:
        """The owner's item with this id, asked or answered. Raises Gone."""
        with self._lock:
            self._forget_old()
            if not (responses := self._items.get((owner, id))):
                raise Gone(id)
            items = self._use(owner, next(reversed(responses))).items()
        return next(item for item in items if item["id"] == id)

    def remove(self, owner: str, id: str) -> None:
        """Forget it. Raises Gone."""
        with self._lock:
            self._forget_old()
            self._use(owner, id)
            self._drop(owner, id)

    def _use(self, owner: str, id: str) -> Stored:
        owned = self._owned.get(owner)
        if owned is None or id not in owned:
            raise Gone(id)
        owned[id].used = self._clock()
        owned.move_to_end(id)
        return owned[id].stored

    def _drop(self, owner: str, id: str) -> None:
        owned = self._owned[owner]
        kept = owned.pop(id)
        self._sizes[owner] -= kept.size
        for item in kept.stored.items():
            responses = self._items.get((owner, item["id"]), {})
            responses.pop(id, None)
            if not responses:
                self._items.pop((owner, item["id"]), None)
        if not owned:
            del self._owned[owner], self._sizes[owner]

    def _forget_old(self) -> None:
        before = self._clock() - self._age
        for owner, owned in list(self._owned.items()):
            for id, kept in list(owned.items()):
                if kept.used > before:
                    break
                self._drop(owner, id)
