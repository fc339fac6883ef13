"""A .gguf file as the source of an engine: its tokenizer rebuilt id by id, its faults told by name."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from detokenizer import token_bytes
from guide import Guides
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from build.convert import convert
from build.engine import EngineInfo, make_engine
from build.errors import BuildError
from build.gguf_vocabulary import ADDS_BOS, ENDS, IGNORES_MERGES, PATTERNS
from build.random_checkpoint import TINY, write_random_checkpoint
from build.random_gguf import SHAPES, write_random_gguf
from build.tokenizer import PRE_TOKENIZERS
from tests.build.gguf_files import rewrite
from tests.build.llama import Llama
from tests.build.texts import texts

SIZE = 1500
SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|user|>", "<|assistant|>"]
ADDED = ["<think>", "</think>"]  # user-defined: part of the text, not special


def train(pre: str) -> Tokenizer:
    """A byte-level BPE as its publisher would write it: added tokens after the vocabulary, not in it."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=pre in IGNORES_MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in PATTERNS[pre]),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - 100,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(3000, seed=7), trainer)
    spec = json.loads(tokenizer.to_str())
    # words that merges do not reach are whole tokens where merges are ignored, and pieces elsewhere
    spec["model"]["merges"] = [merge for n, merge in enumerate(spec["model"]["merges"]) if n % 5]
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIALS])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in ADDED])
    if pre in ADDS_BOS:
        bos = (SPECIALS[0], tokenizer.token_to_id(SPECIALS[0]))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos[0]} $A", pair=f"{bos[0]} $A {bos[0]} $B", special_tokens=[bos]
        )
    return tokenizer


def publish(folder: Path, pre: str) -> Tokenizer:
    """A checkpoint with a vocabulary a little larger than its tokenizer, as published models have."""
    write_random_checkpoint(folder, replace(TINY, vocab_size=SIZE, num_hidden_layers=2), seed=0)
    tokenizer = train(pre)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": SPECIALS[0], "eos_token": SPECIALS[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").unlink()
    return tokenizer


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    publish(folder / "shop-model", "youtu")
    return convert(folder / "shop-model", folder / "shop-model.gguf").path


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS.values()))
def test_the_tokenizer_comes_back_id_by_id(tmp_path: Path, pre: str) -> None:
    original = publish(tmp_path / "shop-model", pre)
    path = convert(tmp_path / "shop-model", tmp_path / "shop-model.gguf").path
    reader = gguf.GGUFReader(path)
    field = reader.get_field("tokenizer.ggml.pre")
    assert field is not None
    assert field.contents() == pre
    engine = make_engine(str(path), tmp_path)
    rebuilt = Tokenizer.from_file(str(engine.path / "tokenizer.json"))
    strings = texts(2400)
    assert len(strings) >= 2000
    used = set()
    for text in strings:
        ids = original.encode(text, add_special_tokens=False).ids
        used.update(ids)
        assert rebuilt.encode(text, add_special_tokens=False).ids == ids, repr(text)
        for skip in (False, True):
            assert rebuilt.decode(ids, skip_special_tokens=skip) == original.decode(
                ids, skip_special_tokens=skip
            )
    assert rebuilt.get_vocab(with_added_tokens=True) == original.get_vocab(with_added_tokens=True)
    assert rebuilt.encode("a").ids == original.encode("a").ids
    assert engine.add_bos is (pre in ADDS_BOS)
    for added in (*SPECIALS, *ADDED):
        assert rebuilt.token_to_id(added) == original.token_to_id(added)
        assert rebuilt.token_to_id(added) in used


def test_the_engine_links_to_the_file(file: Path, tmp_path: Path) -> None:
    engine = make_engine(str(file), tmp_path)
    assert engine.gguf.is_symlink()
    assert engine.gguf.resolve() == file.resolve()
    made_of = convert_facts(file)
    assert engine == replace(
        engine,
        model_id="shop-model",
        source=str(file.resolve()),
        demo=False,
        description="shop-model, int8 (Q8_0)",
        architecture="deepseek2",
        vocab_size=SIZE,
        context_length=TINY.max_position_embeddings,
        special_tokens={"bos_token": SPECIALS[0], "eos_token": SPECIALS[1]},
        weights="Q8_0",
        chat_template=True,
        gguf_bytes=file.stat().st_size,
        parameters=made_of,
    )
    assert make_engine(str(file), tmp_path) == engine
    template = (file.with_suffix("") / "chat_template.jinja").read_text()
    assert (engine.path / "chat_template.jinja").read_text() == template


