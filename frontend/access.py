"""What happens around every request: host, key, rate, id, headers of the answer, line in log and metrics.

Only the open routes, which need no key, are hard-coded. The log line never contains the key, and the text
(asked, answers) only where `log_text` is on:

    event=request request_id method route status duration_s
    and where they apply: key queue_s ttft_s prompt_tokens cached_tokens tokens finish_reason left error
    reason asked answers

`reason` says of every 5xx, and of a stream that failed after its first byte, what failed.
"""

from __future__ import annotations

import contextlib
import logging
import math
import re
import time
import uuid
from dataclasses import dataclass, field, fields
from typing import Any

import structlog
from flask import Flask, Response, g, request
from flask_cors import CORS
from flask_limiter import Limiter
from limits.errors import StorageError
from pydantic import BaseModel
from youtu_client import Answer

from serve.settings import Settings

from .errors import RETRY_AFTER_S, ApiError
from .guessing import ATTEMPTS, Guessing, Locked
from .hosts import Hosts
from .keys import Keys, KeysError
from .metrics import Metrics
from .tracing import Trace, Tracing

log = structlog.get_logger()

OPEN = ("health.", "page.", "static")
"""Endpoints (or their prefixes) that answer without a key: probes, and the page where a key is typed in."""

UNTRACED = ("health.", "metrics.", "page.", "static")
"""Endpoints (or their prefixes) that nobody wants to see traces of."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

PROBES = ("/health", "/ping", "/metrics", "/page/facts", "/render")
"""Routes (or their beginnings) that are asked every few seconds, or more often."""

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

REDIS = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0, "wrap_exceptions": True}
"""How long the Redis that frontends share may take; then each counts for itself until it answers again."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")


@dataclass
class LogRecord:
    """What log and metrics say of one request, filled in on the way. Times in seconds.

    `client`: the key's name, or the address where there are no keys. `trace`: its span when tracing is on.
    `text`: asked and answers, if the log is to have them. `asked`: the request, to keep its text out of the
    log. The fields from `key` on are `facts`.
    """

    request_id: str
    client: str
    trace: Trace | None = None
    text: dict[str, Any] = field(default_factory=dict)
    asked: BaseModel | None = None
    started: float = field(default_factory=time.monotonic)
    key: str | None = None
    queue_s: float | None = None
    ttft_s: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    tokens: int | None = None
    finish_reason: str | None = None
    left: bool | None = None
    error: str | None = None
    reason: str | None = None

    def failed(self, error: ApiError) -> None:
        """Record that the caller gets `error`; a server error also with its reason."""
        self.error = error.cause or error.code
        if error.status >= 500:
            self.reason = error.reason or error.message

    def typed(self) -> str:
        """All text of the request."""
        found: list[str] = []
        rest: list[Any] = [self.asked.model_dump(exclude_none=True)] if self.asked is not None else []
        while rest:
            value = rest.pop()
            if isinstance(value, str):
                found.append(value)
            elif isinstance(value, dict):
                rest += [*value.keys(), *value.values()]
            elif isinstance(value, list | tuple):
                rest += value
        return "\n".join(found)

    def answered(self, answers: list[Answer]) -> None:
        """Take in the figures of the whole answers, one or several."""
        self.finish_reason = ",".join(answer.finish_reason for answer in answers)
        self.prompt_tokens = sum(answer.usage.prompt_tokens for answer in answers)
        self.cached_tokens = sum(answer.usage.cached_tokens for answer in answers)
        self.tokens = sum(answer.usage.completion_tokens for answer in answers)

    def usage(self) -> tuple[int, int, int]:
        """Tokens of the prompt, of them out of the cache, and made."""
        return self.prompt_tokens or 0, self.cached_tokens or 0, self.tokens or 0

    def facts(self) -> dict[str, Any]:
        """What is known of it, for log and trace; what does not apply is left out."""
        names = [each.name for each in fields(self)]
        values = {name: getattr(self, name) for name in names[names.index("key") :]}
        return {name: value for name, value in values.items() if value is not None}

    def call_metadata(self) -> dict[str, str] | None:
        """What a call to the model carries along, so that Triton's spans become part of the trace."""
        return self.trace.metadata() if self.trace is not None else None

    def seconds(self) -> float:
        """Since the request arrived."""
        return time.monotonic() - self.started

    def write(self, method: str, route: str, status: int) -> None:
        """One line. Probes that find all well only at level debug."""
        level = logging.DEBUG if route.startswith(PROBES) and status == 200 else logging.INFO
        log.log(
            level,
            "request",
            request_id=self.request_id,
            method=method,
            route=route,
            status=status,
            duration_s=round(self.seconds(), 4),
            **self.facts(),
            **self.text,
        )

    def outcome(self, status: int) -> str:
        """One word for how it ended, for the metrics."""
        if self.left:
            return "cancelled"
        if 400 <= status < 500:
            return "refused" if status == 429 else "invalid"
        return "failed" if status >= 500 or self.error is not None else "ok"


def log_record() -> LogRecord:
    """The record of the request that is being handled."""
    record: LogRecord = g.log_record
    return record


