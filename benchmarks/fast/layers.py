"""The second half of `make layers`: what everything above the engine costs when the engine costs nothing.

One load for each endpoint in turn, with one caller and with many, in front of an engine that makes its tokens
at a fixed rate (`serving`). Beside what the callers see stands the processor time of each process per
thousand tokens.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import drawing, machine, runs
from benchmarks.comparison import spread
from benchmarks.measuring import NotMeasured, measure, say
from benchmarks.served import CannotStart, Served

RUN, PAGE = "fast.json", "fast.md"
NAME = "youtu-demo"  # what the demonstration is called in the API
SETTLED = 12.0  # s after the start; until then the guard searches for the models' processes
KINDS = {
    "packed": "as our engine delivers: what came within the stream interval in one response",
    "single": "as NVIDIA's backend delivers: a response for each token, out of Triton's own process",
}
ENDPOINTS = {
    "tokens": "the engine's model over Triton's gRPC",
    "grpc": "+ youtu_llm: text over Triton's gRPC",
    "v1": "+ frontend: POST /v1/chat/completions, server-sent events",
    "chat": "+ frontend: POST /chat, server-sent events",
}
PROCESSES = ("triton", "youtu_engine", "youtu_llm", "frontend", "other", "generator")
HEADER = ("delivery", "endpoint", "callers", "offered tokens/s", "tokens/s", "tokens a piece", "TTFT p50, ms",
          "TTFT p99, ms", "between pieces p50, ms", "CPU ms per 1,000 tokens",
          *(name.replace("_", " ") for name in PROCESSES))  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    folder = options.out or Path("var/bench") / f"fast-{runs.stamp()}"
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks.fast.layers", *given]),
        "rate": options.rate,
        "machine": machine.facts(),
        "rounds": [],
    }
    status = 0
    try:
        if options.idle_seconds:
            record["idle_percent"] = _idle_percent(options)
        for number in range(options.rounds):
            for kind in options.kinds:
                say(f"== round {number + 1} of {options.rounds}: {kind}")
                record["rounds"] += _round(options, kind, folder / f"round-{number + 1}" / kind, number)
                runs.write_json(folder / RUN, record)
    except (CannotStart, NotMeasured) as error:
        say(f"error: {error}")
        status = 1
    (folder / PAGE).write_text(page(record), encoding="utf-8")
    say(f"page: {folder / PAGE}")
    sys.stdout.write(json.dumps(figures(record)) + "\n")
    return status


def _idle_percent(options: argparse.Namespace) -> float:
    """Of a core, what the whole server with the demonstration takes while nobody asks."""
    with Served("demo", options.data_dir, runtime="llama_cpp") as served:
        say(f"idle for {SETTLED + options.idle_seconds:g} s")
        time.sleep(SETTLED)
        before = sum(served.processor_seconds().values())
        time.sleep(options.idle_seconds)
        spent = sum(served.processor_seconds().values()) - before
    return float(100 * spent / options.idle_seconds)


def _round(options: argparse.Namespace, kind: str, folder: Path, seed: int) -> list[dict[str, Any]]:
    """One server, all endpoints and all numbers of callers."""
    found = []
    settings = {"slots": max(options.users), "context": 1024, "queue": 64, "runtime": "llama_cpp",
                "stream_interval_ms": options.stream_interval_ms}  # fmt: skip
    command = ["-m", "benchmarks.fast.serving", kind, str(options.rate)]
    with Served("demo", options.data_dir, command=command, **settings) as served:
        for endpoint in options.endpoints:
            for users in options.users:
                place = folder / f"{endpoint}-{users}"
                before = served.processor_seconds()
                arguments = [
                    "--endpoint", endpoint, "--url", served.url, "--grpc", served.grpc, "--name", NAME,
                    "--users", str(users), "--requests", "1", "--requests-each", str(options.requests_each),
                    "--input-tokens", "48", "--output-tokens", str(options.output_tokens), "--warm-up", "1",
                    "--seed", str(seed),
                ]  # fmt: skip
                measure("benchmarks.load", arguments, place)
                after = served.processor_seconds()
                step = runs.summary(place)["steps"][0]
                spent = {name: after[name] - before.get(name, 0.0) for name in after}
                spent["generator"] = step["generator_cpu"] * step["seconds"]
                found.append(_figures(kind, endpoint, users, options.rate, step, spent))
    return found


def _figures(
    kind: str, endpoint: str, users: int, rate: float, step: dict[str, Any], spent: dict[str, float]
) -> dict[str, Any]:
    tokens = step["output_tokens"]
    if not tokens or step["done"] < step["offered"]:
        raise NotMeasured(
            f"{kind}, {endpoint}: {step['done']} of {step['offered']} answers: {step['errors']}"
        )
    each = {name: 1e6 * spent.get(name, 0.0) / tokens for name in PROCESSES}
    return {
        "kind": kind,
        "endpoint": endpoint,
        "users": users,
        "offered": users * rate,
        "tokens_per_second": step["tokens_per_second"],
        "tokens_per_piece": tokens / (step["itl"]["n"] + step["done"]),
        "ttft_p50_ms": 1000 * step["ttft"]["p50"],
        "ttft_p99_ms": 1000 * step["ttft"]["p99"],
        "itl_p50_ms": 1000 * step["itl"].get("p50", 0.0),
        "cpu_ms": sum(each.values()),
        **each,
    }


def figures(record: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each delivery, endpoint and number of callers the median of the rounds, with its extremes."""
    found: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in record["rounds"]:
        found.setdefault((row["kind"], row["endpoint"], row["users"]), []).append(row)
    return [
        {
            name: value if isinstance(value, str) or name == "users" else spread([row[name] for row in rows])
            for name, value in rows[0].items()
        }
        for rows in found.values()
    ]


