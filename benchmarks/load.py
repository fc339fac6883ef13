"""`make load`: a ladder of load against one endpoint of one deployment, with Locust's users.

Starts a server of its own with --model, or measures one that is there (--url, --grpc). Each run leaves a
folder with the raw samples, the summary, a report, plots and Locust's own HTML report, and ends with the
summary as one line of JSON on standard output. Ctrl-C keeps what was measured.

Exit status: 0; 1 when it could not run; 3 when a step's figures must not be used (the report says why);
130 after Ctrl-C.
"""

from __future__ import annotations

# Locust must come before whatever opens sockets: it patches the interpreter.
from benchmarks.users import ENDPOINTS, Address, Plan, prepare  # isort: skip

import argparse
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from youtu_client import Client

from benchmarks import drawing, machine, metrics, runs, shared_load, workloads
from benchmarks.endpoints import Endpoint, prompt_tokens
from benchmarks.ladder import Ladder, Step
from benchmarks.measuring import say
from benchmarks.samples import Sample
from benchmarks.served import CannotStart, Served
from benchmarks.shared_load import Rung
from benchmarks.workloads import Filler, Question

AUTO_USERS = (1, 2, 4, 8, 16, 32, 64)
PROGRESS_EVERY = 5.0
LONG = (1024, 16)  # tokens in and out of the workload "long"


class Progress:
    """How far a step has come, on stderr."""

    def __init__(self, step: Step) -> None:
        self._step, self._done, self._at = step, 0, time.monotonic() + PROGRESS_EVERY

    def count(self, _sample: Sample) -> None:
        self._done += 1

    def show(self) -> None:
        now = time.monotonic()
        if now >= self._at:
            self._at = now + PROGRESS_EVERY
            say(f"{self._step.name}: {self._done} of {self._step.quota} answers")


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    with ExitStack() as stack:
        try:
            address = _address(options, stack)
            prepare()
            return _measure(options, address)
        except (CannotStart, RuntimeError, ValueError, OSError) as error:
            say(f"error: {error}")
            return 1


def _address(options: argparse.Namespace, stack: ExitStack) -> Address:
    url, grpc = options.url, options.grpc
    if options.model is not None:
        say(f"starting a server with {options.model}")
        data_dir = options.data_dir
        settings = dict(pair.split("=", 1) for pair in options.set)
        served = stack.enter_context(Served(options.model, data_dir, **settings))
        url, grpc = served.url, served.grpc
    return Address(url, grpc, options.api_key, timeout=options.timeout)


def _measure(options: argparse.Namespace, address: Address) -> int:
    model, clock = _model(options, address), time.monotonic
    if options.endpoint == "v1":
        address = Address(address.url, address.grpc, address.api_key, model, address.timeout)
    # refused before anything is written: a wrong endpoint, a server that does not answer, a file that is none
    probe = address.endpoint(options.endpoint, clock)
    questions = _questions(options, probe, clock)
    next(questions)
    prompts = _prompts(options, probe, clock)
    folder = options.out or Path("var/bench") / f"load-{runs.stamp()}"
    run = runs.Run(
        folder,
        {
            "kind": "load",
            "command": shlex.join(["python", "-m", "benchmarks.load", *options.given]),
            "model": model,
            "endpoint": options.endpoint,
            "workload": options.workload,
            "unique": not options.shared_prefix,
            "seed": options.seed,
            "target": {"ttft": options.ttft, "tpot": options.tpot},
            "max_lateness": options.max_lateness,
            "machine": machine.facts(),
        },
    )
    interrupted = False
    ladder = Ladder()
    try:
        for _ in range(options.warm_up):
            _ask_once(probe, next(questions), clock)
        probe.close()
        _climb(options, address, run, ladder, questions, prompts)
    except KeyboardInterrupt:
        interrupted = True
        say("interrupted; what was measured is kept")
    finally:
        run.close()
    summary = drawing.draw(folder)
    if summary["steps"]:
        (folder / "locust.html").write_text(ladder.report(), encoding="utf-8")
    say(f"report: {folder / drawing.REPORT}")
    sys.stdout.write(runs.line(summary) + "\n")
    sys.stdout.flush()
    if interrupted:
        return 130
    return 3 if any(step["faults"] for step in summary["steps"]) else 0


