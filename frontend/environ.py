"""An ASGI request to a WSGI environ, and whether its caller is still connected. Independent of routes."""

from __future__ import annotations

import io
import sys
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from uvicorn._types import HTTPScope

CALLER_KEY = "youtu.caller"


class Caller:
    """The client of one request: the server notes in the environ whether it is still connected.

    A client that shuts down only its sending half counts as gone.
    """

    def __init__(self) -> None:
        self._left = False

    @classmethod
    def of(cls, environ: dict[str, Any]) -> Caller:
        """The caller of this request; one who never leaves where no server is (Flask's test client)."""
        caller = environ.get(CALLER_KEY)
        return caller if isinstance(caller, cls) else cls()

    def leave(self) -> None:
        """The connection is closed, or its sending half. Called by the server, from its own thread."""
        self._left = True

    def gone(self) -> bool:
        """Whether the client closed the connection. Never waits."""
        return self._left


def environ(scope: HTTPScope, body: bytes) -> dict[str, Any]:
    """What WSGI (PEP 3333) wants to know of a request. Its body may be incomplete."""
    server, client = scope["server"] or ("", 0), scope["client"] or ("", 0)
    path = scope["raw_path"]
    if not path.startswith(b"/") and b"://" in path:  # as it is sent to a proxy
        path = urlsplit(path).path or b"/"
    found: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "REQUEST_URI": scope["raw_path"].decode(
            "latin-1"
        ),  # of which `hosts` reads a name above the header's
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": server[0],
        "SERVER_PORT": str(server[1]),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for raw_name, raw_value in scope["headers"]:
        if b"_" in raw_name:  # it would look like another, such as X-Forwarded-For or even SCRIPT_NAME
            continue
        name, value = raw_name.decode("latin-1").upper().replace("-", "_"), raw_value.decode("latin-1")
        if name not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            name = f"HTTP_{name}"
        if name in found:
            value = f"{found[name]}{'; ' if name == 'HTTP_COOKIE' else ','}{value}"
        found[name] = value
    return found
