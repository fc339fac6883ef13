"""The vocabulary in the GGUF: llama.cpp, transformers and tokenizers give the same ids for the same text.

One difference is llama.cpp's: its regular expressions know letters, not their case. The 'youtu' pre-tokenizer
starts a new word where a capital follows a small letter (camelCase), llama.cpp does not. Ids differ only if
the vocabulary happens to have a merge across that place, which takes letters of several bytes: seen in 12 of
20,000 of these strings, of which 1,939 have such a place. Serving uses tokenizer.json, which is exact.
"""

from __future__ import annotations

import json
import pydoc_data.topics
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from build.chat_template import ChatTemplates
from build.convert import convert
from build.errors import BuildError
from build.tokenizer import (
    CONTROL,
    NORMAL,
    UNUSED,
    USER_DEFINED,
    YOUTU_PATTERNS,
    has_tokenizer,
    load_tokenizer_facts,
)
from tests.build import checkpoints
from tests.build.checkpoints import SMALL, edit_json
from tests.build.llama import Llama
from tests.build.texts import SPECIALS, WRITTEN, texts

DEMO = Path(__file__).parents[2] / "build" / "demo" / "checkpoint"
VOCAB = 4096
INLINE_CASES = tuple(
    pattern.replace(
        "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])", "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
    )
    for pattern in YOUTU_PATTERNS
)
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_SPLIT = LLAMA3_SPLIT.replace("{1,3}", "")


