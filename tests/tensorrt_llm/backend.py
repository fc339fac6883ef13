"""A backend `tensorrtllm` without a GPU: loaded by the real Triton where NVIDIA's library would be.

It speaks the contract of NVIDIA's C++ backend, as its sources have it (inflight_batcher_llm/src/
model_instance_state.cc and utils.cc, executor/samplingConfig.cpp of TensorRT-LLM 1.x):

* tensors carry a batch dimension; output_ids is [1, beams, tokens], padded with -1, and sequence_length
  [1, beams] counts; output_ids must be among the outputs that are asked for;
* streamed responses carry new tokens only; a plain one carries the prompt too unless that is excluded;
* the end token itself is never sent, a stop word is;
* output_log_probs is the whole answer's each time, also while streaming;
* perf metrics come on the last response, their times from a steady clock, not from 1970;
* `stop` with a request's id ends it, unknown ids are no error, and the answer is an empty last response;
* presence and frequency penalties count the prompt too (`prompt_ignore_length` came after 1.2);
* min_tokens holds back end_id and no stop word;
* a prompt may have max_seq_len - 1 tokens with chunked context, else at most max_num_tokens; max_input_len of
  the engine counts for nothing;
* the gauges of nv_trt_llm_* are 0 until a request has run, then as old as stats_check_period_ms;
* a guide is compiled inside of a step, by the same xgrammar; what it throws there ends all active requests;
* whatever the executor refuses is an INTERNAL error with a call stack below its first line; its own queue is
  as long as default_queue_policy.max_queue_size;
* parameters that the backend reads without a default must be there.

Not as there: an output that nobody asked for is not sent (Triton's Python backend drops it), requests have a
batch of one, and the words of shape errors are ours.

What it answers: the prompt's own tokens, then the end. `seed` from SCRIPTED on scripts a request: SCRIPTED +
milliseconds per step * 1000 + the token at which the executor fails (0: never).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
import time
import types
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

SCRIPTED = 10**12
METRICS = {
    "nv_trt_llm_request_metrics": {"request_type": "active"},
    "nv_trt_llm_kv_cache_block_metrics": {"kv_cache_block_type": "max"},
}
STACK = "\n1       0x7f1f2f tensorrt_llm::common::throwRuntimeError(char const*, int, char const*) + 82"
NO_DEFAULT = ("tokenizer_dir", "xgrammar_tokenizer_info_path", "guided_decoding_backend")
CHECKS: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("temperature", lambda value: value >= 0, "temperature.value() >= 0.f"),
    ("runtime_top_k", lambda value: value >= 0, "topK.value() >= 0"),
    ("runtime_top_p", lambda value: 0 < value <= 1, "topP.value() > 0.f"),
    ("repetition_penalty", lambda value: value > 0, "penalty.value() > 0.f"),
    ("min_tokens", lambda value: value >= 0, "minTokens.value() >= 0"),
)


class ExecutorError(Exception):
    def __init__(self, said: str, where: str) -> None:
        super().__init__(f"[TensorRT-LLM][ERROR] {said} (/src/tensorrt_llm/cpp/{where}:1){STACK}")


class Guides:
    """xgrammar as the C++ backend uses it, from the file that xgrammar_tokenizer_info_path names."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise pb_utils.TritonModelException(f"Xgrammar's tokenizer info path at {path} does not exist.")
        info = json.loads(path.read_text(encoding="utf-8"))
        vocab, self.stops, text = (info[key] for key in ("encoded_vocab", "stop_token_ids", "tokenizer_str"))
        package = types.ModuleType("xgrammar")  # without what its Python part imports
        package.__path__ = [os.environ["STAND_IN_XGRAMMAR"]]
        sys.modules["xgrammar"] = package
        self._core: Any = importlib.import_module("xgrammar.xgrammar_bindings")
        facts = json.loads(self._core.TokenizerInfo._detect_metadata_from_hf(text))
        facts |= {"vocab_size": len(vocab), "stop_token_ids": self.stops}
        tokenizer = self._core.TokenizerInfo.from_vocab_and_metadata(vocab, json.dumps(facts))
        self._compiler = self._core.GrammarCompiler(tokenizer, 8, True, -1)
        words = tokenizer.decoded_vocab
        # Ends first, then what closes a part, white space last: so that an answer comes to an end.
        closing = [b'"', b"}", b"]"]
        ranks = [closing.index(word) if word in closing else 4 - bool(word.strip()) for word in words]
        self._order = sorted(range(len(words)), key=lambda i: (i not in self.stops, ranks[i], i))

    def matcher(self, kind: str, guide: str) -> Any:
        """Throws what the compiler throws."""
        if kind == "json":
            compiled = self._compiler.compile_builtin_json_grammar()
        elif kind == "json_schema":
            compiled = self._compiler.compile_json_schema(guide, True, None, None, True, None)
        else:
            make = self._core.Grammar.from_regex if kind == "regex" else self._core.Grammar.from_ebnf
            compiled = self._compiler.compile_grammar(make(guide, False))
        return self._core.GrammarMatcher(compiled, None, False, -1)

    def next_token(self, matcher: Any) -> int:
        mask = np.zeros((1, -(-len(self._order) // 32)), np.int32)
        matcher.fill_next_token_bitmask(mask, 0, False)
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
        token = next(token for token in self._order if bits[token])
        matcher.accept_token(token, False)
        return token


class Request:
    """One request in the executor."""

    def __init__(
        self, request: Any, number: int, *, longest_prompt: int, max_seq_len: int, exclude: bool
    ) -> None:
        self.id, self.sender, self.number = request.request_id(), request.get_response_sender(), number
        self.wanted = set(request.requested_output_names())
        self.cancelled = self.finished = False
        self.arrival_ns = self.scheduled_ns = self.first_ns = time.monotonic_ns()
        self.reused_blocks = 0
        self.prompt: list[int] = _array(request, "input_ids").reshape(-1).tolist()
        if _array(request, "input_ids").shape != (1, int(_scalar(request, "input_lengths", 0))):
            raise ExecutorError("Assertion failed: input_ids must be [1, input_lengths]", "utils.cc")
        for name, fits, check in CHECKS:
            value = _scalar(request, name, None)
            if value is not None and not fits(value):
                raise ExecutorError(f"Assertion failed: {check}", "executor/samplingConfig.cpp")
        self.stop_words = _words(request, "stop_words_list")
        _words(request, "bad_words_list")
        self.too_long = len(self.prompt) > longest_prompt and longest_prompt
        self.streaming = bool(_scalar(request, "streaming", False))
        self.exclude = bool(_scalar(request, "exclude_input_in_output", exclude))
        self.log_probs = bool(_scalar(request, "return_log_probs", False))
        self.perf = bool(_scalar(request, "return_perf_metrics", False))
        self.end_id = int(_scalar(request, "end_id", -1))
        limit = int(_scalar(request, "request_output_len", 0))
        self.limit = min(limit, max_seq_len - len(self.prompt))  # lowered without a word, as there
        self.least = int(_scalar(request, "min_tokens", 0))
        seed = int(_scalar(request, "seed", 0))
        script = seed - SCRIPTED if SCRIPTED <= seed < 2 * SCRIPTED else 0  # chance seeds are far above
        step_ms, self.fail_at = divmod(script, 1000)
        self.step_seconds = step_ms / 1000
        bias = _array(request, "embedding_bias")
        self.bias = None if bias is None else bias.reshape(-1).astype(np.float64)
        self.presence, self.frequency = (
            float(_scalar(request, f"{name}_penalty", 0)) for name in ("presence", "frequency")
        )
        self.guide = tuple(
            None if (text := _array(request, name)) is None else text.item().decode()
            for name in ("guided_decoding_guide_type", "guided_decoding_guide")
        )
        self.choose: Callable[[], int] | None = None  # the next token, held to the guide
        self.made: list[int] = []
        self.sent = 0
        self.next_step = 0.0

    def step(self) -> None:
        """One more token, or the end."""
        if len(self.made) + 1 == self.fail_at:
            raise ExecutorError("CUDA runtime error in cudaGetLastError()", "runtime/cudaStream.h")
        if self.choose is not None:
            token = self.choose()
            self.finished = token == self.end_id
            self.made += [] if self.finished else [token]
            self.finished |= len(self.made) >= self.limit or self.made[-1:] in self.stop_words
            return
        if self.bias is None and len(self.made) >= max(len(self.prompt), self.least):
            self.finished = True  # the end token, which is not sent
            return
        self.made.append(self._next())
        if len(self.made) == 1:
            self.first_ns = time.monotonic_ns()
        self.finished = len(self.made) >= self.limit or any(
            self.made[-len(word) :] == word for word in self.stop_words
        )

    def _next(self) -> int:
        """The prompt's own tokens in turn; with a bias the likeliest if all logits are 0."""
        if self.bias is None:
            return self.prompt[len(self.made) % len(self.prompt)]
        scores = self.bias.copy()
        for token, times in Counter(self.prompt + self.made).items():
            scores[token] -= self.presence + self.frequency * times
        return int(scores.argmax())

    def respond(self) -> None:
        """What the C++ backend sends after a step."""
        if not (self.streaming or self.finished):
            return
        if "output_ids" not in self.wanted:
            raise ExecutorError("output_ids tensor must be present in list of output tensors", "backend")
        ids = self.made[self.sent :] if self.streaming else self.made
        ids = ids if self.streaming or self.exclude else self.prompt + ids
        self.sent = len(self.made)
        outputs: dict[str, np.ndarray[Any, Any]] = {
            "output_ids": np.array([[[*ids, -1]]], np.int32),  # padded, as a beam shorter than another is
            "sequence_length": np.array([[len(ids)]], np.int32),
        }
        if self.log_probs:
            values = [-(i + 1) / 8 for i in range(len(self.made))]
            outputs["output_log_probs"] = np.array([[values]], np.float32)
            outputs["cum_log_probs"] = np.array([[sum(values)]], np.float32)
        if self.perf and self.finished:
            times = (self.arrival_ns, self.scheduled_ns, self.first_ns, time.monotonic_ns())
            names = ("arrival", "first_scheduled", "first_token", "last_token")
            outputs |= {f"{n}_time_ns": np.array([[t]], np.int64) for n, t in zip(names, times, strict=True)}
            blocks = {"kv_cache_reused_blocks": self.reused_blocks, "kv_cache_alloc_new_blocks": 1,
                      "kv_cache_alloc_total_blocks": 1, "total_draft_tokens": 0}  # fmt: skip
            outputs |= {name: np.array([[count]], np.int32) for name, count in blocks.items()}
            outputs["acceptance_rate"] = np.array([[0]], np.float32)
        tensors = [pb_utils.Tensor(name, value) for name, value in outputs.items() if name in self.wanted]
        self._send(pb_utils.InferenceResponse(tensors), final=self.finished)
        tensors.clear()

    def fail(self, error: Exception) -> None:
        """An error of the executor, as the backend passes it on."""
        self.finished = True
        said = f"Executor failed process requestId {self.number} due to the following error: {error}"
        self._send(_error(said), final=True)

    def end(self) -> None:
        """An empty last response: of a request that was stopped, or left."""
        self.finished = True
        self._send(None, final=True)

    def _send(self, response: Any, *, final: bool) -> None:
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        if response is None:
            self.sender.send(flags=flags)
        else:
            self.sender.send(response, flags)


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        parameters = {name: value["string_value"] for name, value in config["parameters"].items()}
        for name in NO_DEFAULT:
            if name not in parameters:
                raise pb_utils.TritonModelException(f"Cannot find parameter with name: {name}")
        folder = Path(parameters["gpt_model_path"])
        if not folder.is_dir():
            raise pb_utils.TritonModelException(f"Decoder (GPT) model path at {folder} does not exist.")
        if (
            parameters["gpt_model_type"] != "inflight_fused_batching"
            or not config["model_transaction_policy"]["decoupled"]
        ):
            raise pb_utils.TritonModelException("this stand-in streams, and batches in flight")
        limits = json.loads((folder / "config.json").read_text(encoding="utf-8"))["build_config"]
        chunked, longest = parameters["enable_chunked_context"] == "true", limits["max_seq_len"] - 1
        self._limits = {
            "max_seq_len": limits["max_seq_len"],
            "longest_prompt": longest if chunked else min(longest, limits["max_num_tokens"]),
        }
        named = parameters["xgrammar_tokenizer_info_path"]
        guided = parameters["guided_decoding_backend"] == "xgrammar" and not named.startswith("${")
        self._guides = Guides(Path(named)) if guided else None
        self._exclude = parameters["exclude_input_in_output"] == "true"
        self._reuse = parameters["enable_kv_cache_reuse"] == "true"
        self._block = int(limits["plugin_config"]["tokens_per_block"])
        self._slots = int(limits["max_batch_size"])
        self._queue_size = int(config["dynamic_batching"]["default_queue_policy"]["max_queue_size"])
        self._period = int(parameters["cancellation_check_period_ms"]) / 1000
        self._queue: deque[Request] = deque()
        self._active: list[Request] = []
        self._known_blocks: set[tuple[int, ...]] = set()
        self._count = 0
        self._has_run = False
        self._lock, self._work, self._closing = threading.RLock(), threading.Event(), False
        self._families = {
            name: pb_utils.MetricFamily(name, "as NVIDIA's backend", pb_utils.MetricFamily.GAUGE)
            for name in METRICS
        }
        self._metrics = {name: self._families[name].Metric(METRICS[name]) for name in METRICS}
        self._blocks = int(os.environ.get("STAND_IN_KV_BLOCKS", "1000"))
        self._stats_period = int(parameters["stats_check_period_ms"]) / 1000
        self._executor = threading.Thread(target=self._run, daemon=True)
        self._executor.start()

    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            try:
                self._enqueue(request)
            except ExecutorError as error:
                final = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL
                request.get_response_sender().send(_error(str(error)), final)

    def finalize(self) -> None:
        self._closing = True
        self._work.set()
        self._executor.join()
        self._metrics.clear()
        self._families.clear()

    def _enqueue(self, request: Any) -> None:
        if _scalar(request, "stop", False):
            if not request.request_id():
                raise ExecutorError("Trying to stop a request but request ID is not provided", "backend")
            with self._lock:
                for other in (*self._active, *self._queue):
                    other.cancelled |= other.id == request.request_id()
            request.get_response_sender().send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return
        self._count += 1
        made = Request(request, self._count, exclude=self._exclude, **self._limits)
        with self._lock:
            if len(self._queue) + 1 > self._queue_size:
                said = f"Maximum queue size of {self._queue_size} has been reached, please try again later"
                raise ExecutorError(said, "executor/executorImpl.cpp")
            self._queue.append(made)
        self._work.set()

    def _run(self) -> None:
        looked = published = 0.0
        while not self._closing:
            with self._lock:
                while self._queue and len(self._active) < self._slots:
                    self._start(self._queue.popleft())
                self._build_guides()
                if not self._active:
                    self._work.clear()
            if self._has_run and time.monotonic() - published > self._stats_period:
                published = time.monotonic()
                self._metrics["nv_trt_llm_request_metrics"].set(len(self._active))
                self._metrics["nv_trt_llm_kv_cache_block_metrics"].set(self._blocks)
            if not self._active:
                self._work.wait(0.02)
                continue
            if time.monotonic() - looked > self._period:
                looked = time.monotonic()
                for request in (*self._active, *self._queue):
                    request.cancelled |= bool(request.sender.is_cancelled())
            self._has_run = True
            for request in list(self._active):
                self._advance(request)
                if request.finished:
                    with self._lock:
                        self._active.remove(request)
            time.sleep(0.0005)

    def _start(self, request: Request) -> None:
        request.scheduled_ns = time.monotonic_ns()
        blocks = range(self._block, len(request.prompt) + 1, self._block)
        prefixes = [tuple(request.prompt[:end]) for end in blocks] if self._reuse else []
        request.reused_blocks = sum(prefix in self._known_blocks for prefix in prefixes)
        self._known_blocks.update(prefixes)
        self._active.append(request)

    def _build_guides(self) -> None:
        """In the step in which a request begins; what is thrown is not one request's fault there."""
        try:
            for request in self._active:
                kind, guide = request.guide
                if kind in ("json", "json_schema", "regex", "ebnf_grammar") and self._guides is not None:
                    matcher, request.guide = self._guides.matcher(kind, guide or ""), (None, None)
                    request.choose = partial(self._guides.next_token, matcher)
        except Exception as error:
            said = f"Encountered an error in forwardAsync function: {error}"
            for request in self._active:
                request.fail(ExecutorError(said, "batch_manager"))
            self._active.clear()

    def _advance(self, request: Request) -> None:
        try:
            if request.too_long:
                raise ExecutorError(
                    "Encountered an error when fetching new request: Prompt length "
                    f"({len(request.prompt)}) exceeds maximum input length ({request.too_long}).",
                    "batch_manager",
                )
            if request.cancelled:
                request.end()
            elif time.monotonic() >= request.next_step:
                request.next_step = time.monotonic() + request.step_seconds
                request.step()
                request.respond()
        except ExecutorError as error:
            request.fail(error)


def _array(request: Any, name: str) -> Any:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy()


def _scalar(request: Any, name: str, default: Any) -> Any:
    value = _array(request, name)
    if value is not None and value.size != 1:
        raise ExecutorError(f"Assertion failed: Expected scalar for {name}", "utils.cc")
    return default if value is None else value.reshape(-1)[0].item()


def _words(request: Any, name: str) -> list[list[int]]:
    """[1, 2, n]: the ids of all words in a row, padded with 0; where each ends, padded with -1."""
    array = _array(request, name)
    if array is None:
        return []
    if array.ndim != 3 or array.shape[:2] != (1, 2) or array.dtype != np.int32:
        raise ExecutorError(f"Assertion failed: {name} must be INT32 [1, 2, n]", "utils.cc")
    words, begin = [], 0
    for end in array[0, 1].tolist():
        if end == -1:
            break
        words.append(array[0, 0, begin:end].tolist())
        begin = end
    return words


def _error(message: str) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, pb_utils.TritonError.INTERNAL))
