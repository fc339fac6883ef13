"""What a checkpoint's tokenizer files say, as plain facts: vocabulary, merges, special tokens, chat template.

Used for the vocabulary of the GGUF and for engine.json. Only byte-level BPE is understood, the one kind Youtu
models have. Nothing here tokenises text, and transformers is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build.chat_template import ChatTemplates, read_templates
from build.config import read_json
from build.errors import BuildError

# The numbers of llama.cpp's enum llama_token_type.
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5

_CONTRACTION = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_YOUTU_CJK = "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+"
_LEAD, _TAIL = r"[^\r\n\p{L}\p{N}]?", r"\s*[\r\n]+|\s+(?!\S)|\s+"


def cased_words(
    upper: str, lower: str, *, contraction: str = f"{_CONTRACTION}?", digits: str = r"\p{N}"
) -> str:
    """The pattern that splits a text where upper case follows lower case, at digits and at signs.

    `upper`, `lower`: expressions for one letter that may begin, and may end, a word.
    """
    return (
        rf"{_LEAD}{upper}*{lower}+{contraction}|{_LEAD}{upper}+{lower}*{contraction}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_TAIL}"
    )


WORDS_OF_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN, QWEN2_PATTERN = (
    rf"{_CONTRACTION}|{_LEAD}\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
    for digits in (r"\p{N}{1,3}", r"\p{N}")
)
YOUTU_PATTERNS = (
    _YOUTU_CJK,
    cased_words(r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"),
)
# llama.cpp's names of pre-tokenizers by the split patterns they stand for (its src/llama-vocab.cpp).
PRE_TOKENIZERS: dict[tuple[str, ...], str] = {
    YOUTU_PATTERNS: "youtu",
    (LLAMA3_PATTERN,): "llama-bpe",
    (QWEN2_PATTERN,): "qwen2",
    (WORDS_OF_GPT2,): "gpt-2",
}


@dataclass(frozen=True)
class TokenizerFacts:
    """`tokens` and `types` are as long as the model's vocabulary; ids are indexes into them.

    `pre` is llama.cpp's name of the pre-tokenizer; `known_pre` is False when the patterns of tokenizer.json
    are none of PRE_TOKENIZERS and "youtu" was taken: then only tokenizer.json tokenises text exactly.
    `ignore_merges`: a whole word of the vocabulary becomes that one token, whatever the merges say.
    `special_tokens`: those with a name (`bos_token`, `unk_token`, …), as chat templates know them.
    """

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str
    known_pre: bool
    ignore_merges: bool
    bos_token: str | None
    bos_token_id: int | None
    eos_token: str | None
    eos_token_id: int | None
    pad_token_id: int | None
    eos_token_ids: list[int]
    add_bos: bool
    add_eos: bool
    templates: ChatTemplates
    special_tokens: dict[str, str]


def has_tokenizer(checkpoint: Path) -> bool:
    """Whether the folder has a tokenizer.json; BuildError when it has another kind of tokenizer only."""
    if (checkpoint / "tokenizer.json").is_file():
        return True
    others = [
        n for n in ("tokenizer.model", "vocab.json", "tokenizer_config.json") if (checkpoint / n).is_file()
    ]
    if others:
        raise BuildError(
            f"{checkpoint} has {others[0]} but no tokenizer.json: save the tokenizer in the 'fast' form"
        )
    return False


def check_templates(checkpoint: Path) -> None:
    """BuildError when a chat template of the folder cannot be parsed. Weights need not be there."""
    read_templates(checkpoint, _optional_json(checkpoint / "tokenizer_config.json"))


def load_tokenizer_facts(checkpoint: Path, vocab_size: int | None = None) -> TokenizerFacts:
    """Read tokenizer.json, tokenizer_config.json, generation_config.json and the chat template of a folder.

    `vocab_size` pads the vocabulary with unused tokens (default: vocab_size of config.json). BuildError names
    the file and the entry that is missing, out of range or not byte-level BPE.
    """
    path = checkpoint / "tokenizer.json"
    spec = read_json(path)
    config = _optional_json(checkpoint / "config.json")
    tokenizer_config = _optional_json(checkpoint / "tokenizer_config.json")
    if vocab_size is None:
        vocab_size = config.get("vocab_size")
        if not isinstance(vocab_size, int):
            raise BuildError(
                f"{checkpoint / 'config.json'}: vocab_size must be a whole number, found {vocab_size!r}"
            )

    model = spec.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or model.get("byte_fallback"):
        kind = model.get("type") if isinstance(model, dict) else model
        raise BuildError(f"{path}: only byte-level BPE is supported, found model type {kind!r}")
    if not any(
        step.get("type") == "ByteLevel" for step in _steps(spec.get("pre_tokenizer"), "pretokenizers")
    ):
        raise BuildError(
            f"{path}: only byte-level BPE is supported, and its pre_tokenizer has no ByteLevel step"
        )

    tokens, types = _vocabulary(path, spec, vocab_size)
    ids = {token: i for i, token in enumerate(tokens) if types[i] != UNUSED}
    pre = PRE_TOKENIZERS.get(_patterns(spec.get("pre_tokenizer")))

    bos_id = _special(path, "bos_token", tokenizer_config, config, ids, tokens)
    eos_id = _special(path, "eos_token", tokenizer_config, config, ids, tokens)
    eos_ids = [] if eos_id is None else [eos_id]
    for source in (checkpoint / "generation_config.json", checkpoint / "config.json"):
        value = _optional_json(source).get("eos_token_id")
        for token_id in value if isinstance(value, list) else [value]:
            if token_id is None:
                continue
            if not isinstance(token_id, int) or not 0 <= token_id < vocab_size:
                raise BuildError(f"{source}: eos_token_id {token_id!r} is not an id below {vocab_size}")
            if token_id not in eos_ids:
                eos_ids.append(token_id)

    first, last = _template_ends(spec.get("post_processor"))
    add_bos, add_eos = tokenizer_config.get("add_bos_token"), tokenizer_config.get("add_eos_token")
    bos, eos = (None if i is None else tokens[i] for i in (bos_id, eos_id))
    return TokenizerFacts(
        tokens=tokens,
        types=types,
        merges=_merges(path, model),
        pre=pre or "youtu",
        known_pre=pre is not None,
        ignore_merges=bool(model.get("ignore_merges")),
        bos_token=bos,
        bos_token_id=bos_id,
        eos_token=eos,
        eos_token_id=eos_id,
        pad_token_id=_special(path, "pad_token", tokenizer_config, {}, ids, tokens),
        eos_token_ids=eos_ids,
        add_bos=bos is not None and (add_bos if isinstance(add_bos, bool) else first == bos),
        add_eos=eos is not None and (add_eos if isinstance(add_eos, bool) else last == eos),
        templates=read_templates(checkpoint, tokenizer_config),
        special_tokens=_named(tokenizer_config, bos_token=bos, eos_token=eos),
    )


def _named(tokenizer_config: dict[str, Any], **known: str | None) -> dict[str, str]:
    found: dict[str, Any] = {}
    for name in ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token"):
        value = tokenizer_config.get(name)
        found[name] = value.get("content") if isinstance(value, dict) else value
    return {name: text for name, text in (known | found).items() if isinstance(text, str)}


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _steps(block: Any, inner: str) -> Iterator[dict[str, Any]]:
    """The steps of a pre-tokenizer or post-processor, sequences unrolled."""
    if isinstance(block, dict):
        if block.get("type") == "Sequence":
            for step in block.get(inner, []):
                yield from _steps(step, inner)
        else:
            yield block


def _patterns(pre_tokenizer: Any) -> tuple[str, ...]:
    found = []
    for step in _steps(pre_tokenizer, "pretokenizers"):
        if step.get("type") == "ByteLevel":
            if step.get("use_regex", True):
                found.append(WORDS_OF_GPT2)
        elif step.get("type") == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
            found.append(_spell_cases(str(step.get("pattern", {}).get("Regex", ""))))
        else:
            return ()
    return tuple(found)


def _spell_cases(pattern: str) -> str:
    """Rewrite (?i:'s|'ll) as (?:'[sS]|'[lL][lL]), the form without inline flags that llama.cpp uses."""

    def spell(group: re.Match[str]) -> str:
        return "(?:" + re.sub(r"[a-z]", lambda c: f"[{c[0]}{c[0].upper()}]", group[1]) + ")"

    return re.sub(r"\(\?i:([^()]*)\)", spell, pattern)


def _vocabulary(path: Path, spec: dict[str, Any], vocab_size: int) -> tuple[list[str], list[int]]:
    by_id: dict[int, tuple[str, int]] = {}
    for token, token_id in spec["model"].get("vocab", {}).items():
        by_id[token_id] = (token, NORMAL)
    for added in spec.get("added_tokens", []):
        by_id[added["id"]] = (added["content"], CONTROL if added.get("special") else USER_DEFINED)
    for token_id, (token, _) in by_id.items():
        if not isinstance(token_id, int) or not 0 <= token_id < vocab_size:
            raise BuildError(
                f"{path}: token {token!r} has id {token_id!r}, but the model has {vocab_size} tokens"
            )
    # llama.cpp ends the process when two ids share one text
    seen: dict[str, int] = {}
    for token_id, (token, _) in by_id.items():
        if seen.setdefault(token, token_id) != token_id:
            raise BuildError(f"{path}: token {token!r} has two ids, {seen[token]} and {token_id}")
    tokens, types = [], []
    for token_id in range(vocab_size):
        filler = f"[PAD{token_id}]"
        while token_id not in by_id and filler in seen:
            filler = f"[{filler}]"
        token, kind = by_id.get(token_id, (filler, UNUSED))
        tokens.append(token)
        types.append(kind)
    return tokens, types


def _merges(path: Path, model: dict[str, Any]) -> list[str]:
    merges: list[str] = []
    for merge in model.get("merges", []):
        left_right = merge.split(" ") if isinstance(merge, str) else merge
        if len(left_right) != 2 or any(not part or " " in part for part in left_right):
            raise BuildError(
                f"{path}: merge {len(merges)} must be two tokens without spaces, found {merge!r}"
            )
        merges.append(" ".join(left_right))
    return merges


def _special(
    path: Path,
    key: str,
    tokenizer_config: dict[str, Any],
    config: dict[str, Any],
    ids: dict[str, int],
    tokens: list[str],
) -> int | None:
    """The id of a special token: named by tokenizer_config.json, else numbered by config.json."""
    value = tokenizer_config.get(key)
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None:
        if text not in ids:
            raise BuildError(f"{path}: {key} {text!r} of tokenizer_config.json is not in the vocabulary")
        return ids[text]
    number = config.get(f"{key}_id")
    if isinstance(number, list):
        number = number[0] if number else None
    if number is not None and (not isinstance(number, int) or not 0 <= number < len(tokens)):
        raise BuildError(f"config.json: {key}_id {number!r} is not an id below {len(tokens)}")
    return number


def _template_ends(post_processor: Any) -> tuple[str | None, str | None]:
    """The special tokens that the post-processor puts before and after one text."""
    for step in _steps(post_processor, "processors"):
        if step.get("type") == "TemplateProcessing" and step.get("single"):
            single = step["single"]
            first, last = (item.get("SpecialToken", {}).get("id") for item in (single[0], single[-1]))
            return first, last
    return None, None
