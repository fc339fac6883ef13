"""Finding passages for questions: the hit rate is held, and the questions are what they claim."""

from __future__ import annotations

import pytest

from benchmarks.documents.hits import FIRST, Question, questions, ranks, samples
from frontend.documents.reader import Contents

LEAST = 0.9


@pytest.fixture(scope="module")
def documents() -> list[Contents]:
    return samples()


def test_there_are_enough_questions_in_both_languages() -> None:
    asked = questions()
    english = sum(each.text.isascii() for each in asked)
    assert len({each.text for each in asked}) == len(asked) >= 60
    assert 30 <= english <= len(asked) - 30


def test_each_names_one_passage(documents: list[Contents]) -> None:
    texts = [passage.text for each in documents for passage in each.passages]
    for question in questions():
        assert sum(question.passage in text for text in texts) == 1, question


@pytest.mark.parametrize("english", [True, False])
def test_the_right_passage_is_among_the_first(documents: list[Contents], english: bool) -> None:
    asked = [each for each in questions() if each.text.isascii() == english]
    found = ranks(documents, asked)
    hits = sum(rank is not None and rank <= FIRST for rank in found)
    assert hits >= LEAST * len(asked), [each for each, rank in zip(asked, found, strict=True) if rank is None]


def test_a_passage_that_is_not_there_has_no_rank(documents: list[Contents]) -> None:
    asked = [Question("年假有几天？", "no such text"), Question("xyzzy", "年假")]
    assert ranks(documents, asked) == [None, None]
