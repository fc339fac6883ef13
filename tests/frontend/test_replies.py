"""Real replies of every route, whole and event by event, hold to what `/openapi.json` says of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from youtu_client import Client, __version__

from frontend import create_app
from serve.settings import Settings
from tests.client.fake_triton import FakeTriton

from .conftest import events, script
from .test_description import document

THINKING = script(pieces=["so ", "</think>\n\n", "said"], thinking=True)
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "f"}}]
GENERATING = ("/chat", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")

OPTIONS: dict[str, list[dict[str, Any]]] = {
    "/chat": [{}],
    "/v1/chat/completions": [
        {},
        {"n": 2},
        {"tools": TOOLS},
        {"logprobs": True},
        {"logprobs": True, "top_logprobs": 2},
        {"stream_options": {"include_usage": True}},
    ],
    "/v1/completions": [
        {},
        {"n": 2},
        {"logprobs": 0},
        {"logprobs": 2},
        {"echo": True},
        {"echo": True, "logprobs": 1},
        {"stream_options": {"include_usage": True}},
    ],
    "/v1/responses": [
        {},
        {"reasoning": {"summary": "auto"}},
        {"tools": [{"type": "function", "name": "f", "parameters": {}}]},
    ],
    "/v1/messages": [
        {"max_tokens": 100},
        {"max_tokens": 100, "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    ],
}


class Described:
    """`/openapi.json` of an app, taken at its word: a reply has no key that is not named there."""

    def __init__(self, app: FlaskClient) -> None:
        self.paths = document(app)["paths"]
        self._components = document(app)["components"]
        for schema in self._components["schemas"].values():
            if schema.pop("additionalProperties", None) is not False and "properties" in schema:
                schema["unevaluatedProperties"] = False

    def forget(self, schema: str, key: str) -> None:
        """Take a key out of the description."""
        del self._components["schemas"][schema]["properties"][key]

    def check(self, reply: Any, path: str, method: str) -> list[int]:
        """The reply is as described. Gives the kinds of its events, as places in the description."""
        responses = self.paths[path][method]["responses"]
        assert str(reply.status_code) in responses, (reply.status_code, reply.data)
        content = responses[str(reply.status_code)]["content"]
        assert reply.mimetype in content
        if reply.mimetype == "text/event-stream":
            kinds = content[reply.mimetype]["schema"]["anyOf"]
            return [self._kind(kinds, name, data) for name, data in sent(reply.data.decode())]
        if reply.mimetype == "application/json":
            self._validate(content[reply.mimetype]["schema"], reply.json)
        return []

    def _kind(self, kinds: list[Any], name: str, data: Any) -> int:
        found = []
        for place, kind in enumerate(kinds):
            properties = kind["properties"]
            named = properties.get("event", {"const": "message"})
            if name not in named.get("enum", [named.get("const")]):
                continue
            schema = properties["data"].get("contentSchema", {"const": properties["data"].get("const")})
            if self._validator(schema).is_valid(data):
                found.append(place)
        assert len(found) == 1, f"{name} {data} is of the kinds {found}"
        return found[0]

    def _validate(self, schema: Any, value: Any) -> None:
        self._validator(schema).validate(value)

    def _validator(self, schema: Any) -> Draft202012Validator:
        return Draft202012Validator(schema | {"components": self._components})


def sent(text: str) -> Iterator[tuple[str, Any]]:
    """The events of a body; OpenAI's last one is no JSON."""
    done = "data: [DONE]\n\n"
    yield from ((name, data) for name, data in events(text.removesuffix(done)) if name != "comment")
    if text.endswith(done):
        yield "message", "[DONE]"


def body(path: str, prompt: str, options: dict[str, Any]) -> dict[str, Any]:
    if path == "/v1/responses":
        return {"input": prompt} | options
    if path == "/v1/messages":
        return {
            "model": "youtu-demo",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": prompt}],
        } | options
    if path == "/v1/chat/completions":
        return {"messages": [{"role": "user", "content": prompt}]} | options
    return {"prompt": prompt} | options


