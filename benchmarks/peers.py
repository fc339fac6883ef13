"""`make peers`: this deployment beside llama.cpp's own HTTP server, OpenVINO GenAI and transformers, in turn.

One checkpoint of random weights in the shape (--shape), converted for each of them; the same lengths and load
for all, callers who come and go, tokens sampled as served. Contenders that cannot take part are listed with
the reason. The machine's limits are shown beside them (benchmarks/limits.py). All servers are up all the time
and only one is asked: an idle one takes no processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import comparison, random_weights, runs, shared_load
from benchmarks.comparison import Contender, through_load
from benchmarks.measuring import NOT_APPLICABLE, NotApplicable, NotMeasured, say
from benchmarks.served import ROOT, CannotStart, Served
from build.config import Shape
from build.random_gguf import CHECKPOINT_SHAPES, SHAPES, parameters
from serve.addresses import free_ports

START_TIMEOUT = 300.0
VLLM = ROOT / ".venv-vllm" / "bin" / "python"


def main() -> int:
    options = _parse()
    folder = options.out or Path("var/bench") / f"peers-{runs.stamp()}"
    data_dir = options.data_dir.resolve()
    weights = random_weights.made(options.shape, data_dir)
    say("measuring what the machine could do")
    limits = json.loads(subprocess.check_output([sys.executable, "-m", "benchmarks.limits"]))
    with ExitStack() as stack:
        contenders = Contenders(options, weights, data_dir, stack)
        try:
            chosen = [KNOWN[name](contenders, name) for name in options.contenders]
        except CannotStart as error:
            say(f"error: {error}")
            return 1
        facts = {
            "kind": "peers",
            "title": f"Peers on the shape {options.shape}, random weights",
            "command": shlex.join(["python", "-m", "benchmarks.peers", *sys.argv[1:]]),
            "limits": limits,
            "notes": notes(limits, SHAPES[options.shape], weights.gguf),
        }
        return comparison.run(folder, facts, chosen, options.rounds)


class Contenders:
    """Makes contenders; a server is started for the first one that needs it."""

    def __init__(
        self,
        options: argparse.Namespace,
        weights: random_weights.RandomWeights,
        data_dir: Path,
        stack: ExitStack,
    ) -> None:
        self._options, self._weights, self._data_dir, self._stack = options, weights, data_dir, stack
        self._same = shared_load.arguments(options)
        self._size = {"slots": max(options.users), "context": options.context}
        self._up: dict[str, Served] = {}

    def llama_server(self, name: str) -> Contender:
        server = self._stack.enter_context(llama_server(self._weights.gguf, self._data_dir, **self._size))
        arguments = ["--endpoint", "llama-server", "--url", server.url, "--name", self._options.shape]
        what = "int8 (Q8_0); its own /v1 route, its own defaults beside the load's options"
        return Contender(name, what, through_load([*arguments, *self._same]), server.memory)

    def ours(self, name: str) -> Contender:
        runtime, endpoint = ("openvino" if "OpenVINO" in name else "llama_cpp"), name.rpartition(" ")[2]
        served = self._served(runtime)
        arguments = ["--endpoint", endpoint, "--url", served.url, "--grpc", served.grpc]
        arguments += ["--name", self._options.shape, *self._same]
        through = "youtu_llm over Triton's gRPC" if endpoint == "grpc" else "POST /v1/chat/completions"
        return Contender(name, f"int8; {through}", through_load(arguments), lambda: served.memory().peak)

    def _served(self, runtime: str) -> Served:
        if runtime not in self._up:
            say(f"starting this deployment, runtime {runtime}")
            model = self._weights.checkpoint if runtime == "openvino" else self._weights.for_llama_cpp
            server = Served(str(model), self._data_dir / runtime, runtime=runtime, **self._size)
            self._up[runtime] = self._stack.enter_context(server)
        return self._up[runtime]

    def transformers(self, name: str) -> Contender:
        peer = Peer(["benchmarks.batch_peer", "--model", self._weights.checkpoint, *self._same])
        return Contender(name, "bf16, the same checkpoint; callers are one batch", peer, peer.memory)

    def genai(self, name: str) -> Contender:
        precision = "f32" if name.endswith("f32") else ""
        model = self._weights.openvino(self._data_dir / "openvino")
        size = ["--slots", str(self._size["slots"]), "--context", str(self._size["context"])]
        options: list[str | Path] = ["--model", model, "--precision", precision, *size]
        peer = Peer(["benchmarks.stepped_peer", "genai", *options, *self._same])
        hint = "with the precision of ours" if precision else "its own defaults"
        what = f"int8, our OpenVINO model; its ContinuousBatchingPipeline in a process of its own, {hint}"
        return Contender(name, what, peer, peer.memory)

    def ik_llama(self, name: str) -> Contender:
        slots = ["--slots", str(self._size["slots"]), "--context", str(self._size["context"])]
        peer = Peer(
            ["benchmarks.alone", "--ik-llama", "--engine", self._weights.gguf, *slots, *self._same],
            peak=False,
        )
        return Contender(name, "int8 (Q8_0), weights repacked; under our engine, no server", peer)

    def vllm(self, name: str) -> Contender:
        size = ["--slots", str(self._size["slots"]), "--context", str(self._size["context"])]
        options: list[str | Path] = ["--model", self._weights.checkpoint, *size]
        peer = Peer(["benchmarks.stepped_peer", "vllm", *options, *self._same], VLLM)
        return Contender(
            name, "W8A8, weights of its own; its engine in a process of its own", peer, peer.memory
        )


KNOWN: dict[str, Callable[[Contenders, str], Contender]] = {
    "llama.cpp server": Contenders.llama_server,  # the first: the others' ratios are to it
    "ours, OpenVINO grpc": Contenders.ours,
    "ours, OpenVINO v1": Contenders.ours,
    "ours, llama.cpp v1": Contenders.ours,
    "OpenVINO GenAI": Contenders.genai,
    "OpenVINO GenAI f32": Contenders.genai,
    "ik_llama.cpp": Contenders.ik_llama,
    "vLLM": Contenders.vllm,
    "transformers": Contenders.transformers,
}


def notes(limits: dict[str, Any], shape: Any, gguf: Path) -> list[str]:
    """The machine's limits for this model, in sentences."""
    vocabulary = shape.vocab_size * shape.hidden_size
    tied = isinstance(shape, Shape) and shape.tie_word_embeddings
    # an untied embedding is looked up, not read through; the output matrix is read for each token made
    share = 1 if tied else 1 - vocabulary / parameters(shape)
    read = gguf.stat().st_size * share
    multiplied = parameters(shape) - vocabulary * (1 if tied else 2)
    found = [
        f"Limit of one stream's decode: {limits['read_bandwidth'] / 1e9:.1f} GB/s read bandwidth (measured) "
        f"/ {read / 1e9:.2f} GB per token = {limits['read_bandwidth'] / read:.1f} tokens/s."
    ]
    for name, what in (("int8_rate", "int8"), ("f32_rate", "f32")):
        if limits[name]:
            found.append(
                f"Limit of prefill at the {what} matrix rate: {limits[name] / 1e9:.0f} GOPS (measured) / "
                f"{2 * multiplied / 1e9:.2f} GOP per token = {limits[name] / 2 / multiplied:.0f} tokens/s."
            )
    return found


