"""Who may generate now, who waits, and who is turned away: as many at once as the engine has slots.

Slots go to the client (a key, or an address without keys) with the fewest of them, among equals to
the one served longest ago. So do the places of a full queue: a newcomer takes the latest of the client that
has most of them, unless that would only turn the tables. A client alone finds first come, first served.

Handles time and names of clients; independent of HTTP and the model. All of it may be called from any thread.
"""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Callable

SMOOTHING = 0.2
"""Weight of the newest request in the running mean of how long one holds its slots."""

RETRY_AFTER_MAX_S = 300


class Full(Exception):
    """No place: `waiting` requests wait already. `retry_after`: whole seconds after which to try again."""

    def __init__(self, waiting: int, retry_after: int) -> None:
        super().__init__(f"{waiting} requests are already waiting")
        self.waiting = waiting
        self.retry_after = retry_after


class Ticket:
    """One request's claim to `weight` slots. Its owner must `release` it in any case."""

    def __init__(self, admission: Admission, client: str, weight: int, name: str = "") -> None:
        self.client = client
        self.name = name
        self.weight = weight
        self.asked = time.monotonic()
        self.granted: float | None = None
        self.displaced: Full | None = None
        self._admission = admission
        self.settled = threading.Event()

    def wait(self, timeout: float) -> bool:
        """Whether the slots are ours, after at most `timeout` seconds. Raises Full if the place was lost."""
        self.settled.wait(timeout)
        if self.displaced is not None:
            raise self.displaced
        return self.granted is not None

    def release(self) -> None:
        """Give the slots, or the place in the queue, to the others. More than once does no harm."""
        self._admission._release(self)


class Admission:
    """`slots` may generate at once, `queue` requests may wait."""

    def __init__(self, slots: int, queue: int) -> None:
        self.slots = slots
        self.queue = queue
        self._lock = threading.Lock()
        self._running: list[Ticket] = []
        self._waiting: list[Ticket] = []
        self._turns: dict[str, float] = {}  # when a client that is still there last got a slot
        self._hold_s: float | None = None

    def resize(self, slots: int) -> None:
        """The engine has so many slots."""
        with self._lock:
            if slots != self.slots:
                self.slots = slots
                self._grant()

    def ask(self, client: str, weight: int = 1, name: str = "") -> Ticket:
        """A ticket for `weight` slots, at most all of them: granted at once or waiting. Raises Full.

        By its `name` a waiting one is found again.
        """
        with self._lock:
            ticket = Ticket(self, client, min(weight, self.slots), name)
            if len(self._waiting) >= self.queue and not self._grantable(ticket):
                self._make_room(client)
            self._waiting.append(ticket)
            self._grant()
        return ticket

    def place(self, name: str) -> int:
        """Which one of those that wait is next but so many, from 1; 0 if none of this name waits."""
        with self._lock:
            order = sorted(self._waiting, key=self._turn())
        return next((at for at, ticket in enumerate(order, start=1) if ticket.name == name), 0)

    @property
    def taken(self) -> int:
        """Slots that are held now."""
        return sum(ticket.weight for ticket in list(self._running))

    @property
    def waiting(self) -> int:
        """Requests that wait now."""
        return len(self._waiting)

    def retry_after(self) -> int:
        """Whole seconds, at least 1, until half of those who wait now will have got their slots.

        From the mean time a request holds its slots: one comes free every `hold / slots` seconds. Half, so
        that the queue does not run dry while those who were refused stay away.
        """
        with self._lock:
            return self._retry_after()

    def _retry_after(self) -> int:
        now = time.monotonic()
        ages = [now - ticket.granted for ticket in self._running if ticket.granted is not None]
        # Requests that already run for longer than usual say more than the mean of those that are done.
        hold = max(self._hold_s or 0.0, sum(ages) / len(ages) if ages else 0.0)
        return max(1, min(RETRY_AFTER_MAX_S, math.ceil((len(self._waiting) / 2 + 1) * hold / self.slots)))

    def _grantable(self, ticket: Ticket) -> bool:
        return not self._waiting and ticket.weight <= self.slots - self.taken

    def _make_room(self, newcomer: str) -> None:
        places = collections.Counter(ticket.client for ticket in self._waiting)
        refusal = Full(len(self._waiting), self._retry_after())
        if not places:
            raise refusal
        greediest, most = places.most_common(1)[0]
        if places[newcomer] + 1 >= most:
            raise refusal
        victim = max((t for t in self._waiting if t.client == greediest), key=lambda ticket: ticket.asked)
        self._waiting.remove(victim)
        victim.displaced = refusal
        victim.settled.set()

    def _turn(self) -> Callable[[Ticket], tuple[int, float, float]]:
        """What those who wait are sorted by: the least is next."""
        held: collections.Counter[str] = collections.Counter()
        for ticket in self._running:
            held[ticket.client] += ticket.weight
        turns = self._turns
        return lambda one: (held[one.client], turns.get(one.client, 0.0), one.asked)

    def _grant(self) -> None:
        while self._waiting:
            ticket = min(self._waiting, key=self._turn())
            # One that needs several slots is waited for: if others went past it, it might wait for ever.
            if min(ticket.weight, self.slots) > self.slots - self.taken:
                break
            self._waiting.remove(ticket)
            self._running.append(ticket)
            ticket.granted = time.monotonic()
            self._turns[ticket.client] = ticket.granted
            ticket.settled.set()
        clients = {ticket.client for ticket in self._waiting + self._running}
        self._turns = {client: turn for client, turn in self._turns.items() if client in clients}

    def _release(self, ticket: Ticket) -> None:
        with self._lock:
            if ticket in self._running:
                self._running.remove(ticket)
                seconds = time.monotonic() - (ticket.granted or 0.0)
                mean = seconds if self._hold_s is None else self._hold_s
                self._hold_s = mean + SMOOTHING * (seconds - mean)
            elif ticket in self._waiting:
                self._waiting.remove(ticket)
            self._grant()