@pytest.fixture
def described(app: FlaskClient) -> Described:
    return Described(app)


PROMPTS = {
    "plain": "你好 there",
    "nothing": script(pieces=[]),
    "cut": script(tokens=9, finish="length", cached=2),
    "thinking": THINKING,
    "call": script(pieces=["I call ", *CALL.partition(' "arg')]),
    "late failure": script(tokens=3, fail_at=1),
}


@pytest.mark.parametrize("path", GENERATING)
def test_whole_replies(app: FlaskClient, fake: FakeTriton, described: Described, path: str) -> None:
    for options in OPTIONS[path]:
        if "stream_options" not in options:
            for name, prompt in PROMPTS.items():
                reply = app.post(path, json=body(path, prompt, options))
                assert reply.status_code == (502 if name == "late failure" else 200)
                described.check(reply, path, "post")


def document_id(app: FlaskClient) -> str:
    """Of a document that was sent."""
    reply = app.post("/documents?name=a.txt", data=b"words", content_type="application/octet-stream")
    return str(json.loads(reply.data)["id"])


@pytest.mark.parametrize("path", GENERATING)
def test_every_event_of_streams(app: FlaskClient, fake: FakeTriton, described: Described, path: str) -> None:
    """Each is of exactly one kind, and every kind that is described comes."""
    seen: set[int] = set()
    for options in OPTIONS[path]:
        if "logprobs" not in options or "echo" not in options:
            for prompt in PROMPTS.values():
                reply = app.post(path, json=body(path, prompt, options | {"stream": True}))
                assert (reply.status_code, reply.mimetype) == (200, "text/event-stream")
                seen.update(described.check(reply, path, "post"))
    if path in ("/chat", "/v1/chat/completions"):
        asked = body(path, "which words?", {"documents": [document_id(app)], "stream": True})
        seen.update(described.check(app.post(path, json=asked), path, "post"))
    content = described.paths[path]["post"]["responses"]["200"]["content"]
    assert seen == set(range(len(content["text/event-stream"]["schema"]["anyOf"])))


GETS = ["/v1/models", "/v1/models/{model}", "/health", "/health/live", "/health/ready"]
GETS += ["/ping", "/version", "/metrics"]
QUESTION = [{"role": "user", "content": "你好 there"}]
COUNTING: dict[str, dict[str, Any]] = {
    "/v1/responses/input_tokens": {"input": "你好 there"},
    "/v1/messages/count_tokens": {"model": "youtu-demo", "messages": QUESTION},
    "/tokenize": {"prompt": "你好 there", "return_token_strs": True},
    "/detokenize": {"tokens": [20320, 22909]},
}
DOCUMENTS = ["/documents", "/documents/{id}"]
STORED = ["/v1/responses/{response_id}", "/v1/responses/{response_id}/input_items"]


def test_no_route_is_left_out(described: Described) -> None:
    assert sorted([*GENERATING, *GETS, *COUNTING, *STORED, *DOCUMENTS]) == sorted(described.paths)


def test_the_version_is_the_one_of_the_client(app: FlaskClient) -> None:
    """The fault: 1.0.0 was written here, beside 0.1.0 of the client."""
    assert app.get("/version").json == {"version": __version__}
    assert (app.get("/openapi.json").json or {})["info"]["version"] == __version__


def test_replies_about_documents(app: FlaskClient, fake: FakeTriton, described: Described) -> None:
    file = {"data": b"words", "content_type": "application/octet-stream"}
    described.check(app.post("/documents", **file), "/documents", "post")
    described.check(app.post("/documents", **(file | {"data": b"\x89PNG\0"})), "/documents", "post")
    described.check(app.get("/documents"), "/documents", "get")
    for _ in range(2):
        described.check(app.delete(f"/documents/{document_id(app)}"), "/documents/{id}", "delete")
        described.check(app.delete("/documents/none"), "/documents/{id}", "delete")
    for path in ("/chat", "/v1/chat/completions"):
        asked = body(path, "which words?", {"documents": [document_id(app)]})
        described.check(app.post(path, json=asked), path, "post")