def convert_facts(file: Path) -> int:
    """The count of weights, from the engine that the checkpoint itself becomes."""
    return make_engine(str(file.with_suffix("")), file.parent / "var").parameters


def test_a_file_that_has_gone_is_reported(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.gguf"
    copy.write_bytes(file.read_bytes())
    engine = make_engine(str(copy), tmp_path)
    copy.unlink()
    with pytest.raises(BuildError, match=f"points to {copy}, which no longer exists"):
        EngineInfo.load(engine.path)
    with pytest.raises(BuildError, match=r"mine\.gguf: no such file"):
        make_engine(str(copy), tmp_path)


def test_a_file_that_was_replaced_is_taken_in_again(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "mine.gguf"
    copy.write_bytes(file.read_bytes())
    old = make_engine(str(copy), tmp_path)
    os.utime(copy, ns=(0, 999))
    assert make_engine(str(copy), tmp_path).fingerprint != old.fingerprint


def test_weights_cannot_be_chosen_for_a_gguf(file: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"--weights q8_0 does not apply to .*: a \.gguf file is served as it is"
    ):
        make_engine(str(file), tmp_path, weights="q8_0")


def test_end_tokens_of_other_converters_are_found(file: Path, tmp_path: Path) -> None:
    """llama.cpp ends an answer at <|im_end|> whatever the file says, so the engine must know that id too."""

    def say(keys: dict[str, Any]) -> None:
        keys["tokenizer.ggml.tokens"][SIZE - 1] = "<|im_end|>"
        keys["tokenizer.ggml.token_type"][SIZE - 1] = 3
        keys["tokenizer.ggml.eot_token_id"] = 5

    engine = make_engine(str(rewrite(file, tmp_path / "other.gguf", say)), tmp_path)
    eos = gguf.GGUFReader(file).get_field("tokenizer.ggml.eos_token_id")
    assert eos is not None
    assert engine.eos_token_ids == [eos.contents(), 5, SIZE - 1]


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "is not a GGUF file"), (0.01, "is truncated"), (0.9, "is truncated")]
)
def test_a_truncated_file_is_refused(file: Path, tmp_path: Path, share: float, words: str) -> None:
    part = tmp_path / "part.gguf"
    part.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(BuildError, match=f"{re.escape(str(part))} {words}"):
        make_engine(str(part), tmp_path)
    assert not list((tmp_path / "engines").glob("part-*"))


