"""`make runtime`: what the engine's two runtimes promise beside speed under load, as callers of gRPC see it.

Round by round, a server of each runtime in turn: from its start to its first answer; the first token of a
conversation whose system prompt another one has brought already; the gaps between the tokens of a running
answer while somebody's long prompt is read. Then, once for each: memory with every slot in use, and with
every slot full; on request a mixed load for minutes (--minutes), with memory over time. Last the runtimes
alone, step by step (benchmarks/engine_steps.py).

Leaves runtime.json and runtime.md in its folder; the last line on standard output is the result as JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from youtu_client import Cancelled, Client, Stream, YoutuError

from benchmarks import machine, mixed_load, random_weights, runs, runtime_page
from benchmarks.measuring import NotMeasured, say
from benchmarks.served import CannotStart, Served
from benchmarks.shared_load import SERVED
from build.config import Shape
from build.random_gguf import CHECKPOINT_SHAPES, SHAPES, parameters

RUNTIMES = ("openvino", "llama_cpp")
QUESTION = 12  # words of a question
TEMPLATE = 32  # tokens, more than a chat template adds
ALONE = 24  # pieces of a running answer that are timed before somebody else's prompt comes
ANSWER = 4  # tokens where only the first one counts


def main() -> int:
    options = _parse()
    folder = options.out or Path("var/bench") / f"runtime-{runs.stamp()}"
    folder.mkdir(parents=True, exist_ok=True)
    data_dir = options.data_dir.resolve()
    weights = random_weights.made(options.shape, data_dir)
    engines = {"openvino": weights.openvino(data_dir / "openvino"), "llama_cpp": weights.gguf}
    limits = json.loads(subprocess.check_output([sys.executable, "-m", "benchmarks.limits"]))
    models = {"openvino": weights.checkpoint, "llama_cpp": weights.for_llama_cpp}
    found: dict[str, Any] = {name: {"rounds": []} for name in options.runtimes}
    result = {
        "kind": "runtime",
        "command": shlex.join(["python", "-m", "benchmarks.runtime", *sys.argv[1:]]),
        "shape": options.shape,
        "long": options.long,
        "slots": options.slots,
        "context": options.context,
        "machine": machine.facts(),
        "limits": limits,
        "bytes_per_token": {
            "openvino": read_per_token(options.shape, engines["openvino"] / "model.bin"),
            "llama_cpp": read_per_token(options.shape, engines["llama_cpp"]),
        },
        "runtimes": found,
    }
    # Gaps are timed between tokens, so each token is a piece of its own.
    settings = {"slots": options.slots, "context": options.context, "stream_interval_ms": 0}

    def served(name: str) -> Served:
        return Served(str(models[name]), data_dir / name, runtime=name, **settings)

    def save() -> None:
        runs.write_json(folder / runtime_page.RUN, result)

    try:
        for name in options.runtimes:
            with served(name):
                say(f"{name}: a first start, which makes the engine")
        for number in range(options.rounds):
            # the first in one round is the last in the next
            for name in options.runtimes if number % 2 == 0 else reversed(options.runtimes):
                say(f"== round {number + 1} of {options.rounds}: {name}")
                one = _round(partial(served, name), options.context, options.long, number)
                found[name]["rounds"].append(one)
                save()
        for name in options.runtimes:
            say(f"== memory: {name}")
            with served(name) as server:
                found[name]["memory"] = memory(server, options.slots, options.context)
                if options.minutes:
                    found[name]["mixed_load"] = mixed_load.run(
                        server, options.minutes * 60, options.slots + 2, options.context
                    )
            save()
        for name in options.runtimes:
            say(f"== steps: {name}")
            command = [sys.executable, "-m", "benchmarks.engine_steps", "--engine", str(engines[name])]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[name]["steps"] = json.loads(done.stdout.splitlines()[-1])
            save()
    except (CannotStart, NotMeasured, YoutuError) as error:
        say(f"error: {error}")
        return 1
    page = runtime_page.draw(folder)
    say(f"page: {folder / runtime_page.PAGE}")
    sys.stdout.write(runs.line(page) + "\n")
    return 0


def read_per_token(shape: str, weights: Path) -> float:
    """Bytes that one stream's decode reads for a token: all, but of an untied embedding only a row."""
    vocabulary = SHAPES[shape].vocab_size * SHAPES[shape].hidden_size
    known = SHAPES[shape]
    tied = isinstance(known, Shape) and known.tie_word_embeddings
    return weights.stat().st_size * (1 if tied else 1 - vocabulary / parameters(known))


