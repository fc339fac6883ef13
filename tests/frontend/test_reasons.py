"""Every 5xx, and every stream that fails midway, has its reason in the log, and nothing of the text."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs
from youtu_client import Client, ServerError

from frontend import create_app
from frontend.errors import for_log, from_client
from serve.addresses import free_ports
from serve.settings import Settings
from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, events, script

FAILURES = [
    ("INTERNAL", "CUDA error 700", 502, "ServerError"),
    ("UNKNOWN", "no memory left", 502, "ServerError"),
    ("UNAVAILABLE", "Socket closed", 503, "ConnectionFailed"),
    ("CANCELLED", "stopping now", 503, "Cancelled"),
    ("DEADLINE_EXCEEDED", "not finish within", 504, "DeadlineExceeded"),
]
ROUTES: list[tuple[str, Callable[[str], dict[str, Any]]]] = [
    ("/chat", lambda text: {"prompt": text}),
    ("/v1/chat/completions", lambda text: {"messages": [{"role": "user", "content": text}]}),
    ("/v1/completions", lambda text: {"prompt": text}),
]


def post(frontend: Frontend, path: str, body: object, request_id: str) -> int:
    headers = {"Content-Type": "application/json", "X-Request-ID": request_id}
    return frontend.send("POST", path, json.dumps(body).encode(), **headers).status


@pytest.mark.parametrize(("path", "body"), ROUTES, ids=[path for path, _ in ROUTES])
@pytest.mark.parametrize(("code", "words", "status", "kind"), FAILURES)
def test_a_failure_of_the_engine(
    frontend: Frontend,
    fake: FakeTriton,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: Any,
    code: str,
    words: str,
    status: int,
    kind: str,
) -> None:
    """The fault: the line said "ServerError" and nobody could tell why."""
    monkeypatch.setattr(fake, "fail_message", words)
    for stream, at in ((False, 0), (True, 0), (True, 2)):
        asked = body(script(fail_code=code, fail_at=at, tokens=4)) | {"stream": stream}
        request_id = f"reason-{path}-{code}-{stream}-{at}"
        assert post(frontend, path, asked, request_id) == (200 if at else status)
        line = frontend.line(request_id)
        assert line["error"] == kind
        assert words in line["reason"]
        if kind in ("ServerError", "ConnectionFailed"):
            assert f"127.0.0.1:{frontend.environ['YOUTU_GRPC_PORT']}" in line["reason"]


def test_triton_is_away(another: Any) -> None:
    frontend: Frontend = another(grpc_port=free_ports(1)[0])
    for path, body in ROUTES:
        assert post(frontend, path, body("q"), f"away{path}") == 503
        line = frontend.line(f"away{path}")
        assert line["error"] == "ConnectionFailed"
        assert f"no connection to 127.0.0.1:{frontend.environ['YOUTU_GRPC_PORT']}" in line["reason"]
    for path in ("/health", "/health/ready", "/page/facts"):
        assert frontend.get(path, **{"X-Request-ID": f"away{path}"}).status == 503
        assert frontend.line(f"away{path}")["reason"] == "unhealthy"
    assert frontend.get("/v1/models", **{"X-Request-ID": "models"}).status == 503
    assert "no connection to" in frontend.line("models")["reason"]


def test_the_model_is_loading_and_the_server_out_of_time(another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another(request_timeout=1)
    for stream in (False, True):
        asked = {"prompt": script(prefill=60), "stream": stream}
        assert post(frontend, "/chat", asked, f"slow{stream}") == 504
        line = frontend.line(f"slow{stream}")
        assert line["error"] == "DeadlineExceeded"
        assert line["reason"]
    fake.ready = False
    assert post(frontend, "/chat", {"prompt": "q"}, "loading") == 503
    line = frontend.line("loading")
    assert line["error"] == "NotReady"
    assert "not at ready state" in line["reason"]


def test_a_refusal_by_the_caller_s_fault_has_none(frontend: Frontend) -> None:
    orders = {
        "fail_at": 0,
        "fail_code": "INVALID_ARGUMENT",
        "fail_message": "top_k must be at most 9, not 10",
    }
    assert post(frontend, "/chat", {"prompt": script(**orders)}, "refused") == 400
    assert "reason" not in frontend.line("refused")


TYPED = "my diary of Tuesday"


@pytest.mark.parametrize(
    "message",
    [
        f"failed on {TYPED!r} at 3",
        f"cannot read \"{TYPED}\" or b'{TYPED}'",
        f"the value “{TYPED}” is none, nor is 「{TYPED}」",
        f"KeyError: '{TYPED}",
        "x" * 480 + f" '{TYPED} and so on'",
        f"cannot read {TYPED} to its end",
        f"{TYPED[3:]}{TYPED[:12]}",
    ],
)
@pytest.mark.parametrize(("path", "body"), ROUTES, ids=[path for path, _ in ROUTES])
def test_what_was_typed_stays_out(
    frontend: Frontend,
    fake: FakeTriton,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: Any,
    message: str,
) -> None:
    """A message of the server may repeat the text; it may also be cut off within a quotation."""
    monkeypatch.setattr(fake, "fail_message", message)
    asked = body(f"{TYPED} {script(fail_at=0)}")
    request_id = f"typed-{path}-{abs(hash(message))}"
    assert post(frontend, path, asked, request_id) == 502
    line = frontend.line(request_id)
    assert line["reason"].startswith("127.0.0.1:")
    assert len(line["reason"]) < 600
    assert "diary" not in frontend.log.read_text()
    assert "Tuesday" not in frontend.log.read_text()


@pytest.mark.parametrize(
    ("message", "logged"),
    [
        ("unknown model: 'x' is gone", "unknown model: '…' is gone"),
        ("can't reach it, isn't there", "can't reach it, isn't there"),
        ("a\n  b", "a b"),
        (r"'it\'s' so", "'…' so"),
        ("y" * 2000, "y" * 500 + "…"),
    ],
)
def test_what_the_log_says_of_a_message(message: str, logged: str) -> None:
    assert for_log(message) == logged


@pytest.mark.parametrize(
    ("typed", "logged"),
    [
        ("a secret word", "it failed at … of 3"),
        ("at a secret word of", "it failed … 3"),
        ("secret", "it failed at a secret word of 3"),
        ("x" * 2_000_000, "(omitted: the request is too long to remove its text from the message)"),
    ],
)
def test_what_was_typed_is_cut_out_of_a_message(typed: str, logged: str) -> None:
    assert for_log("it failed at a secret word of 3", typed) == logged


def test_a_caller_never_sees_the_reason() -> None:
    told = from_client(ServerError("10.0.0.1:8001 failed: secret"))
    assert told.reason == "10.0.0.1:8001 failed: secret"
    assert "secret" not in json.dumps(told.body())


def test_a_bug(fake: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    """Request id, where, and what; what the exception or its cause quotes of the text is left out."""
    typed = "my " + "diary"

    def broken(*_args: object, **_options: object) -> None:
        try:
            raise KeyError(typed)
        except KeyError as error:
            raise ValueError(f"this value: {typed!r} is wrong") from error

    settings = Settings.load({"YOUTU_GRPC_PORT": str(fake.port)})
    app: FlaskClient = create_app(settings, Client(fake.address, timeout=10)).test_client()
    monkeypatch.setattr("frontend.chat.body.parse", broken)
    with capture_logs() as lines:
        reply = app.post("/chat", json={"prompt": "my diary"}, headers={"X-Request-ID": "bug"})
        assert reply.status_code == 500
        assert "diary" not in reply.text
        reply.close()
    (trace,) = [line for line in lines if line["event"] == "unhandled"]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert trace["request_id"] == line["request_id"] == "bug"
    assert "in broken" in trace["traceback"]
    assert "KeyError" in trace["traceback"]
    assert (line["error"], line["reason"]) == ("ValueError", "this value: '…' is wrong")
    assert "diary" not in str(lines)


def test_a_bug_in_the_middle_of_a_stream(fake: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault: the stream was cut off, and its line said nothing of an error."""
    settings = Settings.load({"YOUTU_GRPC_PORT": str(fake.port)})
    app: FlaskClient = create_app(settings, Client(fake.address, timeout=10)).test_client()

    def broken(*_args: object, **_options: object) -> None:
        raise ArithmeticError("a wrong figure")

    monkeypatch.setattr("frontend.chat.ChatReply.of", broken)
    with capture_logs() as lines:
        reply = app.post("/chat", json={"prompt": "q", "stream": True}, headers={"X-Request-ID": "bug"})
        assert reply.status_code == 200
        name, data = events(reply.text)[-1]
        reply.close()
    assert (name, data["error"]["code"]) == ("error", "internal_error")
    (trace,) = [line for line in lines if line["event"] == "unhandled"]
    (line,) = [line for line in lines if line["event"] == "request"]
    assert trace["request_id"] == line["request_id"] == "bug"
    assert (line["error"], line["reason"]) == ("ArithmeticError", "a wrong figure")


def test_the_server_is_ending(another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another(drain_timeout=60)
    with frontend.connect({"prompt": script(prefill=2)}):
        fake.wait_calls(1)
        os.kill(frontend.process.pid, signal.SIGTERM)
        status = 0
        for number in range(600):
            status = post(frontend, "/chat", {"prompt": "q"}, f"end{number}")
            if status == 503:
                break
        assert status == 503
        line = frontend.line(f"end{number}")
        assert (line["error"], line["reason"]) == (
            "draining",
            "The server is shutting down. Try again shortly.",
        )