def _climb(
    options: argparse.Namespace,
    address: Address,
    run: runs.Run,
    ladder: Ladder,
    questions: Iterator[Question],
    prompts: Iterator[Question],
) -> None:
    """Step after step; the automatic ladder ends at the knee."""
    target, best = metrics.Target(options.ttft, options.tpot), 0.0
    for step in _steps(options):
        begun = time.monotonic()
        taken: list[Sample] = []
        progress = Progress(step)

        def clock(begun: float = begun) -> float:
            return time.monotonic() - begun

        def done(sample: Sample, taken: list[Sample] = taken, progress: Progress = progress) -> None:
            taken.append(sample)
            run.add(sample)
            progress.count(sample)

        def endpoint(clock: Callable[[], float] = clock) -> Endpoint:
            return address.endpoint(options.endpoint, clock)

        asked = questions if step.prompt_tokens is None else prompts
        plan = Plan(
            step.name, asked, endpoint, done, clock=clock, quota=step.quota, seconds=options.seconds,
            rate=step.rate, seed=options.seed,
        )  # fmt: skip
        facts: dict[str, Any] = {
            "name": step.name,
            "users": step.users,
            "rate": step.rate,
            "quota": step.quota,
        }
        try:
            share = ladder.run(step, plan, progress.show)
        except KeyboardInterrupt:
            run.step(**facts, generator_cpu=0.0, interrupted=True)
            raise
        run.step(**facts, generator_cpu=share, interrupted=False)
        figures = metrics.summarise(taken, target)
        say(
            f"{step.name}: {figures['done']} of {figures['offered']} done, "
            f"{figures['tokens_per_second']:.1f} tokens/s, "
            f"TTFT p50 {drawing.milliseconds(figures['ttft'], 'p50')} ms, "
            f"TPOT p50 {drawing.milliseconds(figures['tpot'], 'p50')} ms"
        )
        automatic = options.users is None and options.rates is None and step.prompt_tokens is None
        if automatic and (figures["tokens_per_second"] < metrics.KNEE_GAIN * best or not figures["done"]):
            break
        best = max(best, figures["tokens_per_second"])


def _steps(options: argparse.Namespace) -> Iterator[Step]:
    if options.rates is not None:
        for rate in options.rates:
            yield Step(options.requests, rate=rate)
    else:
        for users in options.users or AUTO_USERS:
            yield Step(shared_load.quota(options, users), users=users)
    if options.prompt_tokens:
        yield Step(shared_load.PROMPT_REQUESTS, users=1, prompt_tokens=options.prompt_tokens)


def _questions(
    options: argparse.Namespace, endpoint: Endpoint, clock: Callable[[], float]
) -> Iterator[Question]:
    unique = not options.shared_prefix
    if options.workload == "service":
        return workloads.service(seed=options.seed, unique=unique)
    if options.workload in ("fixed", "long"):
        usual = LONG if options.workload == "long" else (64, 32)
        tokens_in = options.input_tokens or usual[0]
        tokens_out = options.output_tokens or usual[1]
        rung = Rung("", 1, 1, tokens_in, tokens_out, options.spread)
        return _fixed(options, rung, endpoint, clock)
    path = Path(options.workload)
    if not path.is_file():
        raise ValueError(
            f"workload must be one of {', '.join(workloads.KINDS)} or a .jsonl file, not {options.workload!r}"
        )
    return workloads.from_file(path, max_tokens=options.output_tokens or 200, unique=unique)


def _prompts(
    options: argparse.Namespace, endpoint: Endpoint, clock: Callable[[], float]
) -> Iterator[Question]:
    """The questions of --prompt-tokens; none without it."""
    if not options.prompt_tokens:
        return iter(())
    rung = Rung("prompts", 1, 1, options.prompt_tokens, shared_load.PROMPT_ANSWER, 0.0)
    return _fixed(options, rung, endpoint, clock)


