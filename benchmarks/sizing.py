"""`make sizing`: how many servers a number of daily users needs, what they cost, and what runs out first.

Arithmetic on measured tables, with every assumption as an option; docs/sizing.md explains it. A request
needs the engine of one server for (tokens of its prompt that are not cached) / (prompt tokens per second) +
(tokens of its answer) / (tokens per second of all slots together). Servers = requests per second at the
peak * that / (share of the time that may be busy). Little's law gives the slots: requests per second *
seconds of an answer.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import runs

RESULTS = Path(__file__).resolve().parent / "results"
DAY_S, HOURS_A_MONTH = 86_400, 730
MOST_CONTEXT = 131_072
USABLE = 0.9
"""Of a card's memory."""


@dataclass(frozen=True)
class Machine:
    """What one server was measured to do; sizes in bytes.

    `decode`: slots -> tokens per second of all together. `computed`: the same without choosing the tokens.
    """

    name: str
    source: str
    decode: Mapping[int, float]
    computed: Mapping[int, float]
    prompt: float
    weights: int
    token: int
    memory: int
    price: float


@dataclass(frozen=True)
class Demand:
    """Who asks for what. `peak`: requests per second at the peak, to the day's mean."""

    users: int
    requests: float
    peak: float
    prompt: int
    cached: float
    answer: int
    context: int

    @property
    def per_second(self) -> float:
        return self.users * self.requests / DAY_S * self.peak


@dataclass(frozen=True)
class Plan:
    """What it takes. `busy`: the share of a server's time that each kind of work takes at the peak."""

    servers: int
    slots: int
    slots_by_memory: int
    answer_s: float
    in_flight: float
    busy: dict[str, float]
    frontends: int
    month: float
    first_bottleneck: str


def h100(sampling: str, price: float) -> Machine:
    """The card that `make verify-cuda` measured, with llama.cpp; `sampling` as that program calls it."""
    path = RESULTS / "cuda-h100" / "verify-cuda.json"
    checks = json.loads(path.read_text(encoding="utf-8"))["checks"]
    decode = {int(slots): row["median"] for slots, row in checks["engine_speed"][sampling].items()}
    return Machine(
        name="H100, llama.cpp",
        source=f"benchmarks/results/cuda-h100/verify-cuda.json, {sampling}",
        decode=decode,
        computed={
            int(slots): row["decode_tokens_per_s"]["median"]
            for slots, row in checks["speed"]["sequences"].items()
        },
        prompt=checks["chunks"]["prompt_tokens_per_s"]["512"]["median"],
        weights=checks["big_file"]["bytes"] + 1_220_000_000,  # and its buffers
        token=checks["speed"]["sequences"]["8"]["bytes_per_cached_token"],
        memory=checks["card"]["devices"][0]["total"],
        price=price,
    )


def cpu(price: float) -> Machine:
    """Two cores with VNNI, as `make peers` measured OpenVINO through `/v1`; prompts are short there."""
    path = RESULTS / "peers-youtu" / "comparison.json"
    contenders = json.loads(path.read_text(encoding="utf-8"))["contenders"]
    (loads,) = [each["loads"] for each in contenders if each["name"] == "ours, OpenVINO v1"]
    decode = {
        slots: loads[f"{slots} user{'s' if slots > 1 else ''}"]["tokens_per_second"]["median"]
        for slots in (1, 4, 8)
    }
    return Machine(
        name="2 cores, OpenVINO",
        source="benchmarks/results/peers-youtu/comparison.json",
        decode=decode,
        computed=decode,
        prompt=loads["prompt of 512"]["prompt_tokens_per_second"]["median"],
        weights=2_300_000_000,
        token=192_512,
        memory=24_000_000_000,
        price=price,
    )


def plan(machine: Machine, demand: Demand, *, busy_share: float, frontend_tokens: float, slots: int) -> Plan:
    """The servers for a demand. `slots`: 0 takes the most that were measured and fit.

    Raises ValueError when none fit.
    """
    fitting = int((USABLE * machine.memory - machine.weights) / (demand.context * machine.token))
    measured = [each for each in machine.decode if each <= fitting and (not slots or each <= slots)]
    if not measured:
        raise ValueError(
            f"{machine.name}: {fitting} slots of {demand.context} tokens fit, and no fewer were measured"
        )
    taken = max(measured)
    speed = machine.decode[taken]
    new = demand.prompt * (1 - demand.cached)
    reading, writing = new / machine.prompt, demand.answer / speed
    rate = demand.per_second
    servers = max(1, math.ceil(rate * (reading + writing) / busy_share))
    # While it writes, a request has its share of the speed, and waits for the prompts of others.
    seconds = (reading + demand.answer * taken / speed) / max(1e-9, 1 - rate * reading / servers)
    busy = {"reading prompts": rate * reading / servers, "writing answers": rate * writing / servers}
    frontends = math.ceil(rate * demand.answer / frontend_tokens)
    return Plan(
        servers=servers,
        slots=taken,
        slots_by_memory=fitting,
        answer_s=seconds,
        in_flight=rate * seconds,
        busy=busy,
        frontends=frontends,
        month=servers * machine.price * HOURS_A_MONTH,
        first_bottleneck=_bottleneck(machine, busy, taken, fitting),
    )


