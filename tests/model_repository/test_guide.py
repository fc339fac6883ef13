"""Answers held to a schema or an expression: by llguidance, in the sampler, in the engine among others."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensors
from engine import Engine
from engine_request import EngineRequest
from grammar import KINDS, InvalidGuide
from guide import Guide, Guides
from numpy.typing import NDArray
from sampling import GuideError, Sampler, SamplingParams
from tokenizers import Tokenizer
from youtu_contract.errors import Refused

from .conftest import DEMO

TOKENIZER = Tokenizer.from_file(str(DEMO / "tokenizer.json"))


def token_id(token: str) -> int:
    found = TOKENIZER.token_to_id(token)
    assert found is not None
    return found


VOCAB = TOKENIZER.get_vocab_size(with_added_tokens=True)
EMPTY = np.array([], np.int32)
END = token_id("<|end_of_text|>")
USER = token_id("<|User|>")
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def guides() -> Iterator[Guides]:
    guides = Guides(DEMO / "tokenizer.json", VOCAB)
    yield guides
    guides.close()


class Run:
    def __init__(self, engine: Engine, guide: Any, *, seed: int, end: int | None = END) -> None:
        self.ended = threading.Event()
        prompt = np.random.default_rng(seed).integers(10, 3000, 30).astype(np.int32)
        params = SamplingParams(
            temperature=1.5 if guide else 0, seed=seed, ends=frozenset() if end is None else frozenset({end})
        )
        self.request = EngineRequest(prompt, 120, params, guide=guide, changed=self._changed)
        engine.submit(self.request)

    def _changed(self, request: EngineRequest) -> None:
        if request.finished:
            self.ended.set()

    def wait(self) -> EngineRequest:
        assert self.ended.wait(60)
        return self.request


def text_of(request: EngineRequest) -> str:
    return str(TOKENIZER.decode([t for t in request.tokens if t != END], skip_special_tokens=False))


def test_hot_samples_of_a_schema_parse_and_stop_where_it_is_complete(engine: Engine, guides: Guides) -> None:
    schema = json.dumps(SCHEMA)
    ends: frozenset[int] = frozenset({END})
    for seed in range(4):
        request = Run(engine, guides.make("json_schema", schema, ends), seed=seed).wait()
        assert request.error is None
        value = json.loads(text_of(request))
        assert set(value) == {"name", "age"}
        assert isinstance(value["age"], int)
        assert len(request.tokens) < 120


@pytest.mark.parametrize("end", [END, None])
def test_an_expression_is_matched_with_and_without_an_end_token(
    engine: Engine, guides: Guides, end: int | None
) -> None:
    ends: frozenset[int] = frozenset() if end is None else frozenset({end})
    request = Run(engine, guides.make("regex", "[ab]{3,5}好!", ends), seed=1, end=end).wait()
    assert re.fullmatch("[ab]{3,5}好!", text_of(request))
    assert len(request.tokens) < 20


def test_the_end_is_allowed_only_where_the_grammar_accepts(guides: Guides) -> None:
    guide = guides.make("regex", "ab?", frozenset({END, USER}))
    a, b = (token_id(letter) for letter in "ab")
    assert not guide.allowed()[[END, USER]].any()
    guide.take(a)
    assert np.flatnonzero(guide.allowed()).tolist() == sorted([END, USER, b])
    assert not guide.complete
    guide.take(b)
    assert guide.complete
    assert np.flatnonzero(guide.allowed()).tolist() == sorted([END, USER])


def test_the_tokenizers_own_end_is_no_end_where_the_request_names_another(guides: Guides) -> None:
    guide = guides.make("regex", "a*", frozenset({USER}))
    allowed = guide.allowed()
    assert allowed[USER]
    assert not allowed[END]


def test_json_is_an_object(engine: Engine, guides: Guides) -> None:
    guide = guides.make("json", "", frozenset({END}))
    first = np.flatnonzero(guide.allowed())
    assert {TOKENIZER.decode([i]).strip()[:1] for i in first} <= {"{", ""}


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("json_schema", '{"type": "nonsense"}', "Invalid type: nonsense"),
        ("json_schema", '{"type":', "EOF while parsing"),
        ("json_schema", "[]", "object"),
        ("json_schema", '{"$ref": "file:///etc/passwd"}', "does not fetch"),
        ("json_schema", '{"enum": []}', "Unsatisfiable"),
        ("regex", "(", "unclosed group"),
        ("regex", "(?=x)y", "look-around"),
    ],
)
def test_what_is_no_grammar_is_refused_in_one_line(guides: Guides, kind: str, text: str, says: str) -> None:
    with pytest.raises(InvalidGuide, match=says) as caught:
        guides.make(kind, text, frozenset({END}))
    assert "\n" not in str(caught.value)


class Broken:
    """Allows `count` tokens, then fails as a matcher does that has become too complex."""

    complete = False

    def __init__(self, count: int) -> None:
        self.left = count

    def allowed(self) -> NDArray[np.bool_]:
        return np.ones(VOCAB, np.bool_)

    def take(self, token: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise GuideError("too complex")


def test_a_guide_that_fails_midway_fails_its_own_request_only(engine: Engine) -> None:
    alone = Run(engine, None, seed=3, end=None).wait().tokens
    broken = Run(engine, Broken(5), seed=2, end=None)
    beside = Run(engine, None, seed=3, end=None)
    failed = broken.wait()
    assert (str(failed.error), len(failed.tokens)) == ("guided_decoding_guide: too complex", 4)
    assert beside.wait().tokens == alone
    assert engine.load() == (0, 0)


def test_penalties_and_top_k_choose_among_what_is_allowed(guides: Guides) -> None:
    a, b = (token_id(letter) for letter in "ab")
    logits = np.zeros(VOCAB, np.float32)
    logits[100:200], logits[b] = 50, 2
    for params in (
        SamplingParams(temperature=0),
        SamplingParams(top_k=1),
        SamplingParams(top_k=5, top_p=0.5),
    ):
        sampler = Sampler(params, np.array([], np.int32), VOCAB, guides.make("regex", "[ab]c", frozenset()))
        assert sampler(logits) == b
    wary = SamplingParams(temperature=0, bad_words=((b,),))
    assert (
        Sampler(wary, np.array([], np.int32), VOCAB, guides.make("regex", "[ab]c", frozenset()))(logits) == a
    )


def test_nothing_left_to_choose_is_an_error_and_no_token(guides: Guides) -> None:
    a = token_id("a")
    sampler = Sampler(
        SamplingParams(bad_words=((a,),)),
        np.array([], np.int32),
        VOCAB,
        guides.make("regex", "a", frozenset()),
    )
    with pytest.raises(GuideError, match="min_tokens and bad_words_list exclude every token"):
        sampler(np.zeros(VOCAB, np.float32))


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (None, "{}", "guided_decoding_guide: it requires guided_decoding_guide_type"),
        (
            "ebnf_grammar",
            "x",
            "guided_decoding_guide_type: expected one of json, .*got 'ebnf_grammar'",
        ),
        ("regex", None, "guided_decoding_guide: it is required with type regex"),
        ("json", "{}", "guided_decoding_guide: it is not allowed with type json"),
        ("regex", "a" * 65537, "at most 65536 bytes are allowed; got 65537"),
        ("regex", b"\xff", "guided_decoding_guide: expected UTF-8"),
    ],
)
def test_tensors_that_are_no_guide_are_refused(kind: str | None, text: Any, says: str) -> None:
    sent = {
        "guided_decoding_guide_type": kind,
        "guided_decoding_guide": text,
        "guided_decoding_after": None,
    }

    def read(name: str) -> Any:
        value = sent[name]
        data = value.encode() if isinstance(value, str) else value
        return None if data is None else np.array([[data]], np.object_)

    with pytest.raises(Refused, match=says):
        tensors.guide(read)
    assert "json_schema" in KINDS


def test_nothing_is_loaded_before_the_first_guide() -> None:
    program = "import sys, guide; guide.Guides(guide.Path('/nowhere'), 5); print('llguidance' in sys.modules)"
    path = str(Path(tensors.__file__).parent)
    found = subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": path}, capture_output=True)
    assert (found.stdout, found.stderr) == (b"False\n", b"")


def test_a_text_that_ends_the_answer_may_be_part_of_the_grammar(engine: Engine, guides: Guides) -> None:
    """The fault: with `}` among the ends no JSON object could be written to its end."""
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    brace = tokenizer.encode("}", add_special_tokens=False).ids[-1]
    guide = guides.make("json", "", frozenset({END, brace}))
    for token in tokenizer.encode('{"a":1', add_special_tokens=False).ids:
        guide.take(token)
    allowed = guide.allowed()
    assert allowed[brace]
    assert not allowed[END]


def any_of(count: int, key: str) -> dict[str, Any]:
    """One of `count` objects."""
    objects = [
        {"type": "object", "properties": {f"{key}{i}": {"type": "null"}}, "required": [f"{key}{i}"]}
        for i in range(count)
    ]
    return {"anyOf": objects}


def optional(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(count)}}


def referring(**definitions: Any) -> dict[str, Any]:
    return {"$defs": definitions, "$ref": f"#/$defs/{next(iter(definitions))}"}


def needs(name: str, value: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {name: value}, "required": [name]}


REFERRED = "refers to itself endlessly"
COMPLEX = "it is too complex"


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"$ref": "#"}, REFERRED),
        (referring(a={"$ref": "#/$defs/b"}, b={"$ref": "#/$defs/a"}), REFERRED),
        (needs("a", {"$ref": "#"}), REFERRED),
        (
            referring(
                a=needs("b", {"$ref": "#/$defs/b"}),
                b={"type": "array", "items": {"$ref": "#/$defs/a"}, "minItems": 1},
            ),
            REFERRED,
        ),
        ({"anyOf": [{"$ref": "#"}, {"$ref": "#/anyOf/0"}]}, REFERRED),
        (optional(1000), "an object may have at most 400 optional properties; got 1000"),
        (needs("a", {"type": "array", "items": optional(600)}), "properties; got 600"),
        ({"allOf": [any_of(10, f"k{k}") for k in range(8)]}, "too large"),
        ({"type": "integer", "multipleOf": 1234567}, COMPLEX),
        ({"allOf": [{"type": "string", "pattern": f"^.*x{i}.*$"} for i in range(40)]}, COMPLEX),
        ({"type": "string", "pattern": "(a*)*" * 1000}, "too many expressions"),
        (json.loads('{"items":' * 500 + "{}" + "}" * 500), "recursion limit"),
    ],
)
def test_a_schema_that_cannot_be_compiled_is_refused_with_the_reason(
    guides: Guides, schema: dict[str, Any], says: str
) -> None:
    """The fault: some failed within the answer, and some took minutes and gigabytes of the server."""
    with pytest.raises(InvalidGuide, match=says):
        guides.make("json_schema", json.dumps(schema), frozenset({END}))
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert used < 4 << 20  # KiB
    guides.make("json_schema", json.dumps(SCHEMA), frozenset({END}))


@pytest.mark.parametrize("text", ["[^\\s\\S]", "a{1000000000}", "(((a{1,100}){1,100}){1,100}){1,100}" * 20])
def test_an_expression_that_cannot_be_compiled_is_refused(guides: Guides, text: str) -> None:
    with pytest.raises(InvalidGuide):
        guides.make("regex", text, frozenset({END}))


@pytest.mark.parametrize(
    "schema",
    [
        optional(300),
        {"enum": [f"value{i}" for i in range(4000)]},
        needs("a", {"anyOf": [{"$ref": "#"}, {"type": "null"}]}),
        {"type": "object", "properties": {"next": {"$ref": "#"}}},
        referring(n={"type": "array", "items": {"$ref": "#/$defs/n"}}),
        {"const": [[[{"a": 1}] * 50] * 20]},
    ],
)
def test_large_and_recursive_schemas_are_compiled(guides: Guides, schema: dict[str, Any]) -> None:
    assert guides.make("json_schema", json.dumps(schema), frozenset({END})).allowed().any()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("地址", "#/$defs/地址"),
        ("地址", "#/$defs/%E5%9C%B0%E5%9D%80"),
        ("my type", "#/$defs/my type"),
        ("List[int]", "#/$defs/List[int]"),
        ("100%", "#/$defs/100%"),
        ("a/b~c", "#/$defs/a~1b~0c"),
        ("地/址", "#/$defs/地~1址"),
    ],
)
def test_references_may_name_what_a_schema_may_define(guides: Guides, name: str, reference: str) -> None:
    """The fault: `#/$defs/地址`, as pydantic writes it, is no URI, and was refused."""
    data = {"const": {"$ref": "地 址"}}  # what only looks like a reference
    schema = {"$defs": {name: {"const": "好"}}, "prefixItems": [{"$ref": reference}, data], "minItems": 2}
    text = json.dumps(schema | {"type": "array", "items": False}, ensure_ascii=False)
    guide = guides.make("json_schema", text, frozenset({END}))
    for token in TOKENIZER.encode('["好",{"$ref":"地 址"}]', add_special_tokens=False).ids:
        assert guide.allowed()[token]
        guide.take(token)
    assert guide.complete


@pytest.mark.parametrize("kind", ["json", "json_schema"])
def test_json_has_no_white_space_between_its_tokens(engine: Engine, guides: Guides, kind: str) -> None:
    """The fault: of 4,962 characters that were sampled, 3,518 were white space."""
    schema = {"type": "array", "items": {"type": "object"}, "maxItems": 3} if kind == "json_schema" else None
    for seed in range(4):
        guide = guides.make(kind, json.dumps(schema) if schema else "", frozenset({END}))
        text = text_of(Run(engine, guide, seed=seed).wait())
        outside = re.sub(r'"(?:[^"\\]|\\.)*("|$)', "", text)
        assert not re.search(r"\s", outside), text


def test_a_guide_is_compiled_once_and_starts_anew_each_time(guides: Guides) -> None:
    ends = frozenset({END})
    assert guides.made("regex", "ab+c", ends) is None
    first = guides.make("regex", "ab+c", ends)
    a, b = (token_id(letter) for letter in "ab")
    first.take(a)
    again = guides.made("regex", "ab+c", ends)
    assert again is not None
    assert (first.allowed()[b], again.allowed()[b]) == (True, False)
    for i in range(20):
        guides.make("regex", f"x{i}", ends)
    assert guides.made("regex", "ab+c", ends) is None  # as many are kept as fit into memory


def test_a_process_for_trying_out_that_has_died_is_replaced(guides: Guides) -> None:
    guides.make("regex", "one", frozenset({END}))
    guides.close()
    guides.make("regex", "two", frozenset({END}))


@pytest.mark.parametrize("thought", ["hm }", "", "好 <th", "</th </thin"])
@pytest.mark.parametrize("gap", ["", "\n\n", " "])
def test_a_guide_begins_behind_the_thinking(guides: Guides, thought: str, gap: str) -> None:
    """The fault: the guide held the thinking to the schema, or left none."""
    guide = guides.make("json", "", frozenset({END}), "</think>")
    for token in TOKENIZER.encode(thought + "</think>" + gap, add_special_tokens=False).ids:
        allowed = guide.allowed()
        assert allowed[token]
        assert not allowed[END]  # else there would be thinking and no answer
        assert not guide.complete
        guide.take(token)
    begin = {TOKENIZER.decode([i]).strip()[:1] for i in np.flatnonzero(guide.allowed())}
    assert begin - {""} == {"{"}
    for token in TOKENIZER.encode('{"a":1}', add_special_tokens=False).ids:
        guide.take(token)
    assert guide.complete


class Joined:
    """A vocabulary in which the end of the mark, white space and an answer's beginning are one token."""

    eos_tokens = (0,)

    def __init__(self, guides: Guides) -> None:
        self._real: Any = guides._loaded()

    def decode_bytes(self, tokens: list[int]) -> bytes:
        return {1: b"</thi", 2: b'nk>\n{"'}[tokens[0]]

    def tokenize_str(self, text: str) -> Any:
        return self._real.tokenize_str(text)

    def tokenize_bytes(self, data: bytes) -> Any:
        return self._real.tokenize_bytes(data)


