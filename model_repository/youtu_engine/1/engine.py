"""Continuous batching over the KV caches of one model: token ids in, token ids out.

Each step of the engine's one thread takes the newest token of every running answer, proposals for its next
ones where the runtime verifies them cheaply, and pieces of the prompts not yet read: a request
joins and leaves between two steps. Common beginnings of prompts are read once (`caches`).

Independent of text, Triton, the reader of the tokens and the runtime.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from caches import Cache, Caches
from engine_request import EngineRequest
from numpy.typing import NDArray
from pace import Pace
from runtime import ComputeError, Piece, Runtime
from sampling import GuideError, Sampler
from speculation import Guesser
from youtu_contract.errors import Error


class QueueFull(Exception):
    """As many requests wait as may wait."""


@dataclass(eq=False, slots=True)
class _Running:
    """A request that has a slot. pending: tokens still to be read: prompt, then the newest one."""

    request: EngineRequest
    cache: Cache
    sampler: Sampler
    pending: list[int]
    guesser: Guesser | None

    @property
    def generating(self) -> bool:
        return bool(self.request.tokens)


@dataclass(eq=False, slots=True)
class _Part:
    """What a step reads of one request, and the prompt's tokens whose log-probabilities it gives."""

    running: _Running
    piece: Piece
    scored: list[int]
    samples: bool  # its last token that is no guess is the last one pending: another follows


