"""Every error a caller can see: one shape, whose status follows from its code.

    {"error": {"message": "...", "type": "...", "param": "temperature" | null, "code": "..."}}

What the model refuses or fails carries a code of the contract, whose status is in `youtu_contract.errors`;
the message of a refusal is the model's own, of everything else a neutral sentence. Addresses, gRPC statuses
and tracebacks stay in the log, without what they may repeat of a caller's text. Independent of routes.
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from flask import Flask, Response, g, json, jsonify, request
from flask_limiter import RateLimitExceeded
from werkzeug.exceptions import HTTPException
from youtu_client import DeadlineExceeded, InvalidRequest, YoutuError
from youtu_contract.errors import CODES

from .documents import unreadable

log = structlog.get_logger()

RETRY_AFTER_S = 2
REASON_CHARS = 500
RUN_CHARS = 8
"""As many characters of a message in a row as the caller typed, too, are taken for the caller's text."""
TYPED_CHARS = 1_000_000
_QUOTED = re.compile(
    r"""(?<!\w)[bru]{0,2}(?:(["'`])(?:\\.|(?!\1).)*(?:\1|$)|[“„‘「«].*?(?:[”’」»]|$))""", re.DOTALL
)
"""From a quotation mark to its end, or to the end of a text that was cut; not an apostrophe."""

TYPES = {
    401: "authentication_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "server_error",
    503: "unavailable_error",
    504: "timeout_error",
}
"""Status to `type`; every other status is an invalid request of the caller: invalid_request_error."""


STATUSES = {name: code.http for name, code in CODES.items()} | {
    "body_cut_off": 400,
    "chunks_too_small": 400,
    "duplicate_key": 400,
    "host_missing": 400,
    "invalid_host": 400,
    "invalid_json": 400,
    "missing_field": 400,
    "not_http": 400,
    "unknown_field": 400,
    "invalid_api_key": 401,
    "document_not_found": 404,
    "item_not_found": 404,
    "model_not_found": 404,
    "previous_response_not_found": 404,
    "response_not_found": 404,
    "request_timeout": 408,
    "body_too_large": 413,
    "line_too_long": 414,
    "unsupported_media_type": 415,
    "unknown_host": 421,
    "documents_busy": 429,
    "render_busy": 429,
    "too_many_wrong_keys": 429,
    "headers_too_large": 431,
    "internal_error": 500,
    "documents_loading": 503,
    "draining": 503,
    "keys_unusable": 503,
    "render_failed": 503,
    "not_offered": 501,
    "too_busy": 503,
    **unreadable.CODES,
}
"""Code to status: those of the contract, and those of what never reaches the model."""


class ApiError(Exception):
    """An answer that is an error. `param`: the field at fault, as a path such as `messages[0].role`.

    The status is the code's; `status` is for werkzeug's refusals, whose code is made of theirs. For the log
    alone: `cause`, the kind of error behind it, and `reason`, its message.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        status: int | None = None,
        cause: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(message)
        self.cause = cause
        self.reason = reason
        self.status = STATUSES[code] if status is None else status
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The one shape."""
        kind = TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self, body: Callable[[ApiError], Any] | None = None) -> Response:
        """`body`: what makes its body; None: the one shape."""
        response = jsonify(self.body() if body is None else body(self))
        response.status_code = self.status
        response.headers.update(self.headers)
        return response


_SENTENCES = {
    "not_ready": "The model is not ready: it is loading or restarting. Try again shortly.",
    "engine_stalled": "The model is not ready: it is loading or restarting. Try again shortly.",
    "no_engine": "The inference server is not responding. Try again shortly.",
    "cancelled": "The inference server cancelled the request. Try again shortly.",
    "deadline_exceeded": "The answer did not finish within the time limit.",
    "engine_error": "The inference server failed while generating the answer.",
}


def from_client(
    error: YoutuError, names: Mapping[str, str] | None = None, *, retry_after: int = 1, typed: str = ""
) -> ApiError:
    """The reply to the caller for `error` of the client library.

    `names`: input of the model -> the caller's name of it. `retry_after`: seconds to wait when the engine's
    own queue is full. `typed`: the text of the request, which the log must not have.
    """
    reply = _from_client(error, names or {}, retry_after)
    reply.cause = type(error).__name__
    reply.reason = for_log(error.message, typed)
    return reply


def _from_client(error: YoutuError, names: Mapping[str, str], retry_after: int) -> ApiError:
    if error.code == "queue_full":
        return queue_full(None, retry_after)
    code = error.code if error.code in CODES else "engine_error"
    if isinstance(error, InvalidRequest):
        param = error.param and renamed(error.param, names)
        message = f"{param}: {error.reason}" if param else error.reason
        return ApiError(code, message, param=param)
    after = CODES[code].retry_after_s
    headers = {} if after is None else {"Retry-After": str(math.ceil(after))}
    return ApiError(code, _SENTENCES.get(code, _SENTENCES["engine_error"]), headers=headers)