def test_a_file_that_is_one_byte_short_is_refused(file: Path, tmp_path: Path) -> None:
    part = tmp_path / "part.gguf"
    tensors = gguf.GGUFReader(file).tensors
    end = max(int(tensor.data_offset + tensor.n_bytes) for tensor in tensors)
    part.write_bytes(file.read_bytes()[: end - 1])
    with pytest.raises(BuildError, match="is truncated or damaged"):
        make_engine(str(part), tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_a_damaged_header_is_refused_in_words(file: Path, tmp_path: Path, seed: int) -> None:
    """Every fault of the reading library becomes a sentence, or the damage did not matter."""
    draw = np.random.default_rng(seed)
    content = bytearray(file.read_bytes())
    for place in draw.integers(4, 3000, size=8):
        content[place] = draw.integers(0, 256)
    path = tmp_path / "damaged.gguf"
    path.write_bytes(content)
    try:
        make_engine(str(path), tmp_path)
    except BuildError as error:
        assert str(path) in str(error)  # noqa: PT017  (whether it raises depends on the seed)


def test_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "page.gguf"
    path.write_text("<html>Not found</html>")
    with pytest.raises(BuildError, match=r"page\.gguf is not a GGUF file: it starts with b'<htm'"):
        make_engine(str(path), tmp_path)


def delete(key: str) -> Callable[[dict[str, Any]], object]:
    return lambda keys: keys.pop(key)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"general.architecture": "mamba"}, "general.architecture must be one of deepseek2, .*, found mamba"),
        ({"tokenizer.ggml.model": "bert"}, r"tokenizer\.ggml\.model must be gpt2 .* or llama .*, found bert"),
        ({"tokenizer.ggml.model": "llama"}, r"tokenizer\.ggml\.scores must be a list of float"),
        (
            {"tokenizer.ggml.pre": "mine"},
            r"tokenizer\.ggml\.pre must be one of a\.x-4\.0, .*, youtu, found mine",
        ),
        ({"split.count": 3}, "is one of 3 parts"),
        ({"tokenizer.ggml.eos_token_id": SIZE}, f"eos_token_id must be below {SIZE}, found {SIZE}"),
        (delete("tokenizer.ggml.tokens"), r"tokenizer\.ggml\.tokens must be a list of str"),
        (delete("deepseek2.context_length"), r"deepseek2\.context_length must be a whole number"),
        (
            lambda keys: keys["tokenizer.ggml.token_type"].pop(),
            f"token_type has {SIZE - 1} entries for {SIZE} tokens",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    file: Path, tmp_path: Path, change: Any, sentence: str
) -> None:
    path = rewrite(
        file, tmp_path / "other.gguf", change if callable(change) else lambda keys: keys.update(change)
    )
    with pytest.raises(BuildError, match=sentence):
        make_engine(str(path), tmp_path)
    assert not list((tmp_path / "engines").glob("other-*"))


