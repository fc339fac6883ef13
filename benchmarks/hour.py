"""`make hour`: the shape of an hour of load on several servers, in minutes: ramp, burst, outage, recovery.

Starts Tritons and a frontend in front of them, on this machine. Requests arrive at random at the rate that
the shape has at that moment, whether or not earlier ones are answered (open loop). In the outage one Triton
is killed; in the recovery it is started again. Writes a picture and the samples to --out, prints a table,
and one line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from matplotlib import pyplot

from benchmarks import runs
from benchmarks.drawing import STYLE, save
from benchmarks.machine import facts
from benchmarks.measuring import say
from benchmarks.served import CannotStart, Served
from serve.addresses import free_ports

HOUR_S = 3600.0
PATIENCE_S = 60.0
BINS = 60


@dataclass(frozen=True)
class Phase:
    """A part of the hour: its minutes, and the rate at its beginning and end, as a share of the peak."""

    name: str
    minutes: float
    begin: float
    end: float


SHAPE = (
    Phase("ramp", 15, 0.1, 0.6),
    Phase("steady", 10, 0.6, 0.6),
    Phase("burst", 5, 1.0, 1.0),
    Phase("after", 5, 0.6, 0.6),
    Phase("outage", 10, 0.6, 0.6),
    Phase("recovery", 15, 0.6, 0.2),
)


@dataclass(frozen=True)
class Sample:
    """One request: seconds of the played hour at which it came, to its first text and its end (real ones)."""

    at: float
    phase: str
    outcome: str
    first_s: float | None
    whole_s: float


def rate_at(second: float, shape: Sequence[Phase] = SHAPE) -> tuple[str, float]:
    """Phase and share of the peak at a second of the hour."""
    for phase in shape:
        length = 60 * phase.minutes
        if second < length:
            return phase.name, phase.begin + (phase.end - phase.begin) * second / length
        second -= length
    return shape[-1].name, shape[-1].end


class Player:
    """Sends what the shape asks for, each request in a thread of its own."""

    def __init__(self, url: str, peak: float, speed: float, answer: int) -> None:
        self._address = urlsplit(url).netloc
        self._peak, self._speed, self._answer = peak, speed, answer
        self.samples: list[Sample] = []
        self._threads: list[threading.Thread] = []
        self.began = time.monotonic()

    @property
    def second(self) -> float:
        """Of the played hour."""
        return (time.monotonic() - self.began) * self._speed

    def play(self, until: float) -> None:
        """Send until that second of the hour. The peak is in requests per real second."""
        chance = random.Random(int(until))  # noqa: S311
        while (second := self.second) < until:
            phase, share = rate_at(second)
            time.sleep(chance.expovariate(self._peak * share))
            if self.second >= until:
                break
            thread = threading.Thread(target=self._ask, args=[self.second, phase], daemon=True)
            self._threads.append(thread)
            thread.start()

    def finish(self) -> None:
        for thread in self._threads:
            thread.join(2 * PATIENCE_S)

    def _ask(self, at: float, phase: str) -> None:
        asked = time.monotonic()
        first: float | None = None
        outcome = "lost"
        connection = HTTPConnection(self._address, timeout=PATIENCE_S)
        body = {
            "prompt": f"你好 {at}",
            "stream": True,
            "max_tokens": self._answer,
            "min_tokens": self._answer,
        }
        try:
            connection.request("POST", "/chat", json.dumps(body), {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = b""
            while piece := response.read1(65536):
                if first is None and b"data: " in piece:
                    first = time.monotonic() - asked
                text += piece
            if response.status in (429, 503):
                outcome = "refused"
            elif response.status == 200:
                outcome = "answered" if b'"finish_reason"' in text.rsplit(b"data: ", 1)[-1] else "broken off"
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        answered = outcome == "answered"
        self.samples.append(Sample(at, phase, outcome, first if answered else None, time.monotonic() - asked))


def percentile(values: Sequence[float], share: float) -> float | None:
    """None of nothing."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] if values else None


