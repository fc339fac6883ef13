"""In place of our engine's engine.py: every running request gets the tokens of a fixed text at a fixed rate.

The rest of the engine's model stays: what reads requests and delivers tokens is measured. It knows nothing of
sampling, guides or caches.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from engine_request import EngineRequest

PLAN: dict[str, Any] = json.loads((Path(__file__).parent / "plan.json").read_text())


class QueueFull(Exception):
    """As many requests run as may."""


class Engine:
    """Runs as many requests as are submitted; all get their next token in the same moment."""

    def __init__(self, runtime: Any, *, slots: int, context: int, queue: int, prefill_chunk: int) -> None:
        self.vocab_size: int = runtime.vocab_size
        self._running: dict[EngineRequest, None] = {}
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit(self, request: EngineRequest) -> None:
        request.arrival_ns = request.scheduled_ns = time.time_ns()
        with self._wake:
            self._running[request] = None
            self._wake.notify()

    def cancel(self, request: EngineRequest) -> None:
        request.cancelled = True

    def stalled(self) -> float:
        return 0.0

    def close(self) -> None:
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        text, period, due = PLAN["tokens"], 1 / PLAN["rate"], time.monotonic()
        while True:
            with self._wake:
                if not self._running:
                    self._wake.wait_for(lambda: self._closing or self._running)
                    due = time.monotonic()
                if self._closing:
                    return
                running = list(self._running)
            due = max(due + period, time.monotonic() - period)  # a late step is made up for, at most one
            time.sleep(max(0.0, due - time.monotonic()))
            for request in running:
                self._advance(request, text[len(request.tokens) % len(text)])

    def _advance(self, request: EngineRequest, token: int) -> None:
        now = time.time_ns()
        if not request.cancelled:
            request.first_token_ns = request.first_token_ns or now
            request.last_token_ns = now
            request.tokens.append(token)
        if request.cancelled or len(request.tokens) >= request.max_new_tokens:
            request.finished = True
            with self._wake:
                del self._running[request]
        request.changed(request)
