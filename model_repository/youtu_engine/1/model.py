"""The Triton model of our engine: tensors of the token contract in, tensors out.

Connects the token contract and the engine; independent of text. Three threads beside the engine's own: one
delivers tokens (what piled up for a request while others were served goes out as one response),
one asks Triton which callers have left, one makes the guides of requests that need one.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensors
import triton_python_backend_utils as pb_utils
from delivery import Delivery
from engine import Engine, QueueFull
from engine_request import EngineRequest
from grammar import InvalidGuide
from guide import Guides
from loading import load
from outbox import Outbox
from runtime import ComputeError
from youtu_contract.errors import Error, Refused, invalid
from youtu_contract.responder import Responder, check_parameters, reader
from youtu_contract.rows import TOKEN_INPUTS, TOKEN_OUTPUTS
from youtu_contract.values import Array, Read, array_of

WAITING_GUIDES = 16  # requests whose guide waits to be made
WATCH_PERIOD = 0.02  # s between two looks for callers that left


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = {k: v["string_value"] for k, v in json.loads(args["model_config"])["parameters"].items()}
        slots, self._context = int(parameters["slots"]), int(parameters["context"])
        started = time.monotonic()
        try:
            self._runtime = load(parameters)
        except ComputeError as error:
            raise pb_utils.TritonModelException(str(error)) from error
        self._engine = Engine(
            self._runtime,
            slots=slots,
            context=self._context,
            queue=int(parameters["queue"]),
            prefill_chunk=int(parameters["prefill_chunk"]),
        )
        self._guides = Guides(Path(parameters["tokenizer"]), self._engine.vocab_size)
        # One at a time: a schema that takes long to compile holds up other schemas and nobody else.
        self._guide_maker = ThreadPoolExecutor(1, thread_name_prefix="guide")
        self._guide_maker.submit(lambda: None).result()  # its thread is there before a request needs it
        self._waiting: dict[Delivery, Future[None]] = {}
        self._active: set[Delivery] = set()
        self._lock = threading.Lock()
        self._added = threading.Condition(self._lock)  # a delivery that is to be watched
        self._outbox = Outbox[Delivery](float(parameters["stream_interval_ms"]) / 1000)
        self._sending_since: float | None = None  # when the response that is now being sent was begun
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._deliver, name="deliver", daemon=True),
            threading.Thread(target=self._watch, name="watch", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        pb_utils.Logger.log_info(
            f"{parameters['model']}, {parameters['runtime']}: {slots} slots of {self._context} tokens, "
            f"loaded in {time.monotonic() - started:.1f} s; {self._runtime}"
        )

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender, request_id = request.get_response_sender(), request.request_id()
            try:
                check_parameters(request, TOKEN_INPUTS)
                self._accept(request_id, sender, reader(request))
            except Refused as refused:
                Responder(sender).refuse(refused.error)
            except Exception as error:  # whatever it is, the caller must get an error
                message = f"the request could not be started: {type(error).__name__}: {error}"
                pb_utils.Logger.log_error(f"request {request_id!r}: {message}")
                Responder(sender).refuse(Error("engine_error", message))

    def finalize(self) -> None:
        self._closing.set()
        self._guides.close()
        self._guide_maker.shutdown(cancel_futures=True)
        for delivery in self._snapshot(self._waiting):
            delivery.refuse(Error("not_ready", "the engine is shutting down"))
        self._engine.close()
        self._outbox.close()
        with self._lock:
            self._added.notify()
        for thread in self._threads:
            thread.join()

    def _accept(self, request_id: str, sender: Any, read: Read) -> None:
        if tensors.flag(read, "stop"):
            self._stop(request_id)
            Responder(sender).send(None, final=True)
            return
        if tensors.flag(read, "probe"):
            Responder(sender).send({"stalled_ms": self._stalled_ms(), **self._device_memory()}, final=True)
            return
        streaming = tensors.flag(read, "streaming")
        echo = not streaming and not tensors.flag(read, "exclude_input_in_output")
        perf = tensors.flag(read, "return_perf_metrics")
        watched = not tensors.flag(read, "unwatched")
        delivery = Delivery(request_id, sender, streaming=streaming, echo=echo, perf=perf, watched=watched)

        def changed(request: EngineRequest) -> None:
            if request.finished or streaming:
                self._outbox.post(delivery, last=request.finished)

        request = tensors.engine_request(
            read, context=self._context, vocab_size=self._engine.vocab_size, changed=changed
        )
        if (guide := tensors.guide(read)) is not None:
            kind, text, after = guide
            request.guide = self._guides.made(kind, text, request.sampling.ends, after)
            if request.guide is None:
                self._wait_for_guide(delivery, request, kind, text, after)
                return
        self._submit(delivery, request)

    def _wait_for_guide(self, delivery: Delivery, request: EngineRequest, *guide: str) -> None:
        delivery.request = request
        with self._lock:
            if len(self._waiting) >= WAITING_GUIDES:
                message = f"{WAITING_GUIDES} requests are waiting for their schemas to be compiled"
                raise Refused(Error("queue_full", message))
            made = self._guide_maker.submit(self._submit_guided, delivery, request, *guide)
            self._waiting[delivery] = made
            self._added.notify()

    def _device_memory(self) -> dict[str, Array]:
        """The rest of the answer, where there is a card."""
        memory = self._runtime.device_memory()
        return {} if memory is None else {"device_memory": array_of(TOKEN_OUTPUTS["device_memory"], memory)}

    def _stalled_ms(self) -> Array:
        """The answer to a probe: how long there has been no progress although there is work."""
        sending_since = self._sending_since
        unsent = 0.0 if sending_since is None else time.monotonic() - sending_since
        stalled_ms = round(1000 * max(self._engine.stalled(), unsent))
        return array_of(TOKEN_OUTPUTS["stalled_ms"], stalled_ms)

    def _submit_guided(
        self, delivery: Delivery, request: EngineRequest, kind: str, text: str, after: str
    ) -> None:
        try:
            if not delivery.left():
                request.guide = self._guides.make(kind, text, request.sampling.ends, after)
        except InvalidGuide as error:
            delivery.refuse(Error("invalid_value", str(error), "guided_decoding_guide"))
        except Exception as error:  # whatever it is, the caller must get an error
            message = f"{type(error).__name__}: {error}"
            delivery.refuse(Error("engine_error", message, "guided_decoding_guide"))
        else:
            if request.cancelled or request.guide is None:
                delivery.send(None, final=True)
            else:
                self._submit(delivery, request)
        finally:
            with self._lock:
                self._waiting.pop(delivery, None)

    def _end_waiting(self, delivery: Delivery) -> None:
        """End a request whose guide waits to be made, or is being made: then it ends after that."""
        if delivery.request is not None:
            delivery.request.cancelled = True
        with self._lock:
            ended = (made := self._waiting.get(delivery)) is not None and made.cancel()
            if ended:
                del self._waiting[delivery]
        if ended:
            delivery.send(None, final=True)

    def _submit(self, delivery: Delivery, request: EngineRequest) -> None:
        delivery.request = request
        with self._lock:
            self._active.add(delivery)
            self._added.notify()
        try:
            self._engine.submit(request)
        except QueueFull as error:
            with self._lock:
                self._active.discard(delivery)
            delivery.done = True
            delivery.refuse(Error("queue_full", str(error)))

    def _stop(self, request_id: str) -> None:
        if not request_id:
            raise invalid("stop", "the id of the request to stop is required")
        for delivery in self._snapshot(self._waiting):
            if delivery.request_id == request_id:
                self._end_waiting(delivery)
        for delivery in self._snapshot(self._active):
            if delivery.request_id == request_id and delivery.request:
                self._engine.cancel(delivery.request)

    def _snapshot(self, deliveries: Iterable[Delivery]) -> list[Delivery]:
        with self._lock:
            return list(deliveries)

    def _deliver(self) -> None:
        while (delivery := self._outbox.take()) is not None:
            self._sending_since = time.monotonic()
            try:
                self._send_new(delivery)
            except Exception as error:  # the caller is gone, say: its slot goes to the next one
                pb_utils.Logger.log_warn(f"request {delivery.request_id!r}: not delivered: {error}")
                self._give_up(delivery)
            self._sending_since = None

    def _send_new(self, delivery: Delivery) -> None:
        """Send what has been made for a request since the last time."""
        request = delivery.request
        if request is None or delivery.done:
            return
        finished = request.finished  # read before the tokens: none can follow it
        if finished:
            delivery.done = True
            with self._lock:
                self._active.discard(delivery)
        if request.error is not None:
            delivery.refuse(request.error)
            return
        outputs = delivery.outputs(request, finished)
        if outputs is not None or finished:
            delivery.send(outputs, final=finished)

    def _give_up(self, delivery: Delivery) -> None:
        """End a request whose tokens could not be sent."""
        delivery.done = True
        with self._lock:
            self._active.discard(delivery)
        if delivery.request is not None:
            self._engine.cancel(delivery.request)
        with contextlib.suppress(Exception):  # most likely this cannot be sent either
            delivery.refuse(Error("engine_error", "the answer could not be sent"))

    def _watch(self) -> None:
        """Look for callers that left while there are any; each look is a message to Triton and its answer."""
        while True:
            with self._lock:
                self._added.wait_for(lambda: self._closing.is_set() or any(self._watched()))
                watched = list(self._watched())
            if self._closing.wait(WATCH_PERIOD):
                return
            try:
                for delivery in watched:
                    if delivery.done or not delivery.left():
                        continue
                    self._end_waiting(delivery)
                    if delivery.request is not None:
                        self._engine.cancel(delivery.request)
            except Exception as error:  # out of memory, say; the next look is in a moment
                pb_utils.Logger.log_error(f"checking for disconnected callers failed: {error}")

    def _watched(self) -> Iterator[Delivery]:
        return (delivery for delivery in (*self._waiting, *self._active) if delivery.watched)
