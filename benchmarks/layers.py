"""`make layers`: what each layer costs: the engine alone, + Triton, + youtu_llm, + the frontend's two routes.

One engine, one load, each layer's endpoint in turn. With the 2B shape (MODEL=var/random-2b) at 1, 4 and 8
callers; with the demonstration, whose steps take a fraction of a millisecond, at 1, 16 and 64, where the
layers are all there is; after it an engine as fast as a GPU, which costs nothing (`fast.layers`).
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from benchmarks import comparison, runs, shared_load
from benchmarks.comparison import Contender, through_load
from benchmarks.fast import layers as fast
from benchmarks.measuring import measure, say
from benchmarks.served import CannotStart, Served
from build.engine import make_engine
from build.errors import BuildError
from build.progress import TerminalProgress

LAYERS = (
    ("+ Triton", "tokens", "the engine's model over Triton's gRPC: token ids in and out, streamed"),
    ("+ youtu_llm", "grpc", "the text contract over Triton's gRPC: template, tokenizer, detokeniser"),
    ("+ frontend v1", "v1", "POST /v1/chat/completions, server-sent events"),
    ("+ frontend chat", "chat", "POST /chat, server-sent events"),
)


def main() -> int:
    options = _parse()
    folder = options.out or Path("var/bench") / f"layers-{runs.stamp()}"
    progress = TerminalProgress()
    try:
        engine = make_engine(options.model, options.data_dir, progress=progress)
    except BuildError as error:
        say(f"error: {error}")
        return 1
    finally:
        progress.close()
    slots = options.slots or max(options.users)
    same = shared_load.arguments(options)

    alone = [
        "--engine", os.path.relpath(engine.gguf.resolve()), "--slots", str(slots),
        "--context", str(options.context), *same,
    ]  # fmt: skip
    settings = {"slots": slots, "context": options.context, "queue": 1024}
    try:
        with Served(options.model, options.data_dir, **settings) as served:
            shared = ["--url", served.url, "--grpc", served.grpc, "--name", engine.model_id, *same]
            contenders = [
                Contender(
                    "engine alone",
                    "the engine's own queue in its own process, no server",
                    # Its process is a new one each time, and remembers nothing.
                    lambda place, _seed: measure("benchmarks.alone", alone, place),
                )
            ]
            for name, endpoint, what in LAYERS:
                contenders.append(Contender(name, what, through_load(["--endpoint", endpoint, *shared])))
            facts = {
                "kind": "layers",
                "title": f"What each layer costs: {engine.model_id}",
                "command": shlex.join(["python", "-m", "benchmarks.layers", *sys.argv[1:]]),
                "notes": [
                    "The load generator runs on the server's cores; the engine alone has none: part of the "
                    "difference is the generator's.",
                ],
            }
            status = comparison.run(folder, facts, contenders, options.rounds)
    except CannotStart as error:
        say(f"error: {error}")
        return 1
    if status != 0 or options.model != "demo" or not options.fast_rounds:
        return status
    rounds, out = str(options.fast_rounds), str(folder / "fast")
    return fast.main(["--rounds", rounds, "--data-dir", str(options.data_dir), "--out", out])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.layers", description=__doc__)
    add = parser.add_argument
    add("--model", default="demo")
    shared_load.add_options(
        parser, users=(1, 16, 64), requests=32, requests_each=4, input_tokens=48, output_tokens=32
    )
    add("--slots", type=int, help="slots of the engine (default: the most users)")
    add("--context", type=int, default=512)
    add("--rounds", type=int, default=3)
    add("--fast-rounds", type=int, default=2, help="rounds of the engine that costs nothing (demo only)")
    add("--data-dir", type=Path, default=Path("var/bench/server"))
    add("--out", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
