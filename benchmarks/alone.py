"""The CPU engine without anything around it, under the same closed load as the served endpoints: what the
layers above cost is the difference. `python -m benchmarks.alone --engine FILE.gguf|FOLDER --users 1,4,8 --out
FOLDER` leaves a folder like `make load`. A folder is one that OpenVINO runs, with a model.xml in it.
"""

from __future__ import annotations

import argparse
import queue
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import drawing, machine, own_engine, runs, shared_load
from benchmarks.samples import Sample
from benchmarks.shared_load import Rung


class Callers:
    """So many requests under way at once until `quota` were made; each sample is finished on the engine's
    thread.
    """

    def __init__(self, engine: Any, sampling: str, run: runs.Run, seed: int) -> None:
        self._engine, self._sampling, self._run, self._seed = engine, sampling, run, seed
        self._random = np.random.default_rng(seed)

    def step(self, rung: Rung, *, keep: bool = True) -> None:
        """One step of the load, to its end."""
        from engine_request import EngineRequest

        lengths = rung.lengths(self._seed)
        begun = time.monotonic()
        ended: queue.SimpleQueue[Sample] = queue.SimpleQueue()

        def submit() -> None:
            tokens_in, tokens_out = next(lengths)
            sample = Sample(rung.name, time.monotonic() - begun)

            def changed(request: EngineRequest) -> None:
                now = time.monotonic() - begun
                sample.chunks.append(now)
                if request.finished:
                    sample.end, sample.output_tokens = now, len(request.tokens)
                    sample.input_tokens, sample.cached_tokens = tokens_in, request.cached_tokens
                    sample.outcome = "failed" if request.error else "done"
                    sample.error, sample.finish_reason = str(request.error or ""), "length"
                    ended.put(sample)

            prompt = self._random.integers(0, own_engine.BYTES, tokens_in).astype(np.int32)
            self._seed += 1
            request = EngineRequest(
                prompt=prompt,
                max_new_tokens=tokens_out,
                sampling=own_engine.sampling(self._sampling, self._seed),
                changed=changed,
            )
            sample.sent = time.monotonic() - begun
            self._engine.submit(request)

        for _ in range(min(rung.users, rung.quota)):
            submit()
        for done in range(rung.quota):
            sample = ended.get()
            if keep:
                self._run.add(sample)
            if done + rung.users < rung.quota:
                submit()


def main() -> int:
    options = _parse()
    loaded = own_engine.load(
        options.engine,
        slots=options.slots,
        context=options.context,
        prefill_chunk=options.prefill_chunk,
        ik_llama=options.ik_llama,
    )
    engine = loaded.engine()
    run = shared_load.begin(
        options.out,
        "benchmarks.alone",
        model=f"{options.engine.name} ({loaded.name})",
        endpoint="engine",
        machine=machine.facts(),
    )
    callers = Callers(engine, options.sampling, run, options.seed)

    rungs = shared_load.rungs(options)
    callers.step(replace(rungs[0], users=1, quota=2), keep=False)  # warm-up
    for rung in rungs:
        callers.step(rung)
        shared_load.end_step(run, rung)
    engine.close()
    run.close()
    sys.stdout.write(runs.line(drawing.draw(options.out)) + "\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alone", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--engine", type=Path, required=True, help="a .gguf file, or a folder with a model.xml")
    add("--slots", type=int, default=8)
    add("--context", type=int, default=512)
    add("--prefill-chunk", type=int, help="default: as served")
    add("--ik-llama", action="store_true", help="compute a .gguf file with ik_llama.cpp (its wheel)")
    add("--seed", type=int, default=0)
    shared_load.add_options(
        parser, users=(1, 4, 8), requests=8, requests_each=2, input_tokens=48, output_tokens=32
    )
    add("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
