"""`make quality`: Chinese, code and mathematics through POST /v1/chat/completions, scored here.

The project's own items (`items/`, 30 each), or others in the same form (--items chinese=FILE.jsonl);
published data sets are another program's, `published.py`. Each run leaves a folder with every question and
answer (answers.jsonl), from which `--again FOLDER` scores without asking, and ends with one line of JSON
on standard output. Ctrl-C keeps what was answered.

Exit status: 0; 1 when it could not run; 3 when questions stayed without an answer; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import requests

from benchmarks import machine, runs
from benchmarks.drawing import machine_line, table
from benchmarks.measuring import say
from benchmarks.quality.sandbox import SandboxError
from benchmarks.quality.scoring import SCORES, wilson
from benchmarks.served import CannotStart, Served
from build.engine import make_engine
from build.engine_info import CHAT_TEMPLATE

ITEMS = Path(__file__).with_name("items")
ANSWERS, RUN, RESULT, PAGE = "answers.jsonl", "quality-run.json", "quality.json", "quality.md"
TIMEOUT = 600  # s for one answer
ASKED = {
    "chinese": "{question}\n{choices}\n请只回答一个选项的字母，格式为“答案：X”。",
    "maths": "{question}\n请一步一步算，最后一行写“答案：数字”。\n"
    "Work step by step and end with a line 'Answer: NUMBER'.",
    "code": "{prompt}\n只用 Python 标准库，把完整的代码放在一个 ```python 代码块里。\n"
    "Use Python's standard library only, and put the whole code into one ```python block.",
}


def prompt(kind: str, item: Mapping[str, Any]) -> str:
    """What is asked about an item."""
    choices = "\n".join(
        f"{letter}. {text}" for letter, text in zip("ABCD", item.get("choices", ()), strict=False)
    )
    return ASKED[kind].format(**{**item, "choices": choices})


def read_items(kind: str, path: Path) -> list[dict[str, Any]]:
    """The items of a .jsonl file. ValueError names the line and the field that is missing."""
    needed = {"chinese": ("question", "choices", "answer"), "maths": ("question", "answer"),
              "code": ("prompt", "tests")}[kind]  # fmt: skip
    items = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            item = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON: {error}") from None
        if missing := [name for name in needed if name not in item]:
            raise ValueError(f"{path}, line {number}: field {missing[0]} is missing")
        items.append({"id": str(number), **item})
    return items


class Asker:
    """Asks /v1 one question, greedy, with a fixed seed."""

    def __init__(self, url: str, api_key: str, *, thinking: bool, max_tokens: int, seed: int) -> None:
        self._url = f"{url}/v1/chat/completions"
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._same: dict[str, Any] = {
            "temperature": 0, "seed": seed, "max_tokens": max_tokens,
            "chat_template_kwargs": {"enable_thinking": thinking},
        }  # fmt: skip

    def __call__(self, question: str) -> dict[str, Any]:
        """Text, end and tokens of the answer. Raises requests.RequestException or ValueError."""
        messages = [{"role": "user", "content": question}]
        body: Any = {"messages": messages, **self._same}
        response = requests.post(self._url, json=body, headers=self._headers, timeout=TIMEOUT)
        if response.status_code != 200:
            raise ValueError(f"{response.status_code}: {response.text[:300]}")
        answer = response.json()
        choice = answer["choices"][0]
        return {
            "text": choice["message"]["content"] or "",
            "finish_reason": choice["finish_reason"],
            "tokens": answer["usage"]["completion_tokens"],
        }


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    try:
        if options.again:
            return _finish(options.again)
        with ExitStack() as stack:
            return _run(options, stack)
    except (OSError, ValueError, CannotStart, SandboxError, requests.RequestException) as error:
        say(f"error: {error}")
        return 1


def _run(options: argparse.Namespace, stack: ExitStack) -> int:
    sets = {kind: read_items(kind, path)[: options.limit] for kind, path in options.items.items()}
    url, template = options.url, "unknown"
    if options.model is not None:
        say(f"starting a server with {options.model}")
        url = stack.enter_context(Served(options.model, options.data_dir)).url
        template = _template_hash(options.model, options.data_dir)
    ask = Asker(
        url, options.api_key, thinking=options.thinking, max_tokens=options.max_tokens, seed=options.seed
    )
    health = requests.get(f"{url}/health", timeout=10).json()
    folder = options.out or Path("var/bench") / f"quality-{runs.stamp()}"
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "kind": "quality",
        "command": shlex.join(["python", "-m", "benchmarks.quality.run", *options.given]),
        "model": health.get("model", "unknown"),
        "thinking": options.thinking,
        "seed": options.seed,
        "max_tokens": options.max_tokens,
        "template_sha256": template,
        "items_sha256": {kind: _sha256(path) for kind, path in options.items.items()},
        "offered": {kind: len(items) for kind, items in sets.items()},
        "machine": machine.facts(),
    }
    runs.write_json(folder / RUN, facts)
    interrupted = False
    with (folder / ANSWERS).open("x", encoding="utf-8") as file:
        try:
            for record in _ask_all(ask, sets, options.concurrency):
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted; what was answered is kept")
    status = _finish(folder)
    return 130 if interrupted else status


def _ask_all(
    ask: Asker, sets: Mapping[str, list[dict[str, Any]]], concurrency: int
) -> Iterator[dict[str, Any]]:
    pool = ThreadPoolExecutor(concurrency)
    try:
        asked = {
            pool.submit(ask, prompt(kind, item)): (kind, item)
            for kind, items in sets.items()
            for item in items
        }
        for number, future in enumerate(as_completed(asked), 1):
            kind, item = asked[future]
            record: dict[str, Any] = {"set": kind, "item": item}
            try:
                record |= future.result()
            except (requests.RequestException, ValueError, KeyError) as error:
                record["error"] = str(error)
            yield record
            if number % 10 == 0 or number == len(asked):
                say(f"{number} of {len(asked)} answers")
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def score(folder: Path) -> dict[str, Any]:
    """The run's facts and the figures of each set, from its answers."""
    run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    results: dict[str, Any] = {}
    lines = (folder / ANSWERS).read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    for kind, offered in run.pop("offered").items():
        answered = [record for record in records if record["set"] == kind and "text" in record]
        verdicts = [SCORES[kind](record["text"], record["item"]) for record in answered]
        right = sum(good for good, _ in verdicts)
        low, high = wilson(right, len(verdicts))
        results[kind] = {
            "offered": offered,
            "answered": len(answered),
            "right": right,
            "share": right / len(verdicts) if verdicts else None,
            "low": low,
            "high": high,
            "cut_off": sum(record["finish_reason"] == "length" for record in answered),
            "verdicts": {
                record["item"]["id"]: {"right": good, "read": read}
                for record, (good, read) in zip(answered, verdicts, strict=True)
            },
        }
    errors = sorted({record["error"] for record in records if "error" in record})
    chinese = results.get("chinese", {}).get("share")
    return {**run, "sets": results, "out_of_ten": None if chinese is None else 10 * chinese, "errors": errors}


