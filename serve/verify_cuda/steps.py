"""The checks of a compiled llama.cpp on the card that is there; each returns what it measured.

A check raises NotAsAssumed when the card computes something else than a CPU does. Bounds: greedy answers of
the demonstration may differ from the CPU's in one of a hundred, since both round activations to int8, each in
its own order; log-probabilities by the rms of TOLERANCE over the vocabulary. Speeds have no bound.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from build.model_modules import make_importable
from build.random_gguf import SHAPES, write_random_gguf
from serve.verify_cuda import bundle

make_importable("youtu_engine")
from engine import Engine  # noqa: E402
from engine_request import EngineRequest  # noqa: E402
from llama import Llama, LlamaError, LlamaLibrary  # noqa: E402
from sampling import SamplingParams  # noqa: E402

TOLERANCE = 0.15  # rms of differences of log-probabilities; int8 activations alone make 0.12 (random weights)
LEAST_SAME = 0.99  # of the demonstration's answers
WAIT_S = 60.0
GREEDY = SamplingParams(temperature=0)
DEFAULTS = SamplingParams(temperature=0.7, top_p=0.9, repetition_penalty=1.1, seed=1)
# Random weights find nearly all tokens as likely, a trained model few: this makes it few.
PEAKED = SamplingParams(temperature=0.1, top_p=0.9, repetition_penalty=1.1, seed=1)
SEQUENCES = (1, 4, 8, 32)
CONTEXT = 4096  # per sequence
PROMPT = 1024
DECODED = 64  # steps that are timed
REPEATS = 3


class NotAsAssumed(Exception):
    """The card computes something else than the CPU, or not what was asked."""


@dataclass
class Check:
    """What the steps share."""

    library: LlamaLibrary
    bundle: Path
    scratch: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def big(self) -> Path:
        return self.scratch / "2b.gguf"

    def load(self, path: Path, *, sequences: int, batch: int = 512, **options: Any) -> Llama:
        context = options.pop("context", CONTEXT)
        return Llama(
            path,
            context=context,
            sequences=sequences,
            batch=batch,
            threads=2,
            library=self.library,
            **options,
        )


def card(check: Check) -> dict[str, Any]:
    """The card that llama.cpp sees."""
    devices = check.library.devices()
    if not devices:
        raise NotAsAssumed("llama.cpp sees no card: is the driver there (nvidia-smi), and new enough?")
    return {"devices": [asdict(device) for device in devices]}


def demonstration(check: Check) -> dict[str, Any]:
    """Every question of the demonstration, greedily, eight at once."""
    questions = json.loads((check.bundle / bundle.QUESTIONS).read_text(encoding="utf-8"))
    llama = check.load(check.bundle / bundle.DEMO, sequences=8, batch=128, context=2048)
    engine = Engine(llama, slots=8, context=2048, queue=len(questions), prefill_chunk=120)
    begun = time.monotonic()
    try:
        runs = [_Run(engine, each["prompt"], len(each["answer"]), GREEDY) for each in questions]
        answers = [run.wait().tokens for run in runs]
    finally:
        engine.close()
    same: dict[str, list[bool]] = {}
    for each, answer in zip(questions, answers, strict=True):
        same.setdefault(each["kind"], []).append(answer == each["answer"])
    shares = {kind: round(sum(values) / len(values), 4) for kind, values in same.items()}
    found = {
        "questions": len(questions),
        "right": shares,
        "seconds": round(time.monotonic() - begun, 2),
        "placement": asdict(llama.placement),
    }
    # The demonstration's own bar is 1.0 on a CPU (build.demo.train); what is left is not the card's.
    if shares["corpus"] < 0.96:
        raise NotAsAssumed(f"the demonstration answers otherwise than on a CPU: {found}")
    return found


def logits_of_demo(check: Check) -> dict[str, Any]:
    """Log-probabilities of given texts beside the CPU's."""
    return _compare(check, "demo", check.bundle / bundle.DEMO)


def big_file(check: Check) -> dict[str, Any]:
    """Random weights in the 2B shape, the same bytes as where the reference was made."""
    begun = time.monotonic()
    write_random_gguf(check.big, SHAPES[bundle.SHAPE], bundle.SHAPE)
    with np.load(check.bundle / bundle.REFERENCE) as reference:
        same = hashlib.sha256(check.big.read_bytes()).hexdigest() == str(reference["sha256"])
    check.facts["same_weights"] = same
    return {
        "bytes": check.big.stat().st_size,
        "same_bytes": same,
        "seconds": round(time.monotonic() - begun, 1),
    }


def logits_of_2b(check: Check) -> dict[str, Any]:
    """The same in the shape of Youtu-LLM-2B, whose attention is another kernel than the demonstration's."""
    if not check.facts["same_weights"]:
        raise NotAsAssumed("this numpy draws other random weights than the reference was made of")
    return _compare(check, "2b", check.big)