def _round(start: Callable[[], Served], context: int, long: int, number: int) -> dict[str, Any]:
    """One start and what is measured of it; seconds."""
    begun = time.monotonic()
    with start() as server, Client(server.grpc, timeout=600) as client:
        up = time.monotonic() - begun
        asked = Asking(client, context, seed=number)
        asked.first_token(asked.question())
        found: dict[str, Any] = {"up_s": up, "first_answer_s": time.monotonic() - begun}
        asked.calibrate()
        say(f"up after {up:.1f} s, first answer after {found['first_answer_s']:.1f} s")
        found["system_prompt"] = system_prompt(asked, long)
        found["gaps"] = gaps(asked, long)
        say(f"system prompt: {found['system_prompt']}")
        say(f"gaps: {found['gaps']}")
        return found


class Asking:
    """Questions to one server with slots of `context` tokens, no two of them alike."""

    def __init__(self, client: Client, context: int, seed: int) -> None:
        self._client, self._context, self._number = client, context, 1000 * (seed + 1)
        self._tokens_per_word = 1.0

    def words(self, count: int) -> str:
        """So many words that nobody has asked before."""
        self._number += 1
        return f"{self._number:06d} " + " ".join(
            f"w{self._number * 7919 * n % 9973:04d}" for n in range(count)
        )

    def calibrate(self) -> None:
        """Find how many tokens a word is."""
        few, many = (self._prompt_tokens(self.words(count)) for count in (4, 24))
        self._tokens_per_word = (many - few) / 20

    def _prompt_tokens(self, text: str) -> int:
        return self._client.chat(text, max_tokens=1).usage.prompt_tokens

    def long(self, tokens: int) -> str:
        return self.words(max(1, round(tokens / self._tokens_per_word)))

    def question(self) -> str:
        return self.words(QUESTION)

    def longest_answer(self, system: str = "") -> int:
        """Tokens that an answer to a question may have."""
        words = len(f"{system} {self.question()}".split())
        return int(self._context - self._tokens_per_word * words) - TEMPLATE

    def stream(self, text: str, tokens: int, system: str | None = None) -> Stream:
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": text})
        manner: dict[str, Any] = {**SERVED, "seed": self._number}
        return self._client.stream(messages, max_tokens=tokens, min_tokens=tokens, **manner)

    def first_token(self, text: str, system: str | None = None) -> float:
        """Seconds until the answer's first token; reads the answer to its end."""
        begun = time.monotonic()
        with self.stream(text, ANSWER, system) as pieces:
            next(pieces)
            taken = time.monotonic() - begun
            for _ in pieces:
                pass
        return taken


def system_prompt(asked: Asking, long: int, tries: int = 3) -> dict[str, Any]:
    """Seconds to the first token: with a new system prompt of `long` tokens, in another conversation with the
    same one, and without one; the last two also beside an answer that is being written under it.
    """
    system = asked.long(long)
    cold = asked.first_token(asked.question(), system)
    shared, without = [], []
    for _ in range(tries):
        without.append(asked.first_token(asked.question()))
        shared.append(asked.first_token(asked.question(), system))
    beside: dict[str, list[float]] = {"shared": [], "without": []}
    with asked.stream(asked.question(), asked.longest_answer(system), system) as running:
        reading = Reading(running)
        reading.wait(1)
        for _ in range(tries):
            beside["without"].append(asked.first_token(asked.question()))
            beside["shared"].append(asked.first_token(asked.question(), system))
    reading.end()
    return {
        "cold": cold,
        "shared": statistics.median(shared),
        "without": statistics.median(without),
        "ratio": statistics.median(shared) / statistics.median(without),
        "ratio_beside_its_reader": statistics.median(beside["shared"]) / statistics.median(beside["without"]),
    }


