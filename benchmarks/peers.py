"""`make peers`: this deployment beside llama.cpp's own HTTP server, transformers and OpenVINO GenAI, in turn.

The same GGUF of random weights (--shape), prompts, lengths and load for all that read it; who cannot is named
with the reason. Beside them stands what the machine could do at most (benchmarks/limits.py). All servers are
up at once, and only one is asked: an idle one takes no processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks import comparison, runs, shared_load
from benchmarks.batch_peer import NOT_APPLICABLE
from benchmarks.comparison import Contender, through_load
from benchmarks.measuring import NotApplicable, NotMeasured, say
from benchmarks.served import CannotStart, Served
from build.config import Shape
from build.random_gguf import SHAPES, parameters, write_random_gguf
from serve.addresses import free_ports

START_TIMEOUT = 300.0


def main() -> int:
    options = _parse()
    folder = options.out or Path("var/bench") / f"peers-{runs.stamp()}"
    gguf = (options.data_dir / "models" / f"{options.shape}.gguf").resolve()
    shape = SHAPES[options.shape]
    if not gguf.exists():
        say(f"writing {gguf}")
        write_random_gguf(gguf, shape, options.shape)
    same = shared_load.arguments(options)
    say("measuring what the machine could do")
    limits = json.loads(subprocess.check_output([sys.executable, "-m", "benchmarks.limits"]))
    size = {"slots": max(options.users), "context": options.context}
    with ExitStack() as stack:
        try:
            served = stack.enter_context(Served(str(gguf), options.data_dir, **size))
            llama = stack.enter_context(llama_server(gguf, options.data_dir, **size))
        except CannotStart as error:
            say(f"error: {error}")
            return 1
        ours = ["--url", served.url, "--grpc", served.grpc, "--name", options.shape, *same]
        through_grpc, through_v1 = ["--endpoint", "grpc", *ours], ["--endpoint", "v1", *ours]
        theirs = ["--endpoint", "llama-server", "--url", llama.url, "--name", options.shape, *same]
        transformers = BatchPeer(["transformers", "--shape", options.shape, *same])
        openvino = BatchPeer(["openvino", "--gguf", os.path.relpath(gguf), *same])

        def our_memory() -> int:
            return served.memory().peak

        contenders = [
            Contender(name, what, through_load(arguments), memory)
            for name, what, arguments, memory in (
                ("ours, gRPC", "int8; youtu_llm over Triton's gRPC", through_grpc, our_memory),
                ("ours, v1", "int8; POST /v1/chat/completions", through_v1, our_memory),
                ("llama.cpp server", "int8, the same file; its own /v1 route", theirs, llama.memory),
            )
        ]
        for name, what, peer in (
            ("transformers", "bf16, the library's own random weights; callers are one batch", transformers),
            ("OpenVINO GenAI", "int8, the same file; callers are one batch", openvino),
        ):
            contenders.append(Contender(name, what, peer, peer.memory))
        facts = {
            "kind": "peers",
            "title": f"Peers on the shape {options.shape}, random weights",
            "command": shlex.join(["python", "-m", "benchmarks.peers", *sys.argv[1:]]),
            "limits": limits,
            "notes": notes(limits, shape, gguf),
        }
        return comparison.run(folder, facts, contenders, options.rounds)


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


class BatchPeer:
    """A library measured by benchmarks.batch_peer, in a process of its own that reports its peak memory.

    The process is a new one each time, and remembers no prompts.
    """

    def __init__(self, arguments: list[str]) -> None:
        self._arguments, self._peak = arguments, 0

    def __call__(self, place: Path, _seed: int) -> None:
        command = [sys.executable, "-m", "benchmarks.batch_peer", *self._arguments, "--out", str(place)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            kind = NotApplicable if done.returncode == NOT_APPLICABLE else NotMeasured
            raise kind(lines[-1] if lines else f"it ended with {done.returncode}")
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
    add("--shape", choices=SHAPES, default="youtu-2b")
    shared_load.add_options(
        parser, users=(1, 4), requests=4, requests_each=1, input_tokens=64, output_tokens=32
    )
    add("--context", type=int, default=512)
    add("--rounds", type=int, default=3)
    add("--data-dir", type=Path, default=Path("var/bench/peers-server"))
    add("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
