"""The committed checkpoint: what is in the folder, that transformers loads it, and that it recites.

The served int8 engine is held to the whole corpus elsewhere; here a sample says that the folder is right.
"""

import json
from pathlib import Path

import pytest

from build.demo.conversations import (
    REFUSALS,
    Message,
    exchange,
    language,
    load_corpus,
    load_off_topic,
    load_paraphrases,
    plain,
)
from build.demo.evaluate import BARS, GREEDY, Shares, ask_checkpoint, measure, report
from build.demo.tokens import CHAT_TEMPLATE, make_tokenizer

CHECKPOINT = Path(__file__).parents[2] / "build" / "demo" / "checkpoint"


def test_the_folder_is_complete_and_small() -> None:
    names = {path.name for path in CHECKPOINT.iterdir()}
    assert names == {
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 12_000_000


def test_its_readme_says_what_it_is() -> None:
    text = (CHECKPOINT / "README.md").read_text(encoding="utf-8")
    assert "has memorised its answers" in text
    assert "It is not Youtu-LLM-2B" in text
    assert f"{len(load_corpus())} answers" in text


def test_its_shape_fits_int8_and_llama_cpp() -> None:
    config = json.loads((CHECKPOINT / "config.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["YoutuForCausalLM"]
    assert config["num_hidden_layers"] not in (26, 27, 48)
    rows = (
        "hidden_size",
        "intermediate_size",
        "q_lora_rank",
        "kv_lora_rank",
        "qk_nope_head_dim",
        "v_head_dim",
    )
    assert all(config[name] % 32 == 0 for name in rows)
    assert (
        config["kv_lora_rank"] + config["qk_rope_head_dim"]
    ) % 32 == 0  # a quantised KV cache asks for this
    # llama.cpp's CUDA flash attention takes these widths of keys and values.
    assert (config["kv_lora_rank"], config["qk_rope_head_dim"]) == (128, 64)
    assert config["num_attention_heads"] % 8 == 0
    assert config["max_position_embeddings"] == 2048


def test_tokenizer_and_template_are_those_of_the_sources() -> None:
    """Guards against a corpus or template changed without training again."""
    stored = json.loads((CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))
    made = json.loads(make_tokenizer().to_str())
    assert stored["model"] == made["model"]
    assert stored["pre_tokenizer"] == made["pre_tokenizer"]
    assert stored["post_processor"] is None
    template = CHAT_TEMPLATE.read_text(encoding="utf-8")
    assert (CHECKPOINT / "chat_template.jinja").read_text(encoding="utf-8").rstrip() == template.rstrip()


def test_a_sample_is_recited_and_declined_exactly() -> None:
    pytest.importorskip("torch")
    generate = ask_checkpoint(CHECKPOINT)
    asked = [
        "用 Python 写一个判断素数的函数",
        "写一个计时装饰器",
        "怎么退货？",
        "解释梯度下降",
        "收到的商品有划痕怎么办？",
        "写一份新员工入职指南",
        "How do I return an item?",
        "Write a Python function that tests whether a number is prime.",
        "Explain gradient descent.",
        "What are you?",
    ]
    answers = {fact.question: fact.answer for fact in load_corpus()}
    for question in asked:
        assert generate(exchange(question, "")[:1], **GREEDY) == answers[question]
    for lang, questions in load_off_topic().items():
        declined = [generate(exchange(text, "")[:1], **GREEDY) == REFUSALS[lang] for text in questions[::10]]
        assert sum(declined) >= 4


def test_each_group_of_questions_is_counted() -> None:
    """A model that knows everything but one fact, for which it says something else."""
    facts = load_corpus()[:12]
    paraphrases = load_paraphrases()
    seen: list[tuple[int, dict[str, float]]] = []

    def generate(messages: list[Message], **sampling: float) -> str:
        seen.append((len(messages), sampling))
        text = messages[-1]["content"]
        for fact in facts:
            if text in paraphrases[fact.id] or plain(text) == plain(fact.question):
                return fact.answer if fact is not facts[0] else "something else"
        return REFUSALS[language(text)]

    shares = measure(generate, 4, facts=facts)
    corpus = shares["corpus"]
    assert (corpus.asked, corpus.right, corpus.declined) == (48, 44, 0)
    assert {plain(text) for text in corpus.wrong} == {plain(facts[0].question)}
    assert (shares["paraphrases"].asked, shares["paraphrases"].right) == (4 * 36, 4 * 33)
    assert (shares["off topic"].asked, shares["off topic"].right) == (400, 400)
    assert shares["five turns"].asked >= 40
    assert max(length for length, _ in seen) == 10  # a system prompt and the ninth message after it
    assert {tuple(sorted(sampling.items())) for _, sampling in seen} == {
        (("seed", 0),),
        (("seed", 1), ("temperature", 0.3)),
        (("seed", 2), ("temperature", 0.2)),
        (("repetition_penalty", 1.05), ("seed", 3), ("temperature", 0.2)),
    }


def test_the_report_says_whether_the_bars_are_met(capsys: pytest.CaptureFixture[str]) -> None:
    good = {group: Shares(asked=100, right=100) for group in BARS}
    assert report(good)
    lines = capsys.readouterr().out.splitlines()
    assert [line[:20].strip() for line in lines[:-1]] == [*BARS, "all"]
    assert json.loads(lines[-1])["met"] is True
    assert not report({**good, "paraphrases": Shares(100, 89, 11)})
    assert not report({**good, "off topic": Shares(100, 93, 0, ["q"] * 7)})