def renamed(path: str, names: Mapping[str, str]) -> str:
    """`path` with its beginning as the caller calls it: of the `names` that fit, the longest."""
    ends = [match.start() for match in re.finditer(r"[.\[]|$", path)]
    for end in reversed(ends):
        if (name := names.get(path[:end])) is not None:
            return name + path[end:]
    return path


def for_log(message: str, typed: str = "") -> str:
    """`message` in one line, shortened, without quotations and without runs of what the caller `typed`."""
    if len(typed) > TYPED_CHARS:
        return "(omitted: the request is too long to remove its text from the message)"
    # More than is kept: where a message is cut, the beginning of a quotation or a run could remain.
    text = " ".join(_QUOTED.sub("'…'", _without(typed, message[: 4 * REASON_CHARS])).split())
    return text if len(text) <= REASON_CHARS else text[:REASON_CHARS] + "…"


def _without(typed: str, text: str) -> str:
    kept, at = "", 0
    while at < len(text):
        end = at + RUN_CHARS
        if end > len(text) or text[at:end] not in typed:
            kept, at = kept + text[at], at + 1
            continue
        while end < len(text) and text[at : end + 1] in typed:
            end += 1
        kept, at = kept + "…", end
    return kept


def _described(error: BaseException, typed: str) -> str:
    """A traceback whose messages hold nothing of the text."""
    chain: list[str] = []
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        frames = "".join(traceback.format_tb(one.__traceback__))
        chain.insert(0, f"{frames}{type(one).__name__}: {for_log(str(one), typed)}")
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
    return "\n\n".join(chain)


def queue_full(waiting: int | None, retry_after: int) -> ApiError:
    """No place for one more request. `waiting`: how many wait here; None when the engine refused it."""
    queue = "the queue is full" if waiting is None else f"{waiting} requests are waiting, which is the limit"
    message = f"All slots are taken and {queue}; try again in {retry_after} seconds."
    return ApiError("queue_full", message, headers={"Retry-After": str(retry_after)})


def too_slow() -> ApiError:
    """The request itself did not come in time."""
    return ApiError("request_timeout", "The request was not sent within the time limit for sending it.")


def too_busy() -> ApiError:
    """No thread or no memory for one more request."""
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return ApiError(
        "too_busy", "The server has no capacity for the request. Try again shortly.", headers=headers
    )


def out_of_time() -> ApiError:
    """The deadline of a request is over before the model was asked, or between its pieces."""
    return from_client(DeadlineExceeded("the deadline of the request has passed"))


def unsupported(param: str, words: str) -> ApiError:
    """This model or its engine cannot do what a field asks for."""
    return ApiError("unsupported", f"{param}: {words}", param=param)


def draining() -> ApiError:
    """This process is shutting down."""
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return ApiError("draining", "The server is shutting down. Try again shortly.", headers=headers)


def init_app(app: Flask, bodies: Mapping[str, Callable[[ApiError], Any]]) -> None:
    """Make every way to fail end in the one shape, or below the paths of `bodies` in what these make."""

    def body() -> Callable[[ApiError], Any] | None:
        path = f"{request.path}/"
        return next((make for root, make in bodies.items() if path.startswith(f"{root}/")), None)

    @app.errorhandler(ApiError)
    def api_error(error: ApiError) -> Response:
        if (line := g.get("log_record")) is not None and error.status >= 500:
            line.failed(error)
        return error.response(body())

    @app.errorhandler(YoutuError)
    def client_error(error: YoutuError) -> Response:
        """Of a question to the model outside of an answer: what it is, whether it is there."""
        return api_error(from_client(error))

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        """404, 405 and whatever else werkzeug refuses; its headers (Allow) are kept."""
        status = error.code or 500
        code = (error.name or "error").lower().replace(" ", "_")
        headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
        message = error.description or error.name
        if isinstance(error, RateLimitExceeded):
            code = "rate_limited"
            message = (
                f"The rate limit of {error.limit.limit} for this key or address is reached; try again later."
            )
        if status == 404:
            message = f"unknown path {shown(request.path)}"
        elif status == 405:
            message = f"{shown(request.path)} allows {headers.get('Allow')}, not {shown(request.method)}"
        return api_error(ApiError(code, message, headers=headers, status=status))

    @app.errorhandler(Exception)
    def bug(error: Exception) -> Response:
        line = g.get("log_record")
        return api_error(internal_error(error, line and line.request_id, line.typed() if line else ""))


def internal_error(error: Exception, request_id: str | None, typed: str) -> ApiError:
    """The reply for an unexpected exception, which is written to the log with its traceback."""
    log.error("unhandled", request_id=request_id, traceback=_described(error, typed))
    reply = unexpected()
    reply.cause, reply.reason = type(error).__name__, for_log(str(error), typed)
    return reply


def unexpected() -> ApiError:
    """The reply for an unexpected exception that the log already has."""
    return ApiError("internal_error", "Internal server error; see the server's log.")


def shown(value: object, limit: int = 60) -> str:
    """What was sent, as JSON, shortened to about `limit` characters."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
