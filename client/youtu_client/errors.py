"""What can go wrong, as one tree, and the one table that says which gRPC status becomes which error.

    YoutuError
    ├── ConnectionFailed     nobody answers at the address, or the connection broke      retryable
    ├── NotReady             the server answers; its model is loading, gone or draining  retryable
    │   └── EngineStalled    the model's engine has work and makes no progress           retryable
    ├── Busy                 the model's queue is full                                   retryable
    ├── InvalidRequest       the request can never succeed as it is
    ├── DeadlineExceeded     the request's own `timeout` ran out
    ├── Cancelled            the call was given up, by `close()` or by the server
    └── ServerError          anything else the server says

It knows gRPC statuses and the words that Triton and gRPC put beside them; it does not know HTTP.
"""

from __future__ import annotations

import re
from typing import Any

import grpc  # type: ignore[import-untyped]


class YoutuError(Exception):
    """Base of all errors of this package. `server` is the address that was asked, when one was."""

    retryable = False
    """Whether the very same request may succeed when sent again a little later."""

    def __init__(self, message: str, *, server: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.server = server


class ConnectionFailed(YoutuError):
    """No connection to the server, or it broke while the request was under way."""

    retryable = True


class NotReady(YoutuError):
    """The server answers, but its model does not take requests now (loading, unloaded, draining)."""

    retryable = True


class EngineStalled(NotReady):
    """The server says that its engine has work and has made no progress for too long: it hangs."""


class Busy(YoutuError):
    """The model's queue is full; the request was not taken in."""

    retryable = True


class InvalidRequest(YoutuError):
    """The request is wrong; the message names the field. Raised here, before sending, or by the server."""


class DeadlineExceeded(YoutuError):
    """The request was not done within its `timeout`."""


class Cancelled(YoutuError):
    """The call was given up before its end."""


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

# One status, several meanings: gRPC offers nothing but the text to tell them apart.
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


INVALID = "invalid request: "
"""How the model begins its refusals of a wrong request."""

# Triton ends a stream with a real status only when asked to by metadata, and 2.51 then dies of it now and
# then. Without, the words are all there is: the model's own, and Triton's before the model is reached.
_WITHOUT_CODE: list[tuple[re.Pattern[str], type[YoutuError]]] = [
    (re.compile(f"^{INVALID}"), InvalidRequest),
    (re.compile(r"^the engine has stalled"), EngineStalled),
    (re.compile(r"queue is full|maximum queue size", re.I), Busy),
    (
        re.compile(
            r"unknown model|not at ready state|no available versions|not ready|stopp|exiting"
            r"|shutting down|engine does not answer|not healthy",
            re.I,
        ),
        NotReady,
    ),
    (re.compile(r"\binputs?\b|\bshape\b|\bbatch|\bdata-type\b", re.I), InvalidRequest),
]


def from_message(message: str, server: str) -> YoutuError:
    """The exception for an `error_message` in an otherwise good stream of `server`."""
    for pattern, kind in _WITHOUT_CODE:
        if pattern.search(message):
            return kind(message.removeprefix(INVALID), server=server)
    return ServerError(f"{server} failed: {message}", server=server)


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
        return DeadlineExceeded(f"{server} was not done within the timeout", server=server)
    if kind is ServerError:
        return ServerError(f"{server} failed ({code.name}): {details}", server=server)
    return kind(details or f"{server} answered {code.name}", server=server)
