"""A listening socket that goes from one frontend to the next, so that an upgrade loses no connection.

Both hold the same socket, and so the same queue of connections that nobody has accepted yet: whichever of
them accepts gets the next one, and what the first leaves there is the second's. Independent of HTTP.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path


def offer(path: Path, listener: socket.socket, taken: Callable[[], None]) -> None:
    """Give `listener` to a process that connects to `path`, in a thread; then call `taken`.

    The folder must be one that only this user may enter.
    """
    path.unlink(missing_ok=True)  # of a frontend that died
    door = socket.socket(socket.AF_UNIX)
    door.bind(str(path))
    path.chmod(0o600)
    door.listen()
    threading.Thread(target=_give, args=[door, listener, taken], name="handover", daemon=True).start()


def take(path: Path) -> socket.socket | None:
    """The socket that is offered at `path`; None when nobody is there any more."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
        except OSError:
            return None
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def _give(door: socket.socket, listener: socket.socket, taken: Callable[[], None]) -> None:
    while True:
        connection, _ = door.accept()
        with connection:
            if listener.fileno() < 0:  # we have ended
                return
            socket.send_fds(connection, [b"."], [listener.fileno()])
        taken()
