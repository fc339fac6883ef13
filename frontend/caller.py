"""Whether the caller is still there. Knows the connection's socket, which gunicorn hands down; no HTTP.

No WSGI server tells an application that a client left before something is written to it, and a plain answer
writes nothing until its end. The kernel knows within a millisecond.
"""

from __future__ import annotations

import select
from typing import Any

LOOK_EVERY_S = 0.1
"""How long a wait for the model may last before the caller is looked for again."""

_LEFT = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Caller:
    """One connection. A client that shuts down only its sending half counts as gone."""

    def __init__(self, environ: dict[str, Any]) -> None:
        # Absent under Flask's test client, whose caller never leaves.
        self._socket = environ.get("gunicorn.socket")

    def gone(self) -> bool:
        """Whether the client closed the connection; also true while bytes it sent lie unread. Never waits."""
        if self._socket is None:
            return False
        poll = select.poll()
        try:
            poll.register(self._socket, _LEFT)
        except (OSError, ValueError):  # Closed on our side already.
            return True
        return bool(poll.poll(0))
