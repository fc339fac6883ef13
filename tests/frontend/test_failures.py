"""What a caller is told when the model or Triton fails, before the first byte and after it; and health."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from youtu_client.errors import from_error
from youtu_contract.errors import CODES, Error

from frontend.errors import STATUSES, from_client
from serve.addresses import free_ports
from tests.client.fake_triton import PARAMETERS, FakeTriton
from tests.limits import NEVER_S, WAIT_S

from .conftest import Frontend, events, script

ROOT = Path(__file__).resolve().parents[2]
TABLE = [
    ({"queue_full": True}, 429, "rate_limit_error", "queue_full"),
    ({"not_ready": True}, 503, "unavailable_error", "not_ready"),
    ({"fail_at": 0, "fail_code": "INTERNAL"}, 502, "server_error", "engine_error"),
    ({"fail_at": 0, "fail_code": "UNKNOWN"}, 502, "server_error", "engine_error"),
    ({"fail_at": 0, "fail_code": "CANCELLED"}, 503, "unavailable_error", "cancelled"),
    ({"fail_at": 0, "fail_code": "DEADLINE_EXCEEDED"}, 504, "timeout_error", "deadline_exceeded"),
    (
        {"fail_at": 0, "fail_code": "UNAVAILABLE", "fail_message": "Socket closed"},
        503,
        "unavailable_error",
        "no_engine",
    ),
]


SENTENCES = [
    "invalid request: the queue is full",
    "not ready: input 'a' has shape [1], expected [2]; connection reset by peer",
    "Exceeds maximum queue size; the engine has stalled; deadline exceeded; Request for unknown model",
    '{"code": "invalid_value"}',
]
"""Each sounds like every other code."""


@pytest.mark.parametrize("message", SENTENCES)
@pytest.mark.parametrize("code", CODES)
def test_the_status_follows_from_the_code_whatever_the_message_says(
    frontend: Frontend, code: str, message: str
) -> None:
    """The fault: an engine's failure whose text had "invalid" in it became a 400 that showed the text."""
    reply = frontend.post({"prompt": script(fail_at=0, fail_code=code, fail_message=message)})
    assert (reply.status, reply.error["code"]) == (CODES[code].http, code)
    assert ("Retry-After" in reply.headers) == (reply.status in (429, 503))
    if reply.status != 400:
        assert message not in reply.error["message"]


def test_every_code_of_the_frontend_has_its_status_in_the_one_table() -> None:
    used = set()
    for path in (ROOT / "frontend").rglob("*.py"):
        used |= set(re.findall(r'(?:ApiError|Unreadable)\(\s*"(\w+)"', path.read_text(encoding="utf-8")))
    assert len(used) > 20
    assert used <= set(STATUSES)
    assert set(STATUSES) - used <= set(CODES)


def test_a_code_that_is_not_known_is_the_servers_failure() -> None:
    error = from_error(Error("brand_new", "it is full", "prompt"))
    assert (from_client(error).status, from_client(error).code) == (502, "engine_error")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("orders", "status", "kind", "code"), TABLE)
def test_a_failure_before_the_first_piece_has_its_status(
    frontend: Frontend, orders: dict[str, Any], status: int, kind: str, code: str, stream: bool
) -> None:
    reply = frontend.post({"prompt": script(**orders), "stream": stream})
    assert reply.status == status
    assert (reply.error["type"], reply.error["code"]) == (kind, code)
    assert reply.headers["Content-Type"] == "application/json"
    assert ("Retry-After" in reply.headers) == (status in (429, 503))
    for inner in ("127.0.0.1", "INTERNAL", "the fake fails", "Socket"):
        assert inner not in reply.error["message"]


@pytest.mark.parametrize(("orders", "status", "kind", "code"), TABLE[2:])
def test_a_failure_in_the_middle_is_an_event(
    frontend: Frontend, orders: dict[str, Any], status: int, kind: str, code: str
) -> None:
    """The fault: 200 with half a text and nothing that says so."""
    prompt = script(**{**orders, "fail_at": 2, "tokens": 5, "delay": 0.01})
    reply = frontend.post({"prompt": prompt, "stream": True})
    assert reply.status == 200
    *pieces, (name, data) = events(reply.body.decode())
    assert [piece["delta"] for _, piece in pieces] == ["t0 ", "t1 "]
    assert name == "error"
    assert (data["error"]["type"], data["error"]["code"]) == (kind, code)
    assert frontend.post({"prompt": prompt}).status == status


def test_a_stream_cut_off_by_the_server_is_no_answer(frontend: Frontend) -> None:
    assert frontend.post({"prompt": script(no_end=True)}).status == 502
    reply = frontend.post({"prompt": script(no_end=True), "stream": True})
    assert events(reply.body.decode())[-1][0] == "error"