class Engine:
    """Runs `slots` requests of `context` tokens at once; at most `queue` more wait, first come first served.

    prefill_chunk: prompt tokens per step while nobody generates; as many fit beside running answers as do not
    hold them up (`pace`). speculate: whether guesses are made at all.
    """

    def __init__(
        self,
        runtime: Runtime,
        *,
        slots: int,
        context: int,
        queue: int,
        prefill_chunk: int,
        speculate: bool = True,
    ) -> None:
        self.context = context
        self.vocab_size = runtime.vocab_size
        self._runtime = runtime
        self._caches = Caches(runtime, context)
        self._pace = Pace(prefill_chunk)
        self._speculate = speculate and runtime.rows > 1
        self._slots = slots
        self._queue_limit = queue
        self._running: list[_Running] = []
        self._waiting: deque[EngineRequest] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._progress_at = time.monotonic()
        self._cpu_s = 0.0  # of the engine's thread, when it was last looked at
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: EngineRequest) -> None:
        """Queue a request whose prompt is not empty and fits. Raises QueueFull."""
        request.arrival_ns = time.time_ns()
        with self._wake:
            busy = len(self._running)
            if len(self._waiting) + busy >= self._queue_limit + self._slots:
                waiting = f"{len(self._waiting)} requests are waiting, the limit is {self._queue_limit}"
                raise QueueFull(f"the queue is full: {waiting}")
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
            return len(self._running), len(self._waiting)

    def stalled(self) -> float:
        """Seconds without progress while there is work; 0.0 when there is none.

        A step that ends is progress, and so is time that the engine's thread spends on a processor: on a slow
        machine a step may take longer than a hang may last.
        """
        with self._wake:
            if not self._waiting and not self._running:
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
        self._runtime.close()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._closing and not self._waiting and not self._running:
                    self._wake.wait()
                if self._closing:
                    unfinished = [*self._waiting, *(each.request for each in self._running)]
                    break
                self._progress_at = time.monotonic()
                ended = self._admit()
            try:
                for request in ended:
                    self._finish(request)
                self._step()
            except Exception as error:  # out of memory, say: these requests fail, the engine goes on
                self._fail(list(self._running), f"{type(error).__name__}: {error}")
        for request in unfinished:
            request.error = Error("not_ready", "the engine is shutting down")
            self._finish(request)

    def _admit(self) -> list[EngineRequest]:
        """Free the slots of cancelled requests, then hand free slots to waiting ones.

        Returns the requests that have ended: cancelled, or failed because they could not be begun.
        """
        ended = []
        for running in [each for each in self._running if each.request.cancelled]:
            ended.append(running.request)
            self._free(running)
        while self._waiting and len(self._running) < self._slots:
            request = self._waiting.popleft()
            try:
                self._begin(request)
            except Exception as error:
                request.error = Error("engine_error", f"{type(error).__name__}: {error}")
                ended.append(request)
        return ended

    def _begin(self, request: EngineRequest) -> None:
        """Give the request a slot and a KV cache."""
        sampler = Sampler(request.sampling, request.prompt, self.vocab_size, request.guide)
        guesser = Guesser(request.prompt) if self._speculate else None
        # The prompt's end is always read again: its logits start the answer. A cache does not hold what its
        # tokens predicted.
        again = min(self._runtime.shortest_piece, len(request.prompt))
        reuse = 0 if request.return_prompt_log_probs else len(request.prompt) - again
        cache = self._caches.begin(request.prompt, reuse)
        request.cached_tokens = cache.length
        request.scheduled_ns = time.time_ns()
        pending = request.prompt[cache.length :].tolist()
        self._running.append(_Running(request, cache, sampler, pending, guesser))

    def _free(self, running: _Running) -> None:
        self._caches.end(running.cache)
        self._running.remove(running)

    def _finish(self, request: EngineRequest) -> None:
        request.finished = True
        request.changed(request)

    def _step(self) -> None:
        parts = self._plan()
        if not parts:
            return
        pieces = [part.piece for part in parts]
        self._caches.make_room(pieces)
        started = time.monotonic()
        try:
            made = self._runtime.step(pieces)
        except ComputeError as error:
            self._fail([part.running for part in parts], str(error))
            return
        generating = [part for part in parts if part.running.generating]
        read = sum(len(part.piece.tokens) for part in parts if not part.running.generating)
        self._pace.took(len(generating), read, time.monotonic() - started)
        for part, logits in zip(parts, made, strict=True):
            self._take(part, logits)

    def _plan(self) -> list[_Part]:
        """What each request reads in this step."""
        generating = [each for each in self._running if each.generating]
        reading = [each for each in self._running if not each.generating]
        rows = self._runtime.rows // len(generating) if generating and not reading else 1
        parts = [self._generating_part(each, rows - 1) for each in generating]
        budget = self._pace.prompt_tokens(len(generating))
        for running in sorted(reading, key=lambda each: each.request.arrival_ns):
            count = self._piece_length(len(running.pending), budget)
            if count:
                parts.append(self._reading_part(running, count))
                budget -= count
        parts.sort(key=lambda part: part.piece.sequence)  # neighbours are seen only in this order
        return parts

    def _piece_length(self, pending: int, budget: int) -> int:
        """How many of the pending tokens to read now: neither they nor the rest are too short a piece."""
        shortest = min(self._runtime.shortest_piece, pending)
        count = min(pending, max(budget, shortest)) if budget > 0 else 0
        missing = shortest - (pending - count)
        if 0 < count < pending and missing > 0:
            count = count - missing if count - missing >= shortest else pending
        return count

    def _generating_part(self, running: _Running, most: int) -> _Part:
        request = running.request
        most = min(most, request.max_new_tokens - len(request.tokens) - 1)
        guesses = running.guesser.guesses(most) if running.guesser else []
        tokens = [*running.pending, *guesses]
        cache = running.cache
        wanted = list(range(len(tokens)))
        return _Part(running, Piece(cache.sequence, cache.length, tokens, len(guesses), wanted), [], True)

    def _reading_part(self, running: _Running, count: int) -> _Part:
        request, cache = running.request, running.cache
        scored = []
        if request.return_prompt_log_probs:
            scored = request.prompt[cache.length + 1 :][:count].tolist()
        samples = count == len(running.pending)
        wanted = list(range(len(scored)))
        if samples and count - 1 not in wanted:
            wanted.append(count - 1)
        piece = Piece(cache.sequence, cache.length, running.pending[:count], 0, wanted)
        return _Part(running, piece, scored, samples)

    def _take(self, part: _Part, logits: list[NDArray[np.float32]]) -> None:
        """Take what a step has made for one request."""
        running, piece = part.running, part.piece
        request, sure = running.request, len(piece.tokens) - piece.guesses
        self._caches.extend(running.cache, piece.tokens)
        del running.pending[:sure]
        for row, token in zip(logits, part.scored, strict=False):
            request.prompt_log_probs.add(row, token, request.top_log_probs)
        if not part.samples:
            return
        guesses = piece.tokens[sure:]
        accepted = 0
        going_on = self._extend(running, logits[-1 - len(guesses)])
        while going_on and accepted < len(guesses) and guesses[accepted] == request.tokens[-1]:
            running.pending.clear()
            accepted += 1
            going_on = self._extend(running, logits[accepted - 1 - len(guesses)])
        if guesses:
            # What was guessed wrong must not be read by those that come after.
            self._caches.cut(running.cache, running.cache.length - len(guesses) + accepted)
            if running.guesser:
                running.guesser.verified(len(guesses), accepted)
        if not going_on:
            with self._wake:
                self._free(running)
        request.changed(request)

    def _extend(self, running: _Running, logits: NDArray[np.float32]) -> bool:
        """Choose the next token. Returns whether another is to follow."""
        request = running.request
        try:
            token = running.sampler(logits)
        except GuideError as error:  # the others' tokens of this step are as good as ever
            request.error = Error("invalid_value", str(error), "guided_decoding_guide")
            request.finished = True
            return False
        if request.return_log_probs:
            request.log_probs.add(logits, token, request.top_log_probs)
        request.last_token_ns = time.time_ns()
        if not request.tokens:
            request.first_token_ns = request.last_token_ns
        request.tokens.append(token)
        running.pending.append(token)
        if running.guesser:
            running.guesser.take(token)
        request.finished = request.ended_by(token)
        return not request.finished

    def _fail(self, failed: list[_Running], message: str) -> None:
        """A step failed: its requests end with the error, and their caches are not trusted."""
        for running in failed:
            self._caches.cut(running.cache, 0)
            with self._wake:
                self._free(running)
            running.request.error = Error("engine_error", message)
            self._finish(running.request)


def _thread_cpu_s(thread: threading.Thread) -> float:
    """Processor time that the thread has used, in seconds; 0.0 once it has ended."""
    if thread.ident is None or not thread.is_alive():
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
