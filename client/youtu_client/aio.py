"""The client for asyncio: the same as `client`, over grpc.aio. A client belongs to the loop it is used in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]

from .answers import Answer, ModelInfo, Piece, Probed, Tokens
from .core import END, PENDING, BaseClient, BaseStream
from .errors import Cancelled, from_rpc
from .servers import Server
from .wire import Prompt, RawPrompt, Sampling

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class AsyncStream(BaseStream, AsyncIterator[Piece]):
    """The pieces of one answer, in order. Iterate, or `poll`; then `answer` holds the whole.

    Leaving it early (the end of an `async with`, `close()`, cancelling the task that reads it, dropping the
    last reference) cancels the call, and the server frees the slot.
    """

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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    async def _step(self, timeout: float | None) -> Piece | None:
        """Handle one event of the call. None also when time is up."""
        try:
            return self._handle(await self._read(timeout))
        except BaseException:
            # The reading task was cancelled: the call must not run on behind its back.
            self.close()
            raise

    async def _read(self, timeout: float | None) -> Any:
        """The next event of the call, see `core`. When time is up, the read goes on."""
        if self._reader is None:
            # A task of its own: a wait that runs out must not take the call with it.
            self._reader = asyncio.ensure_future(self._call.read())
            # Looking at its outcome keeps asyncio from reporting it as lost when the stream was dropped.
            self._reader.add_done_callback(lambda task: task.cancelled() or task.exception())
        done, _ = await asyncio.wait({self._reader}, timeout=timeout)
        if not done:
            return PENDING
        task, self._reader = self._reader, None
        if task.cancelled():  # Not this reader but the call was: by close() here, or with its channel.
            return Cancelled("the client is closed", server=self._server.address)
        try:
            response = task.result()
        except grpc.RpcError as error:
            return from_rpc(error, self._server.address)
        return END if response is grpc.aio.EOF else response


class AsyncClient(BaseClient[AsyncStream]):
    """Talks to one or several Triton servers that hold the same model; see `Client`.

    `stream` and `stream_complete` need a running loop.
    """

    _stream_type = AsyncStream

    async def chat(self, messages: Prompt, **options: Unpack[Sampling]) -> Answer:
        """The answer to a question (str) or to a conversation (list of {"role", "content"}), whole."""
        return await _read_out(self._open(messages, raw=False, stream=False, options=options))

    async def complete(self, text: RawPrompt, **options: Unpack[Sampling]) -> Answer:
        """The continuation of a raw prompt (text or token ids), without a chat template, whole."""
        return await _read_out(self._open(text, raw=True, stream=False, options=options))

    async def tokenize(self, messages: Prompt, **options: Unpack[Sampling]) -> Tokens:
        """The prompt that `chat` makes of a conversation, as tokens: how many there are, `len(tokens.ids)`.

        The options that count are those of the chat template. No slot is needed, and a prompt that does not
        fit the context is no error.
        """
        return await self._tokenized(messages, raw=False, options=options)

    async def tokenize_text(self, text: RawPrompt, **options: Unpack[Sampling]) -> Tokens:
        """A raw prompt as tokens, as `complete` would read it; of token ids, the text of each."""
        return await self._tokenized(text, raw=True, options=options)

    async def live(self, timeout: float = 5.0) -> bool:
        """Whether any server answers at all."""
        return await self._live(timeout)

    async def ready(self, timeout: float = 5.0) -> bool:
        """Whether text would come out of any server now, see `probe`."""
        return await self._ready(timeout)

    async def probe(self, timeout: float = 5.0) -> Probed:
        """Whether text would come out now; see `Client.probe`."""
        return await self._probe(timeout)

    async def model_info(self, timeout: float = 5.0) -> ModelInfo:
        """Id, limits and defaults of the model, from the first server that answers."""
        return await self._model_info(timeout)

    async def close(self) -> None:
        """Close the channels. Streams under way end with Cancelled."""
        for channel in self._servers.release():
            await channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @staticmethod
    def _channel(target: str, options: list[tuple[str, Any]]) -> Any:
        return grpc.aio.insecure_channel(target, options=options)

    async def _unary(self, server: Server, method: str, request: Any, timeout: float) -> Any:
        return await getattr(server.stub, method)(request, timeout=timeout)

    async def _responses(self, server: Server, request: Any, timeout: float) -> list[Any]:
        return [response async for response in server.infer(request, timeout=timeout)]


async def _read_out(stream: AsyncStream) -> Answer:
    async with stream:
        async for _ in stream:
            pass
        return stream.answer
