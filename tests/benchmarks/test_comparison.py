"""Contenders in turn: ratios within a round, what could not be measured, the layers of a small engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import comparison, runs
from benchmarks.comparison import Contender
from benchmarks.measuring import NotApplicable, NotMeasured
from benchmarks.samples import Sample
from tests.benchmarks.conftest import ran
from tests.limits import START_S

FACTS = {"kind": "test", "title": "A test", "command": "none"}


def contender(name: str, seconds: list[float], order: list[str] | None = None) -> Contender:
    """Leaves one answer of 10 tokens that took so long, another time each round."""
    left = iter(seconds)

    def measure(place: Path, seed: int) -> None:
        if order is not None:
            order.append(f"{name}{seed}")
        took = next(left)
        run = runs.Run(place, {"target": {"ttft": 1.0, "tpot": 1.0}, "max_lateness": 1.0})
        run.add(Sample("1 user", 0.0, 0.0, [took / 2, took], took, "done", 5, 10))
        run.step(name="1 user", users=1, rate=None, quota=1, generator_cpu=0.1, interrupted=False)
        run.close()

    return Contender(name, "a test", measure, memory=lambda: 3_000_000_000)


def test_ratios_are_taken_within_a_round(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The machine slows down threefold between the rounds; who is how much faster does not change."""
    order: list[str] = []
    both = [contender("a", [1.0, 3.0], order), contender("b", [2.0, 6.0], order)]
    assert comparison.run(tmp_path, FACTS, both, rounds=2) == 0
    assert order == ["a0", "b0", "b1", "a1"]
    result = json.loads(capsys.readouterr().out)
    first, second = (entry["loads"]["1 user"] for entry in result["contenders"])
    assert first["tokens_per_second"] == pytest.approx(
        {"median": 20 / 3, "low": 10 / 3, "high": 10}, rel=1e-4
    )
    assert first["e2e_ratio"] == {"median": 1, "low": 1, "high": 1}
    assert second["e2e_ratio"] == {"median": 2, "low": 2, "high": 2}
    assert second["throughput_ratio"] == {"median": 0.5, "low": 0.5, "high": 0.5}
    page = (tmp_path / "comparison.md").read_text()
    assert "| b | 1 user | 3.3 (1.7 to 5.0) | 0.50 |" in page
    assert "3.00 |" in page  # memory
    kept = {name: (tmp_path / name).read_bytes() for name in ("comparison.md", "comparison.svg")}
    comparison.draw(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in kept} == kept


@pytest.mark.parametrize(("why", "status"), [(NotMeasured, 3), (NotApplicable, 0)])
def test_one_that_cannot_be_measured_says_why_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], why: type[NotMeasured], status: int
) -> None:
    def fail(_place: Path, _seed: int) -> None:
        raise why("it does not know this architecture")

    broken = Contender("broken", "a test", fail)
    assert comparison.run(tmp_path, FACTS, [contender("a", [1.0, 1.0]), broken], rounds=2) == status
    capsys.readouterr()
    assert (
        "| broken | not measured: it does not know this architecture |"
        in (tmp_path / "comparison.md").read_text()
    )


def test_ctrl_c_keeps_the_rounds_before_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_place: Path, _seed: int) -> None:
        raise KeyboardInterrupt

    both = [contender("a", [1.0]), Contender("b", "a test", interrupted)]
    assert comparison.run(tmp_path, FACTS, both, rounds=1) == 130
    result = json.loads(capsys.readouterr().out)
    assert result["contenders"][0]["loads"]["1 user"]["done"] == 1
    assert result["contenders"][1]["loads"] == {}


@pytest.mark.slow
@pytest.mark.load
def test_the_layers_above_an_engine_that_costs_nothing(tmp_path: Path) -> None:
    """Each answer takes as long as its tokens do at the engine's rate, and somebody's time is counted."""
    done = ran(
        "benchmarks.fast.layers", "--users", "2", "--requests-each", "1", "--rounds", "1",
        "--idle-seconds", "5",
        "--output-tokens", "50", "--endpoints", "tokens,v1", "--data-dir", str(tmp_path / "server"),
        "--out", str(tmp_path / "fast"),
        timeout=2 * START_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])
    assert [(row["kind"], row["endpoint"]) for row in rows] == [
        (kind, endpoint) for kind in ("packed", "single") for endpoint in ("tokens", "v1")
    ]
    for row in rows:
        assert 100 < row["tokens_per_second"]["median"] <= 210  # two callers, 100 tokens a second each
        assert row["triton"]["median"] > 0
        alone = row["kind"] == "single" and row["endpoint"] == "tokens"
        assert (row["tokens_per_piece"]["median"] == 1) == alone
    page = (tmp_path / "fast" / "fast.md").read_text()
    assert "| packed | v1 | 2 |" in page
    assert "Idle, the whole server: " in page


@pytest.mark.slow
@pytest.mark.load
def test_the_layers_of_the_demonstration(tmp_path: Path) -> None:
    """All five, real: the same load reaches the engine through each of them."""
    done = ran(
        "benchmarks.layers", "--users", "4", "--requests", "8", "--requests-each", "1",
        "--rounds", "1", "--fast-rounds", "0", "--output-tokens", "12",
        "--data-dir", str(tmp_path / "server"), "--out", str(tmp_path / "layers"),
        timeout=2 * START_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    names = [entry["name"] for entry in result["contenders"]]
    assert names == ["engine alone", "+ Triton", "+ youtu_llm", "+ frontend v1", "+ frontend chat"]
    for entry in result["contenders"]:
        assert entry["loads"]["4 users"]["done"] == 8
        assert abs(entry["loads"]["4 users"]["input_tokens"]["median"] - 48) <= 8
        if entry["name"] != "+ frontend chat":  # which has no min_tokens
            assert entry["loads"]["4 users"]["output_tokens"]["median"] == 12
