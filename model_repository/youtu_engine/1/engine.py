"""Continuous batching over the slots of one llama.cpp model: token ids in, token ids out.

Each step of the engine's one thread carries one token of every slot that generates and a piece of
the prompts that wait to be read, so a request joins and leaves between two steps. A slot keeps its
KV cache after its request, and a later prompt with the same beginning starts behind it.

Knows nothing of text, of Triton, or of who reads the tokens.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from llama import Llama, LlamaError
from numpy.typing import NDArray
from sampling import Guide, GuideError, Sampler, SamplingParams, log_probs, most_probable
from youtu_contract.errors import Error


class QueueFull(Exception):
    """As many requests wait as may wait."""


@dataclass(slots=True)
class LogProbs:
    """One of `values` per token; `top_ids` and `top_values` have as many per token as were asked for,
    likeliest first."""

    values: list[float] = field(default_factory=list)
    top_ids: list[int] = field(default_factory=list)
    top_values: list[float] = field(default_factory=list)

    def add(self, logits: NDArray[np.float32], token: int, top: int) -> None:
        """`token` came where the model predicted `logits` [vocab_size]."""
        best = most_probable(logits, top)
        own, *others = log_probs(logits, [token, *best])
        self.values.append(own)
        self.top_ids += best
        self.top_values += others


@dataclass(eq=False, slots=True)
class EngineRequest:
    """One request to the engine and its progress.

    `tokens` only grows, on the engine's thread; whoever delivers keeps its own position in it.
    With `return_log_probs`, `log_probs` has the log-probabilities of these tokens; with
    `return_prompt_log_probs`, `prompt_log_probs` has those of the prompt's tokens after the first, complete
    before the first token is made.
    Times are nanoseconds of time.time_ns(). `error` is set when the engine could not finish it.
    """

    prompt: NDArray[np.int32]
    max_new_tokens: int
    sampling: SamplingParams
    stop_words: tuple[tuple[int, ...], ...] = ()
    return_log_probs: bool = False
    return_prompt_log_probs: bool = False
    top_log_probs: int = 0
    guide: Guide | None = None
    changed: Callable[[EngineRequest], None] = lambda _request: None

    tokens: list[int] = field(default_factory=list)
    log_probs: LogProbs = field(default_factory=LogProbs)
    prompt_log_probs: LogProbs = field(default_factory=LogProbs)
    cached_tokens: int = 0
    arrival_ns: int = 0
    scheduled_ns: int = 0
    first_token_ns: int = 0
    last_token_ns: int = 0
    finished: bool = False
    cancelled: bool = False
    error: Error | None = None

    def ended_by(self, token: int) -> bool:
        """Whether `token`, just appended, is the last one."""
        if token in self.sampling.ends or len(self.tokens) >= self.max_new_tokens:
            return True
        if self.guide is not None and self.guide.complete:
            return True
        if len(self.tokens) <= self.sampling.min_tokens:
            return False
        return any(tuple(self.tokens[-len(word) :]) == word for word in self.stop_words)


@dataclass(eq=False, slots=True)
class _Slot:
    index: int
    cached: list[int] = field(default_factory=list)  # the tokens whose keys and values are in the cache
    used_at: int = 0
    request: EngineRequest | None = None
    sampler: Sampler | None = None
    pending: list[int] = field(default_factory=list)  # tokens still to be read: prompt, then the newest one


class Engine:
    """Runs requests on `slots` slots of `context` tokens; at most `queue` more wait, first come first served.

    prefill_chunk: prompt tokens per step while nobody generates; half of it while somebody does, because
    a step lasts as long for them as for the prompt.
    """

    def __init__(self, llama: Llama, *, slots: int, context: int, queue: int, prefill_chunk: int) -> None:
        self.context = context
        self.vocab_size = llama.vocab_size
        self._llama = llama
        self._slots = [_Slot(i) for i in range(slots)]
        self._queue_limit = queue
        self._prefill_chunk = prefill_chunk
        self._waiting: deque[EngineRequest] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._progress_at = time.monotonic()
        self._cpu_s = 0.0  # of the engine's thread, when it was last looked at
        self._clock = 0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: EngineRequest) -> None:
        """Queue a request whose prompt is not empty and fits. Raises QueueFull."""
        request.arrival_ns = time.time_ns()
        with self._wake:
            busy = sum(slot.request is not None for slot in self._slots)
            if len(self._waiting) + busy >= self._queue_limit + len(self._slots):
                raise QueueFull(
                    f"the queue is full: {len(self._waiting)} requests wait, the limit is {self._queue_limit}"
                )
            if not busy and not self._waiting:
                self._progress_at = time.monotonic()  # until now there was nothing to do
            self._waiting.append(request)
            self._wake.notify()

    def cancel(self, request: EngineRequest) -> None:
        """End a request wherever it is; it is reported finished within one step, at once if it waits."""
        with self._wake:
            request.cancelled = True
            waited = request in self._waiting
            if waited:
                self._waiting.remove(request)
                request.finished = True
            self._wake.notify()
        if waited:
            request.changed(request)

    def load(self) -> tuple[int, int]:
        """(slots in use, requests that wait)."""
        with self._wake:
            return sum(slot.request is not None for slot in self._slots), len(self._waiting)

    def stalled(self) -> float:
        """Seconds without progress while there is work; 0.0 when there is none.

        A step that ends is progress, and so is time that the engine's thread spends on a processor: on a slow
        machine a step may take longer than a hang may last.
        """
        with self._wake:
            if not self._waiting and not any(slot.request for slot in self._slots):
                return 0.0
        now, cpu_s = time.monotonic(), _thread_cpu_s(self._thread)
        if cpu_s > self._cpu_s:
            self._cpu_s, self._progress_at = cpu_s, now
        return max(0.0, now - self._progress_at)

    def close(self) -> None:
        """Stop after the current step; unfinished requests fail."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()
        self._llama.close()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closing and not self._waiting and not any(s.request for s in self._slots):
                    self._wake.wait()
                if self._closing:
                    unfinished = [*self._waiting, *(s.request for s in self._slots if s.request)]
                    break
                self._progress_at = time.monotonic()
                ended = self._admit()
            try:
                for request in ended:
                    self._finish(request)
                self._step()
            except Exception as error:  # out of memory, say: these requests fail, the engine goes on
                self._fail(self._active(), f"{type(error).__name__}: {error}")
        for request in unfinished:
            request.error = Error("not_ready", "the engine is shutting down")
            self._finish(request)

    def _active(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.request is not None]

    def _admit(self) -> list[EngineRequest]:
        """Free the slots of cancelled requests, then hand free slots to waiting ones.

        Returns the requests that have ended: cancelled, or failed because they could not be begun.
        """
        ended = []
        for slot in self._slots:
            if slot.request and slot.request.cancelled:
                ended.append(slot.request)
                self._free(slot)
        while self._waiting and (free := [slot for slot in self._slots if slot.request is None]):
            request = self._waiting.popleft()
            try:
                self._begin(request, free)
            except Exception as error:
                request.error = Error("engine_error", f"{type(error).__name__}: {error}")
                ended.append(request)
        return ended

    def _begin(self, request: EngineRequest, free: list[_Slot]) -> None:
        """Give the request the slot that suits it best."""
        shared = {slot.index: _reusable(slot.cached, request) for slot in free}
        slot = max(free, key=lambda s: self._slot_rank(s, shared[s.index]))
        # The last prompt token is always read again: its logits start the answer.
        keep = min(shared[slot.index], len(request.prompt) - 1)
        sampler = Sampler(request.sampling, request.prompt, self.vocab_size, request.guide)
        pending = request.prompt[keep:].tolist()
        self._llama.forget(slot.index, keep)
        del slot.cached[keep:]
        slot.request, slot.sampler, slot.pending = request, sampler, pending
        request.cached_tokens = keep
        request.scheduled_ns = time.time_ns()

    def _slot_rank(self, slot: _Slot, shared: int) -> tuple[int, int, int, int]:
        """How well a free slot suits a prompt of which it remembers `shared` tokens; the greatest does best.

        What saves whole steps of reading counts most. Then that slots in use are neighbours: llama.cpp
        computes their rows together, others apart (2B shape, four of eight slots: 240 or 340 ms a step). Then
        what else it remembers, and how long it was not used.
        """
        used = [each.request is not None or each is slot for each in self._slots]
        groups = sum(now and not before for before, now in zip([False, *used], used, strict=False))
        return shared // self._prefill_chunk, -groups, shared, -slot.used_at

    def _free(self, slot: _Slot) -> None:
        self._clock += 1
        slot.used_at, slot.request, slot.sampler, slot.pending = self._clock, None, None, []

    def _finish(self, request: EngineRequest) -> None:
        request.finished = True
        request.changed(request)

    def _step(self) -> None:
        plan = self._plan()
        if not plan:
            return
        tokens = [token for slot, count in plan for token in slot.pending[:count]]
        positions = [len(slot.cached) + i for slot, count in plan for i in range(count)]
        sequences = [slot.index for slot, count in plan for _ in range(count)]
        sampled, row = {}, -1
        scored: dict[int, tuple[EngineRequest, int]] = {}  # a row, and the prompt's token that it predicts
        for slot, count in plan:
            if (request := slot.request) and request.return_prompt_log_probs and not request.tokens:
                following = request.prompt[len(slot.cached) + 1 :][:count].tolist()
                scored |= {row + 1 + i: (request, token) for i, token in enumerate(following)}
            row += count
            if count == len(slot.pending):
                sampled[row] = slot
        try:
            logits = self._llama.decode(
                np.array(tokens, np.int32), np.array(positions, np.int32), sequences, [*scored, *sampled]
            )
        except LlamaError as error:
            self._fail([slot for slot, _ in plan], str(error))
            return
        for slot, count in plan:
            slot.cached += slot.pending[:count]
            del slot.pending[:count]
        for row, (request, token) in scored.items():
            request.prompt_log_probs.add(logits[row], token, request.top_log_probs)
        for row, slot in sampled.items():
            self._extend(slot, logits[row])

    def _plan(self) -> list[tuple[_Slot, int]]:
        """Which slots read how many of their pending tokens in this step."""
        active = self._active()
        generating = [slot for slot in active if slot.request and slot.request.tokens]
        reading = [slot for slot in active if slot.request and not slot.request.tokens]
        reading.sort(key=lambda slot: slot.request.arrival_ns if slot.request else 0)
        budget = self._prefill_chunk if not generating else max(1, self._prefill_chunk // 2)
        plan = [(slot, 1) for slot in generating]
        for slot in reading:
            count = min(len(slot.pending), budget)
            if count:
                plan.append((slot, count))
                budget -= count
        plan.sort(key=lambda each: each[0].index)  # llama.cpp sees neighbours only in this order
        return plan

    def _extend(self, slot: _Slot, logits: NDArray[np.float32]) -> None:
        request, sampler = slot.request, slot.sampler
        if request is None or sampler is None:
            return
        try:
            token = sampler(logits)
        except GuideError as error:  # the others' tokens of this step are as good as ever
            request.error = Error("invalid_value", str(error), "guided_decoding_guide")
            with self._wake:
                self._free(slot)
            self._finish(request)
            return
        if request.return_log_probs:
            request.log_probs.add(logits, token, request.top_log_probs)
        request.last_token_ns = time.time_ns()
        if not request.tokens:
            request.first_token_ns = request.last_token_ns
        request.tokens.append(token)
        slot.pending.append(token)
        if request.ended_by(token):
            request.finished = True
            with self._wake:
                self._free(slot)
        request.changed(request)

    def _fail(self, slots: list[_Slot], message: str) -> None:
        """A step failed: its requests end with the error, and their caches are not trusted."""
        for slot in slots:
            request = slot.request
            self._llama.forget(slot.index, 0)
            slot.cached = []
            with self._wake:
                self._free(slot)
            if request:
                request.error = Error("engine_error", message)
                self._finish(request)


def _thread_cpu_s(thread: threading.Thread) -> float:
    """Processor time that the thread has used, in seconds; 0.0 once it has ended."""
    if thread.ident is None or not thread.is_alive():
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def _reusable(cached: list[int], request: EngineRequest) -> int:
    """How many tokens of the prompt need not be read again. A cache does not hold what they predicted."""
    return 0 if request.return_prompt_log_probs else _common_prefix(cached, request.prompt)


def _common_prefix(cached: list[int], prompt: NDArray[np.int32]) -> int:
    length = min(len(cached), len(prompt))
    if length == 0:
        return 0
    different = np.flatnonzero(np.array(cached[:length], np.int32) != prompt[:length])
    return int(different[0]) if len(different) else length
