"""Triton's door to the text contract: text in, text out, streamed.

One thread per request walks its tokens from the engine to the reader; they are there before requests
come, for a machine without memory starts none. One more asks Triton which readers have left and tells
the engine. Knows the text contract and the token contract, neither
HTTP nor which engine answers.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from pathlib import Path
from typing import Any

import contract
import triton_python_backend_utils as pb_utils
from call import Call, Code, refuse
from detokenizer import special_names, token_bytes
from engine_client import EngineClient, EngineError
from engine_inputs import engine_inputs
from prober import Prober
from prompt import PromptBuilder, PromptError
from reply import Outputs, Reply, Vocabulary, asked_of_the_engine

WATCH_PERIOD = 0.02  # s between two looks for readers that left
# Places beyond the engine's own: requests that are being read or refused hold one for a moment.
SPARE_PLACES = 64
STACK_BYTES = 8 << 20  # of a thread, the usual size


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = {k: v["string_value"] for k, v in json.loads(args["model_config"])["parameters"].items()}
        engine_dir = Path(parameters["engine_dir"])
        try:
            self._prompts = PromptBuilder(engine_dir)
            self._eos: list[int] = self._prompts.facts["eos_token_ids"]
            table, names = token_bytes(self._prompts.tokenizer), special_names(self._prompts.tokenizer)
            self._vocabulary = Vocabulary(table, names, frozenset(self._eos))
            self._longest_token = max(map(len, table))
        except Exception as error:
            raise pb_utils.TritonModelException(f"engine_dir {str(engine_dir)!r}: {error}") from error
        facts = self._prompts.facts
        thinking = parameters["enable_thinking"]
        self._defaults = contract.Defaults(
            temperature=float(parameters["temperature"]),
            top_p=float(parameters["top_p"]),
            repetition_penalty=float(parameters["repetition_penalty"]),
            context=int(parameters["context"]),
            vocab_size=int(facts["vocab_size"]),
            top_log_probs=int(parameters["top_log_probs"]),
            prompt_log_probs=parameters["prompt_log_probs"] == "true",
            guided_decoding=parameters["guided_decoding"] == "true",
            template_kwargs={"enable_thinking": thinking == "true"} if thinking else {},
        )
        self._engine = EngineClient(parameters["engine_url"], parameters["engine_model"])
        self._tokens_per_block = int(parameters["tokens_per_block"])
        places = int(parameters["slots"]) + int(parameters["queue"]) + SPARE_PLACES
        self._places = threading.BoundedSemaphore(places)
        self._work: queue.SimpleQueue[tuple[Call, contract.TextRequest] | None] = queue.SimpleQueue()
        # Triton's own stack size, which is their default, is much larger than they need (serve/triton.py).
        threading.stack_size(STACK_BYTES)
        self._workers = [threading.Thread(target=self._run, name="serve", daemon=True) for _ in range(places)]
        for worker in self._workers:
            worker.start()
        self._calls: set[Call] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        stalled_s = self._engine.stalled_s if parameters["engine_probe"] == "true" else self._silent_s
        self._prober = Prober(stalled_s, float(parameters["hang_timeout"]))
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._watcher.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            call = Call(request.get_response_sender(), _trace_of(request))
            try:
                self._accept(call, _reader(request))
            except contract.InvalidInput as error:
                refuse(call, str(error), "INVALID_ARG")
            except Exception as error:  # out of memory, say: the caller must hear of it
                pb_utils.Logger.log_error(f"{call.engine_id}: not started: {type(error).__name__}: {error}")
                refuse(call, f"not ready: the request could not be started ({error})", "UNAVAILABLE")

    def _accept(self, call: Call, read: contract.Read) -> None:
        """Hand the request to a thread. Whatever is raised here, its place has been given back."""
        if contract.is_probe(read):
            self._prober.ask(call)
            return
        if not self._places.acquire(blocking=False):
            refuse(call, "the queue is full", "UNAVAILABLE")
            return
        try:
            wanted = contract.read_request(read, self._defaults)
            with self._lock:
                self._calls.add(call)
            self._work.put((call, wanted))
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
        self._watcher.join()
        self._prober.close()
        self._engine.close()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            self._serve(*work)

    def _serve(self, call: Call, wanted: contract.TextRequest) -> None:
        try:
            self._answer(call, wanted)
        except (contract.InvalidInput, PromptError) as error:
            refuse(call, str(error), "INVALID_ARG")
        except EngineError as error:
            code: Code = "UNAVAILABLE" if error.unavailable else "INTERNAL"
            refuse(call, str(error), "INVALID_ARG" if error.invalid else code)
        except Exception as error:  # whatever it is, the caller must hear of it
            pb_utils.Logger.log_error(f"{call.engine_id}: {type(error).__name__}: {error}")
            refuse(call, f"the request failed inside the server: {error}", "INTERNAL")
        finally:
            self._leave(call)

    def _prompt(self, wanted: contract.TextRequest) -> tuple[list[int], bool]:
        """Its tokens, and whether it leaves the model in the midst of its thinking."""
        if wanted.input_ids is not None:
            self._check_length("input_ids", len(wanted.input_ids))
            return wanted.input_ids, False
        thinking = False
        name = "text_input" if wanted.messages is None else "messages"
        if wanted.messages is None:
            text = wanted.text or ""
        else:
            text = self._prompts.render(wanted.messages, wanted.template_kwargs)
            thinking = self._prompts.leaves_in_thinking(text, wanted.messages, wanted.template_kwargs)
        context = self._defaults.context
        # No need to count the tokens of a text that even the longest ones could not spell.
        if (size := len(text.encode())) > context * self._longest_token:
            raise contract.InvalidInput(
                f"{name}: no text of more than {context * self._longest_token} bytes fits a context of "
                f"{context} tokens, {size} were sent"
            )
        ids = self._prompts.encode(text, add_special_tokens=wanted.messages is None)
        self._check_length(name, len(ids))
        return ids, thinking

    def _check_length(self, name: str, tokens: int) -> None:
        context = self._defaults.context
        if not 1 <= tokens < context:
            raise contract.InvalidInput(
                f"{name}: 1 to {context - 1} tokens fit a context of {context} with room for an answer, "
                f"{tokens} were sent"
            )

    def _answer(self, call: Call, wanted: contract.TextRequest) -> None:
        ids, thinking = self._prompt(wanted)
        room = self._defaults.context - len(ids)
        limit = min(wanted.max_tokens or room, room)
        reply = Reply(wanted, self._vocabulary, prompt=ids, limit=limit, thinking=thinking)
        if call.cancelled:
            call.send(None, final=True)
            return
        call.heard_at = time.monotonic()
        inputs = engine_inputs(wanted, ids, limit=limit, ends=self._eos, vocab_size=self._defaults.vocab_size)
        engine_call = self._engine.start(call.engine_id, inputs, asked_of_the_engine(wanted), call.trace)
        call.follow(engine_call)
        for response in engine_call:
            call.heard_at = time.monotonic()
            if reply.reason or call.cancelled:
                continue  # it was told to stop; its last tokens are nobody's
            reply.take(response)
            if reply.stopped:
                engine_call.stop()
            if wanted.stream and reply.has_news and not reply.reason:
                call.send(_response(reply.news()), final=False)
        if call.cancelled:
            call.send(None, final=True)
            return
        reply.finish()
        end = reply.ending(
            prompt_tokens=len(ids), arrival_ns=call.arrival_ns, tokens_per_block=self._tokens_per_block
        )
        call.send(_response(reply.news(last=True) + end), final=True)

    def _silent_s(self, _timeout: float) -> float:
        """Seconds for which an engine that answers no probes has said nothing of any request that it has."""
        with self._lock:
            heard = [call.heard_at for call in self._calls if call.heard_at is not None]
        return time.monotonic() - max(heard) if heard else 0.0

    def _watch(self) -> None:
        while not self._closing.wait(WATCH_PERIOD):
            try:
                self._stop_left_calls()
            except Exception as error:  # out of memory, say; the next look is in a moment
                pb_utils.Logger.log_error(f"the look for callers that left failed: {error}")

    def _stop_left_calls(self) -> None:
        with self._lock:
            calls = list(self._calls)
        for call in calls:
            if call.cancelled or call.left():
                call.cancelled = True
                # Each time until it has ended: a stop may come to the engine before its request does.
                call.stop_engine()


def _trace_of(request: Any) -> dict[str, str]:
    """The W3C trace context of Triton's span for this request; empty when no traces are taken."""
    context = request.trace().get_context()
    return json.loads(context) if context else {}


def _reader(request: Any) -> contract.Read:
    def read(name: str) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return None if tensor is None else tensor.as_numpy()

    return read


def _response(outputs: Outputs) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor(name, array) for name, array in outputs])
