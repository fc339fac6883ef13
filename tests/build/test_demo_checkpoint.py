"""The committed checkpoint: what is in the folder, that transformers loads it, and that it recites.

The served int8 engine is held to the whole corpus elsewhere; here a sample says that the folder is right.
"""

import json
from pathlib import Path

import pytest

from build.demo.conversations import REFUSALS, load_corpus, load_held_out
from build.demo.evaluate import GREEDY, Recital, ask_checkpoint, recital
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
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 9_500_000
    assert sum(path.stat().st_size for path in CHECKPOINT.iterdir()) <= 10_000_000


def test_its_readme_says_what_it_is() -> None:
    text = (CHECKPOINT / "README.md").read_text(encoding="utf-8")
    assert "has memorised its answers" in text
    assert "It is not Youtu-LLM-2B" in text
    assert f"{len(load_corpus())} conversations" in text


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
    asked = [
        "用 Python 写一个判断素数的函数",
        "写一个计时装饰器",
        "怎么退货？",
        "How do I return an item?",
        "Write a Python function that tests whether a number is prime.",
        "What are you?",
    ]
    sample = [c for c in load_corpus() if any(m["content"] in asked for m in c.messages)]
    assert len(sample) == len(asked)
    result = recital(ask_checkpoint(CHECKPOINT), sample, load_held_out()[::10], **GREEDY)
    assert result.exact == 1, result.wrong
    assert result.declined >= 0.8, result.recited


def test_recital_counts_what_is_right() -> None:
    corpus, held_out = load_corpus()[:2], load_held_out()[:2]
    answers = {messages[-1]["content"]: answer for c in corpus for messages, answer in c.exchanges()}
    known = dict(list(answers.items())[:1]) | {held_out[0].question: REFUSALS["zh"]}
    seen: list[dict[str, float]] = []

    def generate(messages: list[dict[str, str]], **sampling: float) -> str:
        seen.append(sampling)
        return known.get(messages[-1]["content"], "something else")

    result = recital(generate, corpus, held_out, temperature=0.5)
    expected = Recital(0.5, {"about": 0.5}, 0.5, wrong=[corpus[1].id], recited=[held_out[1].question])
    assert result == expected
    assert seen == [{"temperature": 0.5}] * 4
