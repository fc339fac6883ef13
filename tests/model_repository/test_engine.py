"""The engine on both real runtimes and the demo's weights: slots, caches, cancelling, guesses, limits."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama as llama_module
import numpy as np
import pytest
from engine import Engine, QueueFull
from engine_request import EngineRequest
from llama import Llama
from openvino_runtime import OpenVino
from runtime import Runtime
from sampling import SamplingParams
from speculation import Guesser
from youtu_contract.errors import Error

from tests.limits import WAIT_S

from .conftest import CONTEXT, SLOTS

GREEDY = SamplingParams(temperature=0)


class Run:
    """One submitted request that can be waited for."""

    def __init__(
        self,
        engine: Engine,
        tokens: list[int],
        count: int,
        params: SamplingParams = GREEDY,
        **options: Any,
    ) -> None:
        self.ended = threading.Event()
        self.started = threading.Event()
        self.at_its_start: Callable[[], object] = lambda: None
        self.at_its_end: Callable[[], object] = lambda: None
        self.request = EngineRequest(
            np.array(tokens, np.int32), count, params, return_log_probs=True, changed=self._changed, **options
        )
        engine.submit(self.request)

    def _changed(self, request: EngineRequest) -> None:
        if not self.started.is_set():
            self.at_its_start()
            self.started.set()
        if request.finished:
            self.at_its_end()
            self.ended.set()

    def wait(self) -> EngineRequest:
        assert self.ended.wait(WAIT_S), "the request did not end"
        assert self.request.error is None
        return self.request


class Steps:
    """The steps of the engine: counted, and held by `hold` until `go`."""

    def __init__(self, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self._go = threading.Event()
        self._go.set()
        self._within = threading.Event()
        step = runtime.step

        def counted(*given: Any) -> Any:
            self.count += 1
            if not self._go.is_set():
                self._within.set()
                assert self._go.wait(WAIT_S)
                self._within.clear()
            return step(*given)

        monkeypatch.setattr(runtime, "step", counted)

    def hold(self) -> None:
        """The next step is begun and not ended."""
        self._go.clear()

    def wait_held(self) -> None:
        """Until the engine is in that step; there must be work for it."""
        assert self._within.wait(WAIT_S)

    def go(self) -> None:
        self._go.set()


@pytest.fixture
def steps(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    counted = Steps(runtime, monkeypatch)
    yield counted
    counted.go()


def prompt(seed: int, length: int = 40) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(10, 3000, length)]


def test_alone_and_in_company_the_answers_are_the_same(engine: Engine) -> None:
    prompts = [prompt(i) for i in range(8)]
    alone = [Run(engine, p, 48).wait().tokens for p in prompts]
    runs = [Run(engine, p, 48) for p in prompts]
    assert [run.wait().tokens for run in runs] == alone


def test_exactly_as_many_tokens_as_asked_each_with_its_log_prob(engine: Engine) -> None:
    request = Run(engine, prompt(1), 33).wait()
    assert len(request.tokens) == len(request.log_probs.values) == 33
    assert all(value <= 0 for value in request.log_probs.values)
    assert request.arrival_ns <= request.scheduled_ns <= request.first_token_ns
    assert request.first_token_ns <= request.last_token_ns


def test_a_repeated_prompt_starts_behind_what_is_cached(engine: Engine, runtime: Runtime) -> None:
    first = Run(engine, prompt(2), 20).wait()
    again = Run(engine, prompt(2), 20).wait()
    # The last tokens are read again: they give the first logits.
    assert (first.cached_tokens, again.cached_tokens) == (0, 40 - runtime.shortest_piece)
    assert again.tokens == first.tokens


def test_a_conversation_goes_on_from_its_own_slot(engine: Engine) -> None:
    first = Run(engine, prompt(3), 20).wait()
    for other in range(10, 13):
        Run(engine, prompt(other), 4).wait()
    longer = [*prompt(3), *first.tokens, *prompt(4, 5)]
    assert Run(engine, longer, 4).wait().cached_tokens == 40 + 19  # the newest token was never read


def test_the_end_token_ends_it_and_is_delivered(engine: Engine) -> None:
    tokens = Run(engine, prompt(5), 30).wait().tokens
    end = tokens[9]
    ended = Run(engine, prompt(5), 30, SamplingParams(temperature=0, ends=frozenset({end} - {None}))).wait()
    assert ended.tokens == tokens[: tokens.index(end) + 1]


@pytest.mark.parametrize("where", ["decode", "prefill"])
def test_cancelling_frees_the_slot_within_a_step(steps: Steps, engine: Engine, where: str) -> None:
    """When the step is over in which the call was cancelled, the next in the queue has its slot."""
    steps.hold()
    length = 40 if where == "decode" else 400
    left, *others = [Run(engine, prompt(i, length), 100) for i in range(SLOTS)]
    waiting = Run(engine, prompt(9), 100)
    if where == "decode":
        left.at_its_start = steps.hold
        steps.go()
        assert left.started.wait(WAIT_S)
    steps.wait_held()
    made = len(left.request.tokens)
    assert (made > 0) == (where == "decode")
    before = steps.count
    ended_at: list[int] = []
    left.at_its_end = lambda: ended_at.append(steps.count)
    engine.cancel(left.request)
    assert not left.ended.is_set()
    steps.go()
    assert left.ended.wait(WAIT_S)
    assert ended_at == [before]
    assert waiting.request.scheduled_ns > 0
    assert len(left.request.tokens) <= made + 1
    for run in (*others, waiting):
        engine.cancel(run.request)


def test_cancelling_in_the_queue_is_immediate(steps: Steps, engine: Engine) -> None:
    steps.hold()
    running = [Run(engine, prompt(i), 400) for i in range(SLOTS)]
    waiting = Run(engine, prompt(9), 400)
    engine.cancel(waiting.request)
    assert waiting.ended.is_set()
    assert waiting.request.tokens == []
    steps.go()
    for run in running:
        engine.cancel(run.request)


def test_a_full_queue_refuses_and_forgets(steps: Steps, engine: Engine) -> None:
    steps.hold()
    runs = [Run(engine, prompt(i), 300) for i in range(SLOTS + 8)]
    with pytest.raises(QueueFull, match="the limit is 8"):
        Run(engine, prompt(99), 4)
    steps.go()
    for run in runs:
        engine.cancel(run.request)
    for run in runs:
        assert run.ended.wait(WAIT_S)
    Run(engine, prompt(99), 4).wait()


def test_the_context_can_be_filled_to_its_last_token(engine: Engine) -> None:
    request = Run(engine, prompt(6, CONTEXT - 10), 10).wait()
    assert len(request.tokens) == 10


def test_all_slots_can_be_full_at_once_whatever_the_context(openvino_model: Path) -> None:
    """The fault: with a context that is no whole number of blocks, the last slots' steps failed."""
    runtime = OpenVino(openvino_model, slots=3, context=70, threads=1)
    engine = Engine(runtime, slots=3, context=70, queue=8, prefill_chunk=64)
    shared = prompt(70, 33)  # a block and one token more
    runs = [Run(engine, [*shared, *prompt(71 + i, 7)], 30) for i in range(6)]
    assert [len(run.wait().tokens) for run in runs] == [30] * 6
    engine.close()


