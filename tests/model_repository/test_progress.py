"""What the engine says of its progress, and that a step which fails ends its requests and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from engine import Engine
from runtime import Runtime
from youtu_contract.errors import Error

from .conftest import CONTEXT, SLOTS
from .test_engine import Run, prompt

WITHIN = 60.0


class Slow:
    """A real runtime whose steps first do what `before` does."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.before: Callable[[], None] = lambda: None

    def close_gate(self) -> threading.Event:
        """From now on a step waits until the returned event is set."""
        gate = threading.Event()

        def wait() -> None:
            gate.wait(WITHIN)

        self.before = wait
        return gate

    def step(self, *arguments: Any) -> Any:
        self.before()
        return self._runtime.step(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)


@pytest.fixture
def slow(runtime: Runtime) -> Slow:
    return Slow(runtime)


@pytest.fixture
def engine(slow: Slow) -> Iterator[Engine]:
    engine = Engine(slow, slots=SLOTS, context=CONTEXT, queue=8, prefill_chunk=64)
    yield engine
    engine.close()


def stalled_for(engine: Engine, seconds: float, within: float = WITHIN) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if engine.stalled() >= seconds:
            return True
        time.sleep(0.02)
    return False


def test_an_idle_engine_has_not_stalled(engine: Engine) -> None:
    Run(engine, prompt(1), 4).wait()
    time.sleep(0.3)
    assert engine.stalled() == 0.0


def test_work_after_a_pause_does_not_count_the_pause(engine: Engine, slow: Slow) -> None:
    Run(engine, prompt(1), 4).wait()
    time.sleep(1.5)
    gate = slow.close_gate()
    run = Run(engine, prompt(2), 4)
    assert engine.stalled() < 1
    gate.set()
    run.wait()


def test_a_step_that_waits_for_nothing_is_a_stall_until_it_goes_on(engine: Engine, slow: Slow) -> None:
    gate = slow.close_gate()
    run = Run(engine, prompt(1), 4)
    assert stalled_for(engine, 1.0)
    gate.set()
    run.wait()
    assert engine.stalled() == 0.0


def test_a_step_that_computes_is_progress_however_long_it_takes(engine: Engine, slow: Slow) -> None:
    """A long prefill step on a slow machine must not be taken for a hang."""
    ended = threading.Event()

    def compute() -> None:
        until = time.thread_time() + 2
        while time.thread_time() < until:
            pass
        ended.set()

    slow.before = compute
    run = Run(engine, prompt(1), 1)
    longest = 0.0
    while not ended.is_set():
        longest = max(longest, engine.stalled())
        time.sleep(0.05)
    run.wait()
    # On a processor that is shared with others it may not run for a while.
    assert longest < 2


def test_a_step_that_fails_ends_its_requests_and_no_others(engine: Engine, slow: Slow) -> None:
    """The fault: an exception beside the expected one ended the engine's thread, and every caller hung."""

    def fail() -> None:
        slow.before = lambda: None
        raise MemoryError("no room")

    slow.before = fail
    run = Run(engine, prompt(1), 4)
    assert run.ended.wait(WITHIN)
    assert run.request.error == Error("engine_error", "MemoryError: no room")
    assert engine.load() == (0, 0)
    assert len(Run(engine, prompt(1), 4).wait().tokens) == 4


def test_a_request_that_cannot_be_begun_fails_alone(engine: Engine, slow: Slow) -> None:
    def fail(*_arguments: Any) -> None:
        slow.__dict__.pop("forget")
        raise MemoryError("no room")

    slow.forget = fail  # type: ignore[attr-defined]
    run = Run(engine, prompt(1), 4)
    assert run.ended.wait(WITHIN)
    assert run.request.error == Error("engine_error", "MemoryError: no room")
    assert len(Run(engine, prompt(2), 4).wait().tokens) == 4
