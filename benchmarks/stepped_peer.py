"""Libraries that compute step by step and let requests come and go, in a process of their own: the closed
load of the served endpoints, without a server.

`python -m benchmarks.stepped_peer genai --model FOLDER --users 1,4 --out FOLDER` leaves a folder like
`make load` and prints its own peak memory in bytes. Libraries: `genai` (OpenVINO GenAI's
ContinuousBatchingPipeline on a model of ours), `vllm` (its CPU wheel, with the shape of a checkpoint).
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks import drawing, machine, shared_load
from benchmarks.measuring import NOT_APPLICABLE
from benchmarks.samples import Sample
from benchmarks.shared_load import Rung

BYTES = 256  # ids that every vocabulary has


class Stepped(Protocol):
    """A library with its model loaded. package: what it is installed as."""

    package: str

    def add(self, number: int, prompt: list[int], tokens: int) -> None:
        """Have an answer of exactly so many tokens made, beside those under way."""

    def step(self) -> dict[int, int]:
        """Compute one step: how many tokens it made for which request."""


class GenAi:
    """OpenVINO GenAI's continuous batching, with its own scheduler and sampler.

    precision: OpenVINO's hint, "f32" as our engine has it; "" leaves it to the library.
    """

    package = "openvino-genai"

    def __init__(self, options: argparse.Namespace) -> None:
        import openvino_genai as genai

        scheduler = genai.SchedulerConfig()
        scheduler.num_kv_blocks = options.slots * -(-options.context // 32)
        scheduler.max_num_seqs = options.slots
        properties = {"INFERENCE_PRECISION_HINT": options.precision} if options.precision else {}
        self._genai = genai
        with tempfile.TemporaryDirectory() as folder:
            _without_rows(options.model, Path(folder))
            self._pipeline = genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties=properties)
        self._sampling, self._seed = options.sampling, options.seed
        self._under_way: dict[int, Any] = {}

    def add(self, number: int, prompt: list[int], tokens: int) -> None:
        import openvino

        config = self._genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos = tokens, True
        config.set_eos_token_id(0)  # it refuses to know none
        config.do_sample = self._sampling == "served"
        if config.do_sample:
            for name, value in shared_load.SERVED.items():
                setattr(config, name, value)
            config.rng_seed = self._seed + number
        ids = openvino.Tensor(np.array([prompt], np.int64))
        self._under_way[number] = self._pipeline.add_request(number, ids, config)

    def step(self) -> dict[int, int]:
        self._pipeline.step()
        made = {}
        for number, handle in list(self._under_way.items()):
            if handle.can_read():
                (output,) = handle.read().values()
                made[number] = len(output.generated_ids)
                if output.finish_reason != self._genai.GenerationFinishReason.NONE:
                    del self._under_way[number]
        return made


def _without_rows(model: Path, folder: Path) -> None:
    """Write our model as OpenVINO GenAI expects one: it chooses the rows whose logits it wants by itself."""
    import openvino

    graph = openvino.Core().read_model(model / "model.xml")
    (rows,) = (each for each in graph.get_parameters() if each.friendly_name == "rows")
    (user,) = (target.get_node() for target in rows.output(0).get_target_inputs())
    user.output(0).replace(user.input_value(0))
    graph.remove_parameter(rows)
    graph.validate_nodes_and_infer_types()
    openvino.save_model(graph, folder / "openvino_model.xml", compress_to_fp16=False)


def come_and_go(peer: Stepped, rung: Rung, seed: int, done: Callable[[Sample], None]) -> None:
    """One step of the load, to its end."""
    random, lengths = np.random.default_rng(seed), rung.lengths(seed)
    begun = time.monotonic()
    under_way: dict[int, Sample] = {}
    wanted: dict[int, int] = {}
    asked = answered = 0
    while answered < rung.quota:
        while len(under_way) < rung.users and asked < rung.quota:
            tokens_in, wanted[asked] = next(lengths)
            now = time.monotonic() - begun
            under_way[asked] = Sample(rung.name, now, now, input_tokens=tokens_in, finish_reason="length")
            peer.add(asked, random.integers(0, BYTES, tokens_in).tolist(), wanted[asked])
            asked += 1
        made = peer.step()
        now = time.monotonic() - begun
        for number, tokens in made.items():
            sample = under_way[number]
            sample.chunks.append(now)
            sample.output_tokens += tokens
            if sample.output_tokens >= wanted[number]:
                sample.end, sample.outcome = now, "done"
                answered += 1
                done(sample)
                del under_way[number]


def _vllm(options: argparse.Namespace) -> Stepped:
    from benchmarks.vllm_peer import Vllm

    return Vllm(options)


LIBRARIES: dict[str, Callable[[argparse.Namespace], Stepped]] = {"genai": GenAi, "vllm": _vllm}


def main() -> int:
    options = _parse()
    try:
        peer = LIBRARIES[options.library](options)
    except (ImportError, RuntimeError) as error:
        sys.stderr.write(f"{options.library}: {str(error).strip().splitlines()[-1]}\n")
        return NOT_APPLICABLE
    facts = machine.facts()
    facts["versions"][peer.package] = version(peer.package)
    run = shared_load.begin(
        options.out,
        "benchmarks.stepped_peer",
        model=options.model.name,
        endpoint=options.library,
        machine=facts,
    )

    rungs = shared_load.rungs(options)
    come_and_go(peer, replace(rungs[0], users=1, quota=1), options.seed, lambda _: None)  # warm-up
    for rung in rungs:
        come_and_go(peer, rung, options.seed, run.add)
        shared_load.end_step(run, rung)
    run.close()
    drawing.draw(options.out)
    sys.stdout.write(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}\n")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stepped_peer", description=__doc__)
    add = parser.add_argument
    add("library", choices=LIBRARIES)
    add("--model", type=Path, required=True, help="what the library reads")
    add("--precision", default="", help="OpenVINO's hint, e.g. f32 (default: the library's own choice)")
    add("--slots", type=int, default=8)
    add("--context", type=int, default=512)
    add("--seed", type=int, default=0)
    shared_load.add_options(
        parser, users=(1, 4), requests=4, requests_each=1, input_tokens=64, output_tokens=32
    )
    add("--out", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
