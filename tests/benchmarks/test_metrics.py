"""The formulas, against figures worked out by hand; and the file that they can be computed from again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import metrics, runs, samples
from benchmarks.samples import Sample

TARGET = metrics.Target(ttft=1.0, tpot=0.15)


def answer(
    start: float, first: float, gap: float, tokens: int, *, late: float = 0.0, step: str = "s"
) -> Sample:
    """One done answer of single-token pieces."""
    chunks = [start + first + gap * n for n in range(tokens)]
    return Sample(step, start, start + late, chunks, chunks[-1], "done", 10, tokens, 5, "length")


def test_one_answer() -> None:
    one = answer(2.0, 0.5, 0.1, 11)
    assert one.ttft == pytest.approx(0.5)
    assert one.e2e == pytest.approx(1.5)
    assert one.tpot == pytest.approx(0.1)
    assert one.gaps == pytest.approx([0.1] * 10)


def test_pieces_of_several_tokens_have_long_gaps_and_the_same_tpot() -> None:
    """ITL is by piece, TPOT by token: they must not be taken for each other."""
    one = Sample("s", 0.0, 0.0, [1.0, 1.4], 1.4, "done", 10, 9)
    assert one.gaps == pytest.approx([0.4])
    assert one.tpot == pytest.approx(0.05)


def test_latency_counts_from_the_intended_start() -> None:
    late = answer(0.0, 2.0, 0.1, 2, late=1.5)
    assert late.ttft == pytest.approx(2.0)
    figures = metrics.summarise([late], TARGET)
    assert figures["lateness"]["max"] == pytest.approx(1.5)


def test_a_step() -> None:
    step = [
        answer(0.0, 0.5, 0.1, 11),  # within the target
        answer(1.0, 1.5, 0.1, 11),  # first token too late
        answer(2.0, 0.5, 0.2, 6),  # tokens too slow
        Sample("s", 0.0, 0.0, [], 0.1, "refused", error="429: full"),
        Sample("s", 0.0, 0.0, [0.5], 0.6, "failed", error="cut"),
        Sample("s", 0.0, 0.0, [0.5], 0.6, "cancelled"),
        Sample("s", 3.0, outcome="unsent"),
    ]
    figures = metrics.summarise(step, TARGET)
    counts = {name: figures[name] for name in ("offered", "done", "refused", "failed", "cancelled", "unsent")}
    assert counts == {"offered": 7, "done": 3, "refused": 1, "failed": 1, "cancelled": 1, "unsent": 1}
    assert figures["seconds"] == pytest.approx(3.5)  # from 0.0 to the end of the second and third answer
    assert figures["output_tokens"] == 28  # of done answers only
    assert figures["tokens_per_second"] == pytest.approx(28 / 3.5)
    assert figures["goodput"] == pytest.approx(1 / 3.5)
    assert figures["goodput_share"] == pytest.approx(1 / 7)
    assert figures["cached_share"] == pytest.approx(0.5)
    assert figures["user_tokens_per_second"]["p50"] == pytest.approx(10)
    assert figures["ttft"]["n"] == 3
    assert figures["errors"] == {"429: full": 1, "cut": 1}


def test_percentiles_are_not_rounded() -> None:
    """Locust makes 147 ms 150 and 6.4 ms 6; the gaps between tokens live below that."""
    values = metrics.distribution([0.0064, 0.0066, 0.0147, 1.2345])
    assert values["p50"] == pytest.approx((0.0066 + 0.0147) / 2)
    assert values["max"] == 1.2345
    assert values["mean_low"] <= values["mean"] <= values["mean_high"]


def test_nothing_gives_no_figures() -> None:
    figures = metrics.summarise([], TARGET)
    assert figures["e2e"] == {"n": 0}
    assert figures["tokens_per_second"] == 0


def test_the_interval_of_a_mean_shrinks_with_the_count() -> None:
    few, many = ([1.0, 2.0] * n for n in (5, 5000))
    widths = [
        (lambda d: d["mean_high"] - d["mean_low"])(metrics.distribution(values)) for values in (few, many)
    ]
    # 2 x 1.96 x 0.5 / sqrt(n): 0.62 and 0.0196
    assert widths[0] == pytest.approx(0.6, abs=0.1)
    assert widths[1] == pytest.approx(0.0196, rel=0.15)


@pytest.mark.parametrize(
    ("throughputs", "at"),
    [([10.0], 0), ([10.0, 19.0, 30.0], 2), ([10.0, 19.0, 20.0, 18.0], 1), ([10.0, 9.0], 0)],
)
def test_the_knee_is_where_more_load_adds_less_than_a_tenth(throughputs: list[float], at: int) -> None:
    assert metrics.knee(throughputs) == at


def test_samples_survive_their_file_and_a_half_line(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    kept = [answer(0.123456789, 0.5, 0.1, 3), Sample("t", 1.0, error="没有", outcome="failed")]
    with path.open("w") as file:
        for sample in kept:
            samples.write(file, sample)
        file.write('{"step": "t", "inten')
    assert samples.read(path) == kept
    assert list(samples.by_step(kept)) == ["s", "t"]


def test_a_foreign_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text('{"stepp": 1}\n')
    with pytest.raises(ValueError, match="line 1: not a sample"):
        samples.read(path)


def test_what_spoils_a_step() -> None:
    step = {"rate": 2.0, "generator_cpu": 0.1, "interrupted": False}
    figures = metrics.summarise([answer(0, 0.5, 0.1, 13, late=0.05)], TARGET)
    assert "the generator was late: p99 50.0 ms, limit 20.0 ms" in runs.faults(
        step, figures, 0.02, unique=True
    )
    assert runs.faults(step, figures, 0.06, unique=True) == []
    assert runs.faults({**step, "rate": None}, figures, 0.02, unique=True) == []
    short = metrics.summarise([answer(0, 0.5, 0.1, 3)], TARGET)
    assert runs.faults({**step, "generator_cpu": 0.8}, short, 0.06, unique=True) == []
    seen = figures | {"cached_share": 0.9}
    assert "90% of the input" in runs.faults(step, seen, 0.06, unique=True)[0]
    assert runs.faults(step, seen, 0.06, unique=False) == []
    assert "80% of a core" in runs.faults({**step, "generator_cpu": 0.8}, figures, 0.06, unique=True)[0]
