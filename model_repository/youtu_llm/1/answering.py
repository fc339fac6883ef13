"""Answers that grow: from the engine's responses to the reader's, all of them in one asyncio loop.

Knows when a response goes out; what is in one is `reply`'s to know, and how a request is read the model's.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from engine_client import EngineCall, EngineClient
from reply import Outputs, Reply
from youtu_contract.responder import Responder
from youtu_contract.rows import TEXT_OUTPUTS
from youtu_contract.values import Array, array_of

T = TypeVar("T")


class Call(Responder):
    """`engine_id`: how the engine knows it; `trace`: the W3C context of Triton's span for it."""

    def __init__(self, request_id: str, sender: Any, trace: dict[str, str]) -> None:
        super().__init__(sender)
        self.trace = trace
        self.engine_id = f"youtu-{secrets.token_hex(8)}"
        self.log_name = f"request {request_id!r} ({self.engine_id})"
        self.arrival_ns = time.time_ns()
        self.heard_at: float | None = None  # when the engine last answered, or was asked
        self.engine_call: EngineCall | None = None
        self.stopping = False
        self.cancelled = False


@dataclass(frozen=True)
class Asked:
    """What an answer is made from: what the engine is sent, and the reply that grows of what it says."""

    inputs: Mapping[str, Array]
    outputs: Sequence[str]
    reply: Reply
    stream: bool
    prompt_tokens: int


class Answering:
    """The loop in its thread, and the way to the engine.

    Text that comes sooner than `interval` seconds after the last piece of its answer leaves with the next
    text, and waits no longer than that. The first piece and the last one never wait.
    """

    def __init__(self, url: str, model: str, *, tokens_per_block: int, interval: float) -> None:
        self._tokens_per_block, self._interval = tokens_per_block, interval
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="answer", daemon=True)
        self._thread.start()
        self._engine = self._wait(_made(url, model))

    def close(self) -> None:
        self._wait(self._engine.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def probe(self, timeout: float) -> Any:
        """What the engine says of itself (`EngineClient.probe`)."""
        return self._wait(self._engine.probe(timeout))

    def begin(self, call: Call, asked: Asked, ended: Callable[[Call, BaseException | None], None]) -> None:
        """Have the answer made. `ended` is called in the loop, with what made it fail."""

        def start() -> None:
            try:
                task = self._loop.create_task(self._answer(call, asked))
                self._tasks.add(task)
            except BaseException as error:
                ended(call, error)
                return
            task.add_done_callback(over)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            failure = asyncio.CancelledError() if task.cancelled() else task.exception()
            if failure is not None:
                self.stop(call)  # the engine does not see that nobody reads it any more
            ended(call, failure)

        self._loop.call_soon_threadsafe(start)

    def stop(self, call: Call) -> None:
        """End its call of the engine, if it has one. Ask again until it has ended: this may come too soon."""
        if call.engine_call is not None and not call.stopping:
            call.stopping = True
            self._loop.call_soon_threadsafe(self._stop, call, call.engine_call)

    def _stop(self, call: Call, engine_call: EngineCall) -> None:
        async def stop() -> None:
            try:
                await engine_call.stop()
            finally:
                call.stopping = False

        task = self._loop.create_task(stop())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _answer(self, call: Call, asked: Asked) -> None:
        reply = asked.reply
        call.engine_call = self._engine.start(call.engine_id, asked.inputs, asked.outputs, call.trace)
        pieces = _Pieces(call, reply, self._interval, self._loop)
        try:
            async for response in call.engine_call:
                call.heard_at = time.monotonic()
                if reply.reason or call.cancelled:
                    continue  # it is being stopped; its last tokens are dropped
                reply.take(response)
                if reply.stopped:
                    self.stop(call)
                if asked.stream and reply.has_news and not reply.reason:
                    pieces.offer()
        finally:
            pieces.close()
        if call.cancelled:
            call.send(None, final=True)
            return
        reply.finish()
        end = reply.ending(
            prompt_tokens=asked.prompt_tokens,
            arrival_ns=call.arrival_ns,
            tokens_per_block=self._tokens_per_block,
        )
        call.send(tensors(reply.news(last=True) | end), final=True)


class _Pieces:
    """When the text of one answer goes out."""

    def __init__(self, call: Call, reply: Reply, interval: float, loop: asyncio.AbstractEventLoop) -> None:
        self._call, self._reply, self._interval, self._loop = call, reply, interval, loop
        self._sent_at = -float("inf")
        self._held: asyncio.TimerHandle | None = None

    def offer(self) -> None:
        """There is text that no response has carried yet."""
        if self._loop.time() - self._sent_at >= self._interval:
            self._send()
        elif self._held is None:
            self._held = self._loop.call_later(self._interval, self._send)

    def close(self) -> None:
        """What is left goes out with the end."""
        if self._held is not None:
            self._held.cancel()
            self._held = None

    def _send(self) -> None:
        self.close()
        self._sent_at = self._loop.time()
        if not self._call.cancelled:
            self._call.send(tensors(self._reply.news()), final=False)


async def _made(url: str, model: str) -> EngineClient:
    return EngineClient(url, model)


def tensors(outputs: Outputs) -> dict[str, Array]:
    """The outputs of a response, as they are sent."""
    return {name: array_of(TEXT_OUTPUTS[name], value) for name, value in outputs.items()}
