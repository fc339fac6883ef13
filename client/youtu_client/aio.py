"""The client for asyncio: the same as `client`, over grpc.aio. A client belongs to the loop it is used in."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from . import wire
from .answers import Answer, ModelInfo, Piece
from .errors import ELSEWHERE, Cancelled, DeadlineExceeded, YoutuError, from_message, from_rpc
from .servers import Rota, Server, addresses
from .transcript import Transcript, model_info
from .wire import Prompt, RawPrompt, Sampling

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class AsyncClient:
    """Talks to one or several Triton servers that hold the same model; see `Client`."""

    def __init__(
        self,
        servers: str | Sequence[str] = "localhost:8001",
        *,
        timeout: float = 300.0,
        model: str = "youtu_llm",
    ) -> None:
        self.timeout = wire.seconds(timeout)
        self.model = model
        self._rota = Rota(
            [
                Server(address, lambda target, options: grpc.aio.insecure_channel(target, options=options))
                for address in addresses(servers)
            ]
        )

    async def chat(self, messages: Prompt, **options: Unpack[Sampling]) -> Answer:
        """The answer to a question (str) or to a conversation (list of {"role", "content"}), whole."""
        return await self._whole(messages, raw=False, options=options)

    async def complete(self, text: RawPrompt, **options: Unpack[Sampling]) -> Answer:
        """The continuation of a raw prompt (text or token ids), without a chat template, whole."""
        return await self._whole(text, raw=True, options=options)

    def stream(self, messages: Prompt, **options: Unpack[Sampling]) -> AsyncStream:
        """Like `chat`, piece by piece as it is made. The request is sent at once; needs a running loop."""
        return self._open(messages, raw=False, stream=True, options=options)

    def stream_complete(self, text: RawPrompt, **options: Unpack[Sampling]) -> AsyncStream:
        """Like `complete`, piece by piece as it is made. The request is sent at once."""
        return self._open(text, raw=True, stream=True, options=options)

    async def live(self, timeout: float = 5.0) -> bool:
        """Whether any server answers at all."""
        for server in self._rota.order():
            with contextlib.suppress(YoutuError):
                if (await self._unary(server, "ServerLive", wire.live_request(), timeout)).live:
                    server.answered()
                    return True
        return False

    async def ready(self, timeout: float = 5.0) -> bool:
        """Whether text would come out of any server now, see `probe`."""
        try:
            await self.probe(timeout)
        except YoutuError:
            return False
        return True

    async def probe(self, timeout: float = 5.0) -> None:
        """Whether text would come out now; see `Client.probe`."""
        failure: YoutuError | None = None
        for server in self._rota.order():
            try:
                messages = [
                    response.error_message
                    async for response in server.infer(wire.probe_request(self.model), timeout=timeout)
                ]
                if refusal := "".join(messages):
                    raise from_message(refusal, server.address)
                server.answered()
                return
            except grpc.aio.AioRpcError as error:
                failure = failure or from_rpc(error, server.address)
            except YoutuError as error:
                failure = failure or error
        raise cast(YoutuError, failure)

    async def model_info(self, timeout: float = 5.0) -> ModelInfo:
        """Id, limits and defaults of the model, from the first server that tells them."""
        failure: YoutuError | None = None
        for server in self._rota.order():
            try:
                request = wire.config_request(self.model)
                return model_info(await self._unary(server, "ModelConfig", request, timeout))
            except (*ELSEWHERE, DeadlineExceeded) as error:
                failure = failure or error
        raise cast(YoutuError, failure)

    async def close(self) -> None:
        """Close the channels. Streams under way end with Cancelled."""
        for server in self._rota.servers:
            channel = server.release()
            if channel is not None:
                await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _whole(self, prompt: Prompt | RawPrompt, *, raw: bool, options: Sampling) -> Answer:
        async with self._open(prompt, raw=raw, stream=False, options=options) as stream:
            async for _ in stream:
                pass
            return stream.answer

    def _open(self, prompt: Prompt | RawPrompt, *, raw: bool, stream: bool, options: Sampling) -> AsyncStream:
        request = wire.infer_request(self.model, prompt, raw=raw, stream=stream, options=options)
        timeout = wire.seconds(options.get("timeout"), self.timeout)
        return AsyncStream(self._rota.order(), request, timeout, options.get("metadata"))

    async def _unary(self, server: Server, method: str, request: Any, timeout: float) -> Any:
        try:
            return await getattr(server.stub, method)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, server.address) from None


class AsyncStream(AsyncIterator[Piece]):
    """The pieces of one answer, in order. Iterate, or `poll`; then `answer` holds the whole.

    Leaving it early (the end of an `async with`, `close()`, cancelling the task that reads it, dropping the
    last reference) cancels the call, and the server frees the slot.
    """

    def __init__(
        self,
        servers: list[Server],
        request: Any,
        timeout: float,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.request_id: str = request.id
        self._request = request
        self._metadata = tuple((metadata or {}).items())
        self._deadline = time.monotonic() + timeout
        self._servers = iter(servers)
        self._transcript = Transcript(request.id)
        self._failure: YoutuError | None = None
        self._done = False
        self._closed = False
        self._reading: asyncio.Future[Any] | None = None
        self._server: Server
        self._call: Any = None
        self._start(next(self._servers))

    @property
    def done(self) -> bool:
        """Whether no more pieces come: the answer is whole, or the stream failed or was closed."""
        return self._done

    @property
    def starts_in_thinking(self) -> bool:
        """Whether the text begins in the midst of the model's thinking. Known from the first piece on."""
        return self._transcript.starts_in_thinking

    @property
    def answer(self) -> Answer:
        """The whole answer. Raises what the stream failed with; RuntimeError before the end is reached."""
        if self._failure is not None:
            raise self._failure
        if not self._done:
            raise RuntimeError("the stream has not been read to its end")
        return self._transcript.answer()

    async def __anext__(self) -> Piece:
        while not self._done:
            piece = await self._step(None)
            if piece is not None:
                return piece
        if isinstance(self._failure, Cancelled):
            raise self._failure
        raise StopAsyncIteration

    async def poll(self, timeout: float) -> Piece | None:
        """The next piece, waiting at most `timeout` seconds; None when there is none (see `done`)."""
        until = time.monotonic() + timeout
        while not self._done:
            piece = await self._step(max(0.0, until - time.monotonic()))
            if piece is not None or time.monotonic() >= until:
                return piece
        return None

    def close(self) -> None:
        """Leave: cancels the call unless it is over. Reading on raises Cancelled."""
        if not self._done:
            self._closed = True
            self._failure = Cancelled("the stream was closed before its end", server=self._server.address)
            self._done = True
            self._call.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_call", None) is not None:
            with contextlib.suppress(Exception):  # The loop may be gone.
                self.close()

    def _start(self, server: Server) -> None:
        self._server = server
        left = max(0.0, self._deadline - time.monotonic())
        self._call = server.infer(self._request, timeout=left, metadata=self._metadata)
        self._reading = None

    async def _read(self, timeout: float | None) -> Any:
        """One response, or EOF. Raises TimeoutError when time is up; the read then goes on."""
        if self._reading is None:
            # A task of its own: a wait that runs out must not take the call with it.
            self._reading = asyncio.ensure_future(self._call.read())
            self._reading.add_done_callback(_retrieve)
        done, _ = await asyncio.wait({self._reading}, timeout=timeout)
        if not done:
            raise TimeoutError
        task, self._reading = self._reading, None
        if task.cancelled():  # Not this reader but the call was: by close() here, or with its channel.
            raise self._failure or Cancelled("the client was closed", server=self._server.address)
        return task.result()

    async def _step(self, timeout: float | None) -> Piece | None:
        """Handle one event of the call: a response, its end, its failure. None also when time is up."""
        try:
            response = await self._read(timeout)
            if response is grpc.aio.EOF:
                self._finish()
                return None
            if response.error_message:
                raise from_message(response.error_message, self._server.address)
            piece = self._transcript.feed(response)
            self._server.answered()
            return piece
        except TimeoutError:
            pass
        except grpc.aio.AioRpcError as error:
            self._failed(from_rpc(error, self._server.address))
        except YoutuError as error:
            self._call.cancel()
            self._failed(error)
        except BaseException:
            # The reading task was cancelled: the call must not run on behind its back.
            self.close()
            raise
        return None

    def _finish(self) -> None:
        self._done = True
        self._transcript.answer()

    def _failed(self, failure: YoutuError) -> None:
        """Turn to the next server where that is allowed, else raise."""
        if self._closed:
            raise cast(YoutuError, self._failure) from None
        if self._transcript.finished and not self._done:  # The answer is whole; only the goodbye was lost.
            self._finish()
            return
        if isinstance(failure, ELSEWHERE):
            self._server.failed()
            following = None if self._transcript.started else next(self._servers, None)
            if following is not None:
                self._start(following)
                return
        self._failure = failure
        self._done = True
        raise failure from None


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Look at the outcome, so that asyncio does not report it as lost when the stream was dropped."""
    if not task.cancelled():
        task.exception()