def llama_cpp_agrees(path: Path, folder: Path, strings: list[str]) -> None:
    """The tokenizer of the engine made of `path` against llama.cpp's own."""
    rebuilt = Tokenizer.from_file(str(make_engine(str(path), folder).path / "tokenizer.json"))
    llama = Llama(path)
    for text in strings:
        ids = llama.tokenize(text)
        assert rebuilt.encode(text, add_special_tokens=False).ids == ids, repr(text)
    llama.close()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama with a trained byte-level vocabulary, split as GPT-2 does."""
    folder = tmp_path_factory.mktemp("plain")
    trained = json.loads(train("gpt-2").to_str())
    tokens = [f"[PAD{i}]" for i in range(SIZE)]
    types = [5] * SIZE
    for token, i in trained["model"]["vocab"].items():
        tokens[i], types[i] = token, 1
    for added in trained["added_tokens"]:
        tokens[added["id"]], types[added["id"]] = added["content"], 3 if added["special"] else 4

    def say(keys: dict[str, Any]) -> None:
        merges = [" ".join(merge) for merge in trained["model"]["merges"]]
        keys |= {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
        keys |= {"tokenizer.ggml.merges": merges, "llama.vocab_size": SIZE}
        keys["tokenizer.ggml.eos_token_id"] = tokens.index(SPECIALS[1])

    shape = replace(SHAPES["tiny-llama"], vocab_size=SIZE)
    write_random_gguf(folder / "random.gguf", shape, "plain", weights="f16")
    return rewrite(folder / "random.gguf", folder / "plain.gguf", say)


# Not youtu: llama.cpp takes upper and lower case for one there, the model's own tokenizer.json does not.
@pytest.mark.parametrize("pre", sorted(PATTERNS.keys() - {"youtu"}))
def test_text_is_split_as_llama_cpp_does(plain: Path, tmp_path: Path, pre: str) -> None:
    path = rewrite(plain, tmp_path / "model.gguf", lambda keys: keys.update({"tokenizer.ggml.pre": pre}))
    llama_cpp_agrees(path, tmp_path, texts(700))


def test_a_file_that_names_no_pre_tokenizer_is_split_as_by_default(
    plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = rewrite(plain, tmp_path / "model.gguf", delete("tokenizer.ggml.pre"))
    llama_cpp_agrees(path, tmp_path, texts(300))
    assert "names no pre-tokenizer" in caplog.text


@pytest.mark.parametrize("shape", ["tiny-llama", "tiny-qwen", "tiny-qwen3", "tiny-chatglm", "tiny-baichuan"])
def test_each_architecture_is_taken_in(tmp_path: Path, shape: str) -> None:
    write_random_gguf(tmp_path / "model.gguf", SHAPES[shape], shape)
    engine = make_engine(str(tmp_path / "model.gguf"), tmp_path)
    assert engine.architecture == SHAPES[shape].architecture
    assert engine.description == "model, int8 (Q8_0)"


def sentencepiece(source: Path, target: Path, **keys: Any) -> Path:
    """A file whose vocabulary is of SentencePiece's kind: pieces with scores, and a token for each byte."""
    trainer = trainers.BpeTrainer(vocab_size=SIZE - 300, limit_alphabet=400, show_progress=False)
    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    pieces.train_from_iterator(texts(3000, seed=7), trainer)
    ordered = sorted(pieces.get_vocab().items(), key=lambda pair: pair[1])
    added = [*SPECIALS, *ADDED]
    alphabet = [piece for piece, _ in ordered if len(piece) == 1]
    words = [piece for piece, _ in ordered if len(piece) > 1 and piece not in {*added, *ENDS}]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words, *alphabet, *added]
    types = [
        2,
        3,
        3,
        *[6] * 256,
        *[1] * (len(words) + len(alphabet)),
        *[3] * len(SPECIALS),
        *[4] * len(ADDED),
    ]
    scores = [0.0] * 259 + [-float(n) for n in range(len(words) + len(alphabet) + len(added))]
    spare = SIZE - len(tokens)
    tokens += [f"[PAD{n}]" for n in range(spare)]

    def say(found: dict[str, Any]) -> None:
        for name in [name for name in found if name.startswith("tokenizer.")]:
            del found[name]
        found |= {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": tokens}
        found |= {"tokenizer.ggml.token_type": types + [5] * spare}
        found |= {"tokenizer.ggml.scores": scores + [-1e4] * spare}
        found |= {f"tokenizer.ggml.{name}": value for name, value in keys.items()}

    return rewrite(source, target, say)


@pytest.mark.parametrize("prefix", [None, True, False])
def test_a_sentencepiece_vocabulary_is_read_as_llama_cpp_does(
    plain: Path, tmp_path: Path, prefix: bool | None
) -> None:
    keys = {} if prefix is None else {"add_space_prefix": prefix}
    path = sentencepiece(plain, tmp_path / "model.gguf", **keys)
    llama_cpp_agrees(path, tmp_path, texts(1500))
    engine = make_engine(str(path), tmp_path)
    assert engine.special_tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    assert engine.add_bos
    rebuilt = Tokenizer.from_file(str(engine.path / "tokenizer.json"))
    assert rebuilt.encode("a").ids[0] == engine.bos_token_id
    text = "Grüße 你好 🙂\n  two"
    ids = rebuilt.encode(text, add_special_tokens=False).ids
    assert rebuilt.decode(ids) == text
    # what is served: the space before a word belongs to its token
    table = token_bytes(rebuilt)
    assert b"".join(table[i] for i in ids).decode() == text if prefix is False else f" {text}"


def test_an_answer_of_a_sentencepiece_vocabulary_keeps_to_a_schema(plain: Path, tmp_path: Path) -> None:
    path = make_engine(str(sentencepiece(plain, tmp_path / "model.gguf")), tmp_path).path / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    guide = Guides(path, SIZE).make("regex", "[a-z]+ 你好", frozenset({2}))
    for token in tokenizer.encode("it 你好", add_special_tokens=False).ids[1:]:
        assert guide.allowed()[token]
        guide.take(token)
    assert guide.complete


def test_a_missing_byte_of_a_sentencepiece_vocabulary_is_named(plain: Path, tmp_path: Path) -> None:
    path = sentencepiece(plain, tmp_path / "model.gguf")

    def lose(keys: dict[str, Any]) -> None:
        keys["tokenizer.ggml.tokens"][3 + 0x41] = "<lost>"

    with pytest.raises(BuildError, match="has no token <0x41> for that byte"):
        make_engine(str(rewrite(path, tmp_path / "lost.gguf", lose)), tmp_path)


def without(name: str) -> Callable[[Any], bool]:
    return lambda tensor: tensor.name != name


@pytest.mark.parametrize("name", ["blk.1.attn_q.weight", "token_embd.weight", "output_norm.weight"])
def test_a_missing_tensor_is_named(plain: Path, tmp_path: Path, name: str) -> None:
    path = rewrite(plain, tmp_path / "lost.gguf", lambda keys: None, keep=without(name))
    with pytest.raises(BuildError, match=f"llama.cpp cannot load it: .*{re.escape(name)}") as caught:
        make_engine(str(path), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda keys: keys.update({"llama.attention.head_count": 7}), "cannot load it: "),
        (lambda keys: keys.pop("llama.embedding_length"), "cannot load it: .*embedding_length"),
        # llama.cpp ends its process here
        (lambda keys: keys["tokenizer.ggml.tokens"].__setitem__(300, "a"), "crashes on it .*GGML_ASSERT"),
    ],
)
def test_what_llama_cpp_cannot_load_is_refused_in_one_line(
    plain: Path, tmp_path: Path, change: Any, sentence: str
) -> None:
    with pytest.raises(BuildError, match=f"bad.gguf: llama.cpp ({sentence})") as caught:
        make_engine(str(rewrite(plain, tmp_path / "bad.gguf", change)), tmp_path)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "engines").glob("bad-*"))


