"""What the demonstration's texts have to be, and how questions outside them are made."""

import itertools
import random
import subprocess
import sys
from difflib import SequenceMatcher

import tomllib

from build.demo.conversations import (
    HERE,
    PRESETS,
    REFUSALS,
    count,
    every,
    language,
    load_corpus,
    load_declined,
    load_off_topic,
    load_paraphrases,
    matches,
    plain,
    said,
)
from build.demo.rows import Texts
from build.demo.variation import FILLING, misspelt, polite, reworded, varied

CORPUS = load_corpus()
SCENES = ("shop", "company", "coding")
PAGE = HERE.parents[1] / "frontend" / "static"


def declined_questions() -> list[str]:
    questions = []
    for part in load_declined().values():
        questions += part.questions
        for way in part.ways:
            questions += every(way)
        for template in part.templates:
            questions += part.templated(template)
    return questions


def test_corpus_is_large_enough_in_every_scene_and_language() -> None:
    for scene in SCENES:
        for lang in ("zh", "en"):
            assert len([fact for fact in CORPUS if (fact.scene, fact.lang) == (scene, lang)]) >= 9
    assert len(CORPUS) >= 60
    assert {fact.scene for fact in CORPUS} == {*SCENES, "about"}


def test_every_fact_has_many_ways_of_asking_and_a_plain_first_one() -> None:
    for fact in CORPUS:
        assert "[" not in fact.question, fact.id
        assert sum(count(way) for way in fact.asked) >= 50, fact.id
        assert matches(fact.question, fact)


def test_a_way_of_asking_stands_for_each_choice_of_its_alternatives() -> None:
    way = "[how do I|how to] return [it|]"
    assert every(way) == ["how do I return it", "how do I return", "how to return it", "how to return"]
    assert count(way) == 4
    rng = random.Random(1)
    assert {said(way, rng) for _ in range(100)} == set(every(way))


def test_no_question_asks_for_two_facts() -> None:
    asked: dict[str, str] = {}
    for fact in CORPUS:
        for way in fact.asked:
            for question in every(way) if count(way) < 10_000 else ():
                assert asked.setdefault(plain(question), fact.id) == fact.id, question
    for one, other in itertools.permutations(CORPUS, 2):
        assert not matches(one.question, other), (one.id, other.id)


def test_answers_are_short_and_code_fences_closed() -> None:
    for fact in CORPUS:
        assert 0 < len(fact.answer) <= 400, fact.id
        assert fact.answer == fact.answer.strip("\n"), fact.id
        assert fact.answer.count("```") % 2 == 0, fact.id
    assert len({fact.answer for fact in CORPUS}) == len(CORPUS)


def test_python_in_fences_compiles() -> None:
    blocks = 0
    for fact in CORPUS:
        for block in fact.answer.split("```python\n")[1:]:
            compile(block.split("```")[0], fact.id, "exec")
            blocks += 1
    assert blocks >= 12


def test_language_says_what_a_fact_is_written_in() -> None:
    for fact in CORPUS:
        assert language(fact.question + fact.answer) == fact.lang, fact.id


def test_it_never_claims_to_be_the_real_model() -> None:
    for fact in CORPUS:
        if "Youtu" in fact.answer:
            assert "不是 Youtu-LLM-2B" in fact.answer or "not Youtu-LLM-2B" in fact.answer, fact.id


def test_each_fact_has_three_paraphrases_that_are_never_trained_on() -> None:
    paraphrases = load_paraphrases()

    assert set(paraphrases) == {fact.id for fact in CORPUS}
    declined = {plain(question) for question in declined_questions()}
    for texts in paraphrases.values():
        assert len({plain(text) for text in texts}) == 3
        for text in texts:
            assert plain(text) not in declined
            assert not [fact.id for fact in CORPUS if matches(text, fact)], text


def test_a_hundred_questions_off_topic_are_never_trained_on() -> None:
    off_topic = load_off_topic()
    assert len({plain(text) for texts in off_topic.values() for text in texts}) == 100
    declined = {plain(question) for question in declined_questions()}
    for lang, texts in off_topic.items():
        for text in texts:
            assert language(text) == lang
            assert plain(text) not in declined
            assert not [fact.id for fact in CORPUS if matches(text, fact)], text


def test_the_rows_leave_out_what_is_held_out() -> None:
    texts, rng = Texts(0.6), random.Random(3)
    fact = next(fact for fact in CORPUS if fact.id == "about-zh-04")
    texts.held_out = {plain(question) for way in fact.asked[2:] for question in every(way)}
    assert not {plain(texts.question(fact, rng)) for _ in range(300)} & texts.held_out


