"""The sizing program: its arithmetic by hand, what runs out first, and the page that shows it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.sizing import Demand, Machine, cpu, h100, plan

ROOT = Path(__file__).resolve().parents[2]
MACHINE = Machine(
    name="m",
    source="by hand",
    decode={1: 100.0, 4: 200.0},
    computed={1: 100.0, 4: 200.0},
    prompt=1000.0,
    weights=1000,
    token=1,
    memory=100_000,
    price=2.0,
)
# 86,400 requests a day, one a second; twice that at the peak.
DEMAND = Demand(users=8640, requests=10, peak=2, prompt=1000, cached=0.5, answer=100, context=2000)


def test_by_hand() -> None:
    found = plan(MACHINE, DEMAND, busy_share=0.5, frontend_tokens=150, slots=0)
    # 0.5 s to read 500 new tokens, 0.5 s to write 100 at 200/s: 2 requests/s are 2 busy seconds.
    assert (found.servers, found.slots) == (4, 4)
    assert found.busy == {"reading prompts": 0.25, "writing answers": 0.25}
    # Its own reading, 100 tokens at 50/s, stretched by the quarter of the time that others' prompts take.
    assert found.answer_s == pytest.approx(2.5 / 0.75)
    assert found.in_flight == pytest.approx(2 * 2.5 / 0.75)
    assert found.frontends == 2  # 200 tokens/s, 150 each
    assert found.month == 4 * 2.0 * 730


def test_what_runs_out_first() -> None:
    prompts = plan(MACHINE, replace(DEMAND, cached=0.0), busy_share=0.5, frontend_tokens=150, slots=0)
    assert prompts.first_bottleneck == "reading prompts"
    long = replace(DEMAND, answer=1000)
    small = plan(replace(MACHINE, memory=5000), long, busy_share=0.5, frontend_tokens=150, slots=0)
    assert (small.slots, small.slots_by_memory) == (1, 1)
    assert small.first_bottleneck.startswith("memory: 1 slots fit")
    slow = replace(MACHINE, computed={1: 100.0, 4: 2000.0})
    assert plan(slow, long, busy_share=0.5, frontend_tokens=150, slots=0).first_bottleneck.startswith(
        "choosing"
    )
    with pytest.raises(ValueError, match="0 slots of 2000 tokens fit"):
        plan(replace(MACHINE, memory=2000), DEMAND, busy_share=0.5, frontend_tokens=150, slots=0)


def test_the_measured_machines_are_read() -> None:
    for machine in (h100("greedy", 3.0), h100("served defaults", 3.0), cpu(0.1)):
        assert machine.decode.keys() <= machine.computed.keys()
        assert all(speed > 0 for speed in machine.decode.values())
    assert h100("served defaults", 3.0).decode[32] < h100("greedy", 3.0).decode[32]


def test_the_page_shows_what_the_program_prints() -> None:
    page = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")
    shown = re.findall(r"```console\n\$ (python -m benchmarks\.sizing.*)\n((?:.+\n)+?)```", page)
    assert len(shown) >= 3
    for command, output in shown:
        arguments = command.split()[1:]
        done = subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
        *table, facts = done.stdout.splitlines()
        assert output.splitlines() == table
        assert json.loads(facts)["plan"]["servers"] > 0


def test_assumptions_that_cannot_be_are_refused() -> None:
    for arguments in (["--busy", "0"], ["--cached", "1"], ["--context", "100"], ["--users", "0"]):
        command = [sys.executable, "-m", "benchmarks.sizing", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2
        assert arguments[0] in done.stderr