def test_closing_fails_what_is_under_way(runtime: Runtime) -> None:
    engine = Engine(runtime, slots=SLOTS, context=CONTEXT, queue=8, prefill_chunk=64)
    run = Run(engine, prompt(7), 450)
    assert run.started.wait(WAIT_S)
    engine.close()
    assert (
        run.request.error == Error("not_ready", "the engine is shutting down")
        or len(run.request.tokens) == 450
    )


def test_the_likeliest_tokens_of_each_place_begin_with_the_greedy_one(engine: Engine) -> None:
    request = Run(engine, prompt(1), 12, top_log_probs=3).wait()
    assert request.log_probs.top_ids[::3] == request.tokens
    assert request.log_probs.top_values[::3] == request.log_probs.values
    rows = np.reshape(request.log_probs.top_values, (12, 3))
    assert (np.diff(rows) <= 0).all()
    assert (np.exp(rows).sum(axis=1) <= 1 + 1e-6).all()


def test_prompt_log_probs_equal_those_of_the_same_tokens_when_generated(
    engine: Engine, runtime: Runtime
) -> None:
    """What it made comes back as part of a prompt: each token is as likely as it was, and so are the others.

    In company, over several chunks, and although the cache holds all of it.
    """
    made = Run(engine, prompt(3), 100, top_log_probs=2).wait()
    others = [Run(engine, prompt(seed), 40) for seed in (4, 5)]
    whole = prompt(3) + made.tokens
    read = Run(engine, whole, 1, return_prompt_log_probs=True, top_log_probs=2).wait()
    for other in others:
        other.wait()
    scored = read.prompt_log_probs
    assert read.cached_tokens == 0
    assert len(scored.values) == len(whole) - 1
    if isinstance(runtime, Llama):
        assert np.allclose(scored.values[39:], made.log_probs.values, atol=1e-3)
        assert scored.top_ids[2 * 39 :: 2] == made.tokens
    else:  # a piece of a prompt takes other kernels than single tokens, and activations are rounded to 8 bits
        assert np.median(np.abs(np.subtract(scored.values[39:], made.log_probs.values))) < 0.02
        assert np.mean(np.equal(scored.top_ids[2 * 39 :: 2], made.tokens)) > 0.9
    assert len(scored.top_values) == 2 * len(scored.values)
    assert len(read.log_probs.values) == 1
    # Nothing changes for the next one with this beginning.
    assert Run(engine, whole, 1).wait().cached_tokens == len(whole) - runtime.shortest_piece


