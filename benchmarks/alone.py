"""The CPU engine without anything around it, under the same closed load as the served endpoints: what the
layers above cost is the difference. `python -m benchmarks.alone --gguf FILE --users 1,4,8 --out FOLDER`
leaves a folder like `make load`.

The one place that imports the engine; it runs on threads, without gevent.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import drawing, machine, runs, shared_load
from benchmarks.samples import Sample
from build.model_modules import make_importable

ONE_THREAD_BYTES = 64 << 20  # as the served engine has it: more threads slow a tiny model down
BYTES = 256  # ids that every vocabulary has


class Callers:
    """So many requests under way at once until `quota` were made; each sample is finished on the engine's
    thread.
    """

    def __init__(self, engine: Any, request_type: type[Any], greedy: Any, run: runs.Run) -> None:
        self._engine, self._request_type, self._greedy, self._run = engine, request_type, greedy, run
        self._random = np.random.default_rng(0)

    def step(self, name: str, users: int, quota: int, tokens_in: int, tokens_out: int) -> None:
        """One step of the ladder, to its end."""
        begun = time.monotonic()
        ended: queue.SimpleQueue[Sample] = queue.SimpleQueue()

        def submit() -> None:
            sample = Sample(name, time.monotonic() - begun)

            def changed(request: Any) -> None:
                now = time.monotonic() - begun
                sample.chunks.append(now)
                if request.finished:
                    sample.end, sample.output_tokens = now, len(request.tokens)
                    sample.input_tokens, sample.cached_tokens = tokens_in, request.cached_tokens
                    sample.outcome = "failed" if request.error else "done"
                    sample.error, sample.finish_reason = str(request.error or ""), "length"
                    ended.put(sample)

            prompt = self._random.integers(0, BYTES, tokens_in).astype(np.int32)
            request = self._request_type(
                prompt=prompt, max_new_tokens=tokens_out, sampling=self._greedy, changed=changed
            )
            sample.sent = time.monotonic() - begun
            self._engine.submit(request)

        for _ in range(min(users, quota)):
            submit()
        for done in range(quota):
            sample = ended.get()
            if name:
                self._run.add(sample)
            if done + users < quota:
                submit()


def main() -> int:
    options = _parse()
    make_importable("youtu_engine")
    from engine import Engine
    from engine_request import EngineRequest
    from llama import Llama
    from sampling import SamplingParams

    tiny = options.gguf.stat().st_size < ONE_THREAD_BYTES
    llama = Llama(
        options.gguf,
        context=options.context,
        sequences=options.slots,
        batch=options.prefill_chunk + options.slots,
        threads=1 if tiny else len(os.sched_getaffinity(0)),
    )
    engine = Engine(
        llama, slots=options.slots, context=options.context, queue=1024, prefill_chunk=options.prefill_chunk
    )
    run = shared_load.begin(
        options.out, "benchmarks.alone", model=options.gguf.name, endpoint="engine", machine=machine.facts()
    )
    callers = Callers(engine, EngineRequest, SamplingParams(temperature=0.0), run)
    callers.step("", 1, 2, options.input_tokens, options.output_tokens)  # warm-up, not kept
    for users in options.users:
        name, quota = shared_load.step_name(users), shared_load.quota(options, users)
        callers.step(name, users, quota, options.input_tokens, options.output_tokens)
        shared_load.end_step(run, users, quota)
    engine.close()
    run.close()
    sys.stdout.write(runs.line(drawing.draw(options.out)) + "\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alone", description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--gguf", type=Path, required=True)
    add("--slots", type=int, default=8)
    add("--context", type=int, default=512)
    add("--prefill-chunk", type=int, default=64)
    shared_load.add_options(
        parser, users=(1, 4, 8), requests=8, requests_each=2, input_tokens=48, output_tokens=32
    )
    add("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
