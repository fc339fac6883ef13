"""One connection: uvicorn's HTTP/1.1 protocol with limits in time and size, and errors in the one JSON shape.

It runs in the event loop. Heads and bodies are read here, so that a request which is not complete costs no
thread. Every connection is closed in two steps: first our half, then, when the caller has closed or LINGER_S
seconds are over, the rest; else a caller who still sends would lose the answer to a reset.
"""

from __future__ import annotations

import asyncio
import http
import json
import sys
import uuid

import h11
import structlog
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from .environ import Caller
from .errors import ApiError, too_slow
from .framing import HEAD_BYTES, Http, Refused, headers_too_large, line_too_long, not_http
from .output import Output

log = structlog.get_logger()

READ_S = 15.0
"""Seconds for a complete head from its first byte on, and again for the body behind it."""

SHORT_BYTES = 2**20
SLOWEST = 128 * 2**10
"""Bytes in a second: a body of more than SHORT_BYTES has time for what is beyond, at this pace."""

LINGER_S = 2.0
DRAIN_BYTES = 256 * 2**20
"""How much is taken and thrown away of a body that nobody reads."""


class Waiting:
    """The connections without a complete request or an answer, in the order in which they became so."""

    def __init__(self) -> None:
        self._all: dict[Connection, None] = {}

    def add(self, connection: Connection) -> None:
        self._all.pop(connection, None)
        self._all[connection] = None

    def remove(self, connection: Connection) -> None:
        self._all.pop(connection, None)

    def give_up_oldest(self) -> bool:
        """Make room for one more. False if there is none."""
        oldest = next(iter(self._all), None)
        if oldest is not None:
            oldest.cut()
        return oldest is not None


