"""h11 with the limits that it leaves open: the size of a head, ambiguous framing, bodies of tiny chunks.

Works on h11's events; independent of sockets.
"""

from __future__ import annotations

import re
from typing import Any

import h11

from .errors import ApiError

LINE_BYTES = 4096
FIELD_BYTES = 8192
FIELDS = 100
HEAD_BYTES = 32 * 2**10
"""Limits of the request line, of one header, of their number, and of all of it. As much may be pipelined."""

MIN_CHUNK_BYTES = 64
FREE_CHUNKS = 2048
"""So many chunks of a body may be of any size; more must have MIN_CHUNK_BYTES on average: each costs time."""


_END_OF_HEAD = re.compile(rb"\n\r?\n")


class Refused(h11.RemoteProtocolError):
    """A request that is not read further."""

    def __init__(self, refusal: ApiError) -> None:
        super().__init__(refusal.message, refusal.status)
        self.refusal = refusal


class Http(h11.Connection):
    """h11, which also checks what it leaves open: the size of a head, ambiguous framing, tiny chunks."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEAD_BYTES)
        self._chunks = 0
        self._body = 0

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            # Before they are parsed: thousands of short headers fit into a head.
            head = _END_OF_HEAD.split(self.trailing_data[0], 1)[0]
            if head.count(b"\n") > FIELDS:
                raise Refused(ApiError("headers_too_large", f"a request may have at most {FIELDS} headers"))
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._chunks = self._body = 0
            _check_head(event)
        elif isinstance(event, h11.Data):
            self._chunks += event.chunk_start
            self._body += len(event.data)
            if self._chunks > FREE_CHUNKS + self._body // MIN_CHUNK_BYTES:
                message = f"the body has more than {FREE_CHUNKS} chunks of less than {MIN_CHUNK_BYTES} bytes"
                raise Refused(ApiError("chunks_too_small", message))
        elif event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
            # uvicorn would stop reading at PAUSED, and not see the caller leave.
            return h11.NEED_DATA
        return event


def _check_head(request: h11.Request) -> None:
    if len(request.target) > LINE_BYTES:
        raise Refused(line_too_long())
    size = 0
    for name, value in request.headers:
        size += len(name) + len(value)
        if len(name) + len(value) > FIELD_BYTES or size > HEAD_BYTES:
            raise Refused(headers_too_large())
    names = {name for name, _ in request.headers}
    if b"transfer-encoding" in names:
        if b"content-length" in names:
            raise Refused(not_http("it has both Content-Length and Transfer-Encoding"))
        if request.http_version != b"1.1":
            raise Refused(not_http("HTTP/1.0 does not allow Transfer-Encoding"))


def line_too_long() -> ApiError:
    return ApiError("line_too_long", f"the request line may have at most {LINE_BYTES} bytes")


def headers_too_large() -> ApiError:
    message = f"a header may have at most {FIELD_BYTES} bytes, and all headers together {HEAD_BYTES}"
    return ApiError("headers_too_large", message)


def not_http(reason: object) -> ApiError:
    return ApiError("not_http", f"this is not a valid HTTP request: {reason}")
