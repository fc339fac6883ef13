"""What happens around every request: its id, the key, the headers of the answer, one line in the log.

It knows no route by heart but those that are open without a key. The line never holds the text or the key:

    event=request request_id method route status duration_s
    and where they apply: ttft_s prompt_tokens tokens finish_reason left error
"""

from __future__ import annotations

import hmac
import re
import time
import uuid
from dataclasses import dataclass, field

import structlog
from flask import Flask, Response, g, request

from .errors import ApiError

log = structlog.get_logger()

OPEN = ("health.", "page.", "static")
"""Endpoints (or their prefixes) that answer without a key: probes, and the page where a key is typed in."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass
class Entry:
    """The log line of one request, filled in on the way. Times in seconds."""

    request_id: str
    started: float = field(default_factory=time.monotonic)
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None
    ttft_s: float | None = None
    left: bool | None = None
    error: str | None = None

    def seconds(self) -> float:
        """Since the request arrived."""
        return time.monotonic() - self.started

    def write(self, method: str, route: str, status: int) -> None:
        """One line; what does not apply is left out."""
        optional = {
            name: value
            for name in ("ttft_s", "prompt_tokens", "tokens", "finish_reason", "left", "error")
            if (value := getattr(self, name)) is not None
        }
        log.info(
            "request",
            request_id=self.request_id,
            method=method,
            route=route,
            status=status,
            duration_s=round(self.seconds(), 4),
            **optional,
        )


def entry() -> Entry:
    """The log line of the request that is being handled."""
    line: Entry = g.entry
    return line


def init_app(app: Flask, api_key: str | None) -> None:
    """Put the frame around every route of `app`. `api_key` None: nobody is asked for one."""
    expected = None if api_key is None else api_key.encode()

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-ID", "")
        g.entry = Entry(given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex)
        if expected is not None and not (request.endpoint or "").startswith(OPEN):
            _check_key(expected)

    @app.after_request
    def end(response: Response) -> Response:
        line = entry()
        response.headers["X-Request-ID"] = line.request_id
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        method, route, status = request.method, request.url_rule, response.status_code
        response.call_on_close(lambda: line.write(method, route.rule if route else "-", status))
        return response


def _check_key(expected: bytes) -> None:
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # Headers arrive as latin-1; the key as it was typed is UTF-8.
    sent = given.strip().encode("latin-1", "replace")
    if scheme.lower() == "bearer" and hmac.compare_digest(sent, expected):
        return
    message = "The API key is wrong." if given else "An API key is needed: Authorization: Bearer <key>."
    raise ApiError(401, "invalid_api_key", message, headers={"WWW-Authenticate": 'Bearer realm="youtu"'})
