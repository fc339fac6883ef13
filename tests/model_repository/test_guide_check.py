"""A guide is tried before TensorRT-LLM gets it: by the two compilers themselves, on the demo's tokenizer."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from guide_check import MAX_BYTES, GuideCheck, with_checked_guide
from guide_compiler import Compiler
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from text_request import TextRequest
from youtu_contract.errors import Refused

from build.tensorrt_llm.xgrammar_info import XGRAMMAR_INFO, write_xgrammar_info
from build.tokenizer import load_tokenizer_facts
from tests.limits import WAIT_S
from tests.model_repository.conftest import DEMO

FACTS = load_tokenizer_facts(DEMO)
VOCAB = len(FACTS.tokens)


def item(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


HELD: list[Any] = [
    {"type": "object"},
    {"enum": ["small", 2, None, {"a": [1]}]},
    {"type": "string", "enum": ["a", "b"]},
    {"enum": ['a "quoted" \\ word\n', "中文", "\x7f"]},
    item(名={"type": "null"}),
    {"type": "string", "const": "x"},
    {"type": "string"},
    *({"type": "string", "format": name} for name in ("date", "time", "date-time", "uuid", "ipv4")),
    {"type": "integer", "minimum": -3, "exclusiveMaximum": 12},
    {"type": "number"},
    {"type": ["boolean", "null"]},
    {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 9}, "minItems": 1, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "boolean"}], "items": False},
    item(a={"type": "integer"}, b={"type": "boolean"}) | {"title": "A", "additionalProperties": False},
    {"type": "object", "properties": {"a": {"type": "null"}, "b": {"type": "null"}}, "required": ["b"]},
    {"type": "object", "additionalProperties": {"type": "integer"}},
    {"anyOf": [{"type": "null"}, item(a={"type": "null"})]},
    {"allOf": [{"type": "boolean"}]},
    item(a={"$ref": "#/$defs/x"}) | {"$defs": {"x": {"type": "boolean"}}},
    {"type": "object", "properties": {"inner": {"$ref": "#"}}, "additionalProperties": False},
]
REFUSED: list[tuple[Any, str]] = [
    ({"type": "nonsense"}, "Invalid type: nonsense"),
    ({"type": "integer", "multipleOf": 3}, "does not support /multipleOf"),
    (item(a={"type": "string", "maxLength": 3}), "/properties/a/maxLength"),
    ({"type": "string", "pattern": "[^a]{3}"}, "does not support /pattern"),
    ({"type": "number", "maximum": 7}, "does not support /maximum"),
    ({"type": "string", "format": "email"}, "/format must be one of date, time"),
    ({"minLength": 3}, "does not support /minLength without a type"),
    (
        {"type": "object", "required": ["b"], "additionalProperties": True},
        "/required must be a list of property names",
    ),
    (item(**{'a "quoted" name': {"type": "null"}}), "."),  # the compiler throws
    ({"$ref": "#"}, "no token can start it"),
    ({"allOf": [{"type": "object"}, {"type": "object"}]}, "/allOf may contain only one schema"),
    (
        {"anyOf": [{"type": "string"}, {"type": "null"}], "type": "null"},
        "/type cannot be combined with anyOf",
    ),
    ({"type": "string", "format": "nope"}, "format"),
    ({"type": "object", "patternProperties": {"^a": {"type": "null"}}}, "/patternProperties"),
    ([], "."),
    ("{", "."),
    ({"type": "array", "items": {"type": "string", "description": "x" * MAX_BYTES}}, "at most 16384 bytes"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("guides")
    shutil.copy(DEMO / "tokenizer.json", made)
    write_xgrammar_info(made, FACTS)
    return made


def checks(folder: Path, python: str, told: list[str]) -> GuideCheck:
    return GuideCheck(python, folder / XGRAMMAR_INFO, folder / "tokenizer.json", VOCAB, told.append)


@pytest.fixture(scope="module")
def guides(folder: Path) -> Iterator[GuideCheck]:
    made = checks(folder, sys.executable, [])
    yield made
    made.close()


@pytest.fixture(scope="module")
def compiler(folder: Path) -> Compiler:
    return Compiler(folder / XGRAMMAR_INFO, VOCAB)


@pytest.mark.parametrize("schema", HELD, ids=lambda schema: json.dumps(schema)[:40])
def test_a_schema_that_is_let_through_is_held_to(guides: GuideCheck, compiler: Compiler, schema: Any) -> None:
    """By answers drawn at random: xgrammar passes over many keywords without a word."""
    text = json.dumps(schema)
    assert guides.check("json_schema", text) == ("json_schema", text)
    validator = Draft202012Validator(schema)
    ended = [answer for seed in range(12) if (answer := drawn(compiler, text, seed))]
    assert ended
    for answer in ended:
        validator.validate(json.loads(answer))


def drawn(compiler: Compiler, schema: str, seed: int) -> str:
    """An answer of random tokens that the grammar allows, ends preferred; "" if it does not end soon."""
    matcher = compiler.matcher("json_schema", schema)
    chance, made = np.random.default_rng(seed), b""
    spelled = compiler.tokenizer.decoded_vocab
    for _ in range(400):
        allowed = compiler.allowed(matcher)
        plain = [token for token in allowed if spelled[token].strip() and len(spelled[token]) < 3]
        if FACTS.eos_token_ids[0] in allowed and (chance.random() < 0.5 or len(allowed) == 1):
            return made.decode(errors="replace")
        token = int(chance.choice(plain or [t for t in allowed if t not in FACTS.eos_token_ids]))
        matcher.accept_token(token, False)
        made += spelled[token]
    return ""


@pytest.mark.parametrize(("schema", "fault"), REFUSED, ids=lambda value: json.dumps(value)[:40])
def test_a_schema_that_one_of_both_does_not_take(guides: GuideCheck, schema: Any, fault: str) -> None:
    text = schema if isinstance(schema, str) else json.dumps(schema)
    with pytest.raises(Refused, match=f"guided_decoding_guide: .*{fault}") as caught:
        guides.check("json_schema", text)
    assert caught.value.error.code == "invalid_value"


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("(", "unclosed group"),
        (r"\p{L}+", "Unicode character class escape sequence is not supported"),
        ("(?i)abc", "Group modifier flag is not supported"),
        ("(.{0,100}){100}", "takes too much time or memory .the compiler ended with SIG"),
        ("(((a?){50}){50}){50}", "takes too much time or memory"),
    ],
)
def test_an_expression_that_one_of_both_does_not_take(
    guides: GuideCheck, expression: str, fault: str
) -> None:
    """Some are compiled at once, and take minutes or gigabytes for a step. The next guide is tried anew."""
    with pytest.raises(Refused, match=f"guided_decoding_guide: .*{fault}"):
        guides.check("regex", expression)
    assert guides.check("regex", "(yes|no)[.!]") == ("regex", "(yes|no)[.!]")


def test_kinds(guides: GuideCheck) -> None:
    """The backend's own kind json is any value, lists too."""
    assert guides.check("json", None) == ("json_schema", '{"type": "object"}')
    for kind, text, fault in (
        ("json", "{}", "it is not allowed with type json"),
        ("regex", None, "it is required with type regex"),
        ("ebnf_grammar", "x", "expected one of json, json_schema, regex; got 'ebnf_grammar'"),
    ):
        with pytest.raises(Refused, match=fault):
            guides.check(kind, text)


