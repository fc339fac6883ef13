"""What can go wrong, as one tree, and which of the contract's codes or gRPC's statuses becomes which error.

    YoutuError
    ├── ConnectionFailed     nobody answers at the address, or the connection broke      retryable
    ├── NotReady             the server answers; its model is loading, gone or draining  retryable
    │   └── EngineStalled    the model's engine has work and makes no progress           retryable
    ├── Busy                 the model's queue is full                                   retryable
    ├── InvalidRequest       the request can never succeed as it is
    ├── DeadlineExceeded     the request's own `timeout` ran out
    ├── Cancelled            the call was given up, by `close()` or by the server
    └── ServerError          anything else the server says

Handles gRPC's statuses and the messages of its library; independent of HTTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import grpc  # type: ignore[import-untyped]
from youtu_contract.errors import CODES, Error
from youtu_contract.triton_errors import error_of_triton


class YoutuError(Exception):
    """Base of all errors of this package. `server` is the address that was asked, when one was.

    `code` and what follows is data of the contract (`youtu_contract.errors`): `param` the input at fault,
    `retry_after_s` a hint, `details` numbers, such as prompt_tokens and context_tokens of
    context_length_exceeded.
    """

    default_code = "engine_error"
    retryable = False
    """Whether the very same request may succeed when sent again a little later."""

    def __init__(self, message: str, *, server: str | None = None, error: Error | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.server = server
        self.code = error.code if error else self.default_code
        self.param = error.param if error else None
        self.retry_after_s = (error or Error(self.code, message)).retry_after_s
        self.details: Mapping[str, int] = error.details if error else {}
        self.reason = error.message if error else message
        """The message without the name of the parameter."""


class ConnectionFailed(YoutuError):
    """No connection to the server, or it broke while the request was under way."""

    default_code = "no_engine"

    retryable = True


class NotReady(YoutuError):
    """The server answers, but its model does not take requests now (loading, unloaded, draining)."""

    default_code = "not_ready"

    retryable = True


class EngineStalled(NotReady):
    """The server says that its engine has work and has made no progress for too long: it hangs."""

    default_code = "engine_stalled"


class Busy(YoutuError):
    """The model's queue is full; the request was not taken in."""

    default_code = "queue_full"

    retryable = True


class InvalidRequest(YoutuError):
    """The request is wrong; the message names the field. Raised here, before sending, or by the server."""

    default_code = "invalid_value"


class DeadlineExceeded(YoutuError):
    """The request was not done within its `timeout`."""

    default_code = "deadline_exceeded"


class Cancelled(YoutuError):
    """The call was given up before its end."""

    default_code = "cancelled"


class ServerError(YoutuError):
    """The server failed, or answered something that is not the text contract."""


ELSEWHERE = (ConnectionFailed, NotReady)
"""Failures after which another server is worth a try, as long as nothing has been delivered."""

_BY_CODE: dict[grpc.StatusCode, type[YoutuError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequest,
    grpc.StatusCode.NOT_FOUND: NotReady,
    grpc.StatusCode.UNAVAILABLE: NotReady,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Busy,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.CANCELLED: Cancelled,
}

# One status, several meanings: gRPC's library offers nothing but the text to tell them apart.
_BY_TEXT: list[tuple[grpc.StatusCode, re.Pattern[str], type[YoutuError]]] = [
    (grpc.StatusCode.UNAVAILABLE, re.compile(r"queue is full|maximum queue size", re.I), Busy),
    (
        grpc.StatusCode.UNAVAILABLE,
        re.compile(
            r"connect|socket|goaway|resolv|dns|ping|keepalive|watchdog|reset by|broken pipe|transport"
            r"|end of file|\beof\b|tcp|cancelling all calls|handshake|no route|unreachable",
            re.I,
        ),
        ConnectionFailed,
    ),
    (grpc.StatusCode.RESOURCE_EXHAUSTED, re.compile(r"larger than max", re.I), InvalidRequest),
]


_BY_CODE_NAME: dict[str, type[YoutuError]] = {
    kind.default_code: kind for kind in (EngineStalled, ConnectionFailed, Cancelled)
}
_BY_STATUS: dict[int, type[YoutuError]] = {
    400: InvalidRequest,
    429: Busy,
    503: NotReady,
    504: DeadlineExceeded,
}
"""HTTP status of a code of the contract -> what it is here, unless _BY_CODE_NAME says more."""


def from_error(error: Error, server: str | None = None) -> YoutuError:
    """The exception for an error of the contract."""
    code = CODES.get(error.code)
    kind = _BY_CODE_NAME.get(error.code) or _BY_STATUS.get(code.http if code else 0, ServerError)
    message = f"{server} failed: {error}" if kind is ServerError and server else str(error)
    return kind(message, server=server, error=error)


def from_message(message: str, server: str) -> YoutuError:
    """The exception for an `error_message` in an otherwise good stream of `server`."""
    return from_error(Error.from_line(message) or error_of_triton(message), server)


def from_rpc(error: Any, server: str) -> YoutuError:
    """The exception for a `grpc.RpcError` of a call to `server`."""
    code, details = error.code(), error.details() or ""
    kind = _BY_CODE.get(code, ServerError)
    for status, pattern, other in _BY_TEXT:
        if code is status and pattern.search(details):
            kind = other
            break
    if kind is ConnectionFailed:
        return ConnectionFailed(f"no connection to {server}: {details}", server=server)
    if kind is DeadlineExceeded:
        return DeadlineExceeded(f"{server} did not finish within the timeout", server=server)
    if kind is ServerError:
        return ServerError(f"{server} failed ({code.name}): {details}", server=server)
    return kind(details or f"{server} answered {code.name}", server=server)
