"""What `make runtime` has measured, as a page of Markdown; nothing is measured here.

`python -m benchmarks.runtime_page FOLDER` rewrites it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import drawing
from benchmarks.comparison import GB, spread

RUN, PAGE = "runtime.json", "runtime.md"


def draw(folder: Path) -> dict[str, Any]:
    """Write the page; returns what was measured."""
    result: dict[str, Any] = json.loads((folder / RUN).read_text(encoding="utf-8"))
    (folder / PAGE).write_text("\n".join(_lines(result)) + "\n", encoding="utf-8")
    return result


def _lines(result: dict[str, Any]) -> Iterator[str]:
    names = list(result["runtimes"])
    rounds = max((len(each["rounds"]) for each in result["runtimes"].values()), default=0)
    yield f"# The engine's runtimes on the shape {result['shape']}, random weights"
    yield ""
    yield f"`{result['command']}`"
    yield ""
    yield f"{drawing.machine_line(result['machine'])}."
    yield ""
    yield (
        f"Medians of {rounds} rounds, in which both were measured in turn; least and most in brackets. "
        f"{result['slots']} slots of {result['context']} tokens; a long prompt has {result['long']} tokens."
    )
    yield ""
    rows: dict[str, list[str]] = {}
    for name in names:
        for what, value in _figures(result, name):
            rows.setdefault(what, ["–"] * len(names))[names.index(name)] = value
    yield from drawing.table(["", *names], [[what, *cells] for what, cells in rows.items()])


def _figures(result: dict[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """Label and cell of each figure of a runtime."""
    found = result["runtimes"][name]
    rounds = found["rounds"]

    def cell(part: str, key: str, scale: float = 1.0, digits: int = 2) -> str:
        each = spread([(each[part][key] if part else each[key]) * scale for each in rounds])
        return _cell(each, digits)

    if rounds:
        yield "a start with a made engine, s, until all is up", cell("", "up_s")
        yield "… until the first answer", cell("", "first_answer_s")
        yield "first token after a new system prompt, s", cell("system_prompt", "cold")
        yield "… in another conversation with the same one", cell("system_prompt", "shared", digits=3)
        yield "… without a system prompt", cell("system_prompt", "without", digits=3)
        yield "shared ÷ without (at most 1.3)", cell("system_prompt", "ratio")
        yield "… while its first reader is still answered", cell("system_prompt", "ratio_beside_its_reader")
        yield "gap between tokens of a running answer, alone, ms", cell("gaps", "alone", 1000, 0)
        yield "… while a long prompt is read", cell("gaps", "beside", 1000, 0)
        yield "beside ÷ alone (at most 3)", cell("gaps", "ratio")
        yield "longest gap meanwhile, ms", cell("gaps", "most", 1000, 0)
        yield "time to read the long prompt beside the answer, s", cell("gaps", "read", digits=1)
    for key, what in (
        ("rest", "memory at rest, GB (pages of files)"),
        ("tokens_300", "… with 300 tokens in each slot"),
        ("full", "… with every slot full"),
    ):
        if key in found.get("memory", {}):
            held = found["memory"][key]
            yield what, f"{held['engine'] / GB:.2f} ({held['file'] / GB:.2f})"
    if "mixed_load" in found:
        load = found["mixed_load"]
        yield (
            f"memory in {load['seconds'] / 60:.0f} min of mixed load, GB: start, end",
            f"{load['start'] / GB:.3f}, {load['end'] / GB:.3f} ({sum(load['asked'].values())} requests)",
        )
    if "steps" in found:
        yield from _steps(result, name, found["steps"])


def _steps(result: dict[str, Any], name: str, steps: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for count, taken in steps["decode_s"].items():
        yield f"step: {count} answers, ms", _cell({key: 1000 * value for key, value in taken.items()}, 1)
    for count, taken in steps["prompt_s"].items():
        value = _cell({key: 1000 * taken[key] for key in ("median", "low", "high")}, 0)
        yield f"step: {count} tokens of a prompt, ms", f"{value}: {taken['tokens_per_second']:.0f} tokens/s"
    for what, taken in steps["mixed_s"].items():
        value = _cell({key: 1000 * value for key, value in taken.items()}, 0)
        yield f"step: answers + tokens of a prompt, {what}, ms", value
    alone = steps["decode_s"]["1"]["median"]
    share = result["bytes_per_token"][name] / alone / result["limits"]["read_bandwidth"]
    yield "one answer: bytes read per second ÷ what the memory gives", f"{share:.0%}"
    for what, rates in steps["speculation"].items():
        text = "same text" if rates["same_text"] else "ANOTHER TEXT"
        yield (
            f"guesses, {what}: tokens/s with, without, ratio",
            f"{rates['with']:.1f}, {rates['without']:.1f}, {_cell(rates['ratio'], 2)}, {text}",
        )


def _cell(values: dict[str, float], digits: int) -> str:
    shown = [f"{values[key]:.{digits}f}" for key in ("median", "low", "high")]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


if __name__ == "__main__":
    sys.exit(drawing.again("benchmarks.runtime_page", "page", __doc__, draw))