class Reading:
    """A thread that reads an answer, and when its pieces came."""

    def __init__(self, pieces: Stream) -> None:
        self.arrivals: list[float] = []
        self._error: YoutuError | None = None
        self._ended = False
        self._came = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(pieces,), daemon=True)
        self._thread.start()

    def _read(self, pieces: Stream) -> None:
        try:
            for piece in pieces:
                if piece.text:
                    with self._came:
                        self.arrivals.append(time.monotonic())
                        self._came.notify()
        except Cancelled:  # nobody waits for the rest
            pass
        except YoutuError as error:
            self._error = error
        finally:
            with self._came:
                self._ended = True
                self._came.notify()

    def wait(self, count: int) -> None:
        """Wait for so many pieces. Raises what the answer failed with, NotMeasured when it has fewer."""
        with self._came:
            self._came.wait_for(lambda: len(self.arrivals) >= count or self._ended)
        if self._error:
            raise self._error
        if len(self.arrivals) < count:
            raise NotMeasured(f"the answer had {len(self.arrivals)} pieces, {count} were expected")

    def end(self) -> None:
        """Until the answer has ended. Raises what it failed with."""
        self._thread.join()
        if self._error:
            raise self._error


def gaps(asked: Asking, long: int) -> dict[str, Any]:
    """Seconds between the pieces of a running answer: alone, and while somebody's prompt of `long` tokens is
    read, which takes `read`.
    """
    with asked.stream(asked.question(), asked.longest_answer()) as running:
        reading = Reading(running)
        reading.wait(ALONE)
        begun = time.monotonic()
        taken = asked.first_token(asked.long(long))
    reading.end()
    alone = _between([at for at in reading.arrivals[2:] if at <= begun])
    beside = _between([at for at in reading.arrivals if begun <= at <= begun + taken])
    if not beside:
        raise NotMeasured("the running answer ended before the long prompt was read: give more --context")
    return {
        "alone": statistics.median(alone),
        "beside": statistics.median(beside),
        "most": max(beside),
        "ratio": statistics.median(beside) / statistics.median(alone),
        "read": taken,
    }


def _between(times: list[float]) -> list[float]:
    return [late - early for early, late in itertools.pairwise(times)]


def memory(server: Served, slots: int, context: int) -> dict[str, Any]:
    """Bytes of the engine's process: at rest, with 300 tokens in each slot, with every slot full."""
    found = {"rest": asdict(server.memory())}
    with Client(server.grpc, timeout=3600) as client:
        asked = Asking(client, context, seed=99)
        asked.calibrate()
        for name, tokens in (("tokens_300", 300), ("full", context)):
            answer = tokens // 16
            with ExitStack() as stack:
                readings = []
                for _ in range(slots):
                    prompt = asked.long(max(8, tokens - answer - TEMPLATE))
                    readings.append(Reading(stack.enter_context(asked.stream(prompt, answer - 8))))
                for reading in readings:
                    reading.end()
            found[name] = asdict(server.memory())
            say(f"{name}: {found[name]['engine'] / 1e9:.2f} GB")
    return found


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__)
    add = parser.add_argument
    add("--shape", choices=CHECKPOINT_SHAPES, default="youtu-2b")
    add("--runtimes", type=lambda text: text.split(","), default=list(RUNTIMES))
    add("--rounds", type=int, default=3)
    add("--long", type=int, default=1500, help="tokens of the long prompts (default: %(default)s)")
    add("--slots", type=int, default=4)
    add("--context", type=int, default=2048)
    add("--minutes", type=float, default=0, help="of mixed load on each runtime (default: none)")
    add("--data-dir", type=Path, default=Path("var/bench/peers-server"))
    add("--out", type=Path)
    options = parser.parse_args()
    if unknown := [name for name in options.runtimes if name not in RUNTIMES]:
        parser.error(f"there is no runtime {unknown[0]!r}; there are {', '.join(RUNTIMES)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
