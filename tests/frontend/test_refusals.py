"""Every 4xx of the HTTP contract: status, shape, the field at fault, and that the model is not asked."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, Reply, script

MESSAGE = {"role": "user", "content": "q"}


def post(app: FlaskClient, body: bytes, **headers: str) -> Reply:
    reply = app.post("/chat", data=body, headers={"Content-Type": "application/json", **headers})
    return Reply(reply.status_code, reply.headers, reply.data)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, None, "exactly one of prompt and messages; got neither"),
        ({"prompt": "q", "messages": [MESSAGE]}, None, "got both"),
        ({"messages": [MESSAGE], "history": []}, None, "history requires prompt"),
        ({"prompt": 5}, "prompt", "string, not 5"),
        ({"prompt": ""}, "prompt", "must not be empty"),
        ({"prompt": " \n"}, "prompt", "must not be empty"),
        ({"prompt": "a\0b"}, "prompt", "U+0000, which is not a text character, at position 1"),
        ({"prompt": "q", "stop": ["a\ud800"]}, "stop[0]", "U+D800"),
        ({"messages": []}, "messages", "at least 1 items, not 0"),
        ({"messages": "q"}, "messages", "list"),
        ({"messages": [MESSAGE, 3]}, "messages[1]", "not 3"),
        ({"messages": [{"role": "robot", "content": ""}]}, "messages[0].role", "'assistant', not \"robot\""),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing"),
        ({"messages": [{**MESSAGE, "name": "x"}]}, "messages[0].name", "expected one of role, content"),
        ({"prompt": "q", "history": [["a"]]}, "history[0]", "at least 2 items, not 1"),
        ({"prompt": "q", "history": [["a", "b", "c"]]}, "history[0]", "at most 2 items, not 3"),
        ({"prompt": "q", "history": [["a", None]]}, "history[0][1]", "not null"),
        ({"prompt": "q", "history": ["a"]}, "history[0]", 'not "a"'),
        ({"prompt": "q", "history": [["a", "\ud800"]]}, "history[0][1]", "U+D800"),
        ({"prompt": "q", "system": "a", "history": [{"role": "system", "content": "b"}]}, None, "twice"),
        ({"prompt": "q", "max_tokens": 0}, "max_tokens", "greater than or equal to 1, not 0"),
        ({"prompt": "q", "max_tokens": 2**31}, "max_tokens", "2147483647, not 2147483648"),
        ({"prompt": "q", "max_tokens": 1.5}, "max_tokens", "not 1.5"),
        ({"prompt": "q", "max_tokens": "5"}, "max_tokens", 'not "5"'),
        ({"prompt": "q", "max_tokens": True}, "max_tokens", "not true"),
        ({"prompt": "q", "temperature": -0.1}, "temperature", "greater than or equal to 0, not -0.1"),
        ({"prompt": "q", "temperature": 1e300}, "temperature", "1e+300"),
        ({"prompt": "q", "top_p": -0.1}, "top_p", "greater than or equal to 0, not -0.1"),
        ({"prompt": "q", "top_p": 1.01}, "top_p", "less than or equal to 1, not 1.01"),
        ({"prompt": "q", "top_k": -1}, "top_k", "not -1"),
        ({"prompt": "q", "repetition_penalty": 0}, "repetition_penalty", "greater than or equal to 0.01"),
        ({"prompt": "q", "seed": -1}, "seed", "not -1"),
        ({"prompt": "q", "seed": 2**64}, "seed", "18446744073709551615, not 18446744073709551616"),
        ({"prompt": "q", "stop": [""]}, "stop", "empty string"),
        ({"prompt": "q", "stop": {"a": 1}}, "stop", "list"),
        ({"prompt": "q", "thinking": 1}, "thinking", "not 1"),
        ({"prompt": "q", "stream": "yes"}, "stream", 'not "yes"'),
        ({"prompt": "q", "temprature": 1}, "temprature", "expected one of max_tokens, "),
        ({"prompt": "q", "": 1}, "", "unknown field ``"),
        ({"prompt": "q", "x" * 500: 1}, "x" * 60 + "…", "unknown field `x"),
        ({"prompt": "q", "top_k": "y" * 500}, "top_k", "… (502 characters)"),
    ],
)
def test_a_wrong_field_is_named_with_its_limit_and_what_was_sent(
    app: FlaskClient, fake: FakeTriton, body: dict[str, Any], param: str | None, words: str
) -> None:
    reply = post(app, json.dumps(body).encode())
    assert reply.status == 400
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["param"] == param
    assert words in reply.error["message"]
    said, _, _known_fields = reply.error["message"].partition("; expected one of ")
    assert len(said) < 300
    assert fake.calls == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"prompt=q", "line 1, column 1"),
        (b'{"prompt": "q"', "column 15"),
        (b'{"prompt": "q"} x', "Extra data"),
        (b'{"prompt": "\xc4\xe3"}', "not UTF-8: byte 12 is 0xc4"),
        (b'{"prompt": "q\x00"}', "control character"),
        (b"\xff\xfe{\x00}\x00", "not UTF-8"),
        (b"[]", "object, not []"),
        (b"null", "object, not null"),
        (b'"q"', "object"),
        (b'{"prompt": "q", "temperature": NaN}', "NaN is not JSON"),
        (b'{"prompt": "q", "temperature": -Infinity}', "-Infinity is not JSON"),
        (b'{"prompt": "q", "temperature": 1e999}', "finite"),
        (b'{"prompt": "a", "prompt": "b"}', "duplicate key `prompt`"),
        (b'{"messages": [{"role": "user", "role": "system", "content": ""}]}', "duplicate key `role`"),
        (b'{"prompt": "q", "seed": ' + b"9" * 5000 + b"}", "too long"),
        (b'{"prompt": ' + b"[" * 100_000 + b"}", "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
    ],
    ids=lambda value: repr(value[:24]) if isinstance(value, bytes) else "",
)
def test_what_is_not_a_json_object(app: FlaskClient, fake: FakeTriton, body: bytes, words: str) -> None:
    reply = post(app, body)
    assert reply.status == 400
    assert words in reply.error["message"]
    assert fake.calls == []


def test_a_byte_order_mark_is_no_reason_to_refuse(app: FlaskClient, fake: FakeTriton) -> None:
    assert post(app, b'\xef\xbb\xbf{"prompt": "q"}').status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x"])
def test_other_media_types(app: FlaskClient, kind: str) -> None:
    reply = post(app, b'{"prompt": "q"}', **{"Content-Type": kind})
    assert reply.status == 415
    assert "application/json" in reply.error["message"]


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({"Content-Encoding": "gzip"}, 'unsupported Content-Encoding "gzip"; send the body uncompressed'),
        ({"Content-Encoding": "br, gzip"}, '"br, gzip"'),
        (
            {"Content-Type": "application/json; charset=gb2312"},
            'charset of the body must be utf-8, not "gb2312"',
        ),
    ],
)
def test_a_compressed_body_and_another_charset(app: FlaskClient, headers: dict[str, str], words: str) -> None:
    reply = post(app, b'{"prompt": "q"}', **headers)
    assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")
    assert words in reply.error["message"]


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", "us-ascii"])
def test_a_charset_that_is_utf_8(app: FlaskClient, fake: FakeTriton, charset: str) -> None:
    kind = {"Content-Type": f"application/json; charset={charset}", "Content-Encoding": "identity"}
    assert post(app, b'{"prompt": "q"}', **kind).status == 200


def test_another_site_cannot_pass_a_form_off_as_json(app: FlaskClient, fake: FakeTriton) -> None:
    """The fault: any page a user visits could make the local model work, without the browser asking first."""
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://elsewhere.example"}
    assert post(app, b'{"prompt": "q"}', **form).status == 415
    assert fake.calls == []


def test_methods_and_routes(frontend: Frontend) -> None:
    wrong = frontend.get("/chat")
    assert wrong.status == 405
    assert wrong.error["code"] == "method_not_allowed"
    assert "POST" in wrong.headers["Allow"]
    assert frontend.send("DELETE", "/health", None).status == 405
    for path in ("/nowhere", "/chat/x", "/static/none.js", "/static/../__init__.py", "/%00", "/health/x"):
        missing = frontend.get(path)
        assert missing.status == 404
        assert missing.error["type"] == "invalid_request_error"


def test_a_body_over_the_limit(frontend: Frontend, fake: FakeTriton) -> None:
    within = b'{"prompt": "' + b"x" * (2**20 - 14) + b'"}'
    assert frontend.post(within).status == 200
    fake.calls.clear()
    reply = frontend.post(within + b" ")
    assert reply.status == 413
    assert "1048576 bytes; got 1048577" in reply.error["message"]
    assert fake.calls == []


@pytest.mark.parametrize("size", [100, 2 * 2**20])
def test_a_chunked_body(frontend: Frontend, size: int) -> None:
    """The fault: the limit counted only what Content-Length said."""
    body = json.dumps({"prompt": "x" * size}).encode()
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=20) as open_:
        open_.sendall(
            b"POST /chat HTTP/1.1\r\nHost: localhost\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        for at in range(0, len(body), 65536):
            part = body[at : at + 65536]
            open_.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        open_.sendall(b"0\r\n\r\n")
        answer = b"".join(iter(lambda: open_.recv(65536), b""))
    assert answer.split()[1] == (b"200" if size == 100 else b"413")


@pytest.mark.parametrize(
    "sent",
    [
        b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{}",
        b"POST /chat HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"\x16\x03\x01 not http\r\n\r\n",
    ],
)
def test_rubbish_on_the_wire_gets_the_one_shape_too(frontend: Frontend, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", frontend.port), timeout=20) as open_:
        open_.sendall(sent)
        open_.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: open_.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == b"400"
    assert Reply(400, None, body).error["type"] == "invalid_request_error"
    assert frontend.get("/health/live").status == 200


def test_a_header_without_end(frontend: Frontend) -> None:
    reply = frontend.get("/", **{"X-Long": "x" * 20_000})
    assert reply.status == 431
    assert reply.error["code"] == "headers_too_large"


def test_a_key_when_one_is_set(another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another(api_key="right-key")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic right-key"}):
        reply = frontend.post({"prompt": "q"}, **headers)
        assert reply.status == 401
        assert reply.error["type"] == "authentication_error"
        assert reply.headers["WWW-Authenticate"].startswith("Bearer")
        assert "right-key" not in reply.body.decode()
    assert frontend.post({"prompt": "q"}, Authorization="Bearer r\xefght-key").status == 401
    assert frontend.get("/nowhere").status == 401
    assert fake.calls == []
    assert frontend.post({"prompt": "q"}, Authorization="bearer right-key").status == 200
    for path in ("/", "/health", "/health/live", "/health/ready", "/static/chat.js", "/static/chat.css"):
        assert frontend.get(path).status == 200, path
    assert frontend.get("/page/facts").json["needs_key"] is True


def test_no_key_is_asked_for_by_default(frontend: Frontend) -> None:
    assert frontend.get("/page/facts").json["needs_key"] is False
    assert frontend.post({"prompt": "q"}, Authorization="Bearer anything").status == 200


@pytest.mark.parametrize("path", ["/", "/chat", "/health", "/static/chat.js", "/nowhere"])
def test_security_headers_on_everything(app: FlaskClient, path: str) -> None:
    headers = app.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in headers


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["prompt", "messages", "history", "system", "max_tokens", "temperature", "top_p", "top_k"]
FIELDS += ["repetition_penalty", "seed", "stop", "thinking", "stream"]
bodies = (
    st.binary(max_size=200)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from(FIELDS) | st.text(), json_values, max_size=4).map(
        lambda value: json.dumps({"prompt": "q", **value}).encode()
    )
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=bodies)
def test_no_body_is_the_servers_fault(app: FlaskClient, body: bytes) -> None:
    reply = post(app, body)
    assert reply.status in (200, 400)
    if reply.status == 400:
        assert reply.error["type"] == "invalid_request_error"


def test_a_refusal_by_the_model_keeps_its_sentence(frontend: Frontend) -> None:
    prompt = script(
        fail_at=0, fail_code="invalid_value", fail_param="top_k", fail_message="at most 9, not 10"
    )
    for stream in (False, True):
        reply = frontend.post({"prompt": prompt, "stream": stream})
        assert reply.status == 400
        assert reply.error["message"] == "top_k: at most 9, not 10"
        assert reply.error["param"] == "top_k"


def test_a_question_that_does_not_fit_is_named_as_it_was_asked(frontend: Frontend) -> None:
    question = script(
        fail_at=0,
        fail_code="context_length_exceeded",
        fail_param="messages",
        fail_message="3000 do not fit",
        fail_details={"prompt_tokens": 3000, "context_tokens": 2048},
    )
    for body, name in (
        ({"prompt": question}, "prompt"),
        ({"messages": [{"role": "user", "content": question}]}, "messages"),
    ):
        error = frontend.post(body).error
        assert (error["message"], error["param"]) == (f"{name}: 3000 do not fit", name)
        assert error["code"] == "context_length_exceeded"
