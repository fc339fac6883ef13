"""Contenders under one and the same load, in turn, several rounds: ratios with their spread.

Two runs of one program minutes apart differ by a fifth on a shared machine, so every round measures everyone
once and ratios are taken within a round. Contenders are names and functions that leave a `make load`
folder.

`python -m benchmarks.comparison FOLDER` draws a comparison again from what it left.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib import pyplot

from benchmarks import drawing, machine, runs
from benchmarks.measuring import NotApplicable, NotMeasured, measure, say

RUN, RESULT, PAGE, PLOT = "comparison-run.json", "comparison.json", "comparison.md", "comparison.svg"
GB = 1e9


@dataclass
class Contender:
    """`measure` runs the load once into a folder, with prompts drawn from a seed, another one each round: a
    server that remembers prompts must not be asked the same again. `memory` says what it holds then (bytes).
    """

    name: str
    what: str
    measure: Callable[[Path, int], None]
    memory: Callable[[], int] | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def through_load(arguments: Sequence[str]) -> Callable[[Path, int], None]:
    """A contender's `measure`: benchmarks.load with these arguments."""
    return lambda place, seed: measure("benchmarks.load", [*arguments, "--seed", str(seed)], place)


def run(folder: Path, facts: dict[str, Any], contenders: Sequence[Contender], rounds: int) -> int:
    """All rounds, then the page; returns the exit status. Ctrl-C keeps what was measured.

    The status is 3 when somebody could not be measured who might have been.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {**facts, "machine": machine.facts(), "contenders": []}
    for each in contenders:
        record["contenders"].append({"name": each.name, "what": each.what, **each.facts, "rounds": []})
    status = 0
    try:
        for number in range(rounds):
            # the first in one round is the last in the next
            order = list(zip(contenders, record["contenders"], strict=True))
            for each, entry in order if number % 2 == 0 else reversed(order):
                if "not_measured" in entry:
                    continue
                say(f"== round {number + 1} of {rounds}: {each.name}")
                place = folder / f"round-{number + 1}" / re.sub(r"[ ,/]+", "-", each.name)
                try:
                    each.measure(place, number)
                    entry["rounds"].append(str(place.relative_to(folder)))
                    if each.memory is not None:
                        entry["memory"] = max(entry.get("memory", 0), each.memory())
                except NotMeasured as error:
                    entry["not_measured"] = str(error)
                    say(f"not measured: {error}")
                    if not isinstance(error, NotApplicable):
                        status = 3
                runs.write_json(folder / RUN, record)
    except KeyboardInterrupt:
        say("interrupted; what was measured is kept")
        status = 130
    runs.write_json(folder / RUN, record)
    result = draw(folder)
    say(f"comparison: {folder / PAGE}")
    sys.stdout.write(runs.line(result) + "\n")
    return status


def summarise(folder: Path) -> dict[str, Any]:
    """Figures of each contender at each load, and its ratios to the first one, round by round."""
    record = json.loads((folder / RUN).read_text(encoding="utf-8"))
    base: dict[str, dict[str, dict[str, Any]]] | None = None
    for entry in record["contenders"]:
        steps = [
            (Path(place).parts[0], step)
            for place in entry["rounds"]
            for step in runs.summary(folder / place)["steps"]
        ]
        own = _by_round(steps)
        base = own if base is None else base
        entry["loads"] = {name: _load(own[name], base.get(name, {})) for name in own}
        for what in ("faults", "errors"):
            entry[what] = sorted({each for _, step in steps for each in step[what]})
    return dict(record)


def _by_round(steps: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Name of a step -> name of the round -> its figures."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for number, step in steps:
        if step["done"]:
            found.setdefault(step["name"], {})[number] = step
    return found


def _load(own: dict[str, dict[str, Any]], base: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds with their extremes, and ratios to the same round of the base."""

    def each(read: Callable[[dict[str, Any]], float | None]) -> dict[str, float]:
        return spread([value for step in own.values() if (value := read(step)) is not None])

    shared = [name for name in own if name in base]
    return {
        "rounds": len(own),
        "done": sum(step["done"] for step in own.values()),
        "input_tokens": each(lambda step: step["input_tokens_each"]["mean"]),
        "output_tokens": each(lambda step: step["output_tokens_each"]["mean"]),
        "tokens_per_second": each(lambda step: step["tokens_per_second"]),
        "prompt_tokens_per_second": each(_prompt_rate),
        "ttft": each(lambda step: step["ttft"].get("p50")),
        "tpot": each(lambda step: step["tpot"].get("p50")),
        "e2e": each(lambda step: step["e2e"]["mean"]),
        "throughput_ratio": spread(
            [own[name]["tokens_per_second"] / base[name]["tokens_per_second"] for name in shared]
        ),
        "prompt_ratio": spread(
            [
                mine / theirs
                for name in shared
                if (mine := _prompt_rate(own[name])) and (theirs := _prompt_rate(base[name]))
            ]
        ),
        "e2e_ratio": spread([own[name]["e2e"]["mean"] / base[name]["e2e"]["mean"] for name in shared]),
    }