def speed(check: Check) -> dict[str, Any]:
    """Steps of llama.cpp alone, by the number of sequences: prompt, decode, memory."""
    found: dict[str, Any] = {"sequences": {}}
    for sequences in SEQUENCES:
        before = check.library.devices()[0].free
        llama = check.load(check.big, sequences=sequences, batch=2048)
        taken = before - check.library.devices()[0].free
        row = {
            "context": CONTEXT,
            "device_bytes": taken,
            "placement": asdict(llama.placement),
            "bytes_per_cached_token": round(sum(llama.placement.cache.values()) / (sequences * CONTEXT)),
            "prompt_tokens_per_s": _spread(
                [_prompt(llama, min(sequences, 2048 // PROMPT)) for _ in range(REPEATS)]
            ),
            "decode_tokens_per_s": _spread([_decode(llama, sequences, PROMPT) for _ in range(REPEATS)]),
        }
        llama.close()
        found["sequences"][sequences] = row
    return found


def chunks(check: Check) -> dict[str, Any]:
    """Prompt tokens a second by how many are read in one step, and decode behind a long context."""
    llama = check.load(check.big, sequences=8, batch=2048)
    found: dict[str, Any] = {"prompt_tokens_per_s": {}, "decode_tokens_per_s_8_sequences": {}}
    for chunk in (64, 128, 256, 512, 1024, 2048):
        found["prompt_tokens_per_s"][chunk] = _spread(
            [_prompt(llama, 1, length=2048, chunk=chunk) for _ in range(REPEATS)]
        )
    for cached in (64, 1024, CONTEXT - 256):
        found["decode_tokens_per_s_8_sequences"][cached] = _spread(
            [_decode(llama, 8, cached) for _ in range(REPEATS)]
        )
    llama.close()
    return found


def engine_speed(check: Check) -> dict[str, Any]:
    """Tokens a second out of the engine: continuous batching and sampling in Python, no Triton."""
    found: dict[str, Any] = {}
    for sequences in SEQUENCES:
        llama = check.load(check.big, sequences=sequences, batch=512 + sequences)
        engine = Engine(llama, slots=sequences, context=CONTEXT, queue=64, prefill_chunk=512)
        ways = {"greedy": GREEDY, "few likely tokens": PEAKED, "served defaults": DEFAULTS}
        for name, params in ways.items():
            rates = []
            for repeat in range(REPEATS):
                prompts = np.random.default_rng(repeat).integers(2, llama.vocab_size, (sequences, 64))
                runs = [_Run(engine, prompt.tolist(), DECODED, params) for prompt in prompts]
                requests = [run.wait() for run in runs]
                first = min(request.first_token_ns for request in requests)
                last = max(request.last_token_ns for request in requests)
                made = sum(len(request.tokens) - 1 for request in requests)
                rates.append(made / (last - first) * 1e9)
            found.setdefault(name, {})[sequences] = _spread(rates)
        engine.close()
    return found


def quantised_cache(check: Check) -> dict[str, Any]:
    """A KV cache in q8_0: half the memory, where the card has a kernel for it."""
    try:
        llama = check.load(check.big, sequences=8, batch=512, kv_type="q8_0")
    except LlamaError as error:
        return {"loads": False, "reason": str(error)}
    found = {
        "loads": True,
        "bytes_per_cached_token": round(sum(llama.placement.cache.values()) / (8 * CONTEXT)),
        "placement": asdict(llama.placement),
        "decode_tokens_per_s_8_sequences": _spread([_decode(llama, 8, PROMPT) for _ in range(REPEATS)]),
    }
    llama.close()
    return found


def reuse_and_cancel(check: Check) -> dict[str, Any]:
    """A prompt that begins as an earlier one starts behind it; a cancelled request leaves its slot."""
    llama = check.load(check.big, sequences=2, batch=514)
    engine = Engine(llama, slots=2, context=CONTEXT, queue=8, prefill_chunk=512)
    try:
        prompt = np.random.default_rng(5).integers(2, llama.vocab_size, 2000).tolist()
        first = _Run(engine, prompt, 16, GREEDY).wait()
        again = _Run(engine, prompt, 16, GREEDY).wait()
        longer = _Run(engine, [*prompt, *again.tokens, 5, 6, 7], 16, GREEDY).wait()
        left = _Run(engine, prompt[:50], 4000, GREEDY)
        left.first.wait(WAIT_S)
        begun = time.monotonic()
        engine.cancel(left.request)
        left.wait()
        cancelled_ms = (time.monotonic() - begun) * 1e3
        after = _Run(engine, prompt[:50], 4, GREEDY).wait()
    finally:
        engine.close()
    found = {
        "prompt": len(prompt),
        "cached": [first.cached_tokens, again.cached_tokens, longer.cached_tokens],
        "same_tokens": first.tokens == again.tokens,
        "first_token_ms": [_first_ms(each) for each in (first, again, longer)],
        "cancelled_after_tokens": len(left.request.tokens),
        "cancel_ms": round(cancelled_ms, 1),
        "next_answer_tokens": len(after.tokens),
    }
    if found["cached"] != [0, len(prompt) - 1, len(prompt) + len(again.tokens) - 1]:
        raise NotAsAssumed(f"the prefix was not reused: {found}")
    if len(left.request.tokens) >= 4000 or len(after.tokens) != 4:
        raise NotAsAssumed(f"the cancelled request went on: {found}")
    return found


def _compare(check: Check, name: str, path: Path) -> dict[str, Any]:
    llama = check.load(path, sequences=1, context=2048)
    found: dict[str, Any] = {"placement": asdict(llama.placement), "texts": {}}
    try:
        with np.load(check.bundle / bundle.REFERENCE) as reference:
            for length in bundle.LENGTHS[name]:
                ours = bundle.given_text(llama, length)
                theirs = {key: reference[f"{name}/{length}/{key}"] for key in ours}
                difference = (ours["all"] - theirs["all"]).astype(np.float64)
                margin = theirs["values"][:, 0] - theirs["values"][:, 1]
                found["texts"][length] = {
                    "rms": round(float(np.sqrt(np.mean(difference**2))), 5),
                    "largest": round(float(np.abs(difference).max()), 4),
                    "same_likeliest": int((ours["ids"][:, 0] == theirs["ids"][:, 0]).sum()),
                    "same_likeliest_where_clear": int(
                        ((ours["ids"][:, 0] == theirs["ids"][:, 0]) & (margin > 2 * TOLERANCE)).sum()
                    ),
                    "clear": int((margin > 2 * TOLERANCE).sum()),
                    "rows": len(margin),
                }
    finally:
        llama.close()
    for length, text in found["texts"].items():
        if text["rms"] > TOLERANCE or text["same_likeliest_where_clear"] != text["clear"]:
            raise NotAsAssumed(f"logits of {length} tokens are not the CPU's within {TOLERANCE}: {found}")
    return found


class _Run:
    def __init__(self, engine: Engine, prompt: list[int], count: int, params: SamplingParams) -> None:
        self.first, self._ended = threading.Event(), threading.Event()
        self.request = EngineRequest(np.array(prompt, np.int32), count, params, changed=self._changed)
        engine.submit(self.request)

    def _changed(self, request: EngineRequest) -> None:
        self.first.set()
        if request.finished:
            self._ended.set()

    def wait(self) -> EngineRequest:
        if not self._ended.wait(WAIT_S):
            raise NotAsAssumed(f"an answer did not end within {WAIT_S:.0f} s")
        if self.request.error:
            raise NotAsAssumed(f"an answer failed: {self.request.error}")
        return self.request


def _prompt(llama: Llama, sequences: int, *, length: int = PROMPT, chunk: int = 0) -> float:
    """Tokens a second while `sequences` prompts of `length` tokens are read, `chunk` of each in a step."""
    chunk = min(chunk or llama.batch_size // sequences, length)
    tokens = np.random.default_rng(1).integers(2, llama.vocab_size, length).astype(np.int32)
    for sequence in range(sequences):
        llama.forget(sequence, 0)
    begun = time.perf_counter()
    for start in range(0, length, chunk):
        part = tokens[start : start + chunk]
        positions = np.arange(start, start + len(part), dtype=np.int32)
        llama.decode(
            np.tile(part, sequences),
            np.tile(positions, sequences),
            [s for s in range(sequences) for _ in part],
            [len(part) * sequences - 1],
        )
    return sequences * length / (time.perf_counter() - begun)


def _decode(llama: Llama, sequences: int, cached: int) -> float:
    """Tokens a second of DECODED steps with one token of each sequence, behind `cached` tokens each."""
    tokens = np.random.default_rng(2).integers(2, llama.vocab_size, cached).astype(np.int32)
    for sequence in range(sequences):
        llama.forget(sequence, 0)
        for start in range(0, cached, llama.batch_size):
            part = tokens[start : start + llama.batch_size]
            positions = np.arange(start, start + len(part), dtype=np.int32)
            llama.decode(part, positions, [sequence] * len(part), [len(part) - 1])
    rows = list(range(sequences))
    one = np.full(sequences, 7, np.int32)
    for warm in range(4):  # CUDA graphs are captured in the first steps
        llama.decode(one, np.full(sequences, cached + warm, np.int32), rows, rows)
    begun = time.perf_counter()
    for step in range(DECODED):
        llama.decode(one, np.full(sequences, cached + 4 + step, np.int32), rows, rows)
    return sequences * DECODED / (time.perf_counter() - begun)


def _first_ms(request: EngineRequest) -> float:
    return round((request.first_token_ns - request.arrival_ns) / 1e6, 1)


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 1),
        "least": round(min(values), 1),
        "most": round(max(values), 1),
    }


STEPS: tuple[Callable[[Check], dict[str, Any]], ...] = (
    card,
    demonstration,
    logits_of_demo,
    big_file,
    logits_of_2b,
    reuse_and_cancel,
    speed,
    engine_speed,
    chunks,
    quantised_cache,
)
