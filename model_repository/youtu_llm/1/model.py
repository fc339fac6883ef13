"""Triton's door to the text contract: text in, text out, streamed.

One thread per request walks its tokens from the engine to the reader; one more asks Triton which
readers have left and tells the engine. Knows the text contract and the token contract, neither
HTTP nor which engine answers.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from pathlib import Path
from typing import Any

import contract
import numpy as np
import triton_python_backend_utils as pb_utils
from detokenizer import StreamingText, token_bytes
from engine_client import EngineCall, EngineClient, EngineError
from prompt import PromptBuilder, PromptError

WATCH_PERIOD = 0.02  # s between two looks for readers that left
# Places beyond the engine's own: requests that are being read or refused hold one for a moment.
SPARE_PLACES = 64


# Tensors that an engine sends beside its tokens, and where they go in _Progress.
_PERF = {
    "kv_cache_reused_blocks": "cached",
    "first_token_time_ns": "first_ns",
    "last_token_time_ns": "last_ns",
}
_OUTPUTS = ("output_ids", "output_log_probs", *_PERF)


class _Call:
    """One request on its way: the door to its reader, and the id that the engine knows it by."""

    def __init__(self, sender: Any) -> None:
        self._sender, self._lock, self._closed = sender, threading.Lock(), False
        self.engine_id = f"youtu-{secrets.token_hex(8)}"
        self.arrival_ns = time.time_ns()
        self._engine_call: EngineCall | None = None
        self.cancelled = False

    def follow(self, engine_call: EngineCall) -> None:
        """From here on a reader who leaves ends this call of the engine."""
        self._engine_call = engine_call

    def stop_engine(self) -> None:
        if self._engine_call is not None:
            self._engine_call.stop()

    def send(self, response: Any, *, final: bool) -> None:
        """One response, or with None just the end. After the last one nothing goes out any more."""
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        # The stub drops outputs that nobody asked for without holding the GIL: these must not be the last
        # references to them.
        kept = response.output_tensors() if response else []
        with self._lock:
            if not self._closed:
                self._closed = final
                self._sender.send(response, flags) if response else self._sender.send(flags=flags)
        kept.clear()

    def left(self) -> bool:
        """Whether the reader has gone. Triton dies when it is asked about a request that has ended."""
        with self._lock:
            return not self._closed and bool(self._sender.is_cancelled())


class _Progress:
    """What has been learnt of an answer from the engine's responses."""

    def __init__(self) -> None:
        self.tokens = 0
        self.cached = 0
        self.first_ns = 0
        self.last_ns = 0

    def take(self, response: dict[str, list[Any]]) -> list[int]:
        """The new tokens of one response; what it says beside them is remembered."""
        for name, attribute in _PERF.items():
            if response.get(name):
                setattr(self, attribute, response[name][0])
        return response.get("output_ids", [])


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = {k: v["string_value"] for k, v in json.loads(args["model_config"])["parameters"].items()}
        engine_dir = Path(parameters["engine_dir"])
        try:
            self._prompts = PromptBuilder(engine_dir)
            self._bytes = token_bytes(self._prompts.tokenizer)
            self._longest_token = max(map(len, self._bytes))
        except Exception as error:
            raise pb_utils.TritonModelException(f"engine_dir {str(engine_dir)!r}: {error}") from error
        facts = self._prompts.facts
        self._defaults = contract.Defaults(
            temperature=float(parameters["temperature"]),
            top_p=float(parameters["top_p"]),
            repetition_penalty=float(parameters["repetition_penalty"]),
            context=int(parameters["context"]),
            vocab_size=int(facts["vocab_size"]),
        )
        self._eos: list[int] = facts["eos_token_ids"]
        self._engine = EngineClient(parameters["engine_url"], parameters["engine_model"])
        self._tokens_per_block = int(parameters["tokens_per_block"])
        self._places = threading.BoundedSemaphore(
            int(parameters["slots"]) + int(parameters["queue"]) + SPARE_PLACES
        )
        self._calls: set[_Call] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._watcher.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            call = _Call(request.get_response_sender())
            if not self._places.acquire(blocking=False):
                _refuse(call, "the queue is full", pb_utils.TritonError.UNAVAILABLE)
                continue
            try:
                wanted = contract.read_request(_reader(request), self._defaults)
            except contract.InvalidInput as error:
                self._places.release()
                _refuse(call, str(error), pb_utils.TritonError.INVALID_ARG)
                continue
            with self._lock:
                self._calls.add(call)
            threading.Thread(target=self._serve, args=(call, wanted), name="serve", daemon=True).start()

    def finalize(self) -> None:
        self._closing.set()
        self._watcher.join()
        self._engine.close()

    def _serve(self, call: _Call, wanted: contract.TextRequest) -> None:
        try:
            self._answer(call, wanted)
        except (contract.InvalidInput, PromptError) as error:
            _refuse(call, str(error), pb_utils.TritonError.INVALID_ARG)
        except EngineError as error:
            unavailable = pb_utils.TritonError.UNAVAILABLE
            _refuse(call, str(error), unavailable if error.unavailable else pb_utils.TritonError.INTERNAL)
        except Exception as error:  # whatever it is, the caller must hear of it
            pb_utils.Logger.log_error(f"{call.engine_id}: {type(error).__name__}: {error}")
            _refuse(call, f"the request failed inside the server: {error}", pb_utils.TritonError.INTERNAL)
        finally:
            with self._lock:
                self._calls.discard(call)
            self._places.release()

    def _prompt(self, wanted: contract.TextRequest) -> list[int]:
        name = "text_input" if wanted.messages is None else "messages"
        if wanted.messages is None:
            text = wanted.text or ""
        else:
            text = self._prompts.render(wanted.messages, wanted.template_kwargs)
        context = self._defaults.context
        # No need to count the tokens of a text that even the longest ones could not spell.
        if (size := len(text.encode())) > context * self._longest_token:
            raise contract.InvalidInput(
                f"{name}: no text of more than {context * self._longest_token} bytes fits a context of "
                f"{context} tokens, {size} were sent"
            )
        ids = self._prompts.encode(text, add_special_tokens=wanted.messages is None)
        if not 1 <= len(ids) < context:
            raise contract.InvalidInput(
                f"{name}: 1 to {context - 1} tokens fit a context of {context} with room for an answer, "
                f"{len(ids)} were sent"
            )
        return ids

    def _answer(self, call: _Call, wanted: contract.TextRequest) -> None:
        ids = self._prompt(wanted)
        room = self._defaults.context - len(ids)
        limit = min(wanted.max_tokens or room, room)
        text = StreamingText(self._bytes, wanted.stop_words)
        progress = _Progress()
        pieces: list[str] = []
        log_probs: list[float] = []
        reason = ""
        if call.cancelled:
            call.send(None, final=True)
            return
        engine_call = self._engine.start(call.engine_id, self._inputs(ids, limit, wanted), _OUTPUTS)
        call.follow(engine_call)
        for response in engine_call:
            if text.stopped or call.cancelled:
                continue  # it was told to stop; its last tokens are nobody's
            new = progress.take(response)
            for i, token in enumerate(new):
                progress.tokens += 1
                if token in self._eos:
                    reason = "stop"
                elif piece := text.push(token):
                    pieces.append(piece)
                if text.stopped:
                    reason = "stop"
                    engine_call.stop()
                if reason:
                    new = new[: i + 1]
                    break
            if wanted.return_log_probs:
                log_probs += response.get("output_log_probs", [])[: len(new)]
            if wanted.stream and pieces and not reason:
                self._send(call, "".join(pieces), log_probs, wanted)
                pieces, log_probs = [], []
        if call.cancelled:
            call.send(None, final=True)
            return
        pieces.append(text.finish())
        if not reason:
            reason = "length" if progress.tokens >= limit and not text.stopped else "stop"
        end = self._ending(call, reason, len(ids), progress)
        self._send(call, "".join(pieces), log_probs, wanted, end)

    def _inputs(self, ids: list[int], limit: int, wanted: contract.TextRequest) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "input_ids": np.array([ids], np.int32),
            "input_lengths": np.array([[len(ids)]], np.int32),
            "request_output_len": np.array([[limit]], np.int32),
            "temperature": np.array([[wanted.temperature]], np.float32),
            "runtime_top_p": np.array([[wanted.top_p]], np.float32),
            "repetition_penalty": np.array([[wanted.repetition_penalty]], np.float32),
            "streaming": np.array([[True]]),
            "return_perf_metrics": np.array([[True]]),
        }
        if wanted.temperature == 0:  # both engines know greedy as top_k 1
            inputs["runtime_top_k"] = np.array([[1]], np.int32)
            del inputs["temperature"]
        elif wanted.top_k:
            inputs["runtime_top_k"] = np.array([[wanted.top_k]], np.int32)
        if self._eos:
            inputs["end_id"] = np.array([[self._eos[0]]], np.int32)
        if len(self._eos) > 1:
            others = self._eos[1:]
            ends = list(range(1, len(others) + 1))
            inputs["stop_words_list"] = np.array([[others, ends]], np.int32)
        for name, value, default, kind in (
            ("presence_penalty", wanted.presence_penalty, 0.0, np.float32),
            ("frequency_penalty", wanted.frequency_penalty, 0.0, np.float32),
            ("min_tokens", wanted.min_tokens, 0, np.int32),
            ("return_log_probs", wanted.return_log_probs, False, np.bool_),
        ):
            if value != default:
                inputs[name] = np.array([[value]], kind)
        seed = wanted.seed if wanted.seed is not None else secrets.randbits(63)
        inputs["seed"] = np.array([[seed]], np.uint64)
        return inputs

    def _ending(self, call: _Call, reason: str, prompt_tokens: int, progress: _Progress) -> list[Any]:
        now = time.time_ns()
        return [
            pb_utils.Tensor("finish_reason", np.array([[reason.encode()]], np.object_)),
            *(
                pb_utils.Tensor(name, np.array([[value]], kind))
                for name, value, kind in (
                    ("num_input_tokens", prompt_tokens, np.int32),
                    ("num_output_tokens", progress.tokens, np.int32),
                    ("num_cached_tokens", progress.cached * self._tokens_per_block, np.int32),
                    ("arrival_time_ns", call.arrival_ns, np.int64),
                    ("first_token_time_ns", progress.first_ns or now, np.int64),
                    ("last_token_time_ns", progress.last_ns or now, np.int64),
                )
            ),
        ]

    def _send(
        self, call: _Call, text: str, log_probs: list[float], wanted: contract.TextRequest, end: Any = ()
    ) -> None:
        out = [pb_utils.Tensor("text_output", np.array([[text.encode()]], np.object_)), *end]
        if wanted.return_log_probs:
            out.append(pb_utils.Tensor("output_log_probs", np.array([log_probs], np.float32)))
        call.send(pb_utils.InferenceResponse(out), final=bool(end))

    def _watch(self) -> None:
        while not self._closing.wait(WATCH_PERIOD):
            with self._lock:
                calls = list(self._calls)
            for call in calls:
                if call.cancelled or call.left():
                    call.cancelled = True
                    # Each time until it has ended: a stop may come to the engine before its request does.
                    call.stop_engine()


def _reader(request: Any) -> contract.Read:
    def read(name: str) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return None if tensor is None else tensor.as_numpy()

    return read


def _refuse(call: _Call, message: str, code: int) -> None:
    """Streams carry no status, so a wrong request is told by its first words too."""
    if code == pb_utils.TritonError.INVALID_ARG:
        message = f"invalid request: {message}"
    call.send(pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code)), final=True)