def _bottleneck(machine: Machine, busy: dict[str, float], slots: int, fitting: int) -> str:
    worst = max(busy, key=lambda work: busy[work])
    if worst == "writing answers" and machine.decode[slots] < machine.computed[slots] / 2:
        return (
            f"choosing tokens on the CPU: {machine.decode[slots]:.0f} tokens/s, where the card alone "
            f"computes {machine.computed[slots]:.0f}"
        )
    if worst == "writing answers" and any(more > fitting for more in machine.decode):
        return f"memory: {fitting} slots fit, and more slots would write faster"
    speeds = machine.decode
    fewer = [count for count in speeds if count < slots]
    if worst == "writing answers" and fewer:
        gain = (speeds[slots] / speeds[max(fewer)]) / (slots / max(fewer))
        if gain < 0.5:
            return f"{worst}: {slots} slots write only {speeds[slots]:.0f} tokens/s, more slots bring little"
    return worst


def table(machine: Machine, demand: Demand, found: Plan) -> str:
    """For people."""
    rows = {
        "requests per second at the peak": f"{demand.per_second:.1f}",
        "one server": f"{machine.name}, {found.slots} slots of {demand.context} tokens",
        "of which its memory would hold": f"{found.slots_by_memory}",
        "servers": f"{found.servers}",
        "busy at the peak": ", ".join(f"{work} {share:.0%}" for work, share in found.busy.items()),
        "seconds of an answer": f"{found.answer_s:.1f}",
        "requests in flight": f"{found.in_flight:.0f} (slots: {found.servers * found.slots})",
        "frontend processes": f"{found.frontends}",
        "cost per month": f"{found.month:,.0f} (servers at {machine.price} an hour)",
        "per million answers": f"{found.month / (demand.users * demand.requests * 365 / 12) * 1e6:,.0f}",
        "first bottleneck": found.first_bottleneck,
    }
    return "".join(f"{name:<34}{value}\n" for name, value in rows.items())


def main() -> int:
    """Print the plan, and one line of JSON. 1 when the demand does not fit a server at all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__)
    show = "(default: %(default)s)"
    parser.add_argument("--machine", choices=("h100", "cpu"), default="h100", help=show)
    parser.add_argument(
        "--price", type=float, help="of a server and hour (default: 3.0 for h100, 0.1 for cpu)"
    )
    parser.add_argument(
        "--sampling",
        choices=("greedy", "few likely tokens", "served defaults"),
        default="served defaults",
        help=f"how tokens are chosen, h100 only {show}",
    )
    parser.add_argument("--users", type=int, default=1_000_000, help=f"a day {show}")
    parser.add_argument("--requests", type=float, default=5, help=f"of a user and day {show}")
    parser.add_argument("--peak", type=float, default=3, help=f"peak to mean {show}")
    parser.add_argument("--prompt", type=int, default=800, help=f"tokens, history included {show}")
    parser.add_argument("--cached", type=float, default=0.6, help=f"share of it in the prefix cache {show}")
    parser.add_argument("--answer", type=int, default=250, help=f"tokens {show}")
    parser.add_argument("--context", type=int, default=4096, help=f"tokens of a slot {show}")
    parser.add_argument(
        "--slots", type=int, default=0, help="of a server (default: the most that were measured)"
    )
    parser.add_argument("--busy", type=float, default=0.7, help=f"share of the time at the peak {show}")
    parser.add_argument(
        "--frontend-tokens", type=float, default=1500, help=f"per second and frontend, `make scaling` {show}"
    )
    given = parser.parse_args()
    if not 0 < given.busy <= 1 or not 0 <= given.cached < 1:
        parser.error("--busy is above 0 and at most 1, --cached at least 0 and below 1")
    if not given.prompt + given.answer <= given.context <= MOST_CONTEXT:
        parser.error(f"--context holds prompt and answer, and at most {MOST_CONTEXT} tokens")
    if min(given.users, given.requests, given.peak, given.prompt, given.answer, given.frontend_tokens) <= 0:
        parser.error("--users, --requests, --peak, --prompt, --answer and --frontend-tokens are above 0")
    machine = (
        h100(given.sampling, 3.0 if given.price is None else given.price)
        if given.machine == "h100"
        else cpu(0.1 if given.price is None else given.price)
    )
    demand = Demand(
        given.users, given.requests, given.peak, given.prompt, given.cached, given.answer, given.context
    )
    try:
        found = plan(
            machine,
            demand,
            busy_share=given.busy,
            frontend_tokens=given.frontend_tokens,
            slots=given.slots,
        )
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(table(machine, demand, found))
    facts: dict[str, Any] = {"machine": asdict(machine), "demand": asdict(demand), "plan": asdict(found)}
    sys.stdout.write(runs.line(facts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
