"""What the text contract takes and tells beside text, on the real server: log-probs, logit bias, guides."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx2 as httpx
import pytest
from tokenizers import Tokenizer
from youtu_client import Busy, Client, InvalidRequest, Stream

from tests.e2e.running import ROOT, RunningServer
from tests.limits import WAIT_S

QUESTION = "怎么退货？"
CHECKPOINT = ROOT / "build" / "demo" / "checkpoint"


def test_the_tokens_are_the_text_and_greedy_takes_the_likeliest(client: Client) -> None:
    stream = client.stream(
        QUESTION, temperature=0.0, repetition_penalty=1.0, return_log_probs=True, top_log_probs=5
    )
    told, shown = b"", ""
    with stream:
        for piece in stream:
            told += b"".join(token.data for token in piece.tokens or ())
            shown += piece.text
            assert shown.encode().startswith(told)  # a token with half a character more waits for the rest
    assert told == stream.answer.text.encode()
    tokens = stream.answer.tokens
    assert tokens is not None
    assert len(tokens) == stream.answer.usage.completion_tokens > 10
    assert [token.log_prob for token in tokens] == pytest.approx([token.top[0][1] for token in tokens])
    assert all(token.data == token.top[0][0] for token in tokens[:-1])
    assert (tokens[-1].data, tokens[-1].top[0][0]) == (b"", b"<|end_of_text|>")
    assert {len(token.top) for token in tokens} == {5}


def test_twenty_likeliest_and_an_answer_without_tokens_to_tell_of(client: Client) -> None:
    answer = client.chat(QUESTION, max_tokens=1, return_log_probs=True, top_log_probs=20)
    assert [len(token.top) for token in answer.tokens or ()] == [20]
    # Cut off at its length, its last response has no tokens left to tell of.
    with client.stream(QUESTION, max_tokens=8, return_log_probs=True, top_log_probs=20) as stream:
        assert sum(len(piece.tokens or ()) for piece in stream) == 8
    assert len(stream.answer.tokens or ()) == 8


def test_a_bias_keeps_a_token_away_or_brings_it(client: Client) -> None:
    greedy = client.chat(QUESTION, temperature=0.0, return_log_probs=True, max_tokens=3)
    # Whichever token has id 300: nothing else is said.
    forced = client.chat(
        QUESTION, temperature=0.0, repetition_penalty=1.0, logit_bias={300: 100}, max_tokens=3,
        return_log_probs=True,
    )  # fmt: skip
    said = {token.data for token in forced.tokens or ()}
    assert len(said) == 1
    assert said != {token.data for token in greedy.tokens or ()}
    assert all(token.log_prob < -5 for token in forced.tokens or ())  # the model's own, without the bias
    with pytest.raises(InvalidRequest, match=r"logit_bias: token ids must be 0 to \d+; got '99999999'"):
        client.chat(QUESTION, logit_bias={99999999: 1})


def test_given_texts_are_scored_as_harnesses_do_it(server: RunningServer, client: Client) -> None:
    """By the tokens after the context, with one more made and dropped (lm-eval's `local-completions`)."""
    tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    chat = "<|begin_of_text|><|User|>怎么退货？<|Assistant|>"
    greedy = client.complete(
        chat, temperature=0.0, repetition_penalty=1.0, return_log_probs=True, max_tokens=12
    )
    texts = [chat + greedy.text, chat + "今天天气很好，我们去公园。"]
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    context = len(tokenizer.encode(chat, add_special_tokens=False).ids)
    assert ids[0][:context] == ids[1][:context]

    def choices(prompt: Any) -> list[dict[str, Any]]:
        body = {
            "prompt": prompt,
            "echo": True,
            "logprobs": 1,
            "max_tokens": 1,
            "temperature": 0,
            "seed": 1234,
        }
        answer = httpx.post(f"{server.http_url}/v1/completions", json=body, timeout=WAIT_S)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["choices"]
        return found

    by_ids = choices(ids)
    scores = []
    for choice, text, tokens in zip(by_ids, texts, ids, strict=True):
        told = choice["logprobs"]
        assert choice["text"].startswith(text)
        assert (
            len(told["tokens"]) == len(told["token_logprobs"]) == len(told["top_logprobs"]) == len(tokens) + 1
        )
        scores.append(told["token_logprobs"][context:-1])
    # Both made by the model: as likely, and the likeliest, as when it made them.
    assert sum(scores[0]) == pytest.approx(sum(greedy.log_probs or ()), abs=0.01)
    best = [max(top.values()) for top in by_ids[0]["logprobs"]["top_logprobs"][context:-1]]
    assert scores[0] == best
    assert sum(scores[1]) < sum(scores[0]) - 20
    # Text by text and as text: the same.
    for text, choice in zip(texts, by_ids, strict=True):
        (one,) = choices(text)
        assert one["logprobs"]["tokens"] == choice["logprobs"]["tokens"]
        assert one["logprobs"]["token_logprobs"][1:] == pytest.approx(
            choice["logprobs"]["token_logprobs"][1:], abs=1e-3
        )


SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"enum": ["北京", "Paris"]},
        "days": {"type": "integer"},
        "note": {"type": "string", "maxLength": 20},
    },
    "required": ["city", "days", "note"],
    "additionalProperties": False,
}


