"""Take in a .gguf file that somebody else made: link to it, and rebuild its tokenizer as a tokenizer.json.

The weights are not copied: model.gguf in the engine folder is a link, so whoever opens an engine opens the
same name whatever it came from, and a file that has gone is reported as such. A GGUF says less than a
tokenizer.json: how an added token treats the spaces beside it, and any Unicode normalisation, are not in
it. The tokenizer is the one llama.cpp would use.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from build.chat_template import ChatTemplates, check
from build.engine_info import GGUF, TOKENIZER, ModelFacts
from build.errors import BuildError
from build.progress import Report, silent
from build.tokenizer import CONTROL, PRE_TOKENIZERS, UNUSED, USER_DEFINED

PATTERNS = {name: patterns for patterns, name in PRE_TOKENIZERS.items()}
# deepseek2 is Youtu's; the others are those that the benchmarks compare it with.
ARCHITECTURES = ("deepseek2", "qwen2", "chatglm", "baichuan")
# What llama.cpp does per pre-tokenizer: a whole word of the vocabulary is that token, whatever the merges
# say; and a text begins with BOS where the file does not say.
IGNORES_MERGES = {"youtu", "llama-bpe"}
ADDS_BOS = {"llama-bpe"}
# Texts of control tokens at which llama.cpp ends an answer even where the file names one end token only.
ENDS = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>"}


def take_in(path: Path, folder: Path, progress: Report = silent) -> ModelFacts:
    """Put model.gguf (a link), tokenizer.json and, if there is one, chat_template.jinja into `folder`.

    BuildError when `path` is no whole GGUF file, or names an architecture or pre-tokenizer that is not
    known here.
    """
    progress(f"Reading {path.name}", 0, path.stat().st_size)
    reader = _open(path)
    architecture = _text(reader, path, "general.architecture")
    if architecture not in ARCHITECTURES:
        raise BuildError(
            f"{path}: general.architecture must be one of {', '.join(ARCHITECTURES)}, found {architecture}"
        )
    parts = _value(reader, "split.count")
    if isinstance(parts, int) and parts > 1:
        raise BuildError(f"{path} is one of {parts} parts: join them with llama-gguf-split --merge first")
    vocabulary = _Vocabulary(reader, path)
    templates = _templates(reader, path)
    context = _value(reader, f"{architecture}.context_length")
    if not isinstance(context, int) or context < 1:
        raise BuildError(
            f"{path}: {architecture}.context_length must be a whole number above 0, found {context!r}"
        )

    vocabulary.tokenizer().save(str(folder / TOKENIZER))
    templates.write(folder)
    (folder / GGUF).symlink_to(path.resolve())
    progress(f"Reading {path.name}", path.stat().st_size, path.stat().st_size)
    return ModelFacts(
        architecture=architecture,
        vocab_size=len(vocabulary.tokens),
        context_length=context,
        special_tokens={
            name: vocabulary.tokens[index]
            for name, index in (
                ("bos_token", vocabulary.bos),
                ("eos_token", next(iter(vocabulary.ends), None)),
            )
            if index is not None
        },
        bos_token_id=vocabulary.bos,
        eos_token_ids=vocabulary.ends,
        add_bos=vocabulary.add_bos,
        weights=_file_type(reader),
        parameters=sum(math.prod(int(n) for n in tensor.shape) for tensor in reader.tensors),
    )


def _templates(reader: gguf.GGUFReader, path: Path) -> ChatTemplates:
    found: list[str | None] = []
    for key in ("tokenizer.chat_template", "tokenizer.chat_template.tool_use"):
        source = _value(reader, key)
        found.append(source if isinstance(source, str) and source else None)
        if found[-1]:
            check(found[-1], f"{path}: {key}")
    return ChatTemplates(*found)


class _Vocabulary:
    """The tokenizer.ggml.* keys of a file, checked."""

    def __init__(self, reader: gguf.GGUFReader, path: Path) -> None:
        kind = _text(reader, path, "tokenizer.ggml.model")
        if kind != "gpt2":
            raise BuildError(f"{path}: tokenizer.ggml.model must be gpt2 (byte-level BPE), found {kind}")
        self.pre = _text(reader, path, "tokenizer.ggml.pre")
        if self.pre not in PATTERNS:
            raise BuildError(
                f"{path}: tokenizer.ggml.pre must be one of {', '.join(sorted(PATTERNS))}, found {self.pre}"
            )
        self.tokens: list[str] = _list(reader, path, "tokenizer.ggml.tokens", str)
        self.types: list[int] = _list(reader, path, "tokenizer.ggml.token_type", int)
        self._merges = [
            tuple(merge.split(" ")) for merge in _list(reader, path, "tokenizer.ggml.merges", str)
        ]
        if len(self.types) != len(self.tokens):
            raise BuildError(
                f"{path}: tokenizer.ggml.token_type has {len(self.types)} entries for {len(self.tokens)} "
                "tokens"
            )
        self.bos = self._special(reader, path, "bos")
        named = [self._special(reader, path, name) for name in ("eos", "eot", "eom")]
        known = [
            i
            for i, (token, kind) in enumerate(zip(self.tokens, self.types, strict=True))
            if kind == CONTROL and token in ENDS
        ]
        self.ends = list(dict.fromkeys(i for i in [*named, *known] if i is not None))
        says = _value(reader, "tokenizer.ggml.add_bos_token")
        self.add_bos = self.bos is not None and (self.pre in ADDS_BOS if says is None else bool(says))

    def tokenizer(self) -> Tokenizer:
        """The same ids for the same text as llama.cpp, which parses special tokens in it."""
        pieces = list(zip(range(len(self.tokens)), self.tokens, self.types, strict=True))
        known = {token: i for i, token, kind in pieces if kind != UNUSED}
        # a merge can only apply where its parts and its result are tokens; converters write one that never
        # does
        merges = [
            (merge[0], merge[1])
            for merge in self._merges
            if len(merge) == 2 and {merge[0], merge[1], "".join(merge)} <= known.keys()
        ]
        tokenizer = Tokenizer(
            models.BPE(vocab=known, merges=merges, ignore_merges=self.pre in IGNORES_MERGES)
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                *(
                    pre_tokenizers.Split(Regex(pattern), behavior="isolated")
                    for pattern in PATTERNS[self.pre]
                ),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        # added tokens are in the vocabulary too: that is how they keep their ids
        tokenizer.add_special_tokens(
            [
                AddedToken(token, special=True, normalized=False)
                for _, token, kind in pieces
                if kind == CONTROL
            ]
        )
        tokenizer.add_tokens(
            [
                AddedToken(token, special=False, normalized=False)
                for _, token, kind in pieces
                if kind == USER_DEFINED
            ]
        )
        if self.add_bos and self.bos is not None:
            bos = self.tokens[self.bos]
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, self.bos)]
            )
        return tokenizer

    def _special(self, reader: gguf.GGUFReader, path: Path, name: str) -> int | None:
        value = _value(reader, f"tokenizer.ggml.{name}_token_id")
        if value is not None and (not isinstance(value, int) or not 0 <= value < len(self.tokens)):
            raise BuildError(
                f"{path}: tokenizer.ggml.{name}_token_id must be below {len(self.tokens)}, found {value!r}"
            )
        return value


def _open(path: Path) -> gguf.GGUFReader:
    size = path.stat().st_size
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise BuildError(f"{path} is no GGUF file: it begins with {magic!r}, not b'GGUF'")
    try:
        reader = gguf.GGUFReader(path)
        for tensor in reader.tensors:
            if tensor.data_offset + tensor.n_bytes > size:
                raise ValueError(f"tensor {tensor.name} ends after the file")
    except (
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
        UnicodeDecodeError,
        MemoryError,
    ) as error:
        raise BuildError(f"{path} is cut short or damaged ({size} bytes): {error}") from None
    if not reader.tensors:
        raise BuildError(f"{path} holds no weights, only a vocabulary")
    return reader


def _value(reader: gguf.GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _text(reader: gguf.GGUFReader, path: Path, key: str) -> str:
    value = _value(reader, key)
    if not isinstance(value, str):
        raise BuildError(f"{path}: {key} must be text, found {value!r}")
    return value


def _list(reader: gguf.GGUFReader, path: Path, key: str, kind: type) -> list[Any]:
    value = _value(reader, key)
    if not isinstance(value, Sequence) or not all(isinstance(item, kind) for item in value):
        raise BuildError(f"{path}: {key} must be a list of {kind.__name__}")
    return list(value)


def _file_type(reader: gguf.GGUFReader) -> str:
    """What llama.cpp calls the mix of tensor types, e.g. Q8_0 or Q4_K_M."""
    value = _value(reader, "general.file_type")
    try:
        return gguf.LlamaFileType(value).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return "unknown"