@pytest.mark.parametrize("path", COUNTING)
def test_what_is_counted(app: FlaskClient, fake: FakeTriton, described: Described, path: str) -> None:
    reply = app.post(path, json=COUNTING[path])
    assert reply.status_code == 200
    described.check(reply, path, "post")
    refused = app.post(path, json={"no_such_field": 1})
    assert refused.status_code == 400
    described.check(refused, path, "post")


def test_what_is_kept(app: FlaskClient, fake: FakeTriton, described: Described) -> None:
    kept = (app.post("/v1/responses", json={"input": "你好 there"}).json or {})["id"]
    for path in STORED:
        for response_id, status in ((kept, 200), ("resp_none", 404)):
            reply = app.get(path.format(response_id=response_id))
            assert reply.status_code == status
            described.check(reply, path, "get")
    for status in (200, 404):
        reply = app.delete(f"/v1/responses/{kept}")
        assert reply.status_code == status
        described.check(reply, STORED[0], "delete")


@pytest.mark.parametrize("path", GETS)
def test_what_is_read(app: FlaskClient, fake: FakeTriton, described: Described, path: str) -> None:
    reply = app.get(path.format(model="youtu-demo"))
    assert reply.status_code == 200
    described.check(reply, path, "get")


@pytest.mark.parametrize("state", ["unready", "stalled", "draining", "down"])
def test_what_is_read_while_nothing_is_served(fake: FakeTriton, state: str) -> None:
    port = 1 if state == "down" else fake.port
    settings = Settings.load({"YOUTU_GRPC_PORT": str(port)})
    app = create_app(settings, Client(f"127.0.0.1:{port}", timeout=10))
    client = app.test_client()
    described = Described(client)
    fake.ready, fake.stalled = state != "unready", state == "stalled"
    if state == "draining":
        app.extensions["drain"].begin()
    try:
        for path in GETS:
            reply = client.get(path.format(model="youtu-demo"))
            if path in ("/health", "/health/ready", "/ping"):
                assert reply.status_code == 503
            described.check(reply, path, "get")
        for path in GENERATING:
            if state != "stalled":
                assert described.check(client.post(path, json=body(path, "q", {})), path, "post") == []
    finally:
        fake.stalled = False


@pytest.mark.parametrize("path", GENERATING)
@pytest.mark.parametrize(
    ("status", "prompt", "options"),
    [
        (400, "q", {"no_such_field": 1}),
        (400, script(fail_at=0, fail_code="INVALID_ARGUMENT", fail_message="max_tokens: too many"), {}),
        (404, "q", {"model": "another"}),
        (413, "q" * 5_000_000, {}),
        (429, script(queue_full=True), {}),
        (502, script(fail_at=0), {}),
        (503, script(not_ready=True), {}),
    ],
)
def test_errors(
    app: FlaskClient,
    fake: FakeTriton,
    described: Described,
    path: str,
    status: int,
    prompt: str,
    options: dict[str, Any],
) -> None:
    reply = app.post(path, json=body(path, prompt, options))
    assert reply.status_code == (400 if (path, status) == ("/chat", 404) else status)
    described.check(reply, path, "post")


@pytest.mark.parametrize("stream", [False, True])
def test_the_checks_would_notice(app: FlaskClient, fake: FakeTriton, stream: bool) -> None:
    """A key that is not described, in a reply and in an event."""
    described = Described(app)
    reply = app.post("/chat", json={"prompt": "q", "stream": stream})
    described.check(reply, "/chat", "post")
    described.forget("Timings", "ttft_s")
    with pytest.raises(Exception, match="ttft_s"):
        described.check(reply, "/chat", "post")