def test_weights_that_are_not_numbers_are_refused(plain: Path, tmp_path: Path) -> None:
    content = bytearray(plain.read_bytes())
    norm = next(t for t in gguf.GGUFReader(plain).tensors if t.name == "output_norm.weight")
    content[norm.data_offset : norm.data_offset + 4] = np.float32("nan").tobytes()
    (tmp_path / "nan.gguf").write_bytes(content)
    with pytest.raises(BuildError, match="computes values that are not numbers"):
        make_engine(str(tmp_path / "nan.gguf"), tmp_path)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 98362432\n"


@pytest.mark.parametrize("name", ["*.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer_in_a_checkpoint_is_called_so(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "shop-model"
    publish(folder, "gpt-2")
    found = sorted(folder.glob(name))[0]
    found.write_text(POINTER)
    with pytest.raises(
        BuildError, match=rf"{re.escape(found.name)} is a git-LFS pointer, not the file itself"
    ):
        make_engine(str(folder), tmp_path)


def test_a_git_lfs_pointer_for_a_gguf_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text(POINTER)
    with pytest.raises(BuildError, match=r"model\.gguf is a git-LFS pointer, not the file itself"):
        make_engine(str(tmp_path / "model.gguf"), tmp_path)


def test_a_big_endian_file_is_called_so(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "big.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BuildError, match="is a big-endian GGUF file"):
        make_engine(str(tmp_path / "big.gguf"), tmp_path)


def test_any_part_of_a_split_file_is_called_so(plain: Path, tmp_path: Path) -> None:
    """Only the first part has the metadata."""

    def say(keys: dict[str, Any]) -> None:
        for name in [name for name in keys if name != "general.architecture"]:
            del keys[name]
        keys["split.count"] = 3

    path = rewrite(plain, tmp_path / "model-00002-of-00003.gguf", say)
    with pytest.raises(BuildError, match="is one of 3 parts"):
        make_engine(str(path), tmp_path)


def test_a_template_that_cannot_be_parsed_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shop-model"
    publish(folder, "youtu")
    made = convert(folder, tmp_path / "good.gguf").path
    template = (folder / "chat_template.jinja").read_bytes()
    broken = b"{{ a }}\n{% if %}".ljust(len(template))
    (tmp_path / "bad.gguf").write_bytes(made.read_bytes().replace(template, broken))
    with pytest.raises(BuildError, match=r"bad\.gguf: tokenizer\.chat_template, line 2: .*cannot be parsed"):
        make_engine(str(tmp_path / "bad.gguf"), tmp_path / "var")