class Connection(H11Protocol):
    """`waiting`: where it stands while it has no complete request."""

    def __init__(self, config: Config, state: ServerState, waiting: Waiting) -> None:
        # What uvicorn hands to the app with every request.
        super().__init__(config, state, {"connection": self})
        self.conn = Http()
        self._waiting = waiting
        self._caller: Caller | None = None
        self._socket: asyncio.Transport
        self.output: Output
        self._limit: asyncio.TimerHandle | None = None
        self._discarded: int | None = None  # bytes, once what comes is thrown away
        self._half_closed = False

    # For the bridge

    def work(self, caller: Caller, *, complete: bool) -> None:
        """A request is about to be answered: `complete`, or what more comes of it is thrown away."""
        self._caller = caller
        self._waiting.remove(self)
        self._stop_limit()
        if not complete:
            self._discard()
        if self._half_closed:
            caller.leave()

    @property
    def closing(self) -> bool:
        return self.output.closing

    @property
    def keeps(self) -> bool:
        """Whether another request can follow."""
        return self._discarded is None and not self.closing

    @property
    def busy(self) -> bool:
        """Whether a request is being answered, or an answer not yet sent."""
        return self._caller is not None or (not self._socket.is_closing() and self.output.unsent() > 0)

    @property
    def keeps_up(self) -> bool:
        """Whether the caller takes what is sent."""
        return not self.flow.write_paused and not self.closing

    def send_piece(self, data: bytes) -> None:
        """A piece of an answer whose head is sent and whose length is not known."""
        if data:
            self.output.write(self.conn.send(h11.Data(data=data)))

    def refuse(self, refusal: ApiError) -> None:
        """Answer a request that has not come to the app, and close."""
        if self.closing:
            return
        self._abandon()
        request_id = uuid.uuid4().hex
        if refusal.status >= 500:
            log.warning("refused", request_id=request_id, status=refusal.status, reason=refusal.message)
        body = json.dumps(refusal.body()).encode()
        head = f"HTTP/1.1 {refusal.status} {http.HTTPStatus(refusal.status).phrase}\r\nConnection: close\r\n"
        for name, value in refusal.headers.items():
            head += f"{name}: {value}\r\n"
        head += f"X-Request-ID: {request_id}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self.output.flush()
        self.output.write(head.encode() + body)
        self.finish()

    def cut(self) -> None:
        """Close at once, whatever is under way."""
        self._abandon()
        self._waiting.remove(self)
        self.output.closing = True
        self._socket.abort()

    # For asyncio and uvicorn

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        self.output = Output(transport, self.finish, self.cut)
        super().connection_made(self.output)  # type: ignore[arg-type]
        self._waiting.add(self)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self.output.lost()
        self._waiting.remove(self)
        self._stop_limit()
        self._unset_keepalive_if_required()
        if self._caller is not None:
            self._caller.leave()
            self._caller = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._discarded is None and self._caller is None and self._limit is None:
            self._start_limit()  # the first byte of a head
        for start in range(0, len(data), HEAD_BYTES):  # or a head of any size that comes at once is parsed
            if self._discarded is not None:
                self._discarded += len(data) - start
                if self._discarded > DRAIN_BYTES:
                    self.cut()
                return
            super().data_received(data[start : start + HEAD_BYTES])
            if self._caller is not None and len(self.conn.trailing_data[0]) > HEAD_BYTES:
                self._discard()  # too much is pipelined; the answer under way is the last

    def handle_events(self) -> None:
        before = self.cycle
        super().handle_events()
        if self.cycle is not before and not self.closing:
            self._start_limit(READ_S + self._time_for_long())  # the body's time begins

    def eof_received(self) -> bool:  # type: ignore[override]
        self._half_closed = True
        if self.closing:
            return False
        if self._caller is not None:
            self._caller.leave()
        elif self._limit is None:
            return False
        elif self.cycle is None or self.cycle.response_complete:
            self.refuse(not_http("it ended inside its headers"))
        elif self.cycle.more_body:
            self.refuse(ApiError("body_cut_off", "the connection was closed before the end of the body"))
        return True  # the answer can still be sent

    def on_response_complete(self) -> None:
        self._caller = None
        self._waiting.add(self)
        before = self.cycle
        super().on_response_complete()
        if self.closing:
            self._waiting.remove(self)
        elif self.cycle is before and self._half_closed:
            self.finish()

    def send_400_response(self, msg: str) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, Refused):
            refusal = error.refusal
        elif isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431:
            in_line = b"\n" not in self.conn.trailing_data[0]
            refusal = line_too_long() if in_line else headers_too_large()
        else:
            refusal = not_http(error or msg)
        self.refuse(refusal)

    def shutdown(self) -> None:
        """The server ends: only what is being answered or sent stays."""
        if self._caller is not None:
            self.cycle.keep_alive = False
        elif self.output.unsent():
            self.finish()
        else:
            self._abandon()
            self.output.closing = True
            self._socket.close()

    def _should_upgrade(self) -> bool:
        return False

    # Closing

    def finish(self) -> None:
        """Send what is written, then say that no more comes, and throw away what the caller still sends."""
        if self.closing:
            return
        self.output.flush()
        self.output.closing = True
        self._waiting.remove(self)
        self._stop_limit()
        self._unset_keepalive_if_required()
        self._discard()
        if self._socket.is_closing():
            return
        if self._half_closed:
            self._socket.close()
            return
        self._socket.write_eof()
        self.flow.resume_reading()
        self._linger()

    def _linger(self) -> None:
        if not self.output.unsent():
            self._waiting.add(self)
        self._limit = self.loop.call_later(LINGER_S, self._end_linger)

    def _end_linger(self) -> None:
        if self.output.unsent():  # it is being read; who reads nothing is found by Output
            self._linger()
        else:
            self._socket.abort()

    def _abandon(self) -> None:
        """The request under way, if there is one, gets no answer from the app."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self._caller is not None:
            self._caller.leave()
            self._caller = None
        self._stop_limit()

    def _discard(self) -> None:
        if self._discarded is None:
            self._discarded = 0
            if self.cycle is not None:
                self.cycle.keep_alive = False

    # Time limits

    def _start_limit(self, seconds: float = READ_S) -> None:
        self._stop_limit()
        self._waiting.add(self)
        self._limit = self.loop.call_later(seconds, self.refuse, too_slow())

    def _time_for_long(self) -> float:
        headers = self.scope["headers"]
        length = next((int(value) for name, value in headers if name == b"content-length"), 0)
        return max(0, min(length, DRAIN_BYTES) - SHORT_BYTES) / SLOWEST

    def _stop_limit(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
