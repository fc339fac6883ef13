"""Published data sets through the served API, by EleutherAI's lm-eval (`make quality-lm-eval`).

A task is one of lm-eval's own (gsm8k_cot_zeroshot, mgsm_native_cot_zh, …), a .yaml file of its form whose
data lie beside it (benchmarks/quality/items/everyday.yaml), or one of ours:

    ceval, cmmlu       four choices
    humaneval, mbpp    lm-eval's own variants run the code without a sandbox; these use ours (pass@1, greedy)

Ours are fetched by name from the hub, or read from a .jsonl file with the same columns (--data
humaneval=FILE), then without any network. Everything is asked through POST /v1/chat/completions with the
model's own chat template, so a task must be one that generates. With --log-probs TOKENIZER it must be one
of choices instead (ceval, cmmlu; lm-eval's ceval-valid, …): the likeliest is taken, by log-probabilities over
POST /v1/completions, of raw text. The two kinds of figures cannot be compared with each other.

Uses lm-eval and `scoring`; it runs in an environment of its own (requirements/quality.lock).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality import scoring

MAX_TOKENS = 1024
LETTERS = ["A", "B", "C", "D"]
CHOICES = "{question}\nA. {A}\nB. {B}\nC. {C}\nD. {D}\n"
ASK_FOR_LETTER = "请只回答一个选项的字母，格式为“答案：X”。"
BEFORE_LETTER = "答案："
ONE_BLOCK = "Put the whole code into one ```python block."
Doc = Mapping[str, Any]


@dataclass(frozen=True)
class Published:
    """Where a data set is, what is asked about one of its rows, and whether an answer is right.

    `names`: the data set's parts, by their names on the hub; none: it is one.
    """

    path: str
    split: str
    ask: Callable[[Doc], str]
    right: Callable[[str, Doc], bool]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Choices(Published):
    """`text`: the question with its choices; `letter`: the column that says which is right."""

    text: Callable[[Doc], str]
    letter: str


def _choices(
    path: str, split: str, text: Callable[[Doc], str], letter: str, names: tuple[str, ...]
) -> Choices:
    return Choices(
        path,
        split,
        ask=lambda doc: text(doc) + ASK_FOR_LETTER,
        right=lambda answer, doc: scoring.chinese(answer, {"answer": doc[letter]})[0],
        text=text,
        letter=letter,
        names=names,
    )


def _humaneval(answer: str, doc: Doc) -> bool:
    # an answer may go on where the prompt stops, or bring the whole function
    block = scoring.code_of(answer)
    code = block if f"def {doc['entry_point']}" in block else doc["prompt"] + block
    return scoring.passes(
        f"{doc['prompt']}    pass\n{code}", f"{doc['test']}\ncheck({doc['entry_point']})"
    ).passed


def _mbpp(answer: str, doc: Doc) -> bool:
    tests = "\n".join([doc.get("test_setup_code", ""), *doc["test_list"]])
    return scoring.passes(scoring.code_of(answer), tests).passed


SETS: dict[str, Published] = {
    "ceval": _choices(
        "ceval/ceval-exam",
        "val",
        lambda doc: CHOICES.format(**doc),
        "answer",
        ("chinese_language_and_literature", "high_school_chinese", "high_school_history", "logic", "law",
         "high_school_geography", "college_programming", "high_school_mathematics", "basic_medicine"),
    ),
    "cmmlu": _choices(
        "haonan-li/cmmlu",
        "test",
        lambda doc: CHOICES.format(question=doc["Question"], **{letter: doc[letter] for letter in LETTERS}),
        "Answer",
        ("chinese_literature", "modern_chinese", "elementary_chinese", "chinese_food_culture", "global_facts",
         "logical", "computer_science", "college_mathematics", "anatomy", "marketing"),
    ),
    "humaneval": Published(
        "openai/openai_humaneval",
        "test",
        lambda doc: f"Complete this function.\n```python\n{doc['prompt']}\n```\n{ONE_BLOCK}",
        _humaneval,
        (),
    ),
    "mbpp": Published(
        "google-research-datasets/mbpp",
        "test",
        lambda doc: "\n".join([doc["text"], "Your code should pass:", *doc["test_list"], ONE_BLOCK]),
        _mbpp,
        (),
    ),
}  # fmt: skip


def tasks(name: str, file: Path | None, max_tokens: int, *, log_probs: bool = False) -> list[Any]:
    """What lm-eval is to run for a name: its own task by that name, or ours as configurations.

    Raises ValueError for what does not go together.
    """
    if name not in SETS:
        if file is not None:
            raise ValueError(f"--data goes with {', '.join(SETS)}, not with {name}")
        return [_from_yaml(Path(name)) if name.endswith(".yaml") else name]
    known = SETS[name]
    if not log_probs:
        how = _generated(known, max_tokens)
    elif isinstance(known, Choices):
        how = _compared(known)
    else:
        raise ValueError(f"--log-probs is for choices, which {name} has not")
    parts: tuple[str | None, ...] = (None,) if file is not None else known.names or (None,)
    found: list[Any] = []
    for part in parts:
        where: dict[str, Any] = {"dataset_path": known.path, "dataset_name": part, "test_split": known.split}
        if file is not None:
            files = {"test": str(file.resolve())}
            where = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "test_split": "test"}
        found.append(
            {
                "task": f"youtu_{name}" + (f"_{part}" if part else ""),
                **where,
                **how,
                "metadata": {"version": 1.0},
            }
        )
    return found


def _from_yaml(path: Path) -> dict[str, Any]:
    """A task of lm-eval's own form; its data files lie beside it."""
    import yaml

    try:
        task = yaml.safe_load(path.read_text(encoding="utf-8"))
        files = task["dataset_kwargs"]["data_files"]
        task["dataset_kwargs"]["data_files"] = {
            split: str(path.resolve().parent / file) for split, file in files.items()
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no task with data_files: {error!r}") from None
    return dict(task)


def _generated(known: Published, max_tokens: int) -> dict[str, Any]:
    return {
        "output_type": "generate_until",
        "doc_to_text": known.ask,
        "doc_to_target": "",
        "process_results": lambda doc, answers: {"right": float(known.right(answers[0], doc))},
        "generation_kwargs": {"until": [], "do_sample": False, "max_gen_toks": max_tokens},
        "metric_list": [{"metric": "right", "aggregation": "mean", "higher_is_better": True}],
    }


def _compared(known: Choices) -> dict[str, Any]:
    return {
        "output_type": "multiple_choice",
        "doc_to_text": lambda doc: known.text(doc) + BEFORE_LETTER,
        "doc_to_choice": LETTERS,
        "doc_to_target": lambda doc: LETTERS.index(doc[known.letter]),
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }


def _model(options: argparse.Namespace, model: str) -> dict[str, Any]:
    """What lm-eval asks, and how."""
    args = {"model": model, "num_concurrent": options.concurrency, "max_retries": 3}
    if options.log_probs:
        args |= {"base_url": f"{options.url}/v1/completions"}
        args |= {"tokenizer": options.log_probs, "tokenizer_backend": "huggingface"}
        return {"model": "local-completions", "model_args": args}
    args |= {"base_url": f"{options.url}/v1/chat/completions", "tokenized_requests": False}
    return {"model": "local-chat-completions", "model_args": args, "apply_chat_template": True}


def main() -> int:
    options = _parse()
    if options.offline:
        os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"
    data = {name: Path(path) for name, path in (pair.split("=", 1) for pair in options.data)}
    try:
        selected = [
            task
            for name in options.tasks.split(",")
            for task in tasks(name, data.get(name), options.max_tokens, log_probs=bool(options.log_probs))
        ]
        model = options.name or _served_model(options.url)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    import lm_eval

    if options.api_key:
        os.environ["OPENAI_API_KEY"] = options.api_key
    result: Any = lm_eval.simple_evaluate(
        **_model(options, model),
        tasks=selected,
        limit=options.limit,
        random_seed=options.seed,
        bootstrap_iters=0,
        log_samples=True,
    )
    figures = {}
    for task, values in result["results"].items():
        count = result["n-samples"][task]["effective"]
        shares = {key: value for key, value in values.items() if isinstance(value, float)}
        figures[task] = {"n": count, **shares}
        for share in ("right,none", "acc,none"):
            if share in shares:
                figures[task]["low"], figures[task]["high"] = scoring.wilson(
                    round(shares[share] * count), count
                )
    line = {
        "kind": "published",
        "command": shlex.join(["python", "-m", "benchmarks.quality.published", *sys.argv[1:]]),
        "model": model,
        "seed": options.seed,
        "log_probs": bool(options.log_probs),
        "max_tokens": options.max_tokens,
        "lm_eval": lm_eval.__version__,
        "results": figures,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "published.json").write_text(
        json.dumps(line, indent=1, ensure_ascii=False) + "\n", "utf-8"
    )
    with (options.out / "samples.jsonl").open("w", encoding="utf-8") as file:
        for task, samples in result["samples"].items():
            for sample in samples:
                record = {"task": task, "doc": sample["doc"], "answers": sample["filtered_resps"]}
                file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    return 0


def _served_model(url: str) -> str:
    with urllib.request.urlopen(f"{url}/health", timeout=10) as response:  # noqa: S310  the user's own address
        return str(json.load(response)["model"])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.published", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--tasks", default="ceval,gsm8k_cot_zeroshot,mgsm_native_cot_zh,humaneval")
    add("--data", action="append", default=[], metavar="NAME=FILE", help="a .jsonl file instead of the hub")
    add(
        "--log-probs",
        metavar="TOKENIZER",
        help="compare choices by log-probabilities; the model's folder or hub name",
    )
    add("--offline", action="store_true", help="never ask the hub")
    add("--url", default="http://127.0.0.1:8080")
    add("--api-key", default="")
    add("--name", help="the model's name, as /v1 wants it (default: what /health says)")
    add("--limit", type=int, help="so many rows of each task")
    add("--max-tokens", type=int, default=MAX_TOKENS)
    add("--concurrency", type=int, default=4)
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("var/bench/published"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
