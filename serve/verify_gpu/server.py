"""The served engine: memory, KV reuse, a caller who leaves, guides, too long a prompt, what penalties count.

Over Triton's gRPC.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import time
import urllib.request
from http.client import HTTPException
from typing import Any

import numpy as np
import tritonclient.grpc as grpcclient  # type: ignore[import-untyped]

from build.errors import BuildError
from build.tensorrt_llm import sizes
from build.tensorrt_llm.commands import last_lines
from build.tensorrt_llm.flags import longest_prompt
from build.tensorrt_llm.info import TensorRTEngineInfo
from serve.addresses import free_ports
from serve.launch import get
from serve.run_folder import ROOT
from serve.verify_gpu.engines import memory_used
from serve.verify_gpu.steps import NotAsAssumed, Step, Verification

START_SECONDS = 300.0
LEAVES_WITHIN = 0.25  # s
MEMORY_TOLERANCE = 0.15  # of the KV cache and of the whole
STATISTICS_SECONDS = 5.0  # in which the executor's statistics reach the metrics
TOO_LONG = re.compile(r"exceeds maximum input length \((\d+)\)")
GREEDY_TOKENS = 64
# Whose answers are few, so that random weights come to an end.
GOOD_GUIDES = (
    ("regex", "(small|large)", ("small", "large")),
    ("json_schema", '{"enum": ["small", "large"]}', ('"small"', '"large"')),
)
BAD_GUIDES = (
    ("regex", "("),
    ("json_schema", '{"type": "nonsense"}'),
    ("json_schema", '{"$ref": "#"}'),
)


class Served:
    """A server started as `make serve` does, on ports of its own."""

    def __init__(self, verification: Verification) -> None:
        self.log = verification.folder / "log" / "serve.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.port, self.http, self.grpc, self.metrics_port = free_ports(4)
        settings = verification.settings
        given = {
            **{"ENGINE": "tensorrt_llm", "MODEL": settings.model, "PROFILE": settings.profile},
            **{"PORT": self.port, "HTTP_PORT": self.http, "GRPC_PORT": self.grpc},
            **{"METRICS_PORT": self.metrics_port, "DATA_DIR": settings.data_dir.absolute()},
        }
        ours = {name: value for name, value in os.environ.items() if not name.startswith("YOUTU_")}
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "serve"],
                cwd=ROOT,
                env=ours | {f"YOUTU_{name}": str(value) for name, value in given.items()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.end()
                raise BuildError(
                    f"the server does not start: {' / '.join(last_lines(self.log, 6))} ({self.log})"
                )
            time.sleep(0.2)

    def _is_ready(self) -> bool:
        try:
            get("127.0.0.1", self.http, "/v2/health/ready", timeout=2)
        except (OSError, HTTPException):
            return False
        return True

    def end(self) -> None:
        """Tell it to end, and wait for that."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(90)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def metric(self, name: str, label: str) -> float | None:
        """The value of a gauge of Triton's metrics whose labels contain `label`; None: it is not there."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as response:
            lines = response.read().decode().splitlines()
        for line in lines:
            if re.match(rf"{name}{{.*{label}.*}} ", line):
                return float(line.rpartition(" ")[2])
        return None

    def call(self, **tensors: Any) -> Call:
        return Call(self, tensors)

    def complete(self, kind: str, guide: str) -> tuple[str, str]:
        """What youtu_llm answers to a prompt with a guide: its text, and what is wrong."""
        from youtu_client import Client, YoutuError

        with Client(f"127.0.0.1:{self.grpc}") as client:
            try:
                answer = client.complete(
                    "x",
                    max_tokens=64,
                    temperature=0.0,
                    guided_decoding_guide_type=kind,
                    guided_decoding_guide=guide,
                    timeout=120,
                )
            except YoutuError as error:
                return "", str(error)
        return answer.text, ""


class Call:
    """One request to the engine itself, its responses as they come."""

    def __init__(self, served: Served, tensors: dict[str, Any]) -> None:
        kinds = {"int32": "INT32", "uint64": "UINT64", "float32": "FP32", "bool": "BOOL"}
        inputs = []
        for name, array in tensors.items():
            inputs.append(grpcclient.InferInput(name, list(array.shape), kinds[array.dtype.name]))
            inputs[-1].set_data_from_numpy(array)
        names = ("output_ids", "sequence_length", "kv_cache_reused_blocks")
        outputs = [grpcclient.InferRequestedOutput(name) for name in names]
        self._client = grpcclient.InferenceServerClient(f"127.0.0.1:{served.grpc}")
        self._answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))
        self._client.async_stream_infer(
            "tensorrt_llm", inputs, outputs=outputs, enable_empty_final_response=True
        )

    def next(self, timeout: float = 120.0) -> tuple[Any, str, bool]:
        """A response, its error text, and whether it is the last."""
        try:
            result, error = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise BuildError(f"the engine did not answer in {timeout:.0f} s") from None
        if error is not None:
            return None, str(error), True
        return result, "", result.get_response().parameters["triton_final_response"].bool_param

    def leave(self) -> None:
        """Hang up, whatever is still under way."""
        self._client.stop_stream(cancel_requests=True)
        self._client.close()

    def whole(self) -> tuple[list[int], int]:
        """All tokens, and the blocks of KV cache that were there. BuildError with what the engine says."""
        tokens: list[int] = []
        blocks = 0
        while True:
            result, error, last = self.next()
            if error:
                raise BuildError(f"the engine says {error.splitlines()[0]!r}")
            ids, count = result.as_numpy("output_ids"), result.as_numpy("sequence_length")
            if ids is not None and count is not None:
                tokens += ids.reshape(-1).tolist()[: int(count.reshape(-1)[0])]
            reused = result.as_numpy("kv_cache_reused_blocks")
            blocks = blocks if reused is None else int(reused.reshape(-1)[0])
            if last:
                self._client.stop_stream()
                return tokens, blocks


def starts(verification: Verification) -> str:
    engine = _engine(verification)
    verification.facts["used_before"] = memory_used()  # by a screen, say
    begun = time.monotonic()
    served = Served(verification)
    verification.at_the_end.append(served.end)
    verification.facts["served"] = served
    return f"Triton is ready {time.monotonic() - begun:.0f} s after its start, with {engine.model_id}"


def memory(verification: Verification) -> str:
    gpu, _ = verification.machine()
    engine, served = _engine(verification), _served(verification)
    blocks = _kv_blocks(engine, served)
    before = verification.facts["used_before"]
    expected = sizes.sizes(
        engine.run_profile(),
        gpu.memory - before,
        weights=verification.facts["weights"],
        kv_per_token=verification.facts["kv_per_token"],
    )
    tokens, used = int(blocks) * engine.tokens_per_block, memory_used() - before
    found = (
        f"the server holds {used / sizes.GIB:.2f} GiB of the GPU, by arithmetic "
        f"{expected.total / sizes.GIB:.2f}; KV cache of {tokens:,} tokens, by arithmetic "
        f"{expected.cache_tokens:,}"
    )
    change = "correct the estimates at the top of build/tensorrt_llm/sizes.py"
    if tokens < engine.max_seq_len:
        raise NotAsAssumed(f"{found}: not one sequence fits", change)
    if abs(used - expected.total) > MEMORY_TOLERANCE * expected.total:
        raise NotAsAssumed(found, change)
    if abs(tokens - expected.cache_tokens) > MEMORY_TOLERANCE * expected.cache_tokens:
        raise NotAsAssumed(found, change)
    return found


def _kv_blocks(engine: TensorRTEngineInfo, served: Served) -> float:
    """Blocks of the KV cache. The executor tells its statistics from its first request on: one is sent."""
    change = "see what the metrics port says, and correct serve/verify_gpu/server.py"
    served.call(**_request(_prompt(engine, 8), 4)).whole()
    deadline = time.monotonic() + STATISTICS_SECONDS
    while True:
        blocks = served.metric("nv_trt_llm_kv_cache_block_metrics", 'kv_cache_block_type="max"')
        if blocks is None:
            raise NotAsAssumed(
                "Triton's metrics have no nv_trt_llm_kv_cache_block_metrics of type max", change
            )
        if blocks:
            return blocks
        if time.monotonic() > deadline:
            raise NotAsAssumed(
                f"nv_trt_llm_kv_cache_block_metrics of type max is 0, {STATISTICS_SECONDS:.0f} s after a "
                "request",
                change,
            )
        time.sleep(0.05)


def reuse(verification: Verification) -> str:
    """The same greedy tokens without and with blocks of the KV cache that were there already."""
    engine, served = _engine(verification), _served(verification)
    request = _request(_prompt(engine, 4 * engine.tokens_per_block + 5), GREEDY_TOKENS)
    first, blocks = served.call(**request).whole()
    again, reused = served.call(**request).whole()
    if blocks:
        raise NotAsAssumed(
            f"{blocks} blocks were reused of a prompt never seen", "restart the server, try again"
        )
    if again != first:
        same = next((i for i, pair in enumerate(zip(first, again, strict=False)) if pair[0] != pair[1]), 0)
        raise NotAsAssumed(
            f"with {reused} blocks reused, token {same} and what follows is another",
            "set enable_kv_cache_reuse = false in build/catalogue.toml for this profile",
        )
    enabled = engine.run_profile().enable_kv_cache_reuse
    if (reused > 0) != enabled:
        raise NotAsAssumed(
            f"{reused} blocks were reused, and the profile says enable_kv_cache_reuse = {enabled}",
            "see whether use_paged_context_fmha is on in the engine's config.json",
        )
    return f"{len(first)} tokens, the same with {reused} of 4 blocks reused"


def leaving(verification: Verification) -> str:
    engine, served = _engine(verification), _served(verification)
    room = engine.max_seq_len - 64
    call = served.call(**_request(_prompt(engine, 40), room))
    call.next()
    change = "see what the metrics port says, and correct serve/verify_gpu/server.py"

    def active() -> float:
        found = served.metric("nv_trt_llm_request_metrics", 'request_type="active"')
        if found is None:
            raise NotAsAssumed("Triton's metrics have no nv_trt_llm_request_metrics of type active", change)
        return found

    begun = time.monotonic()
    while not active():  # it may be older than the request, whose end is not to be seen in it then
        if time.monotonic() - begun > 2:
            raise NotAsAssumed("no request is active by Triton's metrics, and one runs", change)
        time.sleep(0.01)
    begun = time.monotonic()
    call.leave()
    while active():
        if time.monotonic() - begun > 10:
            raise NotAsAssumed(
                "10 s after its caller left, the request still runs", "the backend misses cancels"
            )
        time.sleep(0.01)
    took = time.monotonic() - begun
    stats = 0.1  # the metric's own age, stats_check_period_ms
    if took > LEAVES_WITHIN + stats:
        raise NotAsAssumed(
            f"the slot is free {took:.2f} s after its caller left",
            "lower cancellation_check_period_ms in model_repository/tensorrt_llm/config.pbtxt",
        )
    return f"the slot is free {took:.2f} s after its caller left (the metric is up to {stats} s old)"


def guides(verification: Verification) -> str:
    """Good and bad guides through youtu_llm, while an answer runs that a fault in the engine would end."""
    engine, served = _engine(verification), _served(verification)
    running = served.call(**_request(_prompt(engine, 48), engine.max_seq_len - 64))
    running.next()
    try:
        for kind, guide, allowed in GOOD_GUIDES:
            text, error = served.complete(kind, guide)
            if text not in allowed:
                raise NotAsAssumed(
                    f"{kind} {guide} is answered with {(error or text)[:120]!r}",
                    "see the server's log; build/tensorrt_llm/xgrammar_info.py writes xgrammar's tokenizer, "
                    "model_repository/youtu_llm/1/guide_compiler.py compiles",
                )
        for kind, guide in BAD_GUIDES:
            text, error = served.complete(kind, guide)
            if not error:
                raise NotAsAssumed(
                    f"{kind} {guide} is answered with {text[:120]!r}, and not refused",
                    "see model_repository/youtu_llm/1/guide_check.py",
                )
        _, error, ended = running.next()
        if error or ended:
            raise NotAsAssumed(
                f"the answer beside them ended: {error.splitlines()[0] if error else 'early'}",
                "a guide ended everybody's answers: set guided_decoding to False in serve/repository.py",
            )
    finally:
        running.leave()
    return f"{len(GOOD_GUIDES)} kept to, {len(BAD_GUIDES)} refused, and the answer beside them runs on"


def too_long(verification: Verification) -> str:
    engine, served = _engine(verification), _served(verification)
    length = engine.max_seq_len + 8
    _, error, _ = served.call(**_request(_prompt(engine, length), 4)).next()
    first = error.splitlines()[0] if error else ""
    limit = TOO_LONG.search(error)
    if limit is None:
        raise NotAsAssumed(
            f"{length} tokens are answered with {first or 'tokens'!r}",
            f"{TOO_LONG.pattern!r} was assumed: correct it in tests/tensorrt_llm/backend.py, "
            "model_repository/youtu_llm/1/engine_errors.py and here",
        )
    if int(limit[1]) != (assumed := longest_prompt(engine.run_profile())):
        raise NotAsAssumed(
            f"prompts may have {limit[1]} tokens, and {assumed} were assumed",
            "correct longest_prompt in build/tensorrt_llm/flags.py and tests/tensorrt_llm/backend.py",
        )
    return first


def penalties(verification: Verification) -> str:
    """Whether the frequency penalty counts the prompt: one token fills it, and is the likeliest to follow."""
    engine, served = _engine(verification), _served(verification)
    often, never = 7, 8
    length = min(512, engine.max_seq_len // 2)
    bias = np.zeros((1, engine.vocab_size), np.float32)
    bias[0, [often, never]] = length, length / 2  # the penalty is 2 * length where the prompt counts
    request = _request([often] * length, 1) | {
        "embedding_bias": bias,
        "frequency_penalty": np.array([[2]], np.float32),
    }
    tokens, _ = served.call(**request).whole()
    if tokens[:1] == [never]:
        return "presence and frequency penalties count the prompt, as documented"
    if tokens[:1] == [often]:
        raise NotAsAssumed(
            "presence and frequency penalties leave the prompt out",
            "say so in client/youtu_contract/rows.py, docs/tensorrt_llm.md and tests/tensorrt_llm/backend.py",
        )
    raise NotAsAssumed(
        f"token {tokens[:1]} comes although embedding_bias lifts {often} by {length}",
        "see what embedding_bias does in this version of TensorRT-LLM",
    )


def _request(prompt: list[int], count: int) -> dict[str, Any]:
    return {
        "input_ids": np.array([prompt], np.int32),
        "input_lengths": np.array([[len(prompt)]], np.int32),
        "request_output_len": np.array([[count]], np.int32),
        "runtime_top_k": np.array([[1]], np.int32),
        "streaming": np.array([[True]]),
        "return_perf_metrics": np.array([[True]]),
    }


def _prompt(engine: TensorRTEngineInfo, length: int) -> list[int]:
    """Tokens of the vocabulary's lower half, another row for every length."""
    return [(length + 7 * i) % (engine.vocab_size // 2) for i in range(length)]


def _engine(verification: Verification) -> TensorRTEngineInfo:
    engine: TensorRTEngineInfo = verification.facts["engine"]
    return engine


def _served(verification: Verification) -> Served:
    served: Served = verification.facts["served"]
    return served


STEPS = [
    Step("the server starts", starts),
    Step("memory and KV cache", memory),
    Step("KV reuse changes nothing", reuse),
    Step("a caller who leaves", leaving),
    Step("guided decoding", guides),
    Step("a prompt that is too long", too_long),
    Step("what penalties count", penalties),
]
