"""The load that is the same for all who are compared: so many callers at once, prompts of one length, answers
of one length. As options that one program hands on to the next, and as the run that those leave which bring
their own callers.

Independent of servers and Locust.
"""

from __future__ import annotations

import argparse
import itertools
import random
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import metrics, runs

# The deployment's defaults (docs/contract.md), and the likeliest token always.
SERVED = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}
GREEDY = {"temperature": 0.0, "repetition_penalty": 1.0}
SAMPLING: dict[str, dict[str, float]] = {"served": SERVED, "greedy": GREEDY}
PROMPT_REQUESTS = 1  # of the step that measures how fast a prompt is read
PROMPT_ANSWER = 2  # tokens


@dataclass(frozen=True)
class Rung:
    """A step of the load: so many callers at once ask `quota` questions of about these lengths."""

    name: str
    users: int
    quota: int
    input_tokens: int
    output_tokens: int
    spread: float

    def lengths(self, seed: int) -> Iterator[tuple[int, int]]:
        """Of each question: tokens in and out, evenly within `spread`; the same for the same seed.

        Answers of one length begin and end together; callers who come and go do not.
        """
        for number in itertools.count():
            source = random.Random(f"{self.name} {seed} {number}")  # noqa: S311
            share = (1 + source.uniform(-self.spread, self.spread) for _ in range(2))
            tokens_in, tokens_out = self.input_tokens * next(share), self.output_tokens * next(share)
            yield max(1, round(tokens_in)), max(1, round(tokens_out))


def add_options(
    parser: argparse.ArgumentParser,
    *,
    users: Sequence[int],
    requests: int,
    requests_each: int,
    input_tokens: int,
    output_tokens: int,
) -> None:
    """--users and the counts, lengths and sampling that go with it, with these defaults."""
    add = parser.add_argument
    add("--users", type=lambda text: [int(part) for part in text.split(",")], default=list(users))
    add("--requests", type=int, default=requests)
    add("--requests-each", type=int, default=requests_each)
    add("--input-tokens", type=int, default=input_tokens)
    add("--output-tokens", type=int, default=output_tokens)
    add_manner(parser)


def add_manner(parser: argparse.ArgumentParser) -> None:
    """--spread, --sampling and --prompt-tokens."""
    add = parser.add_argument
    add("--spread", type=float, default=0.0, help="lengths differ by up to this share, e.g. 0.5 (default: 0)")
    add("--sampling", choices=SAMPLING, default="greedy", help="how tokens are chosen (default: %(default)s)")
    add(
        "--prompt-tokens", type=int, help="a last step: one caller, prompts of so many tokens, answers of two"
    )


def arguments(options: argparse.Namespace) -> list[str]:
    """The same options, for another program's command line."""
    return [
        "--users", ",".join(map(str, options.users)), "--requests", str(options.requests),
        "--requests-each", str(options.requests_each), "--input-tokens", str(options.input_tokens),
        "--output-tokens", str(options.output_tokens), "--spread", str(options.spread),
        "--sampling", options.sampling,
        *(["--prompt-tokens", str(options.prompt_tokens)] if options.prompt_tokens else []),
    ]  # fmt: skip


def rungs(options: argparse.Namespace) -> list[Rung]:
    """The steps of --users, and behind them the one of --prompt-tokens."""
    found = [
        Rung(
            step_name(users),
            users,
            quota(options, users),
            options.input_tokens,
            options.output_tokens,
            options.spread,
        )
        for users in options.users
    ]
    if options.prompt_tokens:
        name = prompt_step_name(options.prompt_tokens)
        found.append(Rung(name, 1, PROMPT_REQUESTS, options.prompt_tokens, PROMPT_ANSWER, 0.0))
    return found


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


def prompt_step_name(tokens: int) -> str:
    return f"prompt of {tokens}"


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


def end_step(run: runs.Run, rung: Rung) -> None:
    """Generator and engine are one process there, so its share of the processor says nothing."""
    run.step(
        name=rung.name,
        users=rung.users,
        rate=None,
        quota=rung.quota,
        generator_cpu=0.0,
        interrupted=False,
    )
