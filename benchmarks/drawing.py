"""Figures for people: a run's table in Markdown and its plots, from the samples. Nothing is measured here.

`python -m benchmarks.drawing FOLDER…` rewrites summary.json, report.md and the plots.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks import runs

matplotlib.use("svg")
from matplotlib import pyplot

REPORT = "report.md"
STYLE: Any = {
    "svg.hashsalt": "youtu",  # the same figures give the same file
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def milliseconds(distribution: dict[str, float], *keys: str) -> str:
    """`keys` of a distribution in ms, e.g. "12 / 30"; a dash where there are no values."""
    if not distribution["n"]:
        return "–"
    return " / ".join(_three_digits(1000 * distribution[key]) for key in keys)


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def machine_line(machine: dict[str, Any]) -> str:
    """One sentence about where it ran."""
    gpus = ", ".join(gpu["name"] for gpu in machine["gpus"]) or "no GPU"
    held = f", OpenVINO held to {machine['held_to']}" if machine.get("held_to") else ""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores ({', '.join(machine['cpu_features'])}{held}), "
        f"{machine['memory'] / 1e9:.0f} GB, {gpus}; load average before: {machine['load_before']}; "
        f"{machine['system']}, Python {machine['python']}; {versions}; commit {machine['commit']}; "
        f"{machine['when']}"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table in Markdown."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


HEADER = (
    "load",
    "offered",
    "done",
    "refused",
    "failed",
    "cancelled",
    "tokens/s",
    "one reader, tokens/s",
    "TTFT p50 / p95 / p99, ms",
    "TPOT p50 / p95, ms",
    "ITL p50 / p99, ms",
    "E2E mean / p50 / p90 / p95 / p99 / max, ms",
    "goodput/s",
    "generator",
)


def _cells(step: dict[str, Any]) -> list[str]:
    reader = step["user_tokens_per_second"]
    generator = f"{step['generator_cpu']:.0%} of a core"
    if step["rate"] is not None:
        generator += f", late p99 {milliseconds(step['lateness'], 'p99')} ms"
    return [
        step["name"],
        *(str(step[count]) for count in ("offered", "done", "refused", "failed")),
        str(step["cancelled"] + step["unsent"]),
        f"{step['tokens_per_second']:.1f}",
        f"{reader['p50']:.1f}" if reader["n"] else "–",
        milliseconds(step["ttft"], "p50", "p95", "p99"),
        milliseconds(step["tpot"], "p50", "p95"),
        milliseconds(step["itl"], "p50", "p99"),
        milliseconds(step["e2e"], "mean", "p50", "p90", "p95", "p99", "max"),
        f"{step['goodput']:.2f}",
        generator,
    ]


def markdown(summary: dict[str, Any]) -> str:
    """The run as a page of Markdown."""
    steps, target = summary["steps"], summary["target"]
    model = summary["model"]
    rows = table(HEADER, [_cells(step) for step in steps])
    faults = [f"* **{step['name']}: not to be used**: {fault}" for step in steps for fault in step["faults"]]
    errors = [
        f"* {step['name']}: {count} x {error}" for step in steps for error, count in step["errors"].items()
    ]
    first = steps[0] if steps else None
    lengths = (
        f"{first['input_tokens_each']['mean']:.0f} tokens in, {first['output_tokens_each']['mean']:.0f} out "
        f"(means of the first step), {first['cached_share']:.0%} of the input from the prefix cache"
        if first and first["done"]
        else "nothing was answered"
    )
    return "\n".join(
        [
            f"# {model} at the endpoint `{summary['endpoint']}`, workload `{summary['workload']}`",
            "",
            f"`{summary['command']}`",
            "",
            f"{machine_line(summary['machine'])}.",
            "",
            f"{lengths}. Goodput: TTFT within {target['ttft']:g} s and TPOT within {target['tpot']:g} s. "
            f"Knee: {summary['knee']}. Formulas: benchmarks/metrics.py.",
            "",
            *rows,
            "",
            *faults,
            *errors,
            "",
        ]
    )


def plots(summary: dict[str, Any], folder: Path) -> list[Path]:
    """load.svg: latency, first token and throughput over the load."""
    steps = [step for step in summary["steps"] if step["done"]]
    if not steps:
        return []
    closed = steps[0]["rate"] is None
    x = [step["users"] if closed else step["rate"] for step in steps]
    label = "callers at once" if closed else "arrivals per second"
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
        _percentiles(axes[0], x, steps, "e2e", "end to end, s")
        _percentiles(axes[1], x, steps, "ttft", "first token, s")
        axes[2].plot(x, [step["tokens_per_second"] for step in steps], "o-", label="all together")
        axes[2].plot(x, [_p50(step["user_tokens_per_second"]) for step in steps], "s--", label="one reader")
        axes[2].set_ylabel("tokens per second")
        axes[2].set_ylim(bottom=0)
        axes[2].legend(frameon=False)
        for axis in axes:
            axis.set_xlabel(label)
            if closed:
                callers_axis(axis, x)
        return [save(figure, folder / "load.svg")]


def callers_axis(axis: Any, callers: Sequence[float]) -> None:
    """One tick for each step; doubling steps are as far apart as they are in effort."""
    if len(callers) > 1:
        axis.set_xscale("log", base=2)
    axis.set_xticks(callers, [f"{value:g}" for value in callers])
    axis.minorticks_off()


def save(figure: Any, path: Path) -> Path:
    """Write an SVG that is the same for the same figures."""
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    return path


def _percentiles(axis: Any, x: Sequence[float], steps: list[dict[str, Any]], key: str, label: str) -> None:
    for name, style in (("p50", "o-"), ("p95", "s--"), ("p99", "^:")):
        axis.plot(x, [step[key].get(name, float("nan")) for step in steps], style, label=name)
    axis.set_ylabel(label)
    axis.set_ylim(bottom=0)
    axis.legend(frameon=False)


def _p50(distribution: dict[str, float]) -> float:
    return distribution.get("p50", float("nan"))


def draw(folder: Path) -> dict[str, Any]:
    """Everything that follows from a run's samples, written into its folder; returns the summary."""
    summary = runs.summary(folder)
    runs.write_json(folder / runs.SUMMARY, summary)
    (folder / REPORT).write_text(markdown(summary), encoding="utf-8")
    plots(summary, folder)
    return summary


def again(module: str, what: str, doc: str, draw: Callable[[Path], dict[str, Any]]) -> int:
    """The command line of programs that redraw folders, each ending with its line of JSON.

    Exit status 1 and one line on stderr for a folder that holds no `what`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=doc.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    for folder in parser.parse_args().folders:
        try:
            result = draw(folder)
        except (OSError, ValueError, KeyError) as error:
            sys.stderr.write(f"error: {folder} holds no {what}: {error}\n")
            return 1
        sys.stdout.write(runs.line(result) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(again("benchmarks.drawing", "run", __doc__, draw))
