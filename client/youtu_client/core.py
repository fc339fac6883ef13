"""What the clients for threads and asyncio share: the state of one answer's call, and what servers are asked.

Nothing here reads, waits or blocks; `client`, `stream` and `aio` do that.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc  # type: ignore[import-untyped]

from . import wire
from .answers import Answer, ModelInfo, Piece, Probed, Tokens
from .balancing import Balancer, load
from .errors import (
    ELSEWHERE,
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    EngineStalled,
    YoutuError,
    from_message,
    from_rpc,
)
from .servers import Server, addresses
from .wire import Prompt, RawPrompt, Sampling, Transcript, model_info

if TYPE_CHECKING:
    from typing_extensions import Unpack

END = object()
"""What reading a call gives at its end."""

PENDING = object()
"""What reading a call gives when the time to wait is over first."""

MOST_LOST = 2
"""Servers that may die or hang while they have one request; it is given up then: it may be what ends them."""


class BaseStream:
    """One answer's call: its pieces, its failover to the next server, its end.

    The shell reads the call and passes each event to `_handle`: a response, END, PENDING, or the YoutuError
    it failed with. It closes the stream when reading raises anything.
    """

    moved = 0
    """How many servers it has given up before one answered."""

    def __init__(
        self,
        servers: Sequence[Server],
        request: Any,
        timeout: float,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.request_id: str = request.id
        self._request = request
        self._metadata = tuple((metadata or {}).items())
        self._deadline = time.monotonic() + timeout
        first, *self._others = servers
        self._lost = 0
        self._transcript = Transcript(request.id)
        self._failure: YoutuError | None = None
        self._done = False
        self._call: Any = None
        self._reader: Any = None  # the shell's: what reads the present call
        self._start(first)

    @property
    def done(self) -> bool:
        """Whether no more pieces come: the answer is whole, or the stream failed or was closed."""
        return self._done

    @property
    def starts_in_thinking(self) -> bool:
        """Whether the text begins inside the model's thinking. Known from the first piece on."""
        return self._transcript.starts_in_thinking

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises what the stream failed with; RuntimeError before the end is reached."""
        if self._failure is not None:
            raise self._failure
        if not self._done:
            raise RuntimeError("the stream has not been read to its end")
        return self._transcript.answer()

    def close(self) -> None:
        """Leave: cancels the call unless it is over. Reading on raises Cancelled."""
        call = self._call  # another thread may be letting go of it
        if not self._done and call is not None:
            self._failure = Cancelled("the stream was closed before its end", server=self._server.address)
            self._done = True
            call.cancel()
            self._server.end(self)

    def __del__(self) -> None:
        if getattr(self, "_call", None) is not None:
            with contextlib.suppress(Exception):  # asyncio's loop may be gone
                self.close()

    def _start(self, server: Server) -> None:
        self._server = server
        left = max(0.0, self._deadline - time.monotonic())
        self._call = server.infer(self._request, timeout=left, metadata=self._metadata)
        server.begin(self)
        self._reader = None
        self._refusal: YoutuError | None = None
        if self._failure is not None:  # closed meanwhile
            self._call.cancel()
            server.end(self)

    def _handle(self, event: Any) -> Piece | None:
        """The piece an event brings, if any. Raises what the stream fails with."""
        if event is PENDING:
            if self._server.hung:
                self._call.cancel()
                address = self._server.address
                self._failed(EngineStalled(f"{address} is making no progress", server=address))
            return None
        if self._refusal is not None and (event is END or isinstance(event, YoutuError)):
            self._failed(self._refusal)
            return None
        if isinstance(event, YoutuError):
            self._failed(event)
            return None
        try:
            if event is END:
                self._finish()
                return None
            if event.error_message:
                # It is raised at the call's end, which is near: of calls that are cancelled between the two
                # some never end for Triton 2.51, which then waits for them in vain when it is to stop.
                self._refusal = self._refusal or from_message(event.error_message, self._server.address)
                return None
            piece = self._transcript.feed(event)
        except YoutuError as error:
            self._call.cancel()
            self._failed(error)
            return None
        self._server.answered()
        return piece

    def _finish(self) -> None:
        if self._failure is not None:  # closed meanwhile
            raise self._failure
        self._done = True
        self._server.end(self)
        self._transcript.answer()  # raises when the last response has not come

    def _failed(self, failure: YoutuError) -> None:
        """Turn to another server where that is allowed, else raise."""
        self._server.end(self)
        if self._failure is None:  # else it was closed meanwhile
            if self._transcript.finished and not self._done:  # The answer is whole, only its end was lost.
                self._finish()
                return
            if isinstance(failure, ELSEWHERE):
                self._server.failed()
                self._lost += _had_it(failure)
                if self._others and not self._transcript.started and self._lost <= MOST_LOST:
                    following = min(self._others, key=load)
                    self._others.remove(following)
                    self.moved += 1
                    self._start(following)
                    return
            self._failure = failure
        self._done = True
        # The error's traceback and this stream hold one another, so the call would live until the interpreter
        # ends, where gRPC's own __del__ may wait for a lock that a thread of its own took along.
        self._call = self._reader = None
        raise self._failure from None


def _had_it(failure: YoutuError) -> bool:
    """Whether the server may have had the request when it failed: it refused nothing, and was reached."""
    broke = isinstance(failure, (ConnectionFailed, EngineStalled))
    return broke and "failed to connect" not in failure.message.lower()


S = TypeVar("S", bound=BaseStream)
T = TypeVar("T")


class BaseClient(Generic[S]):
    """The servers of a client, its requests, and the questions about a server's state.

    The questions are coroutines that wait only in `_unary` and `_responses`, which are the shell's. In the
    client for threads these two block instead, so that a question is answered at its coroutine's first step.
    """

    _stream_type: type[S]

    def __init__(
        self,
        servers: str | Sequence[str] = "localhost:8001",
        *,
        timeout: float = 300.0,
        model: str = "youtu_llm",
        affinity: bool = False,
    ) -> None:
        self.timeout = wire.seconds(timeout)
        self.model = model
        self._affinity = affinity
        self._servers = Balancer([Server(address, self._channel) for address in addresses(servers)])

    def stream(self, messages: Prompt, **options: Unpack[Sampling]) -> S:
        """Like `chat`, piece by piece as it is made. The request is sent at once."""
        return self._open(messages, raw=False, stream=True, options=options)

    def stream_complete(self, text: RawPrompt, **options: Unpack[Sampling]) -> S:
        """Like `complete`, piece by piece as it is made. The request is sent at once."""
        return self._open(text, raw=True, stream=True, options=options)

    def _open(self, prompt: Prompt | RawPrompt, *, raw: bool, stream: bool, options: Sampling) -> S:
        request = wire.infer_request(self.model, prompt, raw=raw, stream=stream, options=options)
        timeout = wire.seconds(options.get("timeout"), self.timeout)
        order = self._servers.order(wire.beginning(prompt, raw=raw) if self._affinity else b"")
        return self._stream_type(order, request, timeout, options.get("metadata"))

    async def _live(self, timeout: float) -> bool:
        for server in self._servers.order():
            with contextlib.suppress(YoutuError):
                call = self._unary(server, "ServerLive", wire.live_request(), timeout)
                if (await _reply(server, call)).live:
                    server.answered()
                    return True
        return False

    async def _ready(self, timeout: float) -> bool:
        try:
            await self._probe(timeout)
        except YoutuError:
            return False
        return True

    async def _probe(self, timeout: float) -> Probed:
        failures = []
        for server in self._servers.order():
            try:
                return await self._probe_of(server, timeout)
            except YoutuError as error:
                failures.append(error)
        raise failures[0]

    async def _probe_of(self, server: Server, timeout: float) -> Probed:
        call = self._responses(server, wire.probe_request(self.model), timeout)
        responses = await _reply(server, call)
        if refusal := "".join(response.error_message for response in responses):
            raise from_message(refusal, server.address)
        server.answered()
        return wire.probed(responses)

    async def _tokenized(self, prompt: Prompt | RawPrompt, *, raw: bool, options: Sampling) -> Tokens:
        request = wire.infer_request(
            self.model, prompt, raw=raw, stream=False, options=options, tokenize=True
        )
        timeout = wire.seconds(options.get("timeout"), self.timeout)
        failures: list[YoutuError] = []
        for server in self._servers.order():
            try:
                responses = await _reply(server, self._responses(server, request, timeout))
                if refusal := "".join(response.error_message for response in responses):
                    raise from_message(refusal, server.address)
                return wire.tokenized(responses)
            except ELSEWHERE as error:
                failures.append(error)
        raise failures[0]

    async def _model_info(self, timeout: float) -> ModelInfo:
        failures: list[YoutuError] = []
        for server in self._servers.order():
            try:
                call = self._unary(server, "ModelConfig", wire.config_request(self.model), timeout)
                return model_info(await _reply(server, call))
            except (*ELSEWHERE, DeadlineExceeded) as error:
                failures.append(error)
        raise failures[0]

    # The shell's.

    @staticmethod
    def _channel(target: str, options: list[tuple[str, Any]]) -> Any:
        raise NotImplementedError

    async def _unary(self, server: Server, method: str, request: Any, timeout: float) -> Any:
        """The response of a call that has one."""
        raise NotImplementedError

    async def _responses(self, server: Server, request: Any, timeout: float) -> list[Any]:
        """The responses of a streaming call.

        It is read to its end, for Triton does not take it well when calls are cancelled.
        """
        raise NotImplementedError


async def _reply(server: Server, call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.RpcError as error:
        raise from_rpc(error, server.address) from None