def _prompt_rate(step: dict[str, Any]) -> float | None:
    """Tokens of prompt read per second until the first token; None when callers wait for one another."""
    first = step["ttft"].get("p50")
    return step["input_tokens_each"]["mean"] / first if first and step["users"] == 1 else None


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most; empty when there are none."""
    return {"median": median(values), "low": min(values), "high": max(values)} if values else {}


HEADER = ("contender", "load", "tokens/s", "of the first", "prompt tokens/s", "of the first",
          "TTFT p50, ms", "TPOT p50, ms", "mean E2E, ms",
          "of the first", "tokens in / out", "answers", "memory, GB")  # fmt: skip


def markdown(result: dict[str, Any]) -> str:
    """The comparison as a page of Markdown."""
    rows = []
    for entry in result["contenders"]:
        memory = f"{entry['memory'] / GB:.2f}" if "memory" in entry else "–"
        if not entry["loads"]:
            why = entry.get("not_measured", "not reached")
            rows.append([entry["name"], f"not measured: {why}", *["–"] * (len(HEADER) - 2)])
        for name, load in entry["loads"].items():
            answers = name.endswith(("user", "users"))  # else: the answers are there for the prompts only
            cells = [
                _cell(load["tokens_per_second"] if answers else {}, 1),
                _cell(load["throughput_ratio"] if answers else {}, 1, 2),
                _cell(load["prompt_tokens_per_second"], 1),
                _cell(load["prompt_ratio"], 1, 2),
                _cell(load["ttft"], 1000),
                _cell(load["tpot"], 1000),
                _cell(load["e2e"], 1000),
                _cell(load["e2e_ratio"], 1, 2),
            ]
            tokens = f"{load['input_tokens']['median']:.0f} / {load['output_tokens']['median']:.0f}"
            rows.append([entry["name"], name, *cells, tokens, str(load["done"]), memory])
    rounds = max((len(entry["rounds"]) for entry in result["contenders"]), default=0)
    return "\n".join(
        [
            f"# {result['title']}",
            "",
            f"`{result['command']}`",
            "",
            f"{drawing.machine_line(result['machine'])}.",
            "",
            f"Medians of {rounds} rounds, in which all were measured in turn; least and most in brackets. "
            "Ratios are taken within a round.",
            "",
            *drawing.table(HEADER, rows),
            "",
            *(f"* **{entry['name']}**: {entry['what']}" for entry in result["contenders"]),
            *(
                f"* **{e['name']}: not to be used**: {fault}"
                for e in result["contenders"]
                for fault in e["faults"]
            ),
            *(f"* {e['name']}, failed: {error}" for e in result["contenders"] for error in e["errors"]),
            *(f"* {note}" for note in result.get("notes", [])),
            "",
            f"![Throughput and latency]({PLOT})",
            "",
        ]
    )


def _cell(values: dict[str, float], scale: float, digits: int = 1) -> str:
    if not values:
        return "–"
    shown = [f"{values[key] * scale:.{digits}f}" for key in ("median", "low", "high")]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


def draw(folder: Path) -> dict[str, Any]:
    """Write comparison.json, the page and the plot; returns the result."""
    result = summarise(folder)
    runs.write_json(folder / RESULT, result)
    (folder / PAGE).write_text(markdown(result), encoding="utf-8")
    _plot(result, folder / PLOT)
    return result


def _plot(result: dict[str, Any], path: Path) -> None:
    entries = [entry for entry in result["contenders"] if entry["loads"]]
    with pyplot.rc_context(drawing.STYLE):
        figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
        for entry in entries:
            loads = {int(name.split()[0]): load for name, load in entry["loads"].items() if name[0].isdigit()}
            for axis, key in zip(axes, ("tokens_per_second", "ttft", "tpot"), strict=True):
                y = [load[key].get("median", float("nan")) for load in loads.values()]
                axis.plot(list(loads), y, "o-", label=entry["name"])
        for axis, label in zip(axes, ("tokens per second", "first token, s", "per token, s"), strict=True):
            axis.set_xlabel("callers at once")
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
            if entries:
                drawing.callers_axis(axis, list(loads))
        axes[0].legend(frameon=False, fontsize=7)
        drawing.save(figure, path)


if __name__ == "__main__":
    sys.exit(drawing.again("benchmarks.comparison", "comparison", __doc__, draw))
