"""The comparison table as Markdown, JSON and plots, from table-run.json and the load folders beside it.

`python -m benchmarks.table_drawing FOLDER` rewrites them; nothing is measured here. The article's figures
stand beside ours, and a sentence says where the two cannot both be right.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from matplotlib import pyplot

from benchmarks import drawing, runs

RUN, TABLE, PAGE, PLOT = "table-run.json", "table.json", "table.md", "table.svg"
FIRST = "Youtu-LLM-2B"
GB = 1e9
RUNTIMES = {"llama_cpp": "llama.cpp", "openvino": "OpenVINO"}
BITS = {"q8_0": 8, "q4_0": 4}  # of a weight alone, without the scales
KEPT = ("name", "users", "rate", "tokens_per_second", "e2e", "ttft", "done")
CONTRADICTS = 1.25  # ratios that differ by more than a quarter are said to differ


def summarise(folder: Path) -> dict[str, Any]:
    """The table as values; FileNotFoundError or ValueError when the folder holds none."""
    run = runs.read_facts(folder / RUN)
    table = [_row(folder, row) for row in run.pop("rows")]
    for row in table:
        # ratios say how models compare, not runtimes
        base = next((each for each in table if _is_base(each, row)), None)
        row["ratios"] = _ratios(row, base)
        row["contradictions"] = list(_contradictions(row, base))
    return {**run, "rows": table}


def _is_base(candidate: dict[str, Any], row: dict[str, Any]) -> bool:
    return bool(candidate["name"] == FIRST and candidate["runtime"] == row["runtime"])


def _row(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    measured = row.pop("measured") or {"not_measured": "not reached"}
    row.setdefault("runtime", "llama_cpp")  # of older tables
    if "not_measured" in measured:
        return {**row, **measured, "faults": []}
    load = runs.summary(folder / measured["folder"])
    steps = [step for step in load["steps"] if step["done"]]
    if not steps:
        return {**row, "not_measured": "no answer was finished", "faults": []}
    best = max(steps, key=lambda step: float(step["tokens_per_second"]))
    one = steps[0]
    quality = measured.get("quality_folder")
    return {
        **row,
        **measured,
        "quality": None if quality is None else _marks(folder / quality),
        "command": load["command"],
        "input_tokens": one["input_tokens_each"]["mean"],
        "output_tokens": one["output_tokens_each"]["mean"],
        "answers": sum(step["done"] for step in steps),
        "memory": _memory(measured),
        "response": one["e2e"],
        "ttft": one["ttft"],
        "tpot": one["tpot"],
        "tokens_per_second_one": one["tokens_per_second"],
        "tokens_per_second_best": best["tokens_per_second"],
        "best_load": best["name"],
        "steps": [{key: step[key] for key in KEPT} for step in steps],
        "faults": [f"{step['name']}: {fault}" for step in load["steps"] for fault in step["faults"]],
    }


def _marks(folder: Path) -> dict[str, Any]:
    """What `make quality` left: Chinese out of ten, code and maths as shares, and of how many items each."""
    result = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    shares = {kind: each["share"] for kind, each in result["sets"].items()}
    return {"chinese": result["out_of_ten"], "shares": shares, "thinking": result["thinking"],
            "n": {kind: each["answered"] for kind, each in result["sets"].items()}}  # fmt: skip


def _memory(measured: dict[str, Any]) -> float | None:
    """Bytes: the device's, where there is a GPU; else the peak of the engine's process, if known."""
    used = [float(gpu["used"]) for gpu in measured["gpus_after"]]
    if used:
        return max(used)
    return float(measured["memory_after"]["peak"]) if "memory_after" in measured else None


def _ratios(row: dict[str, Any], base: dict[str, Any] | None) -> dict[str, float]:
    """Ours and the article's, each as a multiple of Youtu-LLM-2B's."""
    if base is None:
        return {}
    found = {f"article_{key}": row["article"][key] / base["article"][key] for key in ("memory", "response")}
    if "response" in row and "response" in base:
        if row["memory"] and base["memory"]:
            found["memory"] = row["memory"] / base["memory"]
        found["response"] = row["response"]["mean"] / base["response"]["mean"]
    return found


def _contradictions(row: dict[str, Any], base: dict[str, Any] | None) -> Any:
    article = row["article"]["memory"]
    if row.get("parameters"):
        least = row["parameters"] * BITS[row["weights"]] / 8 / GB
        if least > article:
            yield (
                f"the article's {article} GB cannot be right: {row['parameters'] / 1e9:.1f} billion weights "
                f"of {BITS[row['weights']]} bits alone are {least:.1f} GB"
            )
    ratios = row.get("ratios", {})
    for key, what in (("memory", "memory"), ("response", "mean response")):
        ours, theirs = ratios.get(key), ratios[f"article_{key}"] if ratios else None
        if base is None or ours is None or theirs is None or row["name"] == base["name"]:
            continue
        if max(ours / theirs, theirs / ours) > CONTRADICTS:
            yield f"{what}: {ours:.2f} times {FIRST}'s here, {theirs:.2f} times in the article"


HEADER = (
    "model",
    "runtime",
    "weights",
    "file, GB",
    "memory, GB: rest / peak (file)",
    "article",
    "mean response, s (95 %)",
    "× Youtu",
    "article, s (× Youtu)",
    "TTFT p50, s",
    "TPOT p50, ms",
    "tokens/s, one caller",
    "tokens/s, best (at)",
    "answers",
    "Chinese · code · maths (article)",
)


RANDOM = (
    "**Random weights** in each model's true shape: speed and memory are what they would be, answers are "
    "noise, so there is no quality to report."
)
TINY = "**Random weights in tiny shapes**: this shows that the measurement works, and nothing else."
ON_A_GPU = "Memory is the GPU's, of the device (NVML); the pool is part of it."
ON_A_CPU = (
    "Memory is the resident memory of the engine's process: after loading, its peak, and how much of it are "
    "pages of the weights' file, which the system may drop (llama.cpp keeps int4 weights a second time, in "
    "an order that suits the processor)."
)
READING = (
    "The mean response is one caller's, from sending to the last token, with its 95 % bootstrap interval. "
    "The article's figures are from an RTX 3070 of 8 GB at lengths it does not state: compare ratios, "
    "not seconds."
)


def markdown(table: dict[str, Any]) -> str:
    """The table as a page of Markdown."""
    random = table["weights"] == "random"
    done = [row for row in table["rows"] if "response" in row]
    settings = table["settings"]
    lines = [
        f"# Comparison table, {'random' if random else 'published'} weights",
        "",
        f"`{table['command']}`",
        "",
        f"{drawing.machine_line(table['machine'])}.",
        "",
    ]
    if random:
        lines += [RANDOM if table["true_shapes"] else TINY, ""]
    if done:
        pool = f"{settings['slots']} slots of {settings['context']} tokens, {settings['kv_type']}"
        length = f"about {done[0]['input_tokens']:.0f} tokens in and {done[0]['output_tokens']:.0f} out"
        gpu = any(row["gpus_after"] for row in done)
        lines += [
            f"KV pool fixed at {pool}. {ON_A_GPU if gpu else ON_A_CPU} Answers: {length}, greedy, at "
            f"the endpoint `{table['endpoint']}`. {READING}",
            "",
        ]
    lines += drawing.table(HEADER, [_cells(row) for row in table["rows"]])
    lines.append("")
    for row in table["rows"]:
        name = _name(row)
        lines += [f"* **{name}**: {sentence}." for sentence in row["contradictions"]]
        lines += [f"* **{name}: not to be used**: {fault}." for fault in row["faults"]]
    lines += ["", f"![Latency, first token, throughput and memory]({PLOT})", ""]
    return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
    article = row["article"]
    quality = f"{_marks_cell(row)} ({article['chinese']} · {article['code']:g} % · {article['maths']:g} %)"
    theirs = f"{article['response']} ({_ratio(row, 'article_response')})"
    if "response" not in row:
        nothing = ["–"] * (len(HEADER) - 6)
        return [
            row["name"], RUNTIMES[row["runtime"]], _weights(row), f"not measured: {row['not_measured']}", "–",
            f"{article['memory']}", *nothing[:2], theirs, *nothing[3:], quality,
        ]  # fmt: skip
    response = row["response"]
    return [
        row["name"],
        RUNTIMES[row["runtime"]],
        _weights(row),
        f"{row['file_bytes'] / GB:.2f}" if "file_bytes" in row else "–",
        _memory_cell(row),
        f"{article['memory']}",
        f"{response['mean']:.2f} ({response['mean_low']:.2f} to {response['mean_high']:.2f})",
        _ratio(row, "response"),
        theirs,
        f"{row['ttft']['p50']:.2f}",
        drawing.milliseconds(row["tpot"], "p50"),
        f"{row['tokens_per_second_one']:.1f}",
        f"{row['tokens_per_second_best']:.1f} ({row['best_load']})",
        str(row["answers"]),
        quality,
    ]


def _name(row: dict[str, Any]) -> str:
    """The model's, with its runtime where it is not the usual one."""
    usual = row["runtime"] == "llama_cpp"
    return str(row["name"]) if usual else f"{row['name']}, {RUNTIMES[row['runtime']]}"