def page(record: dict[str, Any]) -> str:
    """The figures as a page of Markdown."""
    rows, idle = [], record.get("idle_percent")
    for row in figures(record):
        rows.append(
            [
                row["kind"],
                row["endpoint"],
                str(row["users"]),
                _cell(row["offered"]),
                _cell(row["tokens_per_second"]),
                _cell(row["tokens_per_piece"], 2),
                *(_cell(row[name], 1) for name in ("ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms")),
                _cell(row["cpu_ms"]),
                *(f"{row[name]['median']:.0f}" for name in PROCESSES),
            ]
        )
    return "\n".join(
        [
            "# What is above the engine, with an engine that costs nothing",
            "",
            f"`{record['command']}`",
            "",
            f"{drawing.machine_line(record['machine'])}.",
            "",
            f"Each answer grows by {record['rate']:g} tokens a second. Medians of the rounds; least and "
            "most in brackets. The load generator (Locust) runs on the same cores.",
            "",
            *([f"Idle, the whole server: {idle:.2f} % of a core.", ""] if idle is not None else []),
            *drawing.table(HEADER, rows),
            "",
            *(f"* **{name}**: {what}" for name, what in (KINDS | ENDPOINTS).items()),
            "",
        ]
    )


def _cell(values: dict[str, float], digits: int = 0) -> str:
    middle, low, high = (f"{values[name]:,.{digits}f}" for name in ("median", "low", "high"))
    return middle if low == high else f"{middle} ({low} to {high})"


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fast.layers", description=__doc__)
    add = parser.add_argument

    def names(text: str) -> list[str]:
        return text.split(",")

    add("--kinds", type=names, default=list(KINDS))
    add("--endpoints", type=names, default=list(ENDPOINTS))
    add("--users", type=lambda text: [int(part) for part in text.split(",")], default=[1, 64])
    add("--rate", type=float, default=100.0, help="tokens a second of each answer")
    add("--output-tokens", type=int, default=200)
    add("--requests-each", type=int, default=2)
    add("--stream-interval-ms", type=int, default=25)
    add("--rounds", type=int, default=2)
    add("--idle-seconds", type=float, default=20.0, help="how long it is watched while nobody asks; 0: not")
    add("--data-dir", type=Path, default=Path("var/bench/server"))
    add("--out", type=Path)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