def _fixed(
    options: argparse.Namespace, rung: Rung, endpoint: Endpoint, clock: Callable[[], float]
) -> Iterator[Question]:
    filler = Filler.calibrated(lambda messages: prompt_tokens(endpoint, messages, clock))
    return workloads.fixed(
        filler,
        rung.lengths(options.seed),
        seed=f"{options.seed} {rung.name}".strip(),
        unique=not options.shared_prefix,
        sampling=options.sampling,
    )


def _ask_once(endpoint: Endpoint, question: Question, clock: Callable[[], float]) -> None:
    sample = Sample("warm-up", clock())
    endpoint.ask(question, sample)
    if sample.outcome != "done":
        raise RuntimeError(f"a warm-up request was {sample.outcome}: {sample.error}")


def _model(options: argparse.Namespace, address: Address) -> str:
    """The model's name, from Triton; what was given when that port is closed."""
    if options.name:
        return str(options.name)
    with Client(address.grpc) as client:
        return client.model_info(timeout=10).id


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    shared_load.add_endpoint(parser, "chat", "which endpoint to ask (default: %(default)s)", ENDPOINTS)
    add("--model", help="start a server with this model; without it, one that runs is measured")
    add(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="setting of that server, e.g. slots=8"
    )
    add("--data-dir", type=Path, default=Path("var/bench/server"), help="data folder of that server")
    add("--url", default="http://127.0.0.1:8080", help="frontend (default: %(default)s)")
    add("--grpc", default="127.0.0.1:8001", help="Triton's gRPC (default: %(default)s)")
    add("--api-key", default="", help="key of the frontend")
    add("--name", help="the model's name; default: Triton is asked")
    add("--workload", default="fixed", help="fixed | service | long | a .jsonl file (default: %(default)s)")
    add("--input-tokens", type=_count, help="prompt length of fixed (64) and long (1024)")
    add(
        "--output-tokens",
        type=_count,
        help="answer length of fixed (32) and long (16); limit of a file's (200)",
    )
    shared_load.add_manner(parser)
    add("--shared-prefix", action="store_true", help="let prompts begin alike, to measure the prefix cache")
    add(
        "--users",
        type=_list_of(_count),
        help="closed loop: callers at each step, e.g. 1,2,4 (default: to the knee)",
    )
    add(
        "--rates",
        type=_list_of(_rate),
        help="open loop: Poisson arrivals per second at each step, e.g. 0.5,1,2",
    )
    add("--requests", type=_count, default=16, help="questions of a step, at least (default: %(default)s)")
    add("--requests-each", type=_count, default=4, help="and so many for each caller (default: %(default)s)")
    add("--seconds", type=_rate, help="ask nothing new in a step after this time")
    add("--warm-up", type=int, default=2, help="questions before the first step (default: %(default)s)")
    add("--timeout", type=_rate, default=300.0, help="seconds for one answer (default: %(default)s)")
    add("--ttft", type=_rate, default=2.0, help="goodput: first token within s (default: %(default)s)")
    add("--tpot", type=_rate, default=0.2, help="goodput: each token within s (default: %(default)s)")
    add(
        "--max-lateness",
        type=_rate,
        default=0.02,
        help="open loop: p99 of the generator's delay, s (default: %(default)s)",
    )
    add("--seed", type=int, default=0)
    add("--out", type=Path, help="folder of the run (default: var/bench/load-TIME)")
    options = parser.parse_args(arguments)
    options.given = sys.argv[1:] if arguments is None else arguments
    if options.users and options.rates:
        parser.error("--users is a closed loop and --rates an open one: give one of them")
    return options


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _list_of(kind: Callable[[str], Any]) -> Callable[[str], list[Any]]:
    def read(text: str) -> list[Any]:
        return [kind(part) for part in text.split(",")]

    return read


if __name__ == "__main__":
    sys.exit(main())