def test_scoring_a_prompt_does_not_take_the_slot_that_another_goes_on_in(
    engine: Engine, runtime: Runtime
) -> None:
    conversation = prompt(6, 100)
    Run(engine, conversation, 1).wait()
    Run(engine, conversation[:80] + prompt(8, 40), 1, return_prompt_log_probs=True).wait()
    assert Run(engine, conversation, 1).wait().cached_tokens == 100 - runtime.shortest_piece


def test_a_common_beginning_is_read_once_while_its_first_reader_is_answered(engine: Engine) -> None:
    """Several conversations with one system prompt: as each starts, and after all have ended."""
    system = prompt(20, 200)
    alone = Run(engine, [*prompt(99, 1), *system, *prompt(21, 9)], 12).wait()
    assert alone.cached_tokens == 0
    first = Run(engine, [*system, *prompt(21, 9)], 100)
    assert first.started.wait(WAIT_S)
    second = Run(engine, [*system, *prompt(22, 9)], 12)
    third = Run(engine, [*system, *prompt(23, 9)], 12)
    assert second.wait().cached_tokens == third.wait().cached_tokens == 200
    made = first.wait().tokens
    assert made == Run(engine, [*system, *prompt(21, 9)], 100).wait().tokens  # nobody wrote into its cache
    assert Run(engine, [*system, *prompt(24, 9)], 4).wait().cached_tokens == 200


def test_shared_beginnings_do_not_change_the_answers(engine: Engine, runtime: Runtime) -> None:
    system = prompt(30, 70)
    prompts = [[*system, *prompt(31 + i, 5 + i)] for i in range(SLOTS)]
    together = [run.wait() for run in [Run(engine, each, 30) for each in prompts]]
    for number in (0, SLOTS - 1):
        run = together[number]
        for other in range(runtime.sequences):  # so that nothing of the others is left
            Run(engine, prompt(50 + other, 40), 1).wait()
        alone = Run(engine, prompts[number], 30).wait()
        assert (alone.cached_tokens, alone.tokens) == (0, run.tokens)


QUOTING = prompt(40, 30) * 3


class Answers:
    """Answers to QUOTING, whose tokens are likely, and how many steps they take."""

    def __init__(self, runtime: Runtime, steps: Steps) -> None:
        self._runtime, self._steps = runtime, steps

    def __call__(self, params: SamplingParams, *, speculate: bool) -> tuple[list[int], int]:
        for sequence in range(self._runtime.sequences):
            self._runtime.forget(sequence, 0)
        before = self._steps.count
        engine = Engine(
            self._runtime, slots=1, context=CONTEXT, queue=1, prefill_chunk=64, speculate=speculate
        )
        bias = np.zeros(engine.vocab_size, np.float32)
        bias[QUOTING] = 12.0
        tokens = Run(engine, QUOTING, 60, replace(params, bias=bias)).wait().tokens
        engine.close()
        return tokens, self._steps.count - before


