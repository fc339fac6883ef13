"""The load that is the same for all who are compared: so many callers at once, prompts of one length, answers
of one length. As options that one program hands on to the next, and as the run that those leave which bring
their own callers.

Knows neither servers nor Locust.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import metrics, runs


def add_options(
    parser: argparse.ArgumentParser,
    *,
    users: Sequence[int],
    requests: int,
    requests_each: int,
    input_tokens: int,
    output_tokens: int,
) -> None:
    """--users and the counts and lengths that go with it, with these defaults."""
    add = parser.add_argument
    add("--users", type=lambda text: [int(part) for part in text.split(",")], default=list(users))
    add("--requests", type=int, default=requests)
    add("--requests-each", type=int, default=requests_each)
    add("--input-tokens", type=int, default=input_tokens)
    add("--output-tokens", type=int, default=output_tokens)


def arguments(options: argparse.Namespace) -> list[str]:
    """The same options, for another program's command line."""
    return [
        "--users", ",".join(map(str, options.users)), "--requests", str(options.requests),
        "--requests-each", str(options.requests_each), "--input-tokens", str(options.input_tokens),
        "--output-tokens", str(options.output_tokens),
    ]  # fmt: skip


def add_endpoint(
    parser: argparse.ArgumentParser, default: str, help: str, choices: Sequence[str] | None = None
) -> None:
    """`--endpoint`, which was once called `--door`: recorded commands still have that name."""
    parser.add_argument("--endpoint", default=default, choices=choices, help=help)
    parser.add_argument(
        "--door", dest="endpoint", default=argparse.SUPPRESS, choices=choices, help=argparse.SUPPRESS
    )


def step_name(users: int) -> str:
    return f"{users} user" + ("" if users == 1 else "s")


def quota(options: argparse.Namespace, users: int) -> int:
    """How many questions so many callers ask in a step."""
    return int(max(options.requests, options.requests_each * users))


def begin(folder: Path, module: str, *, model: str, endpoint: str, machine: dict[str, Any]) -> runs.Run:
    """A run of `module`, which brings its own callers and leaves a folder like `make load`."""
    return runs.Run(
        folder,
        {
            "kind": "load",
            "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
            "model": model,
            "endpoint": endpoint,
            "workload": "fixed",
            "unique": True,
            "seed": 0,
            "target": asdict(metrics.Target()),
            "max_lateness": 0.0,
            "machine": machine,
        },
    )


def end_step(run: runs.Run, users: int, asked: int) -> None:
    """Generator and engine are one process there, so its share of the processor says nothing."""
    run.step(name=step_name(users), users=users, rate=None, quota=asked, generator_cpu=0.0, interrupted=False)
