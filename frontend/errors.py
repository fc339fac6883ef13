"""Every error a caller can see: one shape, one table from the client's errors to HTTP.

    {"error": {"message": "...", "type": "...", "param": "temperature" | null, "code": "..."}}

    InvalidRequest      400   the sentence of the model, which names field, limit and what was sent
    Busy                429   + Retry-After
    NotReady            503   + Retry-After
    ConnectionFailed    503   + Retry-After
    DeadlineExceeded    504
    Cancelled           503   + Retry-After: nobody here gave the call up, so the server did (it is stopping)
    ServerError, rest   502

It knows nothing of routes and bodies. Addresses, gRPC statuses and tracebacks stay in the log.
"""

from __future__ import annotations

import re
from typing import Any

import structlog
from flask import Flask, Response, json, jsonify, request
from werkzeug.exceptions import HTTPException
from youtu_client import (
    Busy,
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    InvalidRequest,
    NotReady,
    YoutuError,
)

log = structlog.get_logger()

RETRY_AFTER_S = 2

TYPES = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "unavailable_error",
    504: "timeout_error",
}
"""Status to `type`; every other status is the caller's mistake: invalid_request_error."""


class ApiError(Exception):
    """An answer that is an error. `param`: the field at fault, as a path such as `messages[0].role`."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The one shape."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> Response:
        response = jsonify(self.body())
        response.status_code = self.status
        response.headers.update(self.headers)
        return response


_SENTENCES: list[tuple[type[YoutuError], int, str, str]] = [
    (NotReady, 503, "not_ready", "The model is not ready: it is loading or restarting. Try again shortly."),
    (ConnectionFailed, 503, "no_engine", "The inference server does not answer. Try again shortly."),
    (Cancelled, 503, "cancelled", "The inference server gave the request up. Try again shortly."),
    (DeadlineExceeded, 504, "deadline_exceeded", "The answer was not finished within the time limit."),
]


def from_client(error: YoutuError, fields: tuple[str, ...] = (), *, asked_as: str = "messages") -> ApiError:
    """What the caller is told about `error`. `fields`: names that a refusal may speak of, for `param`.

    `asked_as`: what the caller called the question; the model knows only messages.
    """
    if isinstance(error, InvalidRequest):
        message = re.sub(r"^messages(?=: )", asked_as, error.message)
        return ApiError(400, "invalid_value", message, param=_field_in(message, fields))
    retry = {"Retry-After": str(RETRY_AFTER_S)} if error.retryable else {}
    if isinstance(error, Busy):
        message = f"All slots are taken and the queue is full; try again in {RETRY_AFTER_S} seconds."
        return ApiError(429, "queue_full", message, headers=retry)
    for kind, status, code, sentence in _SENTENCES:
        if isinstance(error, kind):
            if status == 503:
                retry = {"Retry-After": str(RETRY_AFTER_S)}
            return ApiError(status, code, sentence, headers=retry)
    return ApiError(502, "engine_error", "The inference server failed while it made the answer.")


def ending() -> ApiError:
    """This process was told to end."""
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return ApiError(503, "draining", "The server is ending. Try again shortly.", headers=headers)


def _field_in(message: str, fields: tuple[str, ...]) -> str | None:
    named = [(at.start(), field) for field in fields if (at := re.search(rf"\b{field}", message))]
    return min(named)[1] if named else None


def init_app(app: Flask) -> None:
    """Make every way to fail end in the one shape."""

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        return error.response()

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        """404, 405 and whatever else werkzeug refuses; its headers (Allow) are kept."""
        status = error.code or 500
        code = (error.name or "error").lower().replace(" ", "_")
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
        message = error.description or error.name
        if status == 404:
            message = f"there is nothing at {shown(request.path)}"
        elif status == 405:
            message = f"{shown(request.path)} takes {headers.get('Allow')}, not {request.method}"
        return ApiError(status, code, message, headers=headers).response()

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        log.error("unhandled", exc_info=error)
        return ApiError(500, "internal_error", "The server made a mistake; its log says more.").response()


def shown(value: object, limit: int = 60) -> str:
    """What was sent, as JSON, shortened to about `limit` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