@pytest.fixture
def answers(openvino: OpenVino, monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(openvino, Steps(openvino, monkeypatch))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_guesses_save_steps_and_change_nothing(answers: Answers, temperature: float) -> None:
    params = SamplingParams(temperature=temperature, seed=7)
    plain, plain_steps = answers(params, speculate=False)
    guessed, steps = answers(params, speculate=True)
    assert guessed == plain
    assert len(plain) == 60
    assert steps < plain_steps


def test_wrong_guesses_change_nothing(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every other one is wrong, and what was read of it is forgotten."""
    plain, plain_steps = answers(GREEDY, speculate=False)
    monkeypatch.setattr(Guesser, "guesses", lambda self, most: [plain[len(self._tokens) - 90], 1][:most])
    guessed, steps = answers(GREEDY, speculate=True)
    assert guessed == plain
    assert steps < plain_steps


def test_slots_in_use_are_neighbours_and_stand_in_order(gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """llama.cpp computes the rows of neighbouring slots together, those of others apart. Four of eight.

    Each caller asks again in the step in which its answer ends, so that the order is the same every time.
    """
    llama = Llama(gguf, context=64, sequences=8, batch=72, threads=1)
    steps: list[list[int]] = []
    decode = llama.decode

    held = threading.Event()

    def seen(tokens: Any, positions: Any, sequences: list[int], output_rows: list[int]) -> Any:
        assert held.wait(WAIT_S)  # until all four are there
        steps.append(sequences)
        return decode(tokens, positions, sequences, output_rows)

    monkeypatch.setattr(llama, "decode", seen)
    engine = Engine(llama, slots=8, context=64, queue=8, prefill_chunk=64)
    done = [threading.Event() for _ in range(4)]

    def ask(number: int, turn: int) -> None:
        run = Run(engine, prompt(100 * number + turn, 20), 5 + 7 * number + turn)
        run.at_its_end = (lambda: ask(number, turn + 1)) if turn < 7 else done[number].set

    for number in range(4):
        ask(number, 0)
    held.set()
    assert all(one.wait(WAIT_S) for one in done)
    engine.close()
    assert all(sequences == sorted(sequences) for sequences in steps)
    used = [sorted(set(sequences)) for sequences in steps]
    assert max(map(len, used)) == 4
    together = [slots for slots in used if slots[-1] - slots[0] == len(slots) - 1]
    # When one in the middle has ended, the others go on where they are.
    assert len(together) > 0.7 * len(used)


def test_a_library_that_is_no_longer_needed_is_not_called_any_more(tmp_path: Path) -> None:
    """The fault: llama.cpp logged through the callback of a library that was gone, and the process died."""
    code = """
import gc, sys
from pathlib import Path
from typing import Any
import llama
first = llama.LlamaLibrary()
llama.LlamaLibrary()
gc.collect()
junk = [bytearray(100) for _ in range(100_000)]
try:
    llama.Llama(Path(sys.argv[1]), context=64, sequences=1, batch=64, threads=1, library=first)
except llama.LlamaError as error:
    print("refused")
"""
    path = tmp_path / "no.gguf"
    path.write_text("no model")
    folder = str(Path(llama_module.__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", code, path], cwd=folder, capture_output=True, text=True, timeout=WAIT_S
    )
    assert (done.returncode, done.stdout) == (0, "refused\n"), done.stderr


def test_a_stop_word_of_several_tokens_counts_from_min_tokens_on() -> None:
    params = SamplingParams(min_tokens=2)
    request = EngineRequest(np.array([1], np.int32), 99, params, stop_words=((5, 6),))
    ended = []
    for token in (5, 6, 5, 6):
        request.tokens.append(token)
        ended.append(request.ended_by(token))
    assert ended == [False, False, False, True]
