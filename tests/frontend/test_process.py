"""`python -m frontend` as a process: how it starts, refuses to start, drains and ends."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from serve.addresses import free_ports
from tests.client.fake_triton import FakeTriton

from .conftest import ROOT, Frontend, Reply, events, script, start_in_vain


def rest(connection: socket.socket) -> bytes:
    """All that still comes."""
    with connection:
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_port_in_use_is_one_clear_line(frontend: Frontend) -> None:
    said = start_in_vain(frontend)
    assert f"port {frontend.port}" in said
    assert "in use" in said
    assert "YOUTU_PORT" in said


def test_a_wrong_setting_is_named(frontend: Frontend) -> None:
    assert "YOUTU_SLOTS" in start_in_vain(frontend, YOUTU_SLOTS="-1")


def test_a_host_that_is_not_ours(frontend: Frontend) -> None:
    assert "192.0.2.1" in start_in_vain(frontend, YOUTU_HOST="192.0.2.1", YOUTU_KEYS="off")


def test_too_few_threads_are_one_clear_line(frontend: Frontend) -> None:
    """The fault to avoid: they are missed only when many callers have come."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**30,) * 2); "
    limited += "from frontend.__main__ import main; sys.exit(main())"
    environ = {**frontend.environ, "YOUTU_PORT": str(free_ports(1)[0]), "YOUTU_QUEUE": "1024"}
    done = subprocess.run(
        [sys.executable, "-c", limited], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.startswith("frontend: cannot start 1092 threads")
    assert "YOUTU_QUEUE" in done.stderr


def test_loopback_of_the_other_protocol(another: Any) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    # `another` waits on 127.0.0.1, so the start itself is what is looked at.
    frontend: Frontend = another()
    frontend.stop()
    environ = {**frontend.environ, "YOUTU_HOST": "::1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "frontend"], cwd=ROOT, env=environ, stderr=subprocess.DEVNULL
    )
    try:
        until = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("::1", frontend.port), timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.05)
    finally:
        process.terminate()
        assert process.wait(120) == 0


@pytest.mark.parametrize("stream", [False, True])
def test_running_answers_finish_on_sigterm(another: Any, fake: FakeTriton, stream: bool) -> None:
    frontend: Frontend = another()
    replies: list[Reply] = []
    body = {"prompt": script(tokens=15, delay=0.1), "stream": stream}
    asker = threading.Thread(target=lambda: replies.append(frontend.post(body)))
    asker.start()
    fake.wait_calls(1)
    time.sleep(0.3)
    frontend.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    late = frontend.post({"prompt": "q"})
    assert (late.status, late.error["code"]) == (503, "draining")
    assert late.headers["Retry-After"]
    assert late.headers["Connection"] == "close"
    assert frontend.get("/health").json["status"] == "draining"
    assert frontend.get("/health/ready").status == 503
    assert frontend.get("/health/live").status == 200
    asker.join(20)
    assert frontend.stop() == 0
    facts = events(replies[0].body.decode())[-1][1] if stream else replies[0].json
    assert facts["token_count"] == 15


def test_draining_has_a_limit(another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another(drain_timeout=1)
    unending = script(unending=True, delay=0.05)
    stream = frontend.connect({"prompt": unending, "stream": True})
    plain = frontend.connect({"prompt": unending})
    calls = fake.wait_calls(2)
    assert frontend.stop() == 0
    assert b'"code":"draining"' in rest(stream).partition(b"event: error\n")[2]
    assert rest(plain).startswith(b"HTTP/1.1 503")
    for call in calls:
        call.wait_cancelled()


def test_a_kept_connection_gets_no_new_work_while_draining(another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another()
    running = frontend.connect({"prompt": script(tokens=20, delay=0.1)})
    kept = http.client.HTTPConnection("127.0.0.1", frontend.port, timeout=10)
    kept.request("GET", "/health")
    assert kept.getresponse().read()
    fake.wait_calls(1)
    frontend.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    kept.request("POST", "/chat", b'{"prompt": "q"}', {"Content-Type": "application/json"})
    reply = kept.getresponse()
    assert reply.status == 503
    assert reply.headers["Retry-After"]
    assert b"draining" in reply.read()
    assert running.recv(65536).startswith(b"HTTP/1.1 200")
    assert frontend.stop() == 0


def test_an_idle_server_ends_at_once(another: Any) -> None:
    frontend: Frontend = another(drain_timeout=600)
    assert frontend.stop() == 0
    assert "Traceback" not in frontend.log.read_text()


def test_a_killed_server_leaves_its_port(another: Any, fake: FakeTriton) -> None:
    """The fault: a worker process outlived the one that was killed, and held the port."""
    frontend: Frontend = another()
    with frontend.connect({"prompt": script(unending=True, delay=0.05)}):
        fake.wait_calls(1)
        frontend.stop(signal.SIGKILL)
    assert Frontend.start(frontend).get("/health").status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nobody_who_is_not_being_answered_holds_up_the_end(another: Any, number: int) -> None:
    """Idle connections, silent ones, and requests that are not complete."""
    frontend: Frontend = another(drain_timeout=600)
    held = [socket.create_connection(("127.0.0.1", frontend.port), timeout=60) for _ in range(4)]
    held[0].sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert held[0].recv(65536)
    held[1].sendall(b"GET /health/live HTTP/1.1\r\n")
    held[2].sendall(b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{")
    assert frontend.get("/health/live").status == 200
    assert frontend.stop(number) == 0
    for connection in held:
        connection.close()
    assert "Traceback" not in frontend.log.read_text()


def test_a_second_signal_ends_it(another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another(drain_timeout=600)
    with frontend.connect({"prompt": script(unending=True, delay=0.05)}):
        fake.wait_calls(1)
        frontend.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + 60
        while frontend.get("/health").json["status"] != "draining":
            assert time.monotonic() < until
        assert frontend.stop() == 0


def test_nothing_happens_at_import() -> None:
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}", "YOUTU_NO_SUCH": "1"}
    code = "import threading, frontend.server as s, frontend; print(threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, cwd=Path("/"), capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