def test_white_space_behind_the_thinking_has_an_end(guides: Guides) -> None:
    guide = guides.make("json", "", frozenset({END}), "</think>")
    for token in TOKENIZER.encode("</think>", add_special_tokens=False).ids:
        guide.take(token)
    newline = token_id("\u010a")  # as byte-level vocabularies write a line end
    guide.take(newline)
    assert guide.allowed()[newline]
    guide.take(newline)
    assert not guide.allowed()[newline]


def test_a_token_that_ends_the_thinking_may_begin_the_answer(guides: Guides) -> None:
    joined: Any = Joined(guides)
    made = guides.make("json", "", frozenset({END}))
    guide = Guide(made._matcher, joined, VOCAB, frozenset({END}), "</think>")
    guide.take(1)
    guide.take(2)
    a, brace = token_id("a"), token_id("{")
    assert guide.allowed()[[a, brace]].tolist() == [True, True]  # within a key
    made = guides.make("regex", "[0-9]", frozenset())
    guide = Guide(made._matcher, joined, VOCAB, frozenset(), "</think>")
    guide.take(1)
    with pytest.raises(GuideError):
        guide.take(2)


def test_min_tokens_holds_back_the_ends_and_a_complete_guide_ends_before(guides: Guides) -> None:
    a, b = (token_id(letter) for letter in "ab")
    logits = np.zeros(VOCAB, np.float32)
    logits[END] = 9
    params = SamplingParams(temperature=0, ends=frozenset({END}), min_tokens=3)
    sampler = Sampler(params, EMPTY, VOCAB, guides.make("regex", "(a|b)*", frozenset({END})))
    drawn = [sampler(logits) for _ in range(4)]
    assert set(drawn[:3]) <= {a, b, *[t for t in range(VOCAB) if set(TOKENIZER.decode([t])) <= set("ab")]}
    assert drawn[3] == END
