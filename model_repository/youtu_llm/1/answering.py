"""Answers that grow: from the engine's responses to the reader's.

One asyncio loop reads for all of them. One thread sends: each response is a message to Triton, whose receipt
is waited for, and the loop would be held up.

Knows when a response goes out; what is in one is `reply`'s to know, and how a request is read the model's.
"""

from __future__ import annotations

import asyncio
import queue
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

SEND_AGAIN = 0.005
"""Seconds between two looks whether the last piece of an answer is being sent by now."""


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
        self.sending = False  # a piece of it waits to be sent
        self.cancelled = False


_Outgoing = tuple[Call, Outputs | BaseException | None, bool]
"""Whose, what (outputs, nothing or a failure), and whether it is the last."""


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

    def __init__(
        self,
        url: str,
        model: str,
        *,
        tokens_per_block: int,
        interval: float,
        failed: Callable[[Call, BaseException], None],
    ) -> None:
        """`failed` is called with what kept an answer from being made or sent; its caller is to be told."""
        self._tokens_per_block, self._interval, self._failed = tokens_per_block, interval, failed
        self._outgoing: queue.SimpleQueue[_Outgoing | None] = queue.SimpleQueue()
        self._sender = threading.Thread(target=self._send_all, name="send", daemon=True)
        self._sender.start()
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        # One stop at a time: many at once would fill Triton's queue in front of NVIDIA's backend.
        self._stopping = asyncio.Lock()
        self._thread = threading.Thread(target=self._loop.run_forever, name="answer", daemon=True)
        self._thread.start()
        self._engine = self._wait(_made(url, model))

    def close(self) -> None:
        self._wait(self._engine.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._outgoing.put(None)
        self._sender.join()

    def probe(self, timeout: float) -> Any:
        """What the engine says of itself (`EngineClient.probe`)."""
        return self._wait(self._engine.probe(timeout))

    def begin(self, call: Call, asked: Asked, ended: Callable[[Call], None]) -> None:
        """Have the answer made. `ended` is called when it is, or has failed."""

        def start() -> None:
            try:
                task = self._loop.create_task(self._answer(call, asked))
                self._tasks.add(task)
            except BaseException as error:
                self._outgoing.put((call, error, True))
                ended(call)
                return
            task.add_done_callback(over)

        def over(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            failure = asyncio.CancelledError() if task.cancelled() else task.exception()
            if failure is not None:
                self.stop(call)  # the engine does not see that nobody reads it any more
                self._outgoing.put((call, failure, True))
            ended(call)

        self._loop.call_soon_threadsafe(start)

    def stop(self, call: Call) -> None:
        """End its call of the engine, if it has one. Ask again until it has ended: this may come too soon."""
        if call.engine_call is not None and not call.stopping:
            call.stopping = True
            self._loop.call_soon_threadsafe(self._stop, call, call.engine_call)

    def _stop(self, call: Call, engine_call: EngineCall) -> None:
        async def stop() -> None:
            try:
                async with self._stopping:
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
        pieces = _Pieces(call, reply, self._interval, self._loop, self._outgoing)
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
            self._outgoing.put((call, None, True))
            return
        reply.finish()
        end = reply.ending(
            prompt_tokens=asked.prompt_tokens,
            arrival_ns=call.arrival_ns,
            tokens_per_block=self._tokens_per_block,
        )
        self._outgoing.put((call, reply.news(last=True) | end, True))

    def _send_all(self) -> None:
        while (item := self._outgoing.get()) is not None:
            call, what, final = item
            call.sending = False
            try:
                if isinstance(what, BaseException):
                    self._failed(call, what)
                else:
                    call.send(None if what is None else tensors(what), final=final)
            except Exception as error:
                self._failed(call, error)


class _Pieces:
    """When the text of one answer goes out."""

    def __init__(
        self,
        call: Call,
        reply: Reply,
        interval: float,
        loop: asyncio.AbstractEventLoop,
        outgoing: queue.SimpleQueue[_Outgoing | None],
    ) -> None:
        self._call, self._reply, self._interval = call, reply, interval
        self._loop, self._outgoing = loop, outgoing
        self._sent_at = -float("inf")
        self._held: asyncio.TimerHandle | None = None

    def offer(self) -> None:
        """There is text that no response has carried yet."""
        if self._loop.time() - self._sent_at >= self._interval and not self._call.sending:
            self._send()
        elif self._held is None:
            self._held = self._loop.call_later(max(self._interval, SEND_AGAIN), self._send)

    def close(self) -> None:
        """What is left goes out with the end."""
        if self._held is not None:
            self._held.cancel()
            self._held = None

    def _send(self) -> None:
        self.close()
        if self._call.sending:  # what piles up behind a piece travels together
            self._held = self._loop.call_later(SEND_AGAIN, self._send)
            return
        self._sent_at, self._call.sending = self._loop.time(), True
        self._outgoing.put((self._call, self._reply.news(), False))


async def _made(url: str, model: str) -> EngineClient:
    return EngineClient(url, model)


def tensors(outputs: Outputs) -> dict[str, Array]:
    """The outputs of a response, as they are sent."""
    return {name: array_of(TEXT_OUTPUTS[name], value) for name, value in outputs.items()}