class Peer:
    """A library measured by a module of benchmarks/, in a process of its own that reports its peak memory.

    The process is a new one each time, and remembers no prompts.
    """

    def __init__(
        self, command: list[str | Path], python: Path = Path(sys.executable), *, peak: bool = True
    ) -> None:
        self._command, self._python, self._reports, self._peak = command, python, peak, 0

    def __call__(self, place: Path, _seed: int) -> None:
        if not self._python.exists():
            raise NotApplicable(f"there is no {self._python.relative_to(ROOT)} (benchmarks/README.md)")
        command = [self._python, "-m", *self._command, "--out", place]
        paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}  # its environment may know neither
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ | paths)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            kind = NotApplicable if done.returncode == NOT_APPLICABLE else NotMeasured
            raise kind(lines[-1] if lines else f"it ended with {done.returncode}")
        if self._reports:
            self._peak = int(done.stdout.splitlines()[-1])

    def memory(self) -> int:
        return self._peak


class LlamaServer:
    """llama.cpp's own server, running."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process = process
        self.url = f"http://127.0.0.1:{port}"

    def memory(self) -> int:
        return int(psutil.Process(self._process.pid).memory_info().rss)


@contextmanager
def llama_server(gguf: Path, folder: Path, *, slots: int, context: int) -> Iterator[LlamaServer]:
    """Start it with the file on a free port, and end it. CannotStart when it does not come up."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.llama_server", str(gguf), "--port", str(port)]
    command += ["--slots", str(slots), "--context", str(context)]
    log = folder / "llama-server.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while b"listening at" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise CannotStart(f"llama.cpp's server did not come up ({log})")
            time.sleep(0.1)
        yield LlamaServer(process, port)
    finally:
        process.terminate()
        process.wait()


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    add = parser.add_argument
    add("--shape", choices=CHECKPOINT_SHAPES, default="youtu-2b")
    add(
        "--contenders",
        type=lambda text: text.split("+"),
        default=list(KNOWN),
        help=f"some of: {'+'.join(KNOWN)}",
    )
    shared_load.add_options(
        parser, users=(1, 4, 8), requests=4, requests_each=2, input_tokens=64, output_tokens=32
    )
    parser.set_defaults(sampling="served", spread=0.5, prompt_tokens=512)
    add("--context", type=int, default=1024)
    add("--rounds", type=int, default=3)
    add("--data-dir", type=Path, default=Path("var/bench/peers-server"))
    add("--out", type=Path)
    options = parser.parse_args()
    if unknown := [name for name in options.contenders if name not in KNOWN]:
        parser.error(f"there is no contender {unknown[0]!r}; there are {', '.join(KNOWN)}")
    options.contenders.sort(key=list(KNOWN).index)
    return options


if __name__ == "__main__":
    sys.exit(main())
