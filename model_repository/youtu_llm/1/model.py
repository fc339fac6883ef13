"""The Triton model of the text contract: text in, text out, streamed.

A thread makes the prompt of each request; threads are there before requests come, for a machine without
memory starts none. The answers then grow in one asyncio loop (`answering`). One more thread asks Triton which
readers have left and tells the engine. Knows the text contract and the token contract, neither HTTP nor which
engine answers.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from pathlib import Path
from typing import Any

import triton_python_backend_utils as pb_utils
from answering import Answering, Asked, Call, tensors
from detokenizer import special_names, token_bytes
from engine_client import EngineError, Probed
from guide_check import GuideCheck, with_checked_guide
from guides import with_engine_guide
from prober import Prober
from prompt import PromptBuilder
from reply import Outputs, Reply, Vocabulary, engine_outputs
from text_request import Deployment, TextRequest, engine_inputs, is_probe, read_request
from youtu_contract.errors import Error, Refused, context_length_exceeded, invalid
from youtu_contract.responder import check_parameters, reader
from youtu_contract.rows import DEPLOYMENT_DEFAULTS, TEXT_INPUTS
from youtu_contract.values import Read

WATCH_PERIOD = 0.02  # s between two looks for readers that left
# Places beyond the engine's own: requests that are being read or refused hold one for a moment.
SPARE_PLACES = 64
STACK_BYTES = 8 << 20  # of a thread, the usual size
FAILED = "the engine failed while generating the answer; the server's log has the reason"


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = {k: v["string_value"] for k, v in json.loads(args["model_config"])["parameters"].items()}
        engine_dir = Path(parameters["engine_dir"])
        try:
            describes = parameters["describe_tools"] == "true"
            self._prompts = PromptBuilder(engine_dir, describe_tools=describes)
            self._eos: list[int] = self._prompts.facts["eos_token_ids"]
            table, names = token_bytes(self._prompts.tokenizer), special_names(self._prompts.tokenizer)
            self._vocabulary = Vocabulary(table, names, frozenset(self._eos))
            self._longest_token = max(map(len, table))
        except Exception as error:
            raise pb_utils.TritonModelException(f"engine_dir {str(engine_dir)!r}: {error}") from error
        facts = self._prompts.facts
        thinking = parameters["enable_thinking"]
        vocab_size = int(facts["vocab_size"])
        self._deployment = Deployment(
            defaults={name: float(parameters[name]) for name in DEPLOYMENT_DEFAULTS},
            limits={
                "context": int(parameters["context"]),
                "vocab_size": vocab_size,
                "last_token": vocab_size - 1,
                "top_log_probs": int(parameters["top_log_probs"]),
            },
            engine_inputs=frozenset(parameters["engine_inputs"].split(",")),
            template_kwargs={"enable_thinking": thinking == "true"} if thinking else {},
        )
        self._answering = Answering(
            parameters["engine_url"],
            parameters["engine_model"],
            tokens_per_block=int(parameters["tokens_per_block"]),
            interval=float(parameters["stream_interval_ms"]) / 1000,
            failed=self._failed,
        )
        # For an engine that a bad guide would take down; ours checks its guides itself.
        self._guide_check = (
            GuideCheck(
                parameters["guide_python"],
                engine_dir / "xgrammar_tokenizer_info.json",
                engine_dir / "tokenizer.json",
                vocab_size,
                pb_utils.Logger.log_error,
            )
            if parameters["guide_python"]
            else None
        )
        places = int(parameters["slots"]) + int(parameters["queue"]) + SPARE_PLACES
        self._places = threading.BoundedSemaphore(places)
        self._work: queue.SimpleQueue[tuple[Call, TextRequest] | None] = queue.SimpleQueue()
        # Triton's own stack size, which is their default, is much larger than they need (serve/triton.py).
        threading.stack_size(STACK_BYTES)
        self._workers = [threading.Thread(target=self._run, name="serve", daemon=True) for _ in range(places)]
        for worker in self._workers:
            worker.start()
        self._calls: set[Call] = set()
        self._lock = threading.Lock()
        self._added = threading.Condition(self._lock)  # a call
        self._closing = threading.Event()
        # An engine that answers no probes is judged by the responses that it sends.
        probes = "probe" in self._deployment.engine_inputs
        probe = self._answering.probe if probes else self._silent
        self._prober = Prober(probe, float(parameters["hang_timeout"]))
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._watcher.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            call = Call(request.request_id(), request.get_response_sender(), _trace_of(request))
            try:
                check_parameters(request, TEXT_INPUTS)
                self._accept(call, reader(request))
            except Refused as refused:
                call.refuse(refused.error)
            except Exception as error:  # whatever it is, the caller must get an error
                pb_utils.Logger.log_error(f"{call.log_name}: not started: {type(error).__name__}: {error}")
                if isinstance(error, MemoryError):
                    call.refuse(Error("not_ready", "there is no memory for the request"))
                else:
                    call.refuse(Error("engine_error", FAILED))

    def _accept(self, call: Call, read: Read) -> None:
        """Hand the request to a thread. Whatever is raised here, its place has been given back."""
        if is_probe(read):
            self._prober.ask(call)
            return
        if not self._places.acquire(blocking=False):
            call.refuse(Error("queue_full", "the queue is full"))
            return
        try:
            request = read_request(read, self._deployment)
            with self._lock:
                self._calls.add(call)
                self._added.notify()
            self._work.put((call, request))
        except BaseException:
            self._leave(call)
            raise

    def _leave(self, call: Call) -> None:
        with self._lock:
            self._calls.discard(call)
        self._places.release()

    def finalize(self) -> None:
        self._closing.set()
        for _ in self._workers:
            self._work.put(None)
        with self._lock:
            self._added.notify()
        self._watcher.join()
        self._prober.close()
        if self._guide_check is not None:
            self._guide_check.close()
        self._answering.close()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            self._serve(*work)

    def _serve(self, call: Call, request: TextRequest) -> None:
        try:
            asked = self._asked(call, request)
            if asked is None:
                self._leave(call)
            else:
                call.heard_at = time.monotonic()
                self._answering.begin(call, asked, self._leave)
        except Exception as error:
            self._failed(call, error)
            self._leave(call)

    def _failed(self, call: Call, failure: BaseException) -> None:
        """Whatever it is, the caller must get an error."""
        if isinstance(failure, Refused):
            call.refuse(failure.error)
        elif isinstance(failure, EngineError):
            call.refuse(self._for_caller(call, failure.error))
        else:
            pb_utils.Logger.log_error(f"{call.log_name}: {type(failure).__name__}: {failure}")
            call.refuse(Error("engine_error", FAILED))

    def _for_caller(self, call: Call, error: Error) -> Error:
        """The error for the caller: of a failure only that it happened; the log has the rest."""
        if error.code != "engine_error":
            return error
        pb_utils.Logger.log_error(f"{call.log_name}: the engine failed: {error}")
        return Error("engine_error", FAILED)

    def _prompt(self, request: TextRequest) -> tuple[list[int], bool]:
        """Its tokens, and whether it leaves the model inside its thinking."""
        if request.input_ids is not None:
            self._check_length(request, len(request.input_ids))
            return request.input_ids, False
        text, thinking = request.text or "", False
        if request.messages is not None:
            text, thinking = self._prompts.chat(
                request.messages, request.template_kwargs, answer=request.answer
            )
        # No need to count the tokens of a text that even the longest ones could not spell.
        least = len(text.encode()) // self._longest_token
        context = self._deployment.context
        if least > context and not request.tokenize and not request.tools:
            raise context_length_exceeded(request.prompt_name, least, context, at_least=True)
        ids = self._encoded(request, text)
        self._check_length(request, len(ids))
        return ids, thinking

    def _encoded(self, request: TextRequest, text: str) -> list[int]:
        special = request.options["add_special_tokens"]
        special = request.messages is None if special is None else special
        return self._prompts.encode(text, add_special_tokens=special)

    def _check_length(self, request: TextRequest, tokens: int) -> None:
        context = self._deployment.context
        if request.tokenize:
            return
        if tokens < 1:
            raise invalid(request.prompt_name, "at least one token is required")
        if tokens >= context:
            of_tools = tokens - self._without_tools(request) if request.tools else 0
            raise context_length_exceeded(request.prompt_name, tokens, context, of_tools=of_tools)

    def _without_tools(self, request: TextRequest) -> int:
        """How many tokens its prompt would have without tools."""
        kwargs = request.template_kwargs | {"tools": None}
        text, _ = self._prompts.chat(request.messages or [], kwargs, answer=request.answer)
        return len(self._encoded(request, text))

    def _tokens(self, ids: list[int]) -> Outputs:
        """The answer to a request that asks for its prompt's tokens alone."""
        names = [self._vocabulary.name(token) for token in ids]
        return {"prompt_token_ids": ids, "prompt_tokens": names, "num_input_tokens": len(ids)}

    def _asked(self, call: Call, request: TextRequest) -> Asked | None:
        """What is asked of the engine; None where nothing is, the caller has been answered then."""
        ids, thinking = self._prompt(request)
        if request.tokenize:
            call.send(tensors(self._tokens(ids)), final=True)
            return None
        grammars = self._guide_check is None
        request = with_engine_guide(request, self._deployment.engine_inputs, grammars=grammars)
        if self._guide_check is not None:
            request = with_checked_guide(request, self._guide_check, thinking=thinking)
        room = self._deployment.context - len(ids)
        longest = request.options["max_tokens"]
        limit = room if longest is None else min(longest, room)
        reply = Reply(request, self._vocabulary, prompt=ids, limit=limit, thinking=thinking)
        if call.cancelled:
            call.send(None, final=True)
            return None
        inputs = engine_inputs(
            request, ids, self._deployment, limit=max(1, limit), ends=self._eos, thinking=thinking
        )
        return Asked(inputs, engine_outputs(request), reply, request.stream, len(ids))

    def _silent(self, _timeout: float) -> Probed:
        """An engine that answers no probes has stalled since it last sent a response to any request."""
        with self._lock:
            heard = [call.heard_at for call in self._calls if call.heard_at is not None]
        return Probed(time.monotonic() - max(heard) if heard else 0.0)

    def _watch(self) -> None:
        """Look for readers that left while there are any; each look is a message to Triton and its answer."""
        while True:
            with self._lock:
                self._added.wait_for(lambda: self._calls or self._closing.is_set())
                calls = list(self._calls)
            if self._closing.wait(WATCH_PERIOD):
                return
            try:
                for call in calls:
                    if call.cancelled or call.left():
                        call.cancelled = True
                        # Each time until it has ended: a stop may come to the engine before its request does.
                        self._answering.stop(call)
            except Exception as error:  # out of memory, say; the next look is in a moment
                pb_utils.Logger.log_error(f"checking for disconnected callers failed: {error}")


def _trace_of(request: Any) -> dict[str, str]:
    """The W3C trace context of Triton's span for this request; empty when no traces are taken."""
    context = request.trace().get_context()
    return json.loads(context) if context else {}
