"""The client for threads: what can be asked of a server, with one call per request on a shared channel.

Its streams live in `stream`, tensors in `wire`, addresses in `servers`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import grpc  # type: ignore[import-untyped]

from . import wire
from .answers import Answer, ModelInfo
from .errors import ELSEWHERE, DeadlineExceeded, YoutuError, from_message, from_rpc
from .servers import SYNC_OPTIONS, Rota, Server, addresses
from .stream import Stream
from .transcript import model_info
from .wire import Prompt, RawPrompt, Sampling

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class Client:
    """Talks to one or several Triton servers that hold the same model.

    `servers`: "host:port", several of them with commas, or a list. `timeout`: seconds for a whole request,
    unless it brings its own. May be shared by any number of threads; make one per process (a channel that was
    used does not survive a fork). All errors are `YoutuError`s, see `errors`.
    """

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
                Server(
                    address,
                    lambda target, options: grpc.insecure_channel(target, options=[*options, *SYNC_OPTIONS]),
                )
                for address in addresses(servers)
            ]
        )

    def chat(self, messages: Prompt, **options: Unpack[Sampling]) -> Answer:
        """The answer to a question (str) or to a conversation (list of {"role", "content"}), whole."""
        return self._whole(messages, raw=False, options=options)

    def complete(self, text: RawPrompt, **options: Unpack[Sampling]) -> Answer:
        """The continuation of a raw prompt (text or token ids), without a chat template, whole."""
        return self._whole(text, raw=True, options=options)

    def stream(self, messages: Prompt, **options: Unpack[Sampling]) -> Stream:
        """Like `chat`, piece by piece as it is made. The request is sent at once."""
        return self._open(messages, raw=False, stream=True, options=options)

    def stream_complete(self, text: RawPrompt, **options: Unpack[Sampling]) -> Stream:
        """Like `complete`, piece by piece as it is made. The request is sent at once."""
        return self._open(text, raw=True, stream=True, options=options)

    def live(self, timeout: float = 5.0) -> bool:
        """Whether any server answers at all."""
        for server in self._rota.order():
            with contextlib.suppress(YoutuError):
                if self._unary(server, "ServerLive", wire.live_request(), timeout).live:
                    server.answered()
                    return True
        return False

    def ready(self, timeout: float = 5.0) -> bool:
        """Whether text would come out of any server now, see `probe`."""
        try:
            self.probe(timeout)
        except YoutuError:
            return False
        return True

    def probe(self, timeout: float = 5.0) -> None:
        """Ask the servers, each for at most `timeout` seconds, until one says that text would come out now.

        The question passes through Triton, the text model and its engine, and needs no slot. Raises the first
        server's error: EngineStalled when its engine has work and makes no progress, NotReady while it loads,
        DeadlineExceeded when something on the way hangs.
        """
        failure: YoutuError | None = None
        for server in self._rota.order():
            try:
                # Read to the end, for Triton does not take it well when calls are cancelled.
                messages = [
                    response.error_message
                    for response in server.infer(wire.probe_request(self.model), timeout=timeout)
                ]
                if refusal := "".join(messages):
                    raise from_message(refusal, server.address)
                server.answered()
                return
            except grpc.RpcError as error:
                failure = failure or from_rpc(error, server.address)
            except YoutuError as error:
                failure = failure or error
        raise cast(YoutuError, failure)

    def model_info(self, timeout: float = 5.0) -> ModelInfo:
        """Id, limits and defaults of the model, from the first server that tells them."""
        failure: YoutuError | None = None
        for server in self._rota.order():
            try:
                return model_info(
                    self._unary(server, "ModelConfig", wire.config_request(self.model), timeout)
                )
            except (*ELSEWHERE, DeadlineExceeded) as error:
                failure = failure or error
        raise cast(YoutuError, failure)

    def close(self) -> None:
        """Close the channels. Streams under way end with Cancelled."""
        for server in self._rota.servers:
            channel = server.release()
            if channel is not None:
                channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _whole(self, prompt: Prompt | RawPrompt, *, raw: bool, options: Sampling) -> Answer:
        with self._open(prompt, raw=raw, stream=False, options=options) as stream:
            for _ in stream:
                pass
            return stream.answer

    def _open(self, prompt: Prompt | RawPrompt, *, raw: bool, stream: bool, options: Sampling) -> Stream:
        request = wire.infer_request(self.model, prompt, raw=raw, stream=stream, options=options)
        timeout = wire.seconds(options.get("timeout"), self.timeout)
        return Stream(self._rota.order(), request, timeout, options.get("metadata"))

    def _unary(self, server: Server, method: str, request: Any, timeout: float) -> Any:
        try:
            return getattr(server.stub, method)(request, timeout=timeout)
        except grpc.RpcError as error:
            raise from_rpc(error, server.address) from None
