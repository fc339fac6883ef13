"""Callers who are slow to send or to read, or say nothing: each gets its answer, and the others theirs."""

from __future__ import annotations

import json
import resource
import socket
import threading
import time
from typing import Any

import psutil
import pytest

from frontend.bridge import BODIES_BYTES
from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, Reply, script
from .crowd import Crowd, rest

HEAD = b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: 900\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
TRICKLES = {
    "line": (b"P", HEAD[1:]),
    "head": (HEAD, b"X-Slow: " + b"y" * 900),
    "body": (HEAD + LENGTH, b'{"prompt": "' + b"q" * 900),
    "chunk": (HEAD + CHUNKED + b"400\r\n", b"q" * 900),
    "chunks": (HEAD + CHUNKED, b"1\r\nq\r\n" * 200),
    "stopped head": (HEAD, b""),
    "stopped body": (HEAD + LENGTH + b"{", b""),
    "silent": (b"", b""),
}
"""What is sent at once, and what a byte a second."""

ADDRESSES = [f"127.0.0.{number}" for number in range(1, 41)]


def dial(frontend: Frontend) -> socket.socket:
    return socket.create_connection(("127.0.0.1", frontend.port), timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("sources", [ADDRESSES[:1], ADDRESSES], ids=["one-address", "many"])
def test_a_thousand_who_send_a_byte_a_second(another: Any, fake: FakeTriton, sources: list[str]) -> None:
    """The fault: each held a thread from its first byte on; with 200 of them, probes failed."""
    frontend: Frontend = another()
    process = psutil.Process(frontend.process.pid)
    frontend.post({"prompt": "q"})
    threads = process.num_threads()
    with Crowd(frontend.port, 1000, list(TRICKLES.values()), sources) as crowd:
        for _ in range(10):
            for path in ("/health/live", "/health/ready", "/health"):
                started = time.monotonic()
                assert frontend.get(path).status == 200
                assert time.monotonic() - started < 10  # a second, where a processor is free
            assert frontend.post({"prompt": "q"}).status == 200
            assert frontend.post({"prompt": "q", "stream": True}).status == 200
        assert process.num_threads() <= threads + 16
        until = time.monotonic() + 120
        while len(crowd.answers) < 1000:
            assert time.monotonic() < until
            assert frontend.get("/health/live").status == 200
            time.sleep(0.5)
    for answer in crowd.answers:
        assert answer.startswith(b"HTTP/1.1 408 ") or not answer, answer
        assert b'"request_timeout"' in answer or not answer
    assert sum(map(bool, crowd.answers)) > 700  # all but the silent ones
    assert frontend.post({"prompt": "q"}).status == 200


@pytest.mark.parametrize("kind", [kind for kind in TRICKLES if kind != "silent"])
@pytest.mark.slow
def test_who_does_not_send_all_gets_a_408(frontend: Frontend, kind: str) -> None:
    start, _ = TRICKLES[kind]
    with dial(frontend) as connection:
        connection.sendall(start)
        answer = rest(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert Reply(408, None, answer.partition(b"\r\n\r\n")[2]).error["code"] == "request_timeout"


def test_bodies_that_do_not_end_fill_no_memory(another: Any) -> None:
    """Those that hold it longest are given up."""
    frontend: Frontend = another()
    part = HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 900_000
    count = BODIES_BYTES // 900_000 + 20
    held = []
    for _ in range(count):
        held.append(dial(frontend))
        held[-1].sendall(part)
    answers = [rest(connection) for connection in held[:15]]
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: " in answer
    assert frontend.post({"prompt": "q"}).status == 200
    assert psutil.Process(frontend.process.pid).memory_info().rss < 4 * BODIES_BYTES
    for connection in held:
        connection.close()


def test_more_connections_than_descriptors(another: Any) -> None:
    """It neither ends nor spins, and serves whoever comes later."""
    frontend: Frontend = another()
    process = psutil.Process(frontend.process.pid)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (process.num_fds() + 40,) * 2)
    held = [dial(frontend) for _ in range(200)]
    assert frontend.get("/health/live").status == 200
    before = sum(process.cpu_times()[:2])
    time.sleep(3)
    assert sum(process.cpu_times()[:2]) - before < 1.5
    assert frontend.get("/health/live").status == 200
    for connection in held:
        connection.close()
    assert frontend.get("/health/live").status == 200
    assert len(frontend.lines()) < 50


@pytest.mark.slow
def test_one_who_does_not_read(another: Any, fake: FakeTriton) -> None:
    """Its slot is free again once the buffers are full and nothing is taken, and nothing hangs."""
    frontend: Frontend = another(slots=1)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect(("127.0.0.1", frontend.port))
        message = {"role": "user", "content": script(pieces=["q" * 3000] * 250)}  # 12 MB in all
        body = json.dumps({"messages": [message], "n": 16, "stream": True}, ensure_ascii=False).encode()
        head = HEAD.replace(b"/chat", b"/v1/chat/completions")
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        fake.wait_calls(1)
        replies: list[Reply] = []
        other = threading.Thread(target=lambda: replies.append(frontend.post({"prompt": "q"})))
        other.start()
        other.join(60)
        assert replies[0].status == 200
    assert "Traceback" not in frontend.log.read_text()


def test_one_who_reads_slowly_gets_all(frontend: Frontend, fake: FakeTriton) -> None:
    """More than the buffers hold, taken bit by bit for longer than nothing may be taken."""
    message = {"role": "user", "content": script(pieces=["q" * 3000] * 250)}
    data = json.dumps({"messages": [message], "n": 16, "stream": True}).encode()
    head = HEAD.replace(b"/chat", b"/v1/chat/completions") + b"Connection: close\r\n"
    with dial(frontend) as connection:
        connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(data) + data)
        got = bytearray()
        for _ in range(14):
            time.sleep(0.5)
            got += connection.recv(65536)
        got += rest(connection)
    assert got.count(b"q" * 3000) == 250 * 16
    assert b"data: [DONE]" in got