def test_what_goes_with_no_guide_on_this_engine(guides: GuideCheck) -> None:
    """Thinking would have to be of the guide's form; min_tokens could leave no token to choose from."""

    def request(kind: str | None, text: str | None = None, min_tokens: int = 0) -> TextRequest:
        options = {
            "guided_decoding_guide_type": kind,
            "guided_decoding_guide": text,
            "min_tokens": min_tokens,
        }
        return TextRequest("x", None, None, False, {}, options)

    for asked, thinking, fault in (
        (request("json"), True, "guided_decoding_guide_type: .* send enable_thinking false"),
        (request("json", min_tokens=3), False, "min_tokens: this engine cannot suppress .* got 3"),
        (request(None, "{}"), False, "it requires guided_decoding_guide_type"),
    ):
        with pytest.raises(Refused, match=fault):
            with_checked_guide(asked, guides, thinking=thinking)
    plain = request(None, min_tokens=3)
    assert with_checked_guide(plain, guides, thinking=True) is plain
    checked = with_checked_guide(request("json"), guides, thinking=False)
    assert checked.options["guided_decoding_guide_type"] == "json_schema"


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("exit 3", "it ended with 3|the compiler ended with 3"),
        ("""echo '{"fault": "xgrammar is 0.2.0"}'""", "xgrammar is 0.2.0"),
    ],
)
def test_without_xgrammar_guides_are_refused_and_the_log_says_why(
    folder: Path, tmp_path: Path, script: str, fault: str
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    told: list[str] = []
    guides = checks(folder, str(python), told)
    with pytest.raises(Refused, match=f"xgrammar does not start: .*({fault})") as caught:
        guides.check("json", None)
    assert caught.value.error.code == "not_ready"
    guides.started(WAIT_S)
    assert len(told) == 1
    guides.close()


def test_the_file_hides_special_tokens_and_names_all_ends(folder: Path, compiler: Compiler) -> None:
    info = json.loads((folder / XGRAMMAR_INFO).read_text())
    assert set(info) == {"encoded_vocab", "tokenizer_str", "stop_token_ids"}
    assert len(info["encoded_vocab"]) == VOCAB
    assert info["stop_token_ids"] == FACTS.eos_token_ids
    assert info["encoded_vocab"][FACTS.tokens.index("<|User|>")] == ""
    assert info["encoded_vocab"][FACTS.eos_token_ids[0]] == FACTS.eos_token
    assert json.loads(info["tokenizer_str"])["model"]["type"] == "BPE"
    assert '"vocab_type":2' in compiler.tokenizer.dump_metadata()  # byte level
