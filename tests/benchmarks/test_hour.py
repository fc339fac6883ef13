"""The hour: its shape, what is counted, and the picture; that it plays is seen by `make hour`."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.hour import HOUR_S, SHAPE, Sample, by_phase, draw, rate_at


def test_the_shape() -> None:
    assert 60 * sum(phase.minutes for phase in SHAPE) == HOUR_S
    assert rate_at(0) == ("ramp", 0.1)
    phase, share = rate_at(15 * 60 / 2)
    assert phase == "ramp"
    assert share == pytest.approx(0.35)
    assert rate_at(27 * 60) == ("burst", 1.0)
    assert rate_at(40 * 60)[0] == "outage"
    assert rate_at(HOUR_S + 1) == ("recovery", 0.2)


def test_figures_and_picture(tmp_path: Path) -> None:
    samples = [Sample(60.0 * at, rate_at(60.0 * at)[0], "answered", 0.1 * at, 1.0) for at in range(60)]
    samples += [
        Sample(36 * 60.0, "outage", "broken off", None, 1.0),
        Sample(36 * 60.0, "outage", "lost", None, 9.0),
    ]
    rows = {row["phase"]: row for row in by_phase(samples)}
    assert (rows["outage"]["answered"], rows["outage"]["broken off"], rows["outage"]["lost"]) == (10, 1, 1)
    assert rows["burst"]["first_p50_s"] == pytest.approx(2.7)
    draw(samples, tmp_path / "hour.svg")
    picture = (tmp_path / "hour.svg").read_text()
    assert "<svg" in picture
    nothing = by_phase([])
    assert nothing[0]["first_p50_s"] is None
