"""Libraries without a server of their own: callers at once are one batch of as many prompts.

`python -m benchmarks.batch_peer transformers --shape NAME --users 1,4 --out FOLDER` (bf16, random weights of
the shape, as they have no int8 of the same file) and `... openvino --gguf FILE ...` (the same file, where
OpenVINO GenAI reads its architecture; else the exit status is NOT_APPLICABLE). Leaves a folder like `make
load`; prints its own peak memory in bytes.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import drawing, machine, shared_load
from benchmarks.samples import Sample

BYTES = 256  # ids that every vocabulary has
NOT_APPLICABLE = 4  # exit status: the library does not read this architecture
Batch = Callable[[Any, int], list[float]]  # ids [n, length], tokens to make -> seconds to each step's tokens


def not_applicable(why: str) -> SystemExit:
    """What ends this program when the library is not made for the model."""
    sys.stderr.write(f"{why}\n")
    return SystemExit(NOT_APPLICABLE)


def transformers_batch(shape: str) -> Batch:
    """`generate()` of a model of that shape in bf16, its weights drawn by the library itself."""
    from build.random_gguf import SHAPES, PlainShape

    plan = SHAPES[shape]
    if isinstance(plan, PlainShape) and plan.architecture != "qwen2":
        raise not_applicable(f"transformers: {plan.architecture} has no class in it")
    import torch
    import transformers

    if isinstance(plan, PlainShape):
        shared = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                  "num_attention_heads", "num_key_value_heads")  # fmt: skip
        config: Any = transformers.Qwen2Config(**{name: getattr(plan, name) for name in shared})
    else:
        same = {name: getattr(plan, name) for name in plan.__dataclass_fields__ if name != "rope_theta"}
        config = transformers.YoutuConfig(**same)
    model: Any = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()

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
                do_sample=False, logits_processor=transformers.LogitsProcessorList([clock]), pad_token_id=0,
            )  # fmt: skip
        return [at - begun for at in clock.times]

    return run


def openvino_batch(gguf: Path) -> Batch:
    """OpenVINO GenAI on the same file, token ids in and out."""
    import openvino
    import openvino_genai

    try:
        pipeline = openvino_genai.LLMPipeline(str(gguf), "CPU")
    except (RuntimeError, IndexError) as error:
        why = str(error).splitlines()[0]
        raise not_applicable(f"OpenVINO GenAI cannot read {gguf.name}: {why}") from None

    def run(ids: Any, tokens: int) -> list[float]:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = tokens, True, False
        inputs = openvino_genai.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        result = pipeline.generate(inputs, config)
        raw = result.perf_metrics.raw_metrics
        # microseconds; after the first step one entry for each sequence of the batch
        steps = np.cumsum([raw.m_times_to_first_token[0], *raw.m_durations])[:: len(ids)]
        return [float(step) / 1e6 for step in steps]

    return run


def main() -> int:
    options = _parse()
    if options.library == "openvino":
        batch, package = openvino_batch(options.gguf), "openvino-genai"
    else:
        batch, package = transformers_batch(options.shape), "transformers"
    facts = machine.facts()
    facts["versions"][package] = version(package)
    run = shared_load.begin(
        options.out,
        "benchmarks.batch_peer",
        model=options.shape or options.gguf.name,
        endpoint=options.library,
        machine=facts,
    )
    random = np.random.default_rng(0)

    def prompts(users: int) -> Any:
        return random.integers(0, BYTES, (users, options.input_tokens)).astype(np.int64)

    batch(prompts(1), 2)  # warm-up
    for users in options.users:
        name = shared_load.step_name(users)
        batches = -(-shared_load.quota(options, users) // users)
        begun = time.monotonic()
        for _ in range(batches):
            start = time.monotonic() - begun
            steps = batch(prompts(users), options.output_tokens)
            end = time.monotonic() - begun
            chunks = [start + step for step in steps]
            for _caller in range(users):
                tokens = options.input_tokens, options.output_tokens
                run.add(Sample(name, start, start, chunks, end, "done", *tokens))
        shared_load.end_step(run, users, batches * users)
    run.close()
    drawing.draw(options.out)
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch_peer", description=__doc__)
    add = parser.add_argument
    add("library", choices=("transformers", "openvino"))
    add("--shape", help="of build.random_gguf, for transformers")
    add("--gguf", type=Path, help="for openvino")
    shared_load.add_options(
        parser, users=(1, 4), requests=4, requests_each=1, input_tokens=64, output_tokens=32
    )
    add("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
