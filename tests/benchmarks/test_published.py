"""Published data sets: what is asked of a row, what counts as right, and which task lm-eval is given.

lm-eval itself is not installed for the tests; that its runs reach a server and come back with our marks was
seen by hand (benchmarks/README.md).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.quality.published import SETS, tasks

ITEMS = Path(__file__).parents[2] / "benchmarks" / "quality" / "items"
CEVAL = {"question": "一年有几个月？", "A": "10", "B": "11", "C": "12", "D": "13", "answer": "C"}
CMMLU = {"Question": "一年有几个月？", "A": "10", "B": "11", "C": "12", "D": "13", "Answer": "C"}
HUMANEVAL = {
    "prompt": 'def add(a, b):\n    """Add two numbers."""\n',
    "entry_point": "add",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MBPP = {"text": "Write a function to double.", "test_setup_code": "", "test_list": ["assert double(2) == 4"]}


@pytest.mark.parametrize(("name", "row"), [("ceval", CEVAL), ("cmmlu", CMMLU)])
def test_choices(name: str, row: dict[str, str]) -> None:
    known = SETS[name]
    assert known.ask(row).startswith("一年有几个月？\nA. 10\nB. 11\nC. 12\nD. 13\n")
    assert known.right("答案：C", row)
    assert not known.right("答案：B", row)
    assert not known.right("12", row)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("```python\ndef add(a, b):\n    return a + b\n```", True),
        ("```python\n    return a + b\n```", True),
        ("```python\ndef add(a, b):\n    return a - b\n```", False),
        ("I would rather not.", False),
    ],
)
def test_humaneval_takes_a_whole_function_or_its_rest(answer: str, right: bool) -> None:
    assert SETS["humaneval"].right(answer, HUMANEVAL) is right


def test_mbpp() -> None:
    assert "assert double(2) == 4" in SETS["mbpp"].ask(MBPP)
    assert SETS["mbpp"].right("```python\ndef double(x):\n    return 2 * x\n```", MBPP)
    assert not SETS["mbpp"].right("```python\ndef double(x):\n    return x\n```", MBPP)


def test_a_file_is_read_instead_of_the_hub(tmp_path: Path) -> None:
    (task,) = tasks("ceval", tmp_path / "mine.jsonl", 100)
    assert task["dataset_path"] == "json"
    assert task["dataset_kwargs"] == {"data_files": {"test": str(tmp_path / "mine.jsonl")}}
    assert task["process_results"](CEVAL, ["答案：C"]) == {"right": 1.0}
    assert task["generation_kwargs"]["max_gen_toks"] == 100
    parts = tasks("ceval", None, 100)
    assert {part["dataset_path"] for part in parts} == {"ceval/ceval-exam"}
    assert len({part["task"] for part in parts}) == len(parts) > 5


def test_choices_can_be_compared_by_their_log_probs() -> None:
    (task,) = tasks("cmmlu", Path("mine.jsonl"), 100, log_probs=True)
    assert task["output_type"] == "multiple_choice"
    assert task["doc_to_text"](CMMLU) == "一年有几个月？\nA. 10\nB. 11\nC. 12\nD. 13\n答案："
    assert task["doc_to_choice"][task["doc_to_target"](CMMLU)] == "C"
    with pytest.raises(ValueError, match="--log-probs is for choices, which humaneval has not"):
        tasks("humaneval", None, 100, log_probs=True)


def test_lm_eval_s_own_tasks_pass_by_name() -> None:
    assert tasks("gsm8k_cot_zeroshot", None, 100) == ["gsm8k_cot_zeroshot"]
    with pytest.raises(ValueError, match="--data goes with ceval, cmmlu, humaneval, mbpp, not with gsm8k"):
        tasks("gsm8k", Path("x"), 100)


def test_a_task_in_a_yaml_file_finds_its_data_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("task: mine\ndataset_kwargs: {data_files: {test: mine.jsonl}}\n")
    (task,) = tasks(str(path), None, 100)
    assert task["dataset_kwargs"]["data_files"] == {"test": str(tmp_path / "mine.jsonl")}
    path.write_text("task: mine\n")
    with pytest.raises(ValueError, match=r"mine\.yaml is no task with data_files"):
        tasks(str(path), None, 100)
    with pytest.raises(ValueError, match=r"gone\.yaml is no task"):
        tasks(str(tmp_path / "gone.yaml"), None, 100)


def test_the_everyday_items_are_whole() -> None:
    path = ITEMS / "everyday.yaml"
    (task,) = tasks(str(path), None, 100)
    data = Path(task["dataset_kwargs"]["data_files"]["test"])
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    assert len({row["text"] for row in rows}) == len(rows) == 48
    assert all(len(set(row["choices"])) == 4 and 0 <= row["answer"] < 4 for row in rows)
