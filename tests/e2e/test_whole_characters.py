"""An answer that is cut inside a character ends before it, on every route, streamed or not."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from detokenizer import token_bytes
from tokenizers import Tokenizer

from tests.e2e.running import ROOT, RunningServer
from tests.limits import WAIT_S

TABLE = token_bytes(Tokenizer.from_file(str(ROOT / "build" / "demo" / "checkpoint" / "tokenizer.json")))
CHAT = [{"role": "user", "content": "你好"}]
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/chat", {"prompt": "你好"}),
    "chat completions": ("/v1/chat/completions", {"messages": CHAT}),
    "completions": ("/v1/completions", {"prompt": "你好"}),
    "generate": ("/v2/models/youtu_llm/generate", {"messages": json.dumps(CHAT)}),
    "generate_stream": ("/v2/models/youtu_llm/generate_stream", {"text_input": "你好", "stream": True}),
}


def raw_answer(server: RunningServer, route: str, *, data: bytes, tokens: int, stream: bool) -> str:
    """The body of an answer that consists of `tokens` times the token of these bytes."""
    path, body = ROUTES[route]
    of_triton = path.startswith("/v2")
    bias: Any = {str(TABLE.index(data)): 100}
    body = body | {"logit_bias": json.dumps(bias) if of_triton else bias}
    body |= {"max_tokens": tokens, "temperature": 0, "repetition_penalty": 1}
    if stream and not of_triton:
        body |= {"stream": True}
    base = server.triton_http_url if of_triton else server.http_url
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}{path}", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=WAIT_S) as response:
        read: bytes = response.read()
    return read.decode()


def text_of(body: str) -> str:
    """All text in an answer of any route, events or one JSON."""

    def found(value: Any) -> str:
        if isinstance(value, list):
            return "".join(map(found, value))
        if not isinstance(value, dict):
            return ""
        names = ("response", "text", "text_output", "content", "delta", "choices", "message")
        return "".join(
            value[name] if isinstance(value.get(name), str) else found(value.get(name)) for name in names
        )

    lines = body.splitlines() if "data: " in body else [f"data: {body}"]
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    whole = [event for event in events if "response" not in event or len(events) == 1]
    return "".join(map(found, whole))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", ROUTES)
def test_a_cut_character_is_left_out(server: RunningServer, route: str, stream: bool) -> None:
    first = "货".encode()[:1]
    assert text_of(raw_answer(server, route, data=first, tokens=1, stream=stream)) == ""
    # Broken in the middle, which is marked; the last one is only unfinished.
    assert text_of(raw_answer(server, route, data=first, tokens=3, stream=stream)) == "\ufffd\ufffd"
    assert text_of(raw_answer(server, route, data=b"a", tokens=3, stream=stream)) == "aaa"