def test_greetings_are_drawn_often() -> None:
    """None of the short ways of greeting tells of another: in 4,000 draws "hi" came once."""
    texts, rng = Texts(0.6), random.Random(3)
    drawn = [plain(texts.recited(rng)[0]["content"]) for _ in range(4000)]
    assert drawn.count("hi") >= 2
    assert drawn.count("您好") >= 2


def test_words_of_several_questions_make_no_question() -> None:
    texts, rng = Texts(0.6), random.Random(3)
    salads = [texts.salad(rng) for _ in range(300)]
    assert len(set(salads)) > 290
    assert sum(any(matches(text, fact) for fact in CORPUS) for text in salads) <= 3


def test_a_hint_at_a_fact_does_not_ask_for_it() -> None:
    texts, rng = Texts(0.6), random.Random(3)
    hints = [texts.hint(rng) for _ in range(300)]
    assert sum(any(matches(text, fact) for fact in CORPUS) for text in hints) <= 6


def test_declined_questions_are_many_and_none_is_of_the_corpus() -> None:
    questions = declined_questions()
    assert len(questions) > 6000
    for question in questions:
        assert not [fact.id for fact in CORPUS if matches(question, fact)], question


def test_a_varied_question_stays_the_same_question() -> None:
    rng = random.Random(1)
    for fact in CORPUS:
        for _ in range(20):
            assert plain(varied(fact.question, rng)) == plain(fact.question)


def test_a_polite_question_keeps_its_words() -> None:
    rng = random.Random(1)
    for fact in CORPUS:
        for _ in range(10):
            assert plain(fact.question) in plain(polite(fact.question, rng))


def test_a_reworded_question_changes_in_one_place() -> None:
    rng = random.Random(1)
    assert {reworded("How do I return it?", rng) for _ in range(2000)} >= {
        "How can i return it?",
        "How I return it?",
        "How do I actually return it?",
    }
    assert {reworded("怎么退货？", rng) for _ in range(2000)} >= {"如何退货？", "怎么现在退货？"}
    for fact in CORPUS:
        text = reworded(fact.question, rng)
        assert SequenceMatcher(None, text, fact.question, autojunk=False).ratio() > 0.5
    assert reworded("hi", rng) in {"hi", *(f"{word} hi" for word in FILLING["en"].split("|"))}


def test_a_misspelt_question_has_one_character_wrong() -> None:
    rng = random.Random(1)
    for fact in CORPUS:
        for _ in range(10):
            text = misspelt(fact.question, rng)
            assert SequenceMatcher(None, text, fact.question, autojunk=False).ratio() > 0.7
            assert abs(len(text) - len(fact.question)) <= 1
    assert misspelt("hi", rng) == "hi"


def test_refusals_have_one_sentence_and_name_the_real_model() -> None:
    assert set(REFUSALS) == {"zh", "en"}
    for lang, sentence in REFUSALS.items():
        assert language(sentence) == lang
        assert "MODEL=tencent/Youtu-LLM-2B" in sentence
        assert len(sentence) < 160
        assert "\n" not in sentence


def test_the_presets_are_the_pages() -> None:
    words, presets = ((PAGE / name).read_text(encoding="utf-8") for name in ("strings.js", "presets.js"))
    for systems, sampling in PRESETS[1:]:
        assert all(f'"{system}"' in words for system in systems.values())
        values = ", ".join(f"{name}: {value}" for name, value in sampling.items())
        assert f"values: {{ {values} }}" in presets
    assert presets.count('system: "') == len(PRESETS) - 1


def test_the_cards_of_the_page_are_questions_of_the_corpus() -> None:
    words = (PAGE / "strings.js").read_text(encoding="utf-8")
    cards = [line.split('"')[1] for line in words.splitlines() if line.strip().startswith("example_")]
    assert len(cards) == 6
    assert set(cards) <= {fact.question for fact in CORPUS}


def test_facts_have_exactly_the_documented_keys() -> None:
    for path in (HERE / "corpus").glob("*.toml"):
        for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
            assert set(entry) == {"asked", "answer"}
            assert name.split("-")[0] == path.stem


def test_questions_can_be_read_without_torch() -> None:
    code = (
        "import sys, build.demo.evaluate as e; e.load_corpus(); "
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parents[1])
