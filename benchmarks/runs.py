"""A run's folder: what was asked for (run.json), the raw samples (samples.jsonl), and what follows from them.

`summary` computes everything from these two files, so a run can be drawn again without running.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import metrics, samples
from benchmarks.samples import Sample

RUN, SAMPLES, SUMMARY = "run.json", "samples.jsonl", "summary.json"
BUSY_GENERATOR = 0.7  # share of a core above which the generator itself delays what it measures
SHORT = 1.0  # seconds; of a shorter step the share says more about its beginning than about its requests
SEEN = 0.5  # share of the input: above what templates have in common, below what a prompt asked again has


class Run:
    """Written while it goes on: a sample when it is there, a step's facts when it has ended."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        """Make `folder`; FileExistsError when a run is there already."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.facts = {**facts, "steps": []}
        self._file = (folder / SAMPLES).open("x", encoding="utf-8")
        self._save()

    def add(self, sample: Sample) -> None:
        samples.write(self._file, sample)

    def step(self, **facts: Any) -> None:
        """Note a step that has ended, or was broken off."""
        self.facts["steps"].append(facts)
        self._save()

    def close(self) -> None:
        self._file.close()

    def _save(self) -> None:
        write_json(self.folder / RUN, self.facts)


def read_facts(path: Path) -> dict[str, Any]:
    """The facts of a run as its program wrote them; runs of older versions have the endpoint as "door"."""
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {"endpoint" if key == "door" else key: value for key, value in facts.items()}


def summary(folder: Path) -> dict[str, Any]:
    """The run's facts and the figures of each step; FileNotFoundError or ValueError when it is no run."""
    run = read_facts(folder / RUN)
    target = metrics.Target(**run["target"])
    found = samples.by_step(samples.read(folder / SAMPLES))
    steps = []
    for step in run.pop("steps"):
        figures = metrics.summarise(found.get(step["name"], []), target)
        found_wrong = faults(step, figures, run["max_lateness"], unique=run.get("unique", False))
        steps.append({**step, **figures, "faults": found_wrong})
    knee = metrics.knee([step["tokens_per_second"] for step in steps]) if steps else None
    return {**run, "steps": steps, "knee": None if knee is None else steps[knee]["name"]}


def faults(step: dict[str, Any], figures: dict[str, Any], max_lateness: float, *, unique: bool) -> list[str]:
    """Why a step's figures must not be used; empty when they may. `unique`: no two prompts begin alike."""
    found = []
    late = figures["lateness"].get("p99", 0.0)
    if step["rate"] is not None and late > max_lateness:
        found.append(f"the generator was late: p99 {late * 1000:.1f} ms, limit {max_lateness * 1000:.1f} ms")
    if step["generator_cpu"] > BUSY_GENERATOR and figures["seconds"] >= SHORT:
        found.append(f"the generator took {step['generator_cpu']:.0%} of a core, limit {BUSY_GENERATOR:.0%}")
    if unique and figures["cached_share"] > SEEN:
        found.append(
            f"{figures['cached_share']:.0%} of the input came from the prefix cache, limit {SEEN:.0%}: "
            "the server had been asked the same before"
        )
    if step["interrupted"]:
        found.append("broken off before its end")
    return found


def stamp() -> str:
    """A folder name of the time, in UTC."""
    return datetime.now(timezone.utc).strftime("%Y%m%d-%H%M%S")


def write_json(path: Path, value: Any) -> None:
    """Whole or not at all; floats to six digits, which is below a microsecond."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(json.dumps(_rounded(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(path)


def line(value: Any) -> str:
    """One line of JSON."""
    return json.dumps(_rounded(value), ensure_ascii=False)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_rounded(each) for each in value]
    return value
