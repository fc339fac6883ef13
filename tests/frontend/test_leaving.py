"""A caller that leaves, whenever it does, is noticed and its call is given up, though the model is silent."""

from __future__ import annotations

import socket
import statistics
import struct
import threading
import time
from typing import Any

import psutil
import pytest
from flask.testing import FlaskClient

from frontend.server import SPARE_THREADS
from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, script

NOTICED_S = 5
"""A quarter of a second on a quiet machine; less than any of the pauses below."""

UNENDING = script(unending=True, delay=0.02)
SILENT = script(prefill=30, tokens=1)
SLOW = script(tokens=9, delay=10)


def leave_after(frontend: Frontend, fake: FakeTriton, prompt: str, stream: bool, read: int) -> float:
    """Seconds from leaving to the cancel. `read` bytes of the answer are read before."""
    before = len(fake.calls)
    connection = frontend.connect({"prompt": prompt, "stream": stream})
    call = fake.wait_calls(before + 1)[-1]
    while read > 0:
        read -= len(connection.recv(read))
    time.sleep(0.15)
    left = time.monotonic()
    connection.close()
    return call.wait_cancelled() - left


@pytest.mark.parametrize(
    ("prompt", "stream", "read"),
    [
        (SILENT, True, 0),
        (SILENT, False, 0),
        (UNENDING, True, 900),
        (UNENDING, False, 0),
        (SLOW, True, 600),
        (SLOW, False, 0),
    ],
    ids=["silent-sse", "silent-json", "flowing-sse", "flowing-json", "slow-sse", "slow-json"],
)
def test_leaving_cancels(frontend: Frontend, fake: FakeTriton, prompt: str, stream: bool, read: int) -> None:
    seconds = [leave_after(frontend, fake, prompt, stream, read) for _ in range(5)]
    print(f"noticed after {statistics.median(seconds) * 1000:.0f} ms, at most {max(seconds) * 1000:.0f} ms")
    assert max(seconds) < NOTICED_S
    line = frontend.line(fake.calls[-1].id)
    assert line["left"] is True
    assert line["status"] == (200 if read else 499)


def test_leaving_after_a_ping(frontend: Frontend, fake: FakeTriton) -> None:
    """Headers are out, the model is still silent: the third state a stream can be left in."""
    with frontend.connect({"prompt": SILENT, "stream": True}) as connection:
        while b": ping" not in connection.recv(4096):
            pass
        left = time.monotonic()
    assert fake.calls[0].wait_cancelled() - left < NOTICED_S


def test_a_response_that_is_never_read(app: FlaskClient, fake: FakeTriton) -> None:
    """The fault: a generator closed before its first step runs none of its `finally`."""
    reply = app.post("/chat", json={"prompt": UNENDING, "stream": True}, buffered=False)
    reply.close()
    fake.calls[0].wait_cancelled()


def test_leaving_by_reset(frontend: Frontend, fake: FakeTriton) -> None:
    connection = frontend.connect({"prompt": SILENT})
    call = fake.wait_calls(1)[0]
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    left = time.monotonic()
    connection.close()
    assert call.wait_cancelled() - left < NOTICED_S


def test_leaving_behind_unread_bytes(frontend: Frontend, fake: FakeTriton) -> None:
    """The fault: a peek at the socket sees the next pipelined request and not the end behind it."""
    connection = frontend.connect({"prompt": SILENT})
    call = fake.wait_calls(1)[0]
    connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    left = time.monotonic()
    connection.close()
    assert call.wait_cancelled() - left < NOTICED_S


def test_those_who_stay_lose_nothing(frontend: Frontend, fake: FakeTriton) -> None:
    """One leaves; its neighbour's stream goes on to its end."""
    replies = []
    body = {"prompt": script(tokens=20, delay=0.05)}
    neighbour = threading.Thread(target=lambda: replies.append(frontend.post(body)))
    neighbour.start()
    fake.wait_calls(1)
    leaving = frontend.connect({"prompt": UNENDING, "stream": True})
    call = fake.wait_calls(2)[1]
    leaving.close()
    call.wait_cancelled()
    neighbour.join(20)
    assert replies[0].json["token_count"] == 20


def test_leaving_the_queue(another: Any, fake: FakeTriton) -> None:
    """Its place is free at once, and the model never hears of it."""
    own: Frontend = another(slots=1, queue=1)
    with own.connect({"prompt": SILENT}):
        fake.wait_calls(1)
        for stream in (False, True):
            waiting = own.connect({"prompt": SILENT, "stream": stream})
            own.wait_gauges(running=1, waiting=1)
            left = time.monotonic()
            waiting.close()
            own.wait_gauges(running=1, waiting=0)
            assert time.monotonic() - left < NOTICED_S
    assert len(fake.calls) == 1


@pytest.mark.slow
def test_five_hundred_who_vanish_leave_nothing_behind(frontend: Frontend, fake: FakeTriton) -> None:
    """No slot, no thread, no descriptor, no memory; whether they ran, waited or were refused."""
    worker = psutil.Process(frontend.process.pid)

    def crowd(count: int) -> None:
        connections = [frontend.connect({"prompt": SILENT, "stream": at % 2 == 0}) for at in range(count)]
        frontend.wait_gauges(running=4, waiting=min(64, count - 4))
        for connection in connections:
            connection.close()
        frontend.wait_gauges(running=0, waiting=0)
        for call in fake.calls:
            call.wait_cancelled()
        fake.calls.clear()

    def settled() -> tuple[int, int, int]:
        time.sleep(1)
        return worker.num_fds(), worker.num_threads(), worker.memory_info().rss

    for _ in range(2):
        crowd(100)  # Threads are made when first needed, up to their number.
    before = settled()
    for _ in range(5):
        crowd(100)
    descriptors, threads, memory = settled()
    assert descriptors <= before[0] + 2
    assert threads <= before[1] + SPARE_THREADS  # The pool's own, made when they were first needed at once.
    assert memory <= before[2] + 8 * 2**20
    assert frontend.post({"prompt": "q"}).status == 200
