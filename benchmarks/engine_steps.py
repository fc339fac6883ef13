"""The engine's runtime alone, step by step: how long steps take, and the benefit of speculation.

`python -m benchmarks.engine_steps --engine FILE.gguf|FOLDER` prints one line of JSON.

Speculation is measured with answers that quote their prompt, forced by a guide, because random weights would
quote nothing: wholly, by halves (a passage of the prompt, then as many tokens of the model's own), and not at
all. The same seed must give the same text with and without it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine, own_engine, runs
from benchmarks.measuring import say

SEQUENCES = (1, 2, 4, 8)
PIECES = (16, 64, 128, 256, 512)
CONTEXT = 64  # tokens that each decoding sequence holds already
PASSAGE = 24  # tokens that are quoted, or not, at a time


def main() -> int:
    options = _parse()
    random = np.random.default_rng(options.seed)
    begun = time.monotonic()
    loaded = own_engine.load(options.engine, slots=options.slots, context=options.context)
    result: dict[str, Any] = {
        "kind": "engine steps",
        "engine": options.engine.name,
        "runtime": loaded.name,
        "machine": machine.facts(),
        "load_s": time.monotonic() - begun,
    }
    steps = Steps(loaded.runtime, random, options.tries)
    steps.prompt(16)  # the first step lays the weights out
    result["decode_s"] = {count: steps.decode(count) for count in SEQUENCES if count <= options.slots}
    # what the engine reads in one step is at most this
    most = options.slots + loaded.prefill_chunk if loaded.name == "llama_cpp" else options.context
    result["prompt_s"] = {count: steps.prompt(count) for count in PIECES if count <= most}
    result["mixed_s"] = {
        f"{count} + {piece}": steps.mixed(count, piece)
        for count, piece in ((1, 8), (1, 16), (4, 8), (4, 16), (4, 32))
        if count < options.slots
    }
    result["speculation"] = speculation(loaded, random, options)
    sys.stdout.write(runs.line(result) + "\n")
    return 0


class Steps:
    """Times steps of a runtime; each figure is a median with its extremes, in seconds."""

    def __init__(self, runtime: Any, random: np.random.Generator, tries: int) -> None:
        self._runtime, self._random, self._tries = runtime, random, tries

    def decode(self, sequences: int) -> dict[str, float]:
        """One token of each of so many answers."""
        self._begin(sequences)
        return self._timed(lambda at: [self._piece(each, CONTEXT + at, 1) for each in range(sequences)])

    def prompt(self, tokens: int) -> dict[str, float]:
        """One piece of a prompt, nobody beside it."""
        self._forget()
        found = self._timed(lambda _: [self._piece(0, 0, tokens)], after=self._forget)
        return {**found, "tokens_per_second": tokens / found["median"]}

    def mixed(self, sequences: int, tokens: int) -> dict[str, float]:
        """One token of each of so many answers, and a piece of a prompt."""
        self._begin(sequences)

        def pieces(at: int) -> list[Any]:
            running = [self._piece(each, CONTEXT + at, 1) for each in range(sequences)]
            return [*running, self._piece(sequences, at * tokens, tokens)]

        return self._timed(pieces)

    def _timed(self, pieces: Any, after: Any = lambda: None) -> dict[str, float]:
        taken = []
        for at in range(self._tries):
            step = pieces(at)
            begun = time.monotonic()
            self._runtime.step(step)
            taken.append(time.monotonic() - begun)
            after()
        return {"median": statistics.median(taken), "low": min(taken), "high": max(taken)}

    def _begin(self, sequences: int) -> None:
        self._forget()
        for each in range(sequences):
            self._runtime.step([self._piece(each, 0, CONTEXT)])

    def _piece(self, sequence: int, start: int, tokens: int) -> Any:
        from runtime import Piece

        ids = self._random.integers(0, own_engine.BYTES, tokens).tolist()
        return Piece(sequence, start, ids, 0, [tokens - 1])

    def _forget(self) -> None:
        for sequence in range(self._runtime.sequences):
            self._runtime.forget(sequence, 0)


class Quotes:
    """A guide that allows, of every two passages of an answer, as many as `share` says only as quotes.

    share: 1.0 (the answer is a quote), 0.5 (every second passage is one) or 0.0 (free).
    """

    complete = False

    def __init__(self, text: list[int], share: float, vocab_size: int) -> None:
        self._text, self._share, self._at = text, share, 0
        self._free = np.ones(vocab_size, np.bool_)

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocab_size]."""
        passage = self._at // PASSAGE
        if self._share == 0.0 or (self._share < 1.0 and passage % 2):
            return self._free
        mask = np.zeros_like(self._free)
        mask[self._text[self._at % len(self._text)]] = True
        return mask

    def take(self, _token: int) -> None:
        self._at += 1


def speculation(loaded: Any, random: np.random.Generator, options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of one caller with guesses and without, by the share of the answer that is quoted."""
    text = random.integers(0, own_engine.BYTES, options.answer).tolist()
    found: dict[str, Any] = {}
    for share in (1.0, 0.5, 0.0):
        rates: dict[bool, list[float]] = {True: [], False: []}
        same = True
        for number in range(options.rounds):
            answers = {}
            for speculate in (True, False) if number % 2 == 0 else (False, True):
                answers[speculate], rate = _answer(loaded, text, share, speculate, number)
                rates[speculate].append(rate)
            same = same and answers[True] == answers[False]
        ratios = [on / off for on, off in zip(rates[True], rates[False], strict=True)]
        found[f"{share:.0%} quoted"] = {
            "with": statistics.median(rates[True]),
            "without": statistics.median(rates[False]),
            "ratio": {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)},
            "same_text": same,
        }
        say(f"speculation, {share:.0%} quoted: {statistics.median(ratios):.2f}")
    return found


def _answer(
    loaded: Any, text: list[int], share: float, speculate: bool, seed: int
) -> tuple[list[int], float]:
    """The tokens of one answer, and how many came per second after the first."""
    from engine_request import EngineRequest

    done = threading.Event()
    engine = loaded.engine(speculate=speculate)
    request = EngineRequest(
        prompt=np.array(text, np.int32),
        max_new_tokens=len(text),
        sampling=own_engine.sampling("served", seed),
        guide=Quotes(text, share, engine.vocab_size) if share else None,
        changed=lambda each: done.set() if each.finished else None,
    )
    engine.submit(request)
    done.wait()
    if request.error:
        raise RuntimeError(str(request.error))
    seconds = (request.last_token_ns - request.first_token_ns) / 1e9
    return request.tokens, (len(request.tokens) - 1) / seconds


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_steps", description=__doc__)
    add = parser.add_argument
    add("--engine", type=Path, required=True, help="a .gguf file, or a folder with a model.xml")
    add("--slots", type=int, default=8)
    add("--context", type=int, default=1024)
    add("--tries", type=int, default=9, help="of each kind of step")
    add("--rounds", type=int, default=3, help="of each kind of answer, with and without guesses in turn")
    add("--answer", type=int, default=192, help="tokens of the prompt and of the answer that quotes it")
    add("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
