"""Bytes that no client would send: each gets its 4xx in the one shape, and the next customer is served."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, Reply

ROUTES = ["/chat", "/v1/chat/completions", "/v1/completions", "/render"]
GOOD = {
    "/chat": b'{"prompt": "q"}',
    "/v1/chat/completions": b'{"messages": [{"role": "user", "content": "q"}]}',
    "/v1/completions": b'{"prompt": "q"}',
    "/render": b'{"text": "q"}',
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["prompt", "messages", "model", "n", "stop", "stream", "tools", "logit_bias", "response_format", "text"]
) | st.sampled_from(["chat_template_kwargs", "temperature", "seed", "max_tokens", "role", "top_logprobs"])
BODIES = (
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(FIELDS, JSON, max_size=5).map(lambda value: json.dumps(value).encode())
    | st.integers(1, 100_000).map(lambda depth: b'{"prompt": ' + b"[" * depth)
    | st.integers(1, 3000).map(lambda depth: b'{"messages": ' + b"[" * depth + b"]" * depth + b"}")
)


@pytest.mark.parametrize("route", ROUTES)
def test_any_bytes(app: FlaskClient, fake: FakeTriton, route: str) -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(body=BODIES)
    def send(body: bytes) -> None:
        answer = app.post(route, data=body, content_type="application/json")
        reply = Reply(answer.status_code, answer.headers, answer.data)
        if reply.status != 200:  # what chance made is now and then a request
            assert 400 <= reply.status < 500, (reply.status, body)
            assert reply.error["type"] == "invalid_request_error"

    send()
    assert app.post(route, data=GOOD[route], content_type="application/json").status_code == 200


@pytest.mark.parametrize("route", ROUTES)
def test_any_bytes_in_the_place_of_one_in_a_good_body(app: FlaskClient, fake: FakeTriton, route: str) -> None:
    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(at=st.integers(0, 60), other=st.binary(min_size=1, max_size=3))
    def send(at: int, other: bytes) -> None:
        good = GOOD[route]
        at %= len(good)
        answer = app.post(route, data=good[:at] + other + good[at + 1 :], content_type="application/json")
        reply = Reply(answer.status_code, answer.headers, answer.data)
        if reply.status != 200:
            assert 400 <= reply.status < 500, reply.status
            assert reply.error["message"]

    send()


@pytest.mark.parametrize("route", ROUTES)
def test_ten_megabytes(frontend: Frontend, route: str) -> None:
    def post(body: bytes) -> Any:
        return frontend.send("POST", route, body, **{"Content-Type": "application/json"})

    reply = post(b'{"prompt": "' + b"q" * 10_000_000 + b'"}')
    assert reply.status == 413
    assert "10000014" in reply.error["message"]
    assert post(GOOD[route]).status == 200
