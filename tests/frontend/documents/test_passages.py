"""Passages: where they end, and which are found for a question."""

from __future__ import annotations

from array import array
from collections import Counter

import pytest

from frontend.documents.formats import Part, sections
from frontend.documents.passages import WIDTH, passages, width
from frontend.documents.ranking import question_words, ranked
from frontend.documents.reader import Contents, Passage
from frontend.documents.words import words

CHINESE = "员工请年假须提前三个工作日在系统中提交申请。" * 60
ENGLISH = "Every parcel is checked twice before it leaves the warehouse. " * 60


@pytest.mark.parametrize("text", [CHINESE, ENGLISH, "x" * 5000, "字" * 5000, "a\n" * 3000, "a. b\n\n" * 900])
def test_passages_are_the_whole_text_in_pieces_of_one_size(text: str) -> None:
    found = [each.text for each in passages([Part(text)])]
    assert "".join("".join(found).split()) == "".join(text.split())
    assert max(map(width, found)) <= WIDTH
    assert min(map(width, found[:-1])) > WIDTH // 3


def test_they_end_where_sentences_end() -> None:
    for text in (CHINESE, ENGLISH):
        assert all(each.text.rstrip().endswith(("。", ".")) for each in passages([Part(text)]))


def test_small_sections_share_a_passage_and_large_ones_do_not() -> None:
    small = list(passages(sections(["# A", "one", "# B", "two"])))
    assert [each.section for each in small] == ["A"]
    large = list(passages(sections(["# A", ENGLISH[:800], "# B", ENGLISH[:800]])))
    assert [each.section for each in large] == ["A", "B"]
    pages = list(passages([Part("one", page=1), Part("two", page=2)]))
    assert [each.page for each in pages] == [1, 2]


def test_words_are_found_in_both_languages() -> None:
    assert words("The policies on returned parcels") == ["polici", "return", "parcel"]
    assert {"差旅", "差旅费"} <= set(words("差旅费的报销"))
    assert "的" not in words("差旅费的报销")
    assert words("ＡＢＣ１２") == ["abc12"]  # written full width


def contents(*texts: str) -> Contents:
    counted = [Counter(words(text)) for text in texts]
    postings: dict[str, array[int]] = {}
    for at, counts in enumerate(counted):
        for word, count in counts.items():
            postings.setdefault(word, array("I")).extend((at, count))
    lengths = array("I", (counts.total() for counts in counted))
    return Contents("text", 1, tuple(Passage(text, None, None) for text in texts), lengths, postings)


def test_the_best_passage_comes_first_over_all_documents() -> None:
    one = contents("Parcels leave at noon.", "A parcel that is returned is refunded in five days.")
    other = contents("年假须提前三天申请。", "出差前须填写申请单，差旅费在三十天内报销。")
    assert ranked([one, other], question_words("When is a returned parcel refunded?"))[0] == (0, 1)
    assert ranked([one, other], question_words("差旅费多久之内报销？"))[0] == (1, 1)
    assert ranked([one, other], question_words("zebra 斑马")) == []
    assert ranked([], question_words("parcel")) == []


def test_rare_words_count_more_and_long_passages_less() -> None:
    found = contents("parcel " * 3, "parcel zebra", "parcel zebra " + "filler " * 80, "parcel", "parcel")
    assert [passage for _, passage in ranked([found], question_words("parcel zebra"))][:2] == [1, 2]


def test_a_question_that_goes_on_brings_the_words_of_the_one_before() -> None:
    found = contents(
        "Annual leave in summer takes ten days.",
        "Sick notes in winter.",
        "Annual leave in winter: five days.",
    )
    alone = ranked([found], question_words("And in winter?"))
    assert alone[0] == (0, 1)
    assert ranked([found], question_words("And in winter?", "How long is annual leave in summer?"))[0] == (
        0,
        2,
    )