def train(folder: Path, splits: tuple[str, ...], *, ignore_merges: bool = True) -> None:
    """Put a small trained byte-level BPE into the folder; without splits it has GPT-2's own expression."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in splits]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not splits)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*steps, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB - 100,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=SPECIALS[:4],
        show_progress=False,
    )
    english = sorted(pydoc_data.topics.topics.values())[:40]
    tokenizer.train_from_iterator([*english, *WRITTEN * 5], trainer)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in SPECIALS[4:]])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return checkpoints.write(tmp_path / "checkpoint", replace(SMALL, vocab_size=VOCAB))


@pytest.mark.parametrize(
    ("splits", "pre", "ignore_merges"),
    [
        (YOUTU_PATTERNS, "youtu", True),
        (INLINE_CASES, "youtu", True),
        ((LLAMA3_SPLIT,), "llama-bpe", True),
        ((QWEN2_SPLIT,), "qwen2", False),
        ((), "gpt-2", False),
    ],
    ids=["youtu", "youtu with inline case flags", "llama-bpe", "qwen2", "gpt-2"],
)
def test_llama_cpp_transformers_and_tokenizers_agree(
    checkpoint: Path, tmp_path: Path, splits: tuple[str, ...], pre: str, ignore_merges: bool
) -> None:
    """Every id of 2,500 strings: Chinese, English, code, emoji, whitespace, digits, special tokens, any."""
    train(checkpoint, splits, ignore_merges=ignore_merges)
    result = convert(checkpoint, tmp_path / "model.gguf")
    assert result.tokenizer is not None
    assert (result.tokenizer.pre, result.tokenizer.known_pre) == (pre, True)
    compare(checkpoint, tmp_path / "model.gguf", count=2500)


@pytest.mark.skipif(not DEMO.exists(), reason="the demo checkpoint is not built yet")
def test_the_demo_tokenizer_agrees(tmp_path: Path) -> None:
    result = convert(DEMO, tmp_path / "model.gguf")
    assert result.notes == ()
    compare(DEMO, tmp_path / "model.gguf", count=4000)


def compare(checkpoint: Path, model: Path, count: int) -> None:
    fast = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(checkpoint)
    llama = Llama(model)
    merged, differing = 0, []
    for text in texts(count):
        ids = fast.encode(text, add_special_tokens=False).ids
        assert auto.encode(text, add_special_tokens=False) == ids, repr(text)
        assert fast.decode(ids, skip_special_tokens=False) == text, repr(text)
        if llama.tokenize(text) != ids:
            differing.append(text)
        merged += len(ids) < len(text.encode())
    llama.close()
    assert merged > count // 3, "a vocabulary of bytes alone would prove little"
    assert all(text not in WRITTEN and capital_after_small(text) for text in differing), differing
    assert len(differing) < count * 0.002, differing


def capital_after_small(text: str) -> bool:
    """Whether a capital follows a small letter in one run of letters and marks."""
    small = False
    for character in text:
        category = unicodedata.category(character)
        if category in ("Lu", "Lt") and small:
            return True
        small = category == "Ll" or (small and category in ("Lm", "Lo", "Mn", "Mc", "Me"))
    return False


def test_the_stand_in_tokenizer_agrees(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint")
    convert(folder, tmp_path / "model.gguf")
    fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(folder)
    llama = Llama(tmp_path / "model.gguf")
    for text in texts(500):
        ids = fast.encode(text, add_special_tokens=False).ids
        assert llama.tokenize(text) == ids == auto.encode(text, add_special_tokens=False), repr(text)
        assert fast.decode(ids, skip_special_tokens=False) == text, repr(text)
    llama.close()


def test_an_unknown_pre_tokenizer_is_reported(checkpoint: Path, tmp_path: Path) -> None:
    train(checkpoint, (r"\p{N}", r"\s+"))
    result = convert(checkpoint, tmp_path / "model.gguf")
    assert result.tokenizer is not None
    assert (result.tokenizer.pre, result.tokenizer.known_pre) == ("youtu", False)
    assert any("uses an unknown split" in note for note in result.notes)


def test_respected_merges_are_reported(checkpoint: Path, tmp_path: Path) -> None:
    train(checkpoint, YOUTU_PATTERNS, ignore_merges=False)
    assert any(
        "does not ignore merges" in note for note in convert(checkpoint, tmp_path / "model.gguf").notes
    )


def test_types_and_padding(checkpoint: Path, tmp_path: Path) -> None:
    train(checkpoint, YOUTU_PATTERNS)
    facts = load_tokenizer_facts(checkpoint)
    types = dict(zip(facts.tokens, facts.types, strict=True))
    assert len(facts.tokens) == len(set(facts.tokens)) == VOCAB
    assert types["<|user|>"] == CONTROL
    assert types["<think>"] == USER_DEFINED
    assert types["Ġthe"] == NORMAL
    assert facts.tokens[-1] == f"[PAD{VOCAB - 1}]"
    assert facts.types[-1] == UNUSED
    convert(checkpoint, tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    for key, wanted in (("tokens", facts.tokens), ("token_type", facts.types), ("merges", facts.merges)):
        found = reader.get_field(f"tokenizer.ggml.{key}")
        assert found is not None
        assert found.contents() == wanted


def test_both_forms_of_merges_are_read(checkpoint: Path) -> None:
    train(checkpoint, YOUTU_PATTERNS)
    pairs = load_tokenizer_facts(checkpoint).merges
    assert " ".join(json.loads((checkpoint / "tokenizer.json").read_text())["model"]["merges"][0]) == pairs[0]
    edit_json(checkpoint / "tokenizer.json", lambda spec: spec["model"].update(merges=pairs))
    assert load_tokenizer_facts(checkpoint).merges == pairs


def template(first: str | None, last: str | None) -> dict[str, Any]:
    """A post-processor as tokenizer.json has it, inside a sequence as Llama 3 has it."""
    ends = [[{"SpecialToken": {"id": token, "type_id": 0}}] if token else [] for token in (first, last)]
    single = [*ends[0], {"Sequence": {"id": "A", "type_id": 0}}, *ends[1]]
    processing = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    return {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processing]}


@pytest.mark.parametrize(
    ("first", "last", "config", "add_bos", "add_eos"),
    [
        (None, None, {}, False, False),
        ("<|begin_of_text|>", None, {}, True, False),
        ("<|begin_of_text|>", "<|end_of_text|>", {}, True, True),
        ("<|user|>", None, {}, False, False),
        ("<|begin_of_text|>", None, {"add_bos_token": False}, False, False),
        (None, None, {"add_bos_token": True, "add_eos_token": True}, True, True),
        (
            None,
            None,
            {"add_bos_token": True, "bos_token": None},
            True,
            False,
        ),  # config.json still numbers one
    ],
)
def test_add_bos_and_eos(
    tmp_path: Path, first: str | None, last: str | None, config: dict[str, Any], add_bos: bool, add_eos: bool
) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint")
    edit_json(folder / "tokenizer.json", lambda spec: spec.update(post_processor=template(first, last)))
    edit_json(folder / "tokenizer_config.json", lambda value: value.update(config))
    facts = load_tokenizer_facts(folder)
    assert (facts.add_bos, facts.add_eos) == (add_bos, add_eos)
    assert (facts.bos_token, facts.bos_token_id) == ("<|begin_of_text|>", 384)


def test_all_end_tokens_are_collected(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint")
    facts = load_tokenizer_facts(folder)
    assert (facts.eos_token, facts.eos_token_ids) == ("<|end_of_text|>", [385, 389])
    edit_json(folder / "tokenizer_config.json", lambda value: value.update(eos_token={"content": "<|user|>"}))
    edit_json(folder / "config.json", lambda value: value.update(eos_token_id=386))
    facts = load_tokenizer_facts(folder)
    assert (facts.eos_token, facts.eos_token_id, facts.eos_token_ids) == (
        "<|user|>",
        387,
        [387, 385, 389, 386],
    )


def test_the_chat_template_is_found_in_each_place(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint")

    def put(value: object) -> None:
        edit_json(folder / "tokenizer_config.json", lambda config: config.update(chat_template=value))

    def found() -> ChatTemplates:
        return load_tokenizer_facts(folder).templates

    put("from config")
    assert "message['role']" in (found().default or "")
    (folder / "chat_template.jinja").unlink()
    assert found() == ChatTemplates("from config")
    put([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "named"}])
    assert found() == ChatTemplates("named", "tools")
    put([{"name": "rag", "template": "documents"}])
    assert found() == ChatTemplates("documents")
    put([{"name": "rag", "template": "{% if"}, {"name": "default", "template": "a\n{% nosuch %}"}])
    with pytest.raises(BuildError, match=r"tokenizer_config\.json: chat_template default, line 2: .*nosuch"):
        found()
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(BuildError, match=r"chat_template\.jinja: expected UTF-8"):
        found()
    (folder / "chat_template.jinja").unlink()
    put(None)
    assert found() == ChatTemplates(None)
    put(7)
    with pytest.raises(BuildError, match="chat_template must be text, found 7"):
        load_tokenizer_facts(folder)


def test_special_tokens_are_known_by_their_names(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint")
    more = {"unk_token": {"content": "<unk>"}, "pad_token": "<|user|>", "mask_token": None}
    edit_json(folder / "tokenizer_config.json", lambda config: config.update(more))
    assert load_tokenizer_facts(folder).special_tokens == {
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|end_of_text|>",
        "unk_token": "<unk>",
        "pad_token": "<|user|>",
    }


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s["model"].update(type="Unigram"),
            "only byte-level BPE is supported, found model type 'Unigram'",
        ),
        (lambda s: s.pop("model"), "only byte-level BPE is supported, found model type None"),
        (lambda s: s.update(pre_tokenizer=None), "its pre_tokenizer has no ByteLevel step"),
        (lambda s: s["model"]["vocab"].update(x1=640), "token 'x1' has id 640, but the model has 640 tokens"),
        (lambda s: s["added_tokens"][0].update(content="a"), "token 'a' has two ids"),
        (
            lambda s: s["model"].update(merges=["a b", "abc"]),
            "merge 1 must be two tokens without spaces, found 'abc'",
        ),
        (
            lambda s: s["added_tokens"].pop(0),
            "bos_token '<|begin_of_text|>' of tokenizer_config.json is not in",
        ),
    ],
)
def test_a_wrong_tokenizer_is_refused(tmp_path: Path, change: Change, message: str) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint")
    edit_json(folder / "tokenizer.json", change)
    with pytest.raises(BuildError) as caught:
        load_tokenizer_facts(folder)
    assert message in str(caught.value)


def test_a_filler_never_takes_the_text_of_a_token(tmp_path: Path) -> None:
    """llama.cpp aborts the process when two ids share one text."""
    folder = checkpoints.write(tmp_path / "checkpoint")

    def clash(spec: dict[str, Any]) -> None:
        vocab = spec["model"]["vocab"]
        vocab["[PAD300]"] = vocab.pop("<301>")
        vocab.pop("<300>")

    edit_json(folder / "tokenizer.json", clash)
    facts = load_tokenizer_facts(folder)
    assert facts.tokens[300:302] == ["[[PAD300]]", "[PAD300]"]
    assert len(set(facts.tokens)) == len(facts.tokens)


def test_a_slow_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = checkpoints.write(tmp_path / "checkpoint")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BuildError, match=r"has tokenizer_config.json but no tokenizer.json"):
        has_tokenizer(folder)
