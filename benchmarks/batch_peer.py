"""`transformers`, which has no server of its own: callers at once are one batch of as many prompts.

`python -m benchmarks.batch_peer --model CHECKPOINT --users 1,4 --out FOLDER` computes in bf16, as it has no
int8 of the same weights, and all answers of a batch have one length. Leaves a folder like `make load`; prints
its own peak memory in bytes.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import drawing, machine, shared_load
from benchmarks.samples import Sample

BYTES = 256  # ids that every vocabulary has
Batch = Callable[[Any, int], list[float]]  # ids [n, length], tokens to make -> seconds to each step's tokens


def transformers_batch(checkpoint: Path, sampling: str) -> Batch:
    """`generate()` of the checkpoint's model."""
    import torch
    import transformers

    model: Any = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16).eval()
    manner = {"do_sample": True, **shared_load.SERVED} if sampling == "served" else {"do_sample": False}

    class Clock(transformers.LogitsProcessor):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def __call__(self, ids: Any, scores: Any) -> Any:
            self.times.append(time.monotonic())
            return scores

    def run(ids: Any, tokens: int) -> list[float]:
        clock, begun = Clock(), time.monotonic()
        prompt = torch.from_numpy(ids)
        with torch.inference_mode():
            model.generate(
                prompt, attention_mask=torch.ones_like(prompt), min_new_tokens=tokens, max_new_tokens=tokens,
                **manner, logits_processor=transformers.LogitsProcessorList([clock]), pad_token_id=0,
            )  # fmt: skip
        return [at - begun for at in clock.times]

    return run


def main() -> int:
    options = _parse()
    batch = transformers_batch(options.model, options.sampling)
    facts = machine.facts()
    facts["versions"]["transformers"] = version("transformers")
    run = shared_load.begin(
        options.out,
        "benchmarks.batch_peer",
        model=options.model.name,
        endpoint="transformers",
        machine=facts,
    )
    random = np.random.default_rng(0)

    def prompts(users: int, tokens: int) -> Any:
        return random.integers(0, BYTES, (users, tokens)).astype(np.int64)

    batch(prompts(1, options.input_tokens), 2)  # warm-up
    for rung in shared_load.rungs(options):
        batches = -(-rung.quota // rung.users)
        begun = time.monotonic()
        for _ in range(batches):
            start = time.monotonic() - begun
            steps = batch(prompts(rung.users, rung.input_tokens), rung.output_tokens)
            end = time.monotonic() - begun
            chunks = [start + step for step in steps]
            for _caller in range(rung.users):
                tokens = rung.input_tokens, rung.output_tokens
                run.add(Sample(rung.name, start, start, chunks, end, "done", *tokens))
        shared_load.end_step(run, replace(rung, quota=batches * rung.users))
    run.close()
    drawing.draw(options.out)
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_peer", description=__doc__)
    add = parser.add_argument
    add("--model", type=Path, required=True, help="folder of the checkpoint")
    shared_load.add_options(
        parser, users=(1, 4), requests=4, requests_each=1, input_tokens=64, output_tokens=32
    )
    add("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
