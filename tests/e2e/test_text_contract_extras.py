"""What the text contract tells and takes beside text, on the real server: log-probs in full, logit bias."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from youtu_client import Client, InvalidRequest

from tests.e2e.running import RunningServer

QUESTION = "怎么退货？"


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.grpc_url) as client:
        yield client


def test_the_tokens_are_the_text_and_greedy_takes_the_likeliest(client: Client) -> None:
    stream = client.stream(
        QUESTION, temperature=0.0, repetition_penalty=1.0, return_log_probs=True, top_log_probs=5
    )
    with stream:
        for piece in stream:
            assert b"".join(token.data for token in piece.tokens or ()) == piece.text.encode()
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
    with pytest.raises(InvalidRequest, match=r"logit_bias: token ids are 0 to \d+, '99999999' was sent"):
        client.chat(QUESTION, logit_bias={99999999: 1})
