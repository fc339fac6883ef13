"""Whether the caller is still there. The server knows, and tells the app in the WSGI environ."""

from __future__ import annotations

from typing import Any

LOOK_EVERY_S = 0.1
"""How long a wait for the model may last before the caller is looked for again."""

ENVIRON_KEY = "youtu.caller"


class Caller:
    """Who waits for one answer. A client that shuts down only its sending half counts as gone."""

    def __init__(self) -> None:
        self._left = False

    @classmethod
    def of(cls, environ: dict[str, Any]) -> Caller:
        """The caller of this request; one who never leaves where no server is (Flask's test client)."""
        caller = environ.get(ENVIRON_KEY)
        return caller if isinstance(caller, cls) else cls()

    def leave(self) -> None:
        """The connection is closed, or its sending half. Called by the server, from its own thread."""
        self._left = True

    def gone(self) -> bool:
        """Whether the client closed the connection. Never waits."""
        return self._left
