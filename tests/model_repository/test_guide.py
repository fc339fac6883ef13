"""Answers held to a schema or an expression: by llguidance, in the sampler, in the engine among others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensors
from engine import Engine, EngineRequest
from guide import KINDS, Guides, InvalidGuide
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
END = token_id("<|end_of_text|>")
USER = token_id("<|User|>")
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def guides() -> Guides:
    return Guides(DEMO / "tokenizer.json", VOCAB)


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
    with pytest.raises(GuideError, match="min_tokens and bad_words_list leave none"):
        sampler(np.zeros(VOCAB, np.float32))


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (None, "{}", "guided_decoding_guide: it was sent without guided_decoding_guide_type"),
        (
            "ebnf_grammar",
            "x",
            "guided_decoding_guide_type: this engine knows json, .*'ebnf_grammar' was sent",
        ),
        ("regex", None, "guided_decoding_guide: it is needed with the type regex"),
        ("json", "{}", "guided_decoding_guide: it must not be sent with the type json"),
        ("regex", "a" * 65537, "at most 65536 bytes are allowed, 65537 were sent"),
        ("regex", b"\xff", "guided_decoding_guide: UTF-8 is expected"),
    ],
)
def test_tensors_that_are_no_guide_are_refused(kind: str | None, text: Any, says: str) -> None:
    sent = {"guided_decoding_guide_type": kind, "guided_decoding_guide": text}

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
