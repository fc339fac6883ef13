"""`make affinity`: the benefit of returning a conversation to the server that has its beginning.

Starts several Tritons on this machine, and asks them through the client as the frontend does: in each round
a few conversations with a long first message take their first turns, then, in another order, their second
turns, one at a time. Timed is the first token of the second turn; half of the rounds are without affinity.

Prints a table, and one line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from youtu_client import Client, Piece

from benchmarks import runs
from benchmarks.machine import facts
from benchmarks.measuring import say
from benchmarks.served import CannotStart, Served

AT_ONCE = 4
"""Conversations of a round, and slots of a server: even if one server had all, it would still know them."""

Messages = list[dict[str, str]]


def long_message(client: Client, tokens: int, chance: random.Random) -> str:
    """A message that makes a prompt of about so many tokens."""
    text = " ".join(str(chance.randrange(10_000)) for _ in range(tokens))
    for _ in range(8):
        found = len(client.tokenize(text).ids)
        if abs(found - tokens) <= tokens // 50:
            break
        text = text[: max(1, len(text) * tokens // found)]
    return text


def first_token(client: Client, messages: Messages) -> tuple[float, int, str]:
    """Seconds until it, tokens of the prompt that were in the cache, and the answer."""
    asked = time.monotonic()
    with client.stream(messages, max_tokens=8, min_tokens=8, temperature=0.0) as stream:
        first: Piece = next(stream)
        seconds = time.monotonic() - asked
        text = first.text + "".join(piece.text for piece in stream)
        return seconds, stream.answer.usage.cached_tokens, text


def one_round(client: Client, tokens: int, chance: random.Random) -> list[tuple[float, int]]:
    """The second turns of a few conversations."""
    begun: list[Messages] = []
    for _ in range(AT_ONCE):
        messages = [{"role": "user", "content": long_message(client, tokens, chance)}]
        _, _, said = first_token(client, messages)
        further = [{"role": "assistant", "content": said}, {"role": "user", "content": "And then?"}]
        begun.append([*messages, *further])
    chance.shuffle(begun)
    return [first_token(client, messages)[:2] for messages in begun]


def figures(turns: list[tuple[float, int]], tokens: int) -> dict[str, float]:
    """Milliseconds to the first token, and the share of turns whose beginning was in the cache."""
    times = [1000 * seconds for seconds, _ in turns]
    return {
        "turns": len(turns),
        "mean_ms": statistics.mean(times),
        "median_ms": statistics.median(times),
        "p90_ms": statistics.quantiles(times, n=10)[-1],
        "known": sum(cached > tokens / 2 for _, cached in turns) / len(turns),
    }


def measure(servers: list[str], rounds: int, tokens: int) -> dict[str, dict[str, float]]:
    """Rounds with and without affinity, in turn."""
    turns: dict[str, list[tuple[float, int]]] = {"with affinity": [], "without": []}
    chance = random.Random(1)  # noqa: S311
    for number in range(rounds):
        for name, found in turns.items():
            say(f"round {number + 1} of {rounds}, {name}")
            with Client(servers, affinity=name == "with affinity") as client:
                found += one_round(client, tokens, chance)
    return {name: figures(found, tokens) for name, found in turns.items()}


def main() -> int:
    """Start, measure, print. 1 when a server does not start."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.affinity", description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=1500, help="of the beginning (default: %(default)s)")
    given = parser.parse_args()
    settings: dict[str, Any] = {"frontend": "off", "triton_http": "off", "slots": AT_ONCE}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        started = [Served(given.model, Path(scratch, str(at)), **settings) for at in range(given.servers)]
        try:
            for server in started:
                stack.enter_context(server)
        except CannotStart as error:
            say(f"cannot measure: {error}")
            return 1
        found = measure([server.grpc for server in started], given.rounds, given.tokens)
    ratio = found["with affinity"]["mean_ms"] / found["without"]["mean_ms"]
    head = f"{'first token of the second turn (ms)':<36} {'mean':>8} {'median':>8} {'p90':>8} {'known':>7}"
    rows = [
        f"{name:<36} {row['mean_ms']:8.1f} {row['median_ms']:8.1f} {row['p90_ms']:8.1f} {row['known']:7.0%}"
        for name, row in found.items()
    ]
    rows.append(f"with affinity the mean is {ratio:.2f} of that without")
    sys.stdout.write("\n".join([head, *rows, ""]))
    asked = {"model": given.model, "servers": given.servers, "tokens": given.tokens, "ratio": ratio}
    sys.stdout.write(runs.line({**asked, "machine": facts(), "measured": found}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