def test_a_schema_is_kept_to_while_others_run_on_unharmed(client: Client) -> None:
    def free(_: int) -> str:
        return client.chat(QUESTION, temperature=0.0, repetition_penalty=1.0).text

    def held(seed: int) -> Any:
        answer = client.chat(
            "Where to?", seed=seed, temperature=1.0, max_tokens=200,
            guided_decoding_guide_type="json_schema", guided_decoding_guide=json.dumps(SCHEMA),
        )  # fmt: skip
        assert answer.finish_reason == "stop"
        return json.loads(answer.text)

    def refused(_: int) -> str:
        with pytest.raises(InvalidRequest) as caught:
            client.chat(
                "x", guided_decoding_guide_type="json_schema", guided_decoding_guide='{"type": "nonsense"}'
            )
        return str(caught.value)

    alone = free(0)
    with ThreadPoolExecutor(12) as callers:
        others, values, refusals = (callers.map(kind, range(8)) for kind in (free, held, refused))
        assert set(others) == {alone}
        for value in values:
            assert list(value) == ["city", "days", "note"]
            assert value["city"] in ("北京", "Paris")
            assert isinstance(value["days"], int)
            assert len(value["note"]) <= 20
        assert set(refusals) == {"guided_decoding_guide: Invalid type: nonsense"}


def test_an_expression_and_any_object(client: Client) -> None:
    answer = client.chat(QUESTION, guided_decoding_guide_type="regex", guided_decoding_guide="(yes|no)[.!]")
    assert re.fullmatch(r"(yes|no)[.!]", answer.text)
    assert answer.finish_reason == "stop"
    text = client.chat(QUESTION, guided_decoding_guide_type="json", max_tokens=60).text
    assert text.lstrip().startswith("{")
    with pytest.raises(InvalidRequest, match=r"guided_decoding_guide_type: .* got 'ebnf_grammar'"):
        client.chat("x", guided_decoding_guide_type="ebnf_grammar", guided_decoding_guide="x")
    with pytest.raises(InvalidRequest, match="guided_decoding_guide: it requires"):
        client.chat("x", guided_decoding_guide="x")


SLOW = [{"type": "integer", "multipleOf": number} for number in (1234567, 1234568, 1234569)]


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"$ref": "#"}, "it refers to itself endlessly"),
        (
            {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
            "it refers to itself endlessly",
        ),
        ({"type": "object", "properties": {f"p{i}": {} for i in range(1000)}}, "properties; got 1000"),
        (SLOW[0], "it is too complex: compiling it takes more than"),
    ],
)
def test_a_schema_that_cannot_be_compiled_is_a_400_with_the_reason(
    server: RunningServer, schema: dict[str, Any], says: str
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"messages": [{"role": "user", "content": "x"}], "response_format": form}
    # On a busy machine the head of a stream may be sent before a slow one is refused.
    for stream in (False,) if schema == SLOW[0] else (False, True):
        url = f"{server.http_url}/v1/chat/completions"
        answer = httpx.post(url, json=body | {"stream": stream}, timeout=WAIT_S)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, "response_format")
        assert says in error["message"]


def test_few_schemas_wait_to_be_compiled_and_who_leaves_makes_room(client: Client) -> None:
    """The fault: any number waited, each for all before it, those of callers who had left included."""

    def begin(schema: Any) -> Stream:
        return client.stream(
            "x",
            guided_decoding_guide_type="json_schema",
            guided_decoding_guide=json.dumps(schema),
            max_tokens=9,
        )

    def busy(stream: Stream) -> bool:
        try:
            stream.poll(0.3)
        except Busy as error:
            return "waiting for their schemas to be compiled" in str(error)
        return False

    with ExitStack() as streams:
        for schema in SLOW:
            streams.enter_context(begin(schema))
        waiting = [streams.enter_context(begin({"const": f"w{i}"})) for i in range(40)]
        assert any(busy(stream) for stream in waiting)
        for stream in waiting:
            stream.close()
        until = time.monotonic() + WAIT_S
        while busy(last := streams.enter_context(begin({"const": "last"}))):
            assert time.monotonic() < until
        for _ in last:
            pass
        assert last.answer.text == '"last"'
