"""What is asked: lengths, uniqueness, files of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks import workloads
from benchmarks.shared_load import Rung
from benchmarks.workloads import Filler, Messages, Question


def count_tokens(messages: Messages) -> int:
    """As a byte-level tokenizer with a template of 9 tokens would."""
    return 9 + len(messages[-1]["content"].encode())


def fixed(filler: Filler, tokens: int, spread: float = 0.0, **more: Any) -> Iterator[Question]:
    return workloads.fixed(filler, Rung("", 1, 1, tokens, 8, spread).lengths(0), **more)


def test_fixed_prompts_have_the_length_that_was_asked_for() -> None:
    filler = Filler.calibrated(count_tokens)
    for wanted in (40, 64, 1000):
        lengths = {count_tokens(q.messages) for q in islice(fixed(filler, wanted), 20)}
        assert len(lengths) == 1
        assert abs(lengths.pop() - wanted) <= 8  # a word is up to seven bytes long


def test_prompts_begin_differently_unless_the_prefix_cache_is_to_be_measured() -> None:
    filler = Filler(7, 10)
    texts = [q.messages[-1]["content"] for q in islice(fixed(filler, 64), 50)]
    assert len({text[:5] for text in texts}) > 45
    same = [q.messages for q in islice(fixed(filler, 64, unique=False), 5)]
    assert same == same[:1] * 5


def test_the_same_seed_asks_the_same() -> None:
    filler = Filler(7, 10)
    first, same, other = (list(islice(fixed(filler, 64, seed=s), 5)) for s in ("1", "1", "2"))
    assert first == same != other


def test_lengths_differ_by_the_spread_that_was_asked_for_and_are_the_same_for_all() -> None:
    rung = Rung("4 users", 4, 40, 64, 32, 0.5)
    found = list(islice(rung.lengths(3), 200))
    for tokens, wanted in zip(zip(*found, strict=True), (64, 32), strict=True):
        assert wanted / 2 <= min(tokens) < 0.6 * wanted
        assert 1.4 * wanted < max(tokens) <= 1.5 * wanted
    assert found == list(islice(rung.lengths(3), 200)) != list(islice(rung.lengths(4), 200))
    asked = list(islice(fixed(Filler(7, 10), 64, 0.5), 20))
    assert len({len(q.messages[-1]["content"]) for q in asked}) > 5


def test_a_customer_comes_with_the_shop_s_system_prompt() -> None:
    questions = list(islice(workloads.service(), 40))
    assert {q.messages[0]["content"] for q in questions} == {workloads.SERVICE_SYSTEM}
    assert len({q.messages[1]["content"] for q in questions}) == 40
    assert not any(q.exact for q in questions)


def test_a_tokenizer_that_takes_no_notice_of_length_is_refused() -> None:
    with pytest.raises(ValueError, match="no length can be set"):
        Filler.calibrated(lambda _messages: 7)


def test_a_file_of_one_s_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(
        '{"prompt": "你好", "max_tokens": 5}\n\n{"messages": [{"role": "user", "content": "b"}]}\n', "utf-8"
    )
    first, second, third = islice(workloads.from_file(path, max_tokens=9), 3)
    assert (first.messages[-1]["content"], first.max_tokens) == ("(0) 你好", 5)
    assert (second.messages[-1]["content"], second.max_tokens) == ("(1) b", 9)
    assert third.messages[-1]["content"] == "(2) 你好"
    plain = next(workloads.from_file(path, max_tokens=9, unique=False))
    assert plain.messages == [{"role": "user", "content": "你好"}]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "line 1: not JSON"),
        ('["a"]', "line 1: neither a prompt nor"),
        ('{"messages": []}', "line 1: neither a prompt nor"),
        ('{"prompt": "a", "max_tokens": 0}', "max_tokens must be a whole number above 0, not 0"),
        ("", "holds no question"),
    ],
)
def test_a_bad_file_is_refused_by_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(line)
    with pytest.raises(ValueError, match=complaint):
        next(workloads.from_file(path, max_tokens=9))