def test_the_time_limit(another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another(request_timeout=0.6)
    for prompt in (script(prefill=NEVER_S), script(unending=True, delay=0.1)):
        started = time.monotonic()
        assert frontend.post({"prompt": prompt}).status == 504
        assert 0.5 < time.monotonic() - started < WAIT_S
    assert frontend.post({"prompt": script(prefill=NEVER_S), "stream": True}).status == 504
    last = events(frontend.post({"prompt": script(unending=True, delay=0.1), "stream": True}).body.decode())[
        -1
    ]
    assert last[0] == "error"
    assert last[1]["error"]["code"] == "deadline_exceeded"


def test_health_when_well(frontend: Frontend) -> None:
    reply = frontend.get("/health")
    assert reply.status == 200
    assert list(reply.json)[:2] == ["status", "model"]
    assert reply.json["status"] == "healthy"
    assert reply.json["model"] == "youtu-demo"
    assert reply.json["demo"] is True
    assert reply.json["description"] == "A fake that repeats what it was told."
    assert frontend.get("/health/ready").json == {"status": "ready"}
    assert frontend.get("/health/live").json == {"status": "live"}


def test_the_memory_of_a_card(frontend: Frontend, fake: FakeTriton) -> None:
    assert "device_memory" not in frontend.get("/health").json
    assert "youtu_device_memory" not in frontend.send("GET", "/metrics", b"").body.decode()
    fake.device_memory = [3_374_317_568, 85_017_493_504]
    assert frontend.get("/health").json["device_memory"] == {"used": 3374317568, "total": 85017493504}
    metrics = frontend.send("GET", "/metrics", b"").body.decode()
    assert "youtu_device_memory_used_bytes 3.374317568e+09" in metrics
    assert "youtu_device_memory_total_bytes 8.5017493504e+10" in metrics


def test_health_while_the_model_loads(frontend: Frontend, fake: FakeTriton) -> None:
    fake.ready = False
    for path in ("/health", "/health/ready"):
        reply = frontend.get(path)
        assert reply.status == 503
        assert reply.json["status"] == "loading"
        assert "Retry-After" in reply.headers
    assert frontend.get("/health/live").status == 200
    assert frontend.post({"prompt": "q"}).status == 503
    fake.ready = True
    assert frontend.get("/health").status == 200
    assert frontend.post({"prompt": "q"}).status == 200


def test_health_while_the_engine_hangs(frontend: Frontend, fake: FakeTriton) -> None:
    """The fault: ready said 200 for as long as Triton itself answered."""
    fake.stalled = True
    for path in ("/health", "/health/ready"):
        reply = frontend.get(path)
        assert reply.status == 503
        assert reply.json["status"] == "unhealthy"
    assert frontend.get("/health/live").status == 200
    fake.stalled = False
    assert frontend.get("/health/ready").status == 200


def test_many_who_ask_for_the_state_share_the_question(frontend: Frontend, fake: FakeTriton) -> None:
    """The fault: while Triton hung each probe held a thread of its own for as long as it waited."""
    fake.probed = 0
    with fake.holding_probes():
        askers = [threading.Thread(target=frontend.get, args=("/health/ready",)) for _ in range(20)]
        for asker in askers:
            asker.start()
        fake.wait_probes(1)
        time.sleep(0.5)
    for asker in askers:
        asker.join(60)
    assert fake.probed < 10


def test_another_model_in_its_place(
    frontend: Frontend, fake: FakeTriton, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: the name of the model was asked for once and kept, over a restart with another one."""
    assert frontend.post({"prompt": "q"}).json["model"] == "youtu-demo"
    fake.ready = False
    assert frontend.get("/health").status == 503
    fake.ready = True
    monkeypatch.setitem(PARAMETERS, "model_id", "another")
    assert frontend.post({"prompt": "q"}).json["model"] == "another"
    fake.ready = False
    assert frontend.post({"prompt": "q"}).status == 503
    fake.ready = True
    monkeypatch.undo()
    assert frontend.post({"prompt": "q"}).json["model"] == "youtu-demo"


def test_triton_absent_and_back(another: Any) -> None:
    """Readiness tells the truth in between, nothing hangs, and no restart is needed."""
    frontend: Frontend = another(grpc_port=free_ports(1)[0])
    port = int(frontend.environ["YOUTU_GRPC_PORT"])

    def without() -> None:
        for path in ("/health", "/health/ready"):
            reply = frontend.get(path)
            assert reply.status == 503
            assert reply.json["status"] == "unhealthy"
        assert frontend.get("/health/live").status == 200
        assert frontend.get("/").status == 200
        reply = frontend.post({"prompt": "q"})
        assert (reply.status, reply.error["code"]) == (503, "no_engine")
        assert "Retry-After" in reply.headers

    def returns() -> None:
        until = time.monotonic() + WAIT_S
        while frontend.get("/health").status != 200:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert frontend.post({"prompt": "q"}).json["response"] == "You said: q"

    without()
    with FakeTriton(port):
        returns()
    without()
    with FakeTriton(port):
        returns()


def test_triton_killed_in_the_middle(another: Any) -> None:
    with FakeTriton() as own:
        frontend: Frontend = another(grpc_port=own.port)
        stream = frontend.connect(
            {"prompt": script(unending=True, delay=0.02), "stream": True}, "Connection: close"
        )
        plain = frontend.connect({"prompt": script(unending=True, delay=0.02)}, "Connection: close")
        own.wait_calls(2)
        while b"delta" not in stream.recv(4096):
            pass
        own.stop()
        assert b"event: error" in b"".join(iter(lambda: stream.recv(65536), b""))
        assert plain.recv(4096).split()[1] in (b"502", b"503")
        stream.close()
        plain.close()


def test_live_is_answered_while_every_thread_is_taken(another: Any, fake: FakeTriton) -> None:
    """The fault: it waited behind all other requests, and an overload was taken for a hang."""
    frontend: Frontend = another(slots=1, queue=1)
    with fake.holding_probes():
        askers = [threading.Thread(target=frontend.get, args=("/health/ready",)) for _ in range(150)]
        for asker in askers:
            asker.start()
        fake.wait_probes(1)
        assert frontend.get("/health/live").json == {"status": "live"}
    for asker in askers:
        asker.join(WAIT_S)
