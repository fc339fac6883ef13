"""How many requests all Tritons behind this frontend answer at once: their slots, of those that work.

Connects the client and admission; independent of HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence

from youtu_client import Client
from youtu_client.health import Health

from .admission import Admission

MOST_SLOTS = 256
"""Answers that one frontend has under way at most, however many servers there are: each holds a thread."""


class Fleet:
    """The servers of `client`, counted for `admission`."""

    def __init__(self, client: Client, admission: Admission) -> None:
        self._client, self._admission = client, admission
        self._slots = admission.slots

    def learn(self, slots: int) -> None:
        """Each server has so many slots."""
        self._slots = slots
        self._client.set_slots(slots)
        self._count()

    def watch(self, servers: Sequence[str], hang_timeout: float) -> None:
        """Ask all servers for their health from now on, in threads that end with the process."""
        Health(self._client, servers, hang_timeout, self._count).start()

    def _count(self) -> None:
        self._admission.resize(min(MOST_SLOTS, self._slots * self._client.working))