def _finish(folder: Path) -> int:
    result = score(folder)
    runs.write_json(folder / RESULT, result)
    (folder / PAGE).write_text(markdown(result), encoding="utf-8")
    say(f"report: {folder / PAGE}")
    sys.stdout.write(runs.line(result) + "\n")
    complete = all(each["answered"] == each["offered"] for each in result["sets"].values())
    return 0 if complete else 3


def markdown(result: Mapping[str, Any]) -> str:
    """The figures as a page of Markdown."""
    rows = []
    for kind, each in result["sets"].items():
        share = (
            "–" if each["share"] is None else f"{each['share']:.0%} ({each['low']:.0%} to {each['high']:.0%})"
        )
        rows.append([kind, str(each["offered"]), str(each["answered"]), str(each["right"]), share,
                     str(each["cut_off"])])  # fmt: skip
    ten = "–" if result["out_of_ten"] is None else f"{result['out_of_ten']:.1f}"
    return "\n".join(
        [
            f"# Quality of {result['model']}",
            "",
            f"`{result['command']}`",
            "",
            f"Greedy, seed {result['seed']}, at most {result['max_tokens']} tokens, thinking "
            f"{'on' if result['thinking'] else 'off'}; chat template {result['template_sha256'][:12]}. "
            f"Chinese out of ten: {ten} (ten times the share of right answers).",
            "",
            *table(("set", "items", "answered", "right", "share (95 %, Wilson)", "cut off"), rows),
            "",
            *(f"* without an answer: {error}" for error in result["errors"]),
            f"{machine_line(result['machine'])}.",
            "",
        ]
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _template_hash(model: str, data_dir: Path) -> str:
    """Of the chat template of a model whose server is up, and whose engine is made therefore."""
    engine = make_engine(model, data_dir)
    return _sha256(engine.path / CHAT_TEMPLATE) if engine.chat_template else "none"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.run", description=__doc__)
    add = parser.add_argument
    add("--model", help="start a server with this model; without it, one that runs is asked")
    add("--url", default="http://127.0.0.1:8080", help="frontend (default: %(default)s)")
    add("--api-key", default="")
    add("--data-dir", type=Path, default=Path("var/bench/server"))
    add("--sets", default=",".join(SCORES), help="of the project's own items (default: %(default)s)")
    add("--items", action="append", default=[], metavar="SET=FILE", help="items of one's own for a set")
    add("--limit", type=int, help="so many items of each set")
    add("--thinking", action="store_true", help="let the model think first")
    add("--max-tokens", type=int, default=1024)
    add("--concurrency", type=int, default=4)
    add("--seed", type=int, default=0)
    add("--again", type=Path, metavar="FOLDER", help="score the answers of a run again")
    add("--out", type=Path, help="folder of the run (default: var/bench/quality-TIME)")
    options = parser.parse_args(arguments)
    options.given = sys.argv[1:] if arguments is None else arguments
    own = dict(pair.split("=", 1) for pair in options.items)
    if unknown := [name for name in [*options.sets.split(","), *own] if name not in SCORES]:
        parser.error(f"there is no set {unknown[0]!r}; there are {', '.join(SCORES)}")
    options.items = {
        kind: Path(own.get(kind, ITEMS / f"{kind}.jsonl"))
        for kind in dict.fromkeys([*options.sets.split(","), *own])
    }
    return options


if __name__ == "__main__":
    sys.exit(main())
