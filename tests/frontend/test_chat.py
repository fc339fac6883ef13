"""`POST /chat` when all goes well: the contract's keys, what reaches the model, pieces as they are made."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, events, script

KEYS = ["response", "time_cost", "token_count", "finish_reason", "usage", "timings", "model", "request_id"]


def test_the_three_keys_come_first_and_in_their_forms(frontend: Frontend) -> None:
    reply = frontend.post({"prompt": "你好 🙂"})
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert list(reply.json) == KEYS
    assert reply.json["response"] == "You said: 你好 🙂"
    assert re.fullmatch(r"\d+\.\ds", reply.json["time_cost"])
    assert reply.json["token_count"] == 4
    assert "你好 🙂".encode() in reply.body  # UTF-8, not \u escapes.


def test_the_facts_are_those_of_the_model(frontend: Frontend) -> None:
    prompt = script(tokens=5, delay=0.05, cached=2, prefill=0.1)
    started = time.monotonic()
    facts = frontend.post({"prompt": prompt, "max_tokens": 3}).json
    waited = time.monotonic() - started + 0.001  # the facts are rounded
    assert facts["finish_reason"] == "length"
    prompt_tokens = len(prompt.split())
    assert facts["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 3,
        "total_tokens": prompt_tokens + 3,
        "cached_tokens": 2,
    }
    timings = facts["timings"]
    assert 0.1 <= timings["ttft_s"] <= timings["total_s"] - 0.099 < timings["total_s"] <= waited
    assert timings["tokens_per_second"] == pytest.approx(
        2 / (timings["total_s"] - timings["ttft_s"]), rel=0.2
    )
    assert facts["model"] == "youtu-demo"


def test_time_cost_is_what_the_caller_waited(frontend: Frontend) -> None:
    started = time.monotonic()
    cost = float(
        frontend.post({"prompt": script(tokens=1, prefill=0.62)}).json["time_cost"].removesuffix("s")
    )
    assert 0.6 <= cost <= time.monotonic() - started + 0.05  # it is rounded to tenths


def test_every_option_reaches_the_model(frontend: Frontend, fake: FakeTriton) -> None:
    sent: dict[str, Any] = {
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 40,
        "repetition_penalty": 1.5,
        "seed": 2**64 - 1,
    }
    frontend.post({"prompt": "q", **sent, "stop": "END", "thinking": False})
    inputs = fake.calls[-1].inputs
    assert {name: inputs[name] for name in sent} == sent
    assert inputs["stop_words"] == ["END"]
    assert inputs["chat_template_kwargs"] in ('{"enable_thinking":false}', {"enable_thinking": False})


def test_what_is_not_sent_is_left_to_the_deployment(frontend: Frontend, fake: FakeTriton) -> None:
    frontend.post({"prompt": "q", "temperature": None, "stop": None, "thinking": None, "history": None})
    assert set(fake.calls[-1].inputs) == {"messages", "stream", "return_parts"}


@pytest.mark.parametrize(
    ("body", "turns"),
    [
        ({"prompt": "q"}, ["user:q"]),
        ({"prompt": "q", "system": "s"}, ["system:s", "user:q"]),
        ({"prompt": "q", "history": [["a", "b"]]}, ["user:a", "assistant:b", "user:q"]),
        (
            {
                "prompt": "q",
                "history": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
            },
            ["user:a", "assistant:b", "user:q"],
        ),
        ({"messages": [{"role": "user", "content": "a"}], "system": "s"}, ["system:s", "user:a"]),
        ({"prompt": "q", "history": []}, ["user:q"]),
    ],
)
def test_the_ways_to_give_a_conversation(
    app: FlaskClient, fake: FakeTriton, body: dict[str, Any], turns: list[str]
) -> None:
    assert app.post("/chat", json=body).status_code == 200
    messages = fake.calls[-1].inputs["messages"]
    messages = json.loads(messages) if isinstance(messages, str) else messages
    assert [f"{turn['role']}:{turn['content']}" for turn in messages] == turns


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "application/x-www-form-urlencoded", ""])
def test_a_plain_curl_d_is_understood(frontend: Frontend, kind: str) -> None:
    headers = {"Content-Type": kind}
    assert frontend.send("POST", "/chat", b'{"prompt": "q"}', **headers).json["response"] == "You said: q"


def test_streaming_brings_the_same_facts_in_pieces(frontend: Frontend) -> None:
    reply = frontend.post({"prompt": "一 二\n\ndata: x 🙂", "stream": True})
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Accel-Buffering"] == "no"
    *pieces, (name, done) = events(reply.body.decode())
    assert name == "done"
    assert list(done) == KEYS
    assert {kind for kind, _ in pieces} == {"message"}
    assert "".join(data["delta"] for _, data in pieces) == done["response"] == "You said: 一 二\n\ndata: x 🙂"
    assert done["token_count"] == len(pieces)


@pytest.mark.parametrize(
    ("thinking", "pieces"),
    [(True, ["h", "m\n</thi", "nk>\n\n", "yes"]), (False, ["<th", "ink>hm", "</think>", "yes"])],
)
def test_thinking_comes_apart(frontend: Frontend, thinking: bool, pieces: list[str]) -> None:
    """The fault: page, terminal and client each took the raw text apart, and disagreed."""
    prompt = script(pieces=pieces, thinking=thinking)
    whole = frontend.post({"prompt": prompt}).json
    assert (whole["reasoning_content"], whole["response"]) == ("hm", "yes")
    *deltas, (name, done) = events(frontend.post({"prompt": prompt, "stream": True}).body.decode())
    assert name == "done"
    assert (done["reasoning_content"], done["response"]) == ("hm", "yes")
    thinks = ["reasoning_content" in data for _, data in deltas]
    assert thinks == sorted(thinks, reverse=True)  # thinking first, then text
    for kind, text in (("reasoning_content", "hm"), ("delta", "yes")):
        assert "".join(data.get(kind, "") for _, data in deltas) == text


def test_pieces_arrive_when_they_are_made(frontend: Frontend, fake: FakeTriton) -> None:
    """The fault: a buffer between model and caller, which hands everything over at the end.

    Here the model makes no piece before the caller has the one before it.
    """
    with frontend.connect(
        {"prompt": script(tokens=5, stepped=True), "stream": True}, "Connection: close"
    ) as open_:
        (call,) = fake.wait_calls(1)
        said = b""
        for count in range(1, 6):
            call.step()
            while said.count(b"delta") < count:
                data = open_.recv(65536)
                assert data, said
                said += data
            assert said.count(b"delta") == count


def test_an_answer_without_any_text(frontend: Frontend) -> None:
    assert frontend.post({"prompt": script(pieces=[])}).json["response"] == ""
    done = events(frontend.post({"prompt": script(pieces=[]), "stream": True}).body.decode())[-1]
    assert done[0] == "done"
    assert done[1]["token_count"] == 0


def test_a_long_silence_is_kept_alive(frontend: Frontend, fake: FakeTriton) -> None:
    """The fault: a proxy takes a connection without a byte for dead while the model reads a prompt."""
    started = time.monotonic()
    with frontend.connect(
        {"prompt": script(tokens=1, stepped=True), "stream": True}, "Connection: close"
    ) as open_:
        said = open_.recv(65536)
        assert b"200 OK" in said
        # Until then the status could have become an error's.
        assert time.monotonic() - started > 1.5
        while b": ping" not in said:
            data = open_.recv(65536)
            assert data, said
            said += data
        assert b"delta" not in said
        fake.wait_calls(1)[0].step()
        rest = b"".join(iter(lambda: open_.recv(65536), b""))
    assert b"event: done" in rest


def test_the_request_id_goes_all_the_way(frontend: Frontend, fake: FakeTriton) -> None:
    reply = frontend.post({"prompt": "q"}, **{"X-Request-ID": "order-77"})
    assert reply.headers["X-Request-ID"] == reply.json["request_id"] == fake.calls[-1].id == "order-77"
    other = frontend.post({"prompt": "q"}, **{"X-Request-ID": "a b" * 99})
    assert re.fullmatch(r"[0-9a-f]{32}", other.headers["X-Request-ID"])


def test_many_at_once(frontend: Frontend, fake: FakeTriton) -> None:
    """64 callers, half of them streaming, each gets its own answer; a probe is answered meanwhile."""

    def ask(number: int) -> bool:
        pieces = [f"{number}-", "一", "🙂"]
        prompt = script(pieces=pieces, delay=0.05)
        reply = frontend.post({"prompt": prompt, "stream": number % 2 == 0})
        if number % 2:
            return bool(reply.json["response"] == "".join(pieces))
        deltas = [data["delta"] for name, data in events(reply.body.decode()) if name == "message"]
        return deltas == pieces

    fake.silent_from = 0
    with ThreadPoolExecutor(64) as pool:
        answers = pool.map(ask, range(64))
        frontend.wait_gauges(running=4, waiting=60)
        assert frontend.get("/health").status == 200
        fake.silent_from = None
        assert all(answers)


def test_the_log_has_one_line_and_neither_text_nor_key(another: Any) -> None:
    frontend: Frontend = another(api_key="secret-key-123")
    frontend.post(
        {"prompt": "my-private-question"}, Authorization="Bearer secret-key-123", **{"X-Request-ID": "one"}
    )
    frontend.post({"prompt": "my-private-question", "top_p": 9}, Authorization="Bearer secret-key-123")
    frontend.post({"prompt": "my-private-question"}, Authorization="Bearer secret-key-12")
    frontend.post(
        {"prompt": script(fail_at=0, fail_message="my-private-question"), "stream": True},
        Authorization="Bearer secret-key-123",
        **{"X-Request-ID": "broken"},
    )
    line = frontend.line("one")
    assert (line["method"], line["route"], line["status"]) == ("POST", "/chat", 200)
    assert (line["tokens"], line["finish_reason"]) == (3, "stop")
    assert line["duration_s"] >= line["ttft_s"] >= 0
    assert frontend.line("broken")["error"] == "ServerError"
    log = frontend.log.read_text()
    assert "my-private-question" not in log
    assert "secret-key" not in log