def _weights(row: dict[str, Any]) -> str:
    return "INT8" if row["runtime"] == "openvino" else str(row["weights"].upper())


def _marks_cell(row: dict[str, Any]) -> str:
    marks = row.get("quality")
    if marks is None:
        return "–"
    ten = "–" if marks["chinese"] is None else f"{marks['chinese']:.1f}"
    shares = (marks["shares"].get(kind) for kind in ("code", "maths"))
    return " · ".join([ten, *("–" if share is None else f"{share:.0%}" for share in shares)])


def _ratio(row: dict[str, Any], key: str) -> str:
    return f"{row['ratios'][key]:.2f}" if key in row["ratios"] else "–"


def _memory_cell(row: dict[str, Any]) -> str:
    if row["gpus_after"] or row["memory"] is None:
        rest = max((float(gpu["used"]) for gpu in row["gpus_at_rest"]), default=0.0)
        return "–" if row["memory"] is None else f"{rest / GB:.2f} / {row['memory'] / GB:.2f}"
    rest, pages = row["memory_at_rest"]["engine"], row["memory_after"]["file"]
    return f"{rest / GB:.2f} / {row['memory'] / GB:.2f} ({pages / GB:.2f})"


def plot(table: dict[str, Any], path: Path) -> None:
    """Latency, first token and throughput over the load, and memory beside the article's."""
    rows = [row for row in table["rows"] if "response" in row]
    if not rows:
        return
    with pyplot.rc_context(drawing.STYLE):
        figure, axes = pyplot.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
        for row in rows:
            x = [step["users"] or step["rate"] for step in row["steps"]]
            axes[0].plot(x, [step["e2e"]["p50"] for step in row["steps"]], "o-", label=_name(row))
            axes[1].plot(x, [step["ttft"].get("p50") for step in row["steps"]], "o-")
            axes[2].plot(x, [step["tokens_per_second"] for step in row["steps"]], "o-")
        for axis, label in zip(
            axes, ("end to end, p50, s", "first token, p50, s", "tokens per second"), strict=False
        ):
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
            if rows[0]["steps"][0]["users"]:
                axis.set_xlabel("callers at once")
                drawing.callers_axis(axis, [step["users"] for step in rows[0]["steps"]])
            else:
                axis.set_xlabel("arrivals per second")
        axes[0].legend(frameon=False, fontsize=7)
        place = range(len(rows))
        axes[3].bar(
            [at - 0.2 for at in place], [(row["memory"] or 0) / GB for row in rows], 0.4, label="measured"
        )
        axes[3].bar(
            [at + 0.2 for at in place], [row["article"]["memory"] for row in rows], 0.4, label="article, GPU"
        )
        axes[3].set_xticks(list(place), [_name(row) for row in rows], rotation=20, ha="right", fontsize=7)
        axes[3].set_ylabel("memory, GB")
        axes[3].legend(frameon=False, fontsize=7)
        drawing.save(figure, path)


def draw(folder: Path) -> dict[str, Any]:
    """Write table.json, table.md and the plots, of each model's load too; returns the table."""
    table = summarise(folder)
    for row in table["rows"]:
        if "folder" in row:
            drawing.draw(folder / row["folder"])
    runs.write_json(folder / TABLE, table)
    (folder / PAGE).write_text(markdown(table), encoding="utf-8")
    plot(table, folder / PLOT)
    return table


if __name__ == "__main__":
    sys.exit(drawing.again("benchmarks.table_drawing", "table", __doc__, draw))
