"""What the demonstration's texts have to be, and how questions outside them are made."""

import json
import random
import subprocess
import sys

from build.demo.conversations import (
    HERE,
    REFUSALS,
    corpus_questions,
    language,
    load_corpus,
    load_held_out,
    off_corpus_questions,
    plain,
    spliced_question,
    varied,
)

CORPUS = load_corpus()
SCENES = ("shop", "company", "coding")


def test_corpus_is_large_enough_in_every_scene_and_language() -> None:
    assert len([c for c in CORPUS if c.scene in SCENES]) >= 120
    for scene in SCENES:
        for lang in ("zh", "en"):
            assert len([c for c in CORPUS if (c.scene, c.lang) == (scene, lang)]) >= 20
    assert {c.scene for c in CORPUS} == {*SCENES, "about"}


def test_conversations_with_several_turns_and_with_a_system_prompt() -> None:
    assert len([c for c in CORPUS if len(list(c.exchanges())) > 1]) >= 12
    assert len([c for c in CORPUS if c.messages[0]["role"] == "system"]) >= 15


def test_ids_are_unique_and_questions_of_first_turns_too() -> None:
    assert len({c.id for c in CORPUS}) == len(CORPUS)
    firsts = [plain(next(m["content"] for m in c.messages if m["role"] == "user")) for c in CORPUS]
    assert len(set(firsts)) == len(firsts)


def test_turns_alternate_and_the_assistant_speaks_last() -> None:
    for conversation in CORPUS:
        roles = [message["role"] for message in conversation.messages]
        if roles[0] == "system":
            del roles[0]
        assert roles == ["user", "assistant"] * (len(roles) // 2), conversation.id
        assert roles, conversation.id


def test_answers_are_short_and_code_fences_closed() -> None:
    for conversation in CORPUS:
        for _, answer in conversation.exchanges():
            assert 0 < len(answer) <= 400, conversation.id
            assert answer == answer.strip("\n"), conversation.id
            assert answer.count("```") % 2 == 0, conversation.id


def test_python_in_fences_compiles() -> None:
    blocks = 0
    for conversation in CORPUS:
        for _, answer in conversation.exchanges():
            for block in answer.split("```python\n")[1:]:
                source = block.split("```")[0]
                # A method shown alone is indented.
                compile(
                    "class _:\n" + source if source.startswith("    ") else source, conversation.id, "exec"
                )
                blocks += 1
    assert blocks >= 20


def test_language_says_what_the_conversation_is_written_in() -> None:
    for conversation in CORPUS:
        text = "".join(message["content"] for message in conversation.messages)
        assert language(text) == conversation.lang, conversation.id


def test_it_never_claims_to_be_the_real_model() -> None:
    for conversation in CORPUS:
        for _, answer in conversation.exchanges():
            if "Youtu" in answer:
                assert "不是 Youtu-LLM-2B" in answer or "not Youtu-LLM-2B" in answer, conversation.id


def test_held_out_questions_are_never_trained_on() -> None:
    held_out = load_held_out()
    assert len({plain(item.question) for item in held_out}) == 50
    trained = {plain(question) for question in off_corpus_questions()} | corpus_questions()
    assert not [item.question for item in held_out if plain(item.question) in trained]
    assert all(language(item.question) == item.lang for item in held_out)


def test_declined_questions_are_many_and_none_is_of_the_corpus() -> None:
    questions = off_corpus_questions()
    assert len(questions) > 2000
    assert not {plain(question) for question in questions} & corpus_questions()


def test_spliced_questions_are_no_questions_of_the_corpus() -> None:
    rng, known = random.Random(1), corpus_questions()
    firsts = [c.messages[-2]["content"] for c in CORPUS]
    made = [spliced_question(firsts, known, rng) for _ in range(300)]
    assert not {plain(text) for text in made} & known
    assert len(set(made)) > 200


def test_a_varied_question_stays_the_same_question() -> None:
    rng = random.Random(1)
    for conversation in CORPUS:
        question = conversation.messages[-2]["content"]
        for _ in range(20):
            assert plain(varied(question, rng)) == plain(question)


def test_refusals_have_one_sentence_and_name_the_real_model() -> None:
    assert set(REFUSALS) == {"zh", "en"}
    for lang, sentence in REFUSALS.items():
        assert language(sentence) == lang
        assert "MODEL=tencent/Youtu-LLM-2B" in sentence
        assert len(sentence) < 160
        assert "\n" not in sentence


def test_corpus_lines_have_exactly_the_documented_keys() -> None:
    for path in (HERE / "corpus").glob("*.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            assert set(record) == {"id", "scene", "lang", "messages"}
            assert all(set(message) == {"role", "content"} for message in record["messages"])
            assert record["scene"] == path.stem


def test_questions_can_be_read_without_torch() -> None:
    code = (
        "import sys, build.demo.evaluate as e; e.load_corpus(); "
        "assert not {'torch', 'transformers', 'tokenizers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=HERE.parents[1])