def by_phase(samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """Figures of each phase."""
    rows = []
    for phase in SHAPE:
        mine = [sample for sample in samples if sample.phase == phase.name]
        firsts = [sample.first_s for sample in mine if sample.first_s is not None]
        counts = {name: sum(sample.outcome == name for sample in mine) for name in OUTCOMES}
        rows.append(
            {
                "phase": phase.name,
                **counts,
                "first_p50_s": percentile(firsts, 0.5),
                "first_p95_s": percentile(firsts, 0.95),
            }
        )
    return rows


OUTCOMES = {"answered": "tab:green", "refused": "tab:orange", "broken off": "tab:red", "lost": "black"}


def draw(samples: Sequence[Sample], path: Path) -> None:
    """Requests by outcome above, time to the first text below, over the minutes of the hour."""
    minutes = [60 * index / BINS for index in range(BINS)]
    binned: list[list[Sample]] = [[] for _ in range(BINS)]
    for sample in samples:
        binned[min(BINS - 1, int(sample.at / HOUR_S * BINS))].append(sample)
    with pyplot.rc_context(STYLE):
        figure, (above, below) = pyplot.subplots(2, 1, figsize=(9, 5.5), sharex=True, layout="constrained")
        floor = [0.0] * BINS
        for outcome, colour in OUTCOMES.items():
            counts = [sum(sample.outcome == outcome for sample in group) for group in binned]
            if any(counts):
                above.bar(minutes, counts, 60 / BINS, floor, color=colour, label=outcome, align="edge")
            floor = [low + count for low, count in zip(floor, counts, strict=True)]
        above.set_ylabel("requests")
        above.legend(loc="upper left")
        for share, style in ((0.5, "-"), (0.95, "--")):
            found = [
                percentile([s.first_s for s in group if s.first_s is not None], share) for group in binned
            ]
            points = [(at, value) for at, value in zip(minutes, found, strict=True) if value is not None]
            below.plot(*zip(*points, strict=True), style, label=f"p{100 * share:.0f}", color="tab:blue")
        below.set_ylabel("first text, s")
        below.set_xlabel("minute of the hour")
        below.legend(loc="upper left")
        at = 0.0
        for phase in SHAPE:
            for axes in (above, below):
                axes.axvspan(at, at + phase.minutes, color="tab:red", alpha=0.08 * (phase.name == "outage"))
                axes.axvline(at, color="grey", linewidth=0.5)
            above.text(at + 0.2, above.get_ylim()[1], phase.name, va="bottom")
            at += phase.minutes
        save(figure, path)


def measure(given: argparse.Namespace, scratch: Path) -> list[Sample]:
    """Start everything, play the hour. Raises CannotStart."""
    grpc_ports = free_ports(given.servers)
    addresses = ",".join(f"127.0.0.1:{port}" for port in grpc_ports)

    def triton(number: int, life: str) -> Served:
        return Served(
            given.model,
            scratch / f"triton-{number}-{life}",
            frontend="off",
            triton_http="off",
            slots=given.slots,
            grpc_port=grpc_ports[number],
        )

    outage = 60 * sum(phase.minutes for phase in SHAPE[:4])
    recovery = outage + 60 * SHAPE[4].minutes
    with ExitStack() as stack:
        tritons = [triton(number, "first") for number in range(given.servers)]
        for each in tritons[1:]:
            stack.enter_context(each)
        victim = tritons[0]
        stack.callback(victim.end)
        victim.__enter__()
        frontend = stack.enter_context(Served(given.model, scratch / "web", triton_servers=addresses))
        player = Player(frontend.url, given.peak, HOUR_S / (60 * given.minutes), given.answer)
        say(f"an hour in {given.minutes} minutes, {given.peak} requests a second at the peak")
        player.play(outage)
        say("outage: one Triton is killed")
        for process in victim.family():
            with contextlib.suppress(Exception):
                process.kill()
        player.play(recovery)
        say("recovery: it is started again")
        starting = threading.Thread(target=lambda: stack.enter_context(triton(0, "second")), daemon=True)
        starting.start()
        player.play(HOUR_S)
        player.finish()
        starting.join()
    return player.samples


def main() -> int:
    """Play, draw, print. 1 when a server does not start."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hour", description=__doc__)
    show = "(default: %(default)s)"
    parser.add_argument("--minutes", type=float, default=3.0, help=f"that the hour takes {show}")
    parser.add_argument("--peak", type=float, default=8.0, help=f"requests per second in the burst {show}")
    parser.add_argument("--model", default="demo", help=show)
    parser.add_argument("--servers", type=int, default=2, help=show)
    parser.add_argument("--slots", type=int, default=2, help=f"of each server {show}")
    parser.add_argument("--answer", type=int, default=100, help=f"tokens {show}")
    parser.add_argument("--out", type=Path, default=Path("var/bench/hour"), help=show)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            samples = measure(given, Path(scratch))
    except CannotStart as error:
        say(f"cannot measure: {error}")
        return 1
    lines = [json.dumps(asdict(sample)) for sample in sorted(samples, key=lambda sample: sample.at)]
    (given.out / "samples.jsonl").write_text("\n".join([*lines, ""]), encoding="utf-8")
    draw(samples, given.out / "hour.svg")
    rows = by_phase(samples)
    sys.stdout.write(
        f"{'phase':<10}{''.join(f'{name:>12}' for name in OUTCOMES)}{'first p50':>12}{'p95, s':>9}\n"
    )
    for row in rows:
        times = [f"{row[key]:.2f}" if row[key] is not None else "-" for key in ("first_p50_s", "first_p95_s")]
        counts = "".join(f"{row[name]:>12}" for name in OUTCOMES)
        sys.stdout.write(f"{row['phase']:<10}{counts}{times[0]:>12}{times[1]:>9}\n")
    say(f"picture: {given.out / 'hour.svg'}")
    asked = {name: value for name, value in vars(given).items() if name != "out"}
    sys.stdout.write(runs.line({**asked, "machine": facts(), "phases": rows}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
