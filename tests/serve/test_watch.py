"""When a program counts as hung, and when it does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from serve.watch import Stalled, Watch
from tests.serve.test_guard import eventually

WITHIN = 60.0  # s; far more than it takes


class Program:
    """Answers probes as it is told: `answer` is None, or the error to raise; `once` is raised once."""

    def __init__(self) -> None:
        self.answer: Exception | None = None
        self.once: Exception | None = None
        self.asked = 0
        self.gate = threading.Event()
        self.gate.set()

    def probe(self, _timeout: float) -> None:
        self.asked += 1
        self.gate.wait(WITHIN)
        once, self.once = self.once, None
        if once is not None:
            raise once
        if self.answer is not None:
            raise self.answer

    def wait_asked(self, more: int) -> None:
        until = self.asked + more
        assert eventually(lambda: self.asked >= until, WITHIN)


@pytest.fixture
def program() -> Program:
    return Program()


@pytest.fixture
def watch(program: Program) -> Iterator[Watch]:
    watch = Watch(program.probe, program.probe, hang_timeout=0.5)
    yield watch
    watch.close()


def test_it_is_up_once_it_answers(program: Program, watch: Watch) -> None:
    program.answer = OSError("refused")
    watch.start()
    program.wait_asked(4)
    assert not watch.up
    assert watch.fault is None  # a start may take its time
    program.answer = None
    assert eventually(lambda: watch.up, WITHIN)


def test_no_answer_for_long_enough_is_a_hang(program: Program, watch: Watch) -> None:
    watch.start()
    assert eventually(lambda: watch.up, WITHIN)
    program.answer = TimeoutError("timed out")
    assert eventually(lambda: watch.fault is not None, WITHIN)
    assert "no answer for" in str(watch.fault)
    assert "timed out" in str(watch.fault)


def test_answers_in_between_are_no_hang(program: Program, watch: Watch) -> None:
    watch.start()
    assert eventually(lambda: watch.up, WITHIN)
    for _ in range(5):
        program.answer = TimeoutError("timed out")
        program.wait_asked(1)
        program.answer = None
        program.wait_asked(2)
    assert watch.fault is None


def test_one_question_that_takes_long_is_no_hang(program: Program, watch: Watch) -> None:
    """The launcher itself may have been stopped meanwhile."""
    watch.start()
    assert eventually(lambda: watch.up, WITHIN)
    program.gate.clear()
    program.wait_asked(1)
    program.once = TimeoutError("timed out")
    time.sleep(1)  # twice what a hang takes
    program.gate.set()
    program.wait_asked(2)
    assert watch.fault is None


def test_a_program_that_says_it_has_stalled_hangs_at_once(program: Program, watch: Watch) -> None:
    watch.start()
    assert eventually(lambda: watch.up, WITHIN)
    program.answer = Stalled("no progress for 16 s")
    assert eventually(lambda: watch.fault == "no progress for 16 s", WITHIN)


def test_a_new_start_begins_anew(program: Program, watch: Watch) -> None:
    watch.start()
    assert eventually(lambda: watch.up, WITHIN)
    program.answer = Stalled("no progress")
    assert eventually(lambda: watch.fault is not None, WITHIN)
    watch.restarted()
    assert not watch.up
    assert watch.fault is None
    program.wait_asked(3)
    assert not watch.up
    program.answer = None
    assert eventually(lambda: watch.up, WITHIN)


def test_zero_switches_it_off(program: Program) -> None:
    watch = Watch(program.probe, program.probe, hang_timeout=0)
    watch.start()
    assert eventually(lambda: watch.up, WITHIN)
    program.answer = Stalled("no progress")
    program.wait_asked(2)
    assert watch.fault is None
    watch.close()
