"""The tokenizer of a GGUF file, rebuilt as a tokenizer.json: the same ids for the same text as llama.cpp.

Two kinds: byte-level BPE (`gpt2`), whose pre-tokenizers llama.cpp knows by name, and SentencePiece (`llama`),
whose merges are in no list: llama.cpp joins the pair whose result has the highest score. A GGUF says less
than a tokenizer.json: how an added token treats the spaces beside it, and any Unicode normalisation, are not
in it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from build.errors import BuildError
from build.tokenizer import (
    CONTROL,
    LLAMA3_PATTERN,
    NORMAL,
    PRE_TOKENIZERS,
    QWEN2_PATTERN,
    UNUSED,
    USER_DEFINED,
    WORDS_OF_GPT2,
    cased_words,
)

log = logging.getLogger(__name__)

UNKNOWN, BYTE = 2, 6  # two more numbers of llama.cpp's enum llama_token_type
SPACE = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")

_CJK = "[一-龥\u3040-\u309f\u30a0-\u30ff]+"
_PUNCTUATED = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# llama.cpp tells the case of ASCII letters only here.
_NOT_LOWER, _NOT_UPPER = r"(?:(?=\p{L})[^a-z])", r"(?:(?=\p{L})[^A-Z])"

# The split patterns that llama.cpp's names of pre-tokenizers stand for (its src/llama-vocab.cpp).
_SPLIT_ALIKE: dict[tuple[str, ...], str] = {
    (LLAMA3_PATTERN,): "llama3 llama-v3 falcon3 pixtral midm-2.0 lfm2 smaug-bpe dbrx chatglm-bpe glm4",
    (QWEN2_PATTERN,): "deepseek-r1-qwen kormo megrez stablelm2 hunyuan grok-2 solar-open",
    (r"\p{N}", WORDS_OF_GPT2): "smollm starcoder refact command-r codeshell exaone minerva-7b",
    (WORDS_OF_GPT2,): "phi-2 mpt olmo jais exaone4 trillion gigachat a.x-4.0 mellum",
    (r"\p{N}{1,3}", _CJK, _PUNCTUATED): "deepseek-v3 hunyuan-dense",
    (cased_words(_NOT_LOWER, _NOT_UPPER, contraction=""),): "tekken",
    (cased_words(_NOT_LOWER, _NOT_UPPER, digits=r"\p{N}{1,3}"),): "gpt-4o llama4",
    (r"[\p{P}\$\+<=>\^~\|]+", WORDS_OF_GPT2, r"\p{N}+", "[0-9][0-9][0-9]"): "default",
}
PATTERNS: dict[str, tuple[str, ...]] = {name: patterns for patterns, name in PRE_TOKENIZERS.items()} | {
    name: patterns for patterns, names in _SPLIT_ALIKE.items() for name in names.split()
}
# What llama.cpp does per pre-tokenizer: a whole word of the vocabulary is that token, whatever the merges
# say; and a text begins with BOS where the file does not say.
_OF_LLAMA3 = {"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "midm-2.0", "lfm2", "tekken"}
IGNORES_MERGES = {"youtu", "glm4", *_OF_LLAMA3}
ADDS_BOS = _OF_LLAMA3
# Texts of tokens at which llama.cpp ends an answer even where the file names one end token only. It takes
# them for control tokens, whatever the file says of them.
ENDS = frozenset(
    (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<end_of_turn>", "<|endoftext|>"),
        *("<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>"),
        "<｜end▁of▁sentence｜>",
    )
)

Value = Callable[[str], Any]
"""The value of a key of the file, None where it has none."""


class Vocabulary:
    """The tokenizer.ggml.* keys of a file, checked. BuildError names the key that is wrong.

    `tokens`, `types`: the texts and llama.cpp's types by id. `bos`, `ends`: ids. `add_bos`: whether a raw
    text begins with BOS.
    """

    def __init__(self, value: Value, where: str) -> None:
        self._value, self._where = value, where
        self.model = self._text("tokenizer.ggml.model")
        if self.model not in ("gpt2", "llama"):
            raise BuildError(
                f"{where}: tokenizer.ggml.model must be gpt2 (byte-level BPE) or llama (SentencePiece), "
                f"found {self.model}"
            )
        texts = self._list("tokenizer.ggml.tokens", str)
        self.tokens: list[str] = [text or f"[EMPTY_{i}]" for i, text in enumerate(texts)]
        self.types: list[int] = self._types()
        self.pre = self._pre() if self.model == "gpt2" else ""
        if self.model == "gpt2":
            self._merges = self._listed_merges()
        else:
            self._merges = self._scored_merges()
        self.bos = self._special("bos", 1)
        named = [self._special("eos", 2), self._special("eot"), self._special("eom")]
        known = [i for i, token in enumerate(self.tokens) if token in ENDS and self.types[i] == CONTROL]
        self.ends = list(dict.fromkeys(i for i in [*named, *known] if i is not None))
        says = value("tokenizer.ggml.add_bos_token")
        by_itself = self.model == "llama" or self.pre in ADDS_BOS
        self.add_bos = self.bos is not None and (by_itself if says is None else bool(says))

    def tokenizer(self) -> Tokenizer:
        """The same ids for the same text as llama.cpp, which parses special tokens in it."""
        tokenizer = self._byte_level() if self.model == "gpt2" else self._sentencepiece()
        # added tokens are in the vocabulary too: that is how they keep their ids
        for kinds, special in (((CONTROL, UNKNOWN), True), ((USER_DEFINED,), False)):
            added = [
                AddedToken(token, special=special, normalized=False)
                for token, kind in zip(self.tokens, self.types, strict=True)
                if kind in kinds
            ]
            (tokenizer.add_special_tokens if special else tokenizer.add_tokens)(added)
        if self.add_bos and self.bos is not None:
            bos = self.tokens[self.bos]
            tokenizer.post_processor = processors.TemplateProcessing(
                single=f"{bos}:0 $A:0", pair=f"{bos}:0 $A:0 {bos}:1 $B:1", special_tokens=[(bos, self.bos)]
            )
        return tokenizer

    def _byte_level(self) -> Tokenizer:
        tokenizer = Tokenizer(
            models.BPE(vocab=self._known(), merges=self._merges, ignore_merges=self.pre in IGNORES_MERGES)
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
        return tokenizer

    def _sentencepiece(self) -> Tokenizer:
        tokenizer = Tokenizer(models.BPE(vocab=self._known(), merges=self._merges, byte_fallback=True))
        prefixed = self._value("tokenizer.ggml.add_space_prefix") is not False
        prefix: list[normalizers.Normalizer] = [normalizers.Prepend(SPACE)] if prefixed else []
        tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
        strip: list[decoders.Decoder] = [decoders.Strip(" ", 1, 0)] if prefixed else []
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
        )
        return tokenizer

    def _known(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.tokens) if self.types[i] != UNUSED}

    def _listed_merges(self) -> list[tuple[str, str]]:
        known = self._known().keys()
        # a merge can only apply where its parts and its result are tokens; converters write one that never
        # does
        split = [tuple(merge.split(" ")) for merge in self._list("tokenizer.ggml.merges", str)]
        return [
            (parts[0], parts[1])
            for parts in split
            if len(parts) == 2 and {parts[0], parts[1], "".join(parts)} <= known
        ]

    def _scored_merges(self) -> list[tuple[str, str]]:
        """Each way to make a token of two others, the token with the highest score first."""
        scores = self._list("tokenizer.ggml.scores", float)
        if len(scores) != len(self.tokens):
            raise BuildError(
                f"{self._where}: tokenizer.ggml.scores has {len(scores)} entries for {len(self.tokens)} "
                "tokens"
            )
        bytes_there = {token for token, kind in zip(self.tokens, self.types, strict=True) if kind == BYTE}
        if missing := [f"<0x{byte:02X}>" for byte in range(256) if f"<0x{byte:02X}>" not in bytes_there]:
            raise BuildError(f"{self._where}: tokenizer.ggml.tokens has no token {missing[0]} for that byte")
        pieces = {
            token: scores[i] for i, token in enumerate(self.tokens) if self.types[i] in (NORMAL, USER_DEFINED)
        }
        found = [
            (-score, token, cut)
            for token, score in pieces.items()
            for cut in range(1, len(token))
            if token[:cut] in pieces and token[cut:] in pieces
        ]
        return [(token[:cut], token[cut:]) for _, token, cut in sorted(found, key=lambda each: each[0])]

    def _pre(self) -> str:
        pre = self._value("tokenizer.ggml.pre")
        if pre is None:
            log.warning("%s names no pre-tokenizer: using llama.cpp's `default`", self._where)
            return "default"
        if pre not in PATTERNS:
            raise BuildError(
                f"{self._where}: tokenizer.ggml.pre must be one of {', '.join(sorted(PATTERNS))}, found {pre}"
            )
        return str(pre)

    def _types(self) -> list[int]:
        if self._value("tokenizer.ggml.token_type") is None:
            byte = {i for i, token in enumerate(self.tokens) if _BYTE_PIECE.fullmatch(token)}
            types = [BYTE if self.model == "llama" and i in byte else NORMAL for i in range(len(self.tokens))]
        else:
            types = self._list("tokenizer.ggml.token_type", int)
        if len(types) != len(self.tokens):
            raise BuildError(
                f"{self._where}: tokenizer.ggml.token_type has {len(types)} entries for {len(self.tokens)} "
                "tokens"
            )
        return [
            CONTROL if token in ENDS and kind not in (UNUSED, CONTROL) else kind
            for token, kind in zip(self.tokens, types, strict=True)
        ]

    def _special(self, name: str, of_sentencepiece: int | None = None) -> int | None:
        value = self._value(f"tokenizer.ggml.{name}_token_id")
        if value is None and self.model == "llama":
            value = of_sentencepiece
        if value is not None and (not isinstance(value, int) or not 0 <= value < len(self.tokens)):
            raise BuildError(
                f"{self._where}: tokenizer.ggml.{name}_token_id must be below {len(self.tokens)}, found "
                f"{value!r}"
            )
        return value

    def _text(self, key: str) -> str:
        value = self._value(key)
        if not isinstance(value, str):
            raise BuildError(f"{self._where}: {key} must be text, found {value!r}")
        return value

    def _list(self, key: str, kind: type) -> list[Any]:
        value = self._value(key)
        if not isinstance(value, Sequence) or not all(isinstance(item, kind) for item in value):
            raise BuildError(f"{self._where}: {key} must be a list of {kind.__name__}")
        return list(value)
