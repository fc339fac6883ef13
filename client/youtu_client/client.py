"""The client for threads: what can be asked of a server, with one call per request on a shared channel.

Its streams live in `stream`; what it shares with the client for asyncio, in `core`.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import grpc  # type: ignore[import-untyped]

from .answers import Answer, ModelInfo, Probed, Tokens
from .core import BaseClient
from .servers import SYNC_OPTIONS, Server
from .stream import Stream
from .wire import Prompt, RawPrompt, Sampling

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

T = TypeVar("T")


class Client(BaseClient[Stream]):
    """Talks to one or several Triton servers that hold the same model.

    `servers`: "host:port", several of them with commas, or a list. `timeout`: seconds for a whole request,
    unless it brings its own. `affinity`: conversations return to the server that knows their beginning, see
    `balancing`. May be shared by any number of threads; make one per process (a channel that was
    used does not survive a fork). All errors are `YoutuError`s, see `errors`.
    """

    _stream_type = Stream

    def chat(self, messages: Prompt, **options: Unpack[Sampling]) -> Answer:
        """The answer to a question (str) or to a conversation (list of {"role", "content"}), whole."""
        return _read_out(self._open(messages, raw=False, stream=False, options=options))

    def complete(self, text: RawPrompt, **options: Unpack[Sampling]) -> Answer:
        """The continuation of a raw prompt (text or token ids), without a chat template, whole."""
        return _read_out(self._open(text, raw=True, stream=False, options=options))

    def tokenize(self, messages: Prompt, **options: Unpack[Sampling]) -> Tokens:
        """The prompt that `chat` makes of a conversation, as tokens: how many there are, `len(tokens.ids)`.

        The options that count are those of the chat template. No slot is needed, and a prompt that does not
        fit the context is no error.
        """
        return result_of(self._tokenized(messages, raw=False, options=options))

    def tokenize_text(self, text: RawPrompt, **options: Unpack[Sampling]) -> Tokens:
        """A raw prompt as tokens, as `complete` would read it; of token ids, the text of each."""
        return result_of(self._tokenized(text, raw=True, options=options))

    def live(self, timeout: float = 5.0) -> bool:
        """Whether any server answers at all."""
        return result_of(self._live(timeout))

    def ready(self, timeout: float = 5.0) -> bool:
        """Whether text would come out of any server now, see `probe`."""
        return result_of(self._ready(timeout))

    def probe(self, timeout: float = 5.0) -> Probed:
        """Ask the servers, each for at most `timeout` seconds, until one says that text would come out now.

        The question passes through Triton, the text model and its engine, and needs no slot. Raises the first
        server's error: EngineStalled when its engine has work and makes no progress, NotReady while it loads,
        DeadlineExceeded when something on the way hangs.
        """
        return result_of(self._probe(timeout))

    def model_info(self, timeout: float = 5.0) -> ModelInfo:
        """Id, limits and defaults of the model, from the first server that answers."""
        return result_of(self._model_info(timeout))

    @property
    def servers(self) -> tuple[Server, ...]:
        """Its servers as they are now."""
        return self._servers.servers

    @property
    def working(self) -> int:
        """How many servers are asked before others, at least one."""
        return max(1, sum(not server.down for server in self.servers))

    def set_slots(self, slots: int) -> None:
        """Say how many requests each server answers at once, so that none waits where another has a slot."""
        self._servers.slots = slots

    def replace_servers(self, addresses: Sequence[str]) -> list[Server]:
        """Have these servers from now on; those that are known stay. Returns the new ones.

        Streams under way go on where they are.
        """
        known = {server.address: server for server in self.servers}
        new = [Server(address, self._channel) for address in addresses if address not in known]
        made = {server.address: server for server in new}
        self._servers.servers = tuple(known.get(address) or made[address] for address in addresses)
        return new

    def close(self) -> None:
        """Close the channels. Streams under way end with Cancelled."""
        for channel in self._servers.release():
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @staticmethod
    def _channel(target: str, options: list[tuple[str, Any]]) -> Any:
        return grpc.insecure_channel(target, options=[*options, *SYNC_OPTIONS])

    async def _unary(self, server: Server, method: str, request: Any, timeout: float) -> Any:
        return getattr(server.stub, method)(request, timeout=timeout)

    async def _responses(self, server: Server, request: Any, timeout: float) -> list[Any]:
        return list(server.infer(request, timeout=timeout))


def _read_out(stream: Stream) -> Answer:
    with stream:
        for _ in stream:
            pass
        return stream.answer


def result_of(question: Coroutine[Any, Any, T]) -> T:
    """What a coroutine of `core` returns. Its calls block here, so its first step is its last."""
    try:
        question.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("a call of the synchronous client was awaited; use AsyncClient")
