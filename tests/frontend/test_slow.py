"""Callers who are slow to send or to read, or say nothing: each gets its answer, and the others theirs."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

import pytest

from frontend.server import READ_S, SEND_S
from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, Reply, script

HEAD = (
    b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n"
)


def dial(frontend: Frontend) -> socket.socket:
    return socket.create_connection(("127.0.0.1", frontend.port), timeout=40)


def drip(frontend: Frontend, start: bytes, rest: bytes, replies: list[bytes]) -> None:
    """Send `start` at once and then a byte a second until somebody answers."""
    with dial(frontend) as connection:
        connection.sendall(start)
        connection.settimeout(1)
        for byte in rest:
            try:
                if first := connection.recv(65536):
                    connection.settimeout(20)
                    replies.append(first + b"".join(iter(lambda: connection.recv(65536), b"")))
                return
            except TimeoutError:
                connection.sendall(bytes([byte]))


@pytest.mark.slow
def test_a_byte_a_second(frontend: Frontend, fake: FakeTriton) -> None:
    cases = [(HEAD, b'{"prompt": "' + b"q" * 40), (b"POST /chat HTTP/1.1\r\n", b"X-Slow: " + b"y" * 60)]
    replies: list[list[bytes]] = [[] for _ in cases]
    threads = [
        threading.Thread(target=drip, args=(frontend, *case, reply))
        for case, reply in zip(cases, replies, strict=True)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        before = time.monotonic()
        assert frontend.post({"prompt": "q"}).status == 200
        assert time.monotonic() - before < 2
        time.sleep(1)
    assert READ_S - 2 < time.monotonic() - started < READ_S + 8
    for (reply,) in replies:
        assert reply.startswith(b"HTTP/1.1 408")
        assert b'"code":"request_timeout"' in reply.replace(b": ", b":")
    assert len(fake.calls) > 0


def test_many_who_say_nothing(frontend: Frontend, fake: FakeTriton) -> None:
    """The fault: each silent connection held a thread for five seconds; 84 of them, and nobody was served."""
    silent = [dial(frontend) for _ in range(300)]
    started = time.monotonic()
    assert frontend.post({"prompt": "q"}).status == 200
    assert time.monotonic() - started < 1.5
    for connection in silent:
        connection.close()


@pytest.mark.slow
def test_one_who_does_not_read(another: Any, fake: FakeTriton) -> None:
    """Its slot is free again SEND_S after the buffers are full, and nothing hangs."""
    frontend: Frontend = another(slots=1)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", frontend.port))
        message = {"role": "user", "content": script(pieces=["q" * 3000] * 250)}  # 12 MB in all
        body = json.dumps({"messages": [message], "n": 16, "stream": True}, ensure_ascii=False).encode()
        head = HEAD.replace(b"/chat", b"/v1/chat/completions").replace(b"60", b"%d" % len(body))
        connection.sendall(head + body)
        fake.wait_calls(1)
        replies: list[Reply] = []
        other = threading.Thread(target=lambda: replies.append(frontend.post({"prompt": "q"})))
        started = time.monotonic()
        other.start()
        other.join(40)
        assert replies[0].status == 200
        assert time.monotonic() - started < 6 * SEND_S
    assert "Traceback" not in frontend.log.read_text()