def init_app(app: Flask, settings: Settings, keys: Keys, metrics: Metrics) -> Limiter:
    """Put the frame around every route of `app`; the limiter is for those whose rate is to be limited."""
    tracing = Tracing(settings.otlp_endpoint)

    hosts = Hosts(settings)
    guessing = Guessing()
    # Its own headers would put a Retry-After on every answer; `end` writes them.
    limiter = Limiter(
        key_func=lambda: log_record().client,
        storage_uri=settings.rate_storage or "memory://",
        storage_options=REDIS if settings.rate_storage else {},  # type: ignore[arg-type]
        in_memory_fallback_enabled=bool(settings.rate_storage),
        headers_enabled=False,
        on_breach=lambda _: metrics.refused("rate_limited"),
    )

    @app.before_request
    def begin() -> None:
        given = request.headers.get("X-Request-ID", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        g.log_record = LogRecord(request_id, client=request.remote_addr or "")
        if not (request.endpoint or "").startswith(UNTRACED):
            name = f"{request.method} {request.url_rule or '-'}"
            g.log_record.trace = tracing.begin(name, request.headers.items())
        endpoint = request.endpoint or ""
        # With keys, a page under a foreign name has none to send: a browser keeps what was typed in for the
        # name that it was typed in under. The routes that are open hold static files and the model's facts.
        if not keys and not endpoint.startswith("health."):
            hosts.check(request.environ)
        # A browser asks whether it may send a key (OPTIONS) without sending it.
        if keys and request.method != "OPTIONS" and not endpoint.startswith(OPEN):
            g.log_record.client = g.log_record.key = _owner(keys, guessing, metrics)

    @app.after_request
    def end(response: Response) -> Response:
        record = log_record()
        response.headers["X-Request-ID"] = record.request_id
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        # Anybody may make up a method, and each would be a line of the metrics for ever.
        method = request.method if request.method in METHODS else "other"
        route, status = request.url_rule, response.status_code
        path = route.rule if route else "-"
        if status >= 500 and record.reason is None and response.is_json:
            record.reason = response.get_json().get("status")  # Health answers so, which is no error.
        with contextlib.suppress(StorageError):  # The request has been counted; only its headers are missing.
            _tell_limit(response, limiter)

        def over() -> None:
            outcome = record.outcome(status)
            record.write(method, path, status)
            metrics.request(path, method, status, outcome)
            if record.key is not None:
                metrics.used(record.key, path, outcome, *record.usage())
            if record.trace is not None:
                facts = {f"youtu.{name}": value for name, value in record.facts().items()}
                http: dict[str, object] = {"http.request.method": method, "http.route": path}
                http["http.response.status_code"] = status
                record.trace.end(outcome == "failed", request_id=record.request_id, **http, **facts)

        response.call_on_close(over)
        return response

    if settings.cors_origins:
        origins = [origin.strip() for origin in settings.cors_origins.split(",")]
        CORS(app, origins=origins, expose_headers=["X-Request-ID", "Retry-After"], max_age=600)
    limiter.init_app(app)
    if settings.rate_storage:
        metrics.watch_rate_storage(lambda: limiter.storage.check())
    return limiter


def _tell_limit(response: Response, limiter: Limiter) -> None:
    if (limit := limiter.current_limit) is None:
        return
    response.headers["X-RateLimit-Limit"] = str(limit.limit.amount)
    response.headers["X-RateLimit-Remaining"] = str(limit.remaining)
    response.headers["X-RateLimit-Reset"] = str(limit.reset_at)
    if limit.breached:
        response.headers["Retry-After"] = str(max(1, math.ceil(limit.window[0] - time.time())))


def _owner(keys: Keys, guessing: Guessing, metrics: Metrics) -> str:
    """The name of the key that was sent. Raises ApiError."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    given = given.strip() if scheme.lower() == "bearer" else ""
    given = given or request.headers.get("X-API-Key", "").strip()  # as Anthropic's clients send it
    if not given:
        raise _unauthorized("An API key is required: Authorization: Bearer <key>, or X-API-Key: <key>.")
    key = given.encode("latin-1", "replace")  # Headers arrive as latin-1; the key as it was typed is UTF-8.
    address = request.remote_addr or ""
    try:
        owner = keys.owner(key)
        guessing.check(address, key, owner is not None)
    except KeysError:
        message = "API keys cannot be checked at the moment; see the server's log for the reason."
        raise ApiError("keys_unusable", message, headers={"Retry-After": str(RETRY_AFTER_S)}) from None
    except Locked as locked:
        metrics.refused("too_many_wrong_keys")
        seconds = math.ceil(locked.seconds)
        if locked.first:
            log.warning("wrong keys", address=address, attempts=ATTEMPTS, locked_s=seconds)
        message = f"{ATTEMPTS} wrong API keys came from this address; try again in {seconds} seconds."
        raise ApiError("too_many_wrong_keys", message, headers={"Retry-After": str(seconds)}) from None
    if owner is None:
        raise _unauthorized("The API key is wrong.")
    return owner


def _unauthorized(message: str) -> ApiError:
    return ApiError("invalid_api_key", message, headers={"WWW-Authenticate": 'Bearer realm="youtu"'})
