"""The frontend in front of several Tritons, and several frontends that share rates."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.addresses import free_ports
from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import Frontend, events, script
from tests.limits import WAIT_S

Another = Callable[..., Frontend]


@pytest.fixture
def fakes() -> Iterator[list[FakeTriton]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(FakeTriton()) for _ in range(2)]


@pytest.fixture
def frontend(another: Another, fakes: list[FakeTriton]) -> Frontend:
    """Each fake has 4 slots."""
    started = another(triton_servers=",".join(fake.address for fake in fakes), hang_timeout=3)
    eventually(lambda: started.gauge("slots") == 8, started)
    return started


def eventually(holds: Callable[[], object], frontend: Frontend) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until, frontend.log.read_text()
        frontend.get("/health/ready")
        time.sleep(0.05)


def metric(frontend: Frontend, name: str) -> dict[str, float]:
    """Labels, as they are written, -> value."""
    lines = frontend.get("/metrics").body.decode().splitlines()
    found = [
        line.removeprefix(f"youtu_{name}").rsplit(" ", 1)
        for line in lines
        if line.startswith(f"youtu_{name}")
    ]
    return {labels: float(value) for labels, value in found}


def test_slots_add_up_over_the_servers_that_work(frontend: Frontend, fakes: list[FakeTriton]) -> None:
    asked = {"prompt": script(unending=True, delay=0.1), "stream": True}
    callers = [frontend.connect(asked) for _ in fakes]
    frontend.wait_gauges(2, 0)
    eventually(lambda: sum(metric(frontend, "server_requests").values()) == 2, frontend)
    fakes[0].stop()
    eventually(lambda: frontend.gauge("slots") == 4, frontend)
    assert metric(frontend, "server_up") == {
        f'{{server="{fakes[0].address}"}}': 0.0,
        f'{{server="{fakes[1].address}"}}': 1.0,
    }
    assert frontend.get("/health/ready").status == 200
    assert frontend.post({"prompt": "x"}).json["response"] == "You said: x"
    fakes[0].start()
    eventually(lambda: frontend.gauge("slots") == 8, frontend)
    for caller in callers:
        caller.close()


def waits_at(fakes: list[FakeTriton]) -> tuple[FakeTriton, FakeTriton]:
    """The fake that has the one request, and the other."""
    until = time.monotonic() + WAIT_S
    while not any(fake.calls for fake in fakes):
        assert time.monotonic() < until
        time.sleep(0.01)
    first, second = sorted(fakes, key=lambda fake: -len(fake.calls))
    return first, second


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["dies", "hangs"])
def test_a_request_without_a_token_is_answered_by_the_other(
    frontend: Frontend, fakes: list[FakeTriton], fault: str, stream: bool
) -> None:
    fakes[0].silent_from = fakes[1].silent_from = 0
    connection = frontend.connect({"prompt": "x", "stream": stream}, "Connection: close")
    mine, other = waits_at(fakes)
    other.silent_from = None
    with contextlib.ExitStack() as stack:
        if fault == "dies":
            mine.stop()
        else:
            stack.enter_context(mine.holding_probes())
        reply = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    assert "You said: x" in reply
    assert (len(mine.calls), len(other.calls)) == (1, 1)
    assert metric(frontend, "requests_moved_total") == {"": 1.0}


def test_a_request_with_a_token_ends_with_an_error_that_says_to_try_again(
    frontend: Frontend, fakes: list[FakeTriton]
) -> None:
    connection = frontend.connect(
        {"prompt": script(unending=True, delay=0.02), "stream": True}, "Connection: close"
    )
    mine, other = waits_at(fakes)
    connection.recv(1)
    while not mine.calls[0].sent:
        time.sleep(0.01)
    mine.stop()
    reply = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    last = [block for block in reply.split("\r\n") if "error" in block][-1]
    name, data = events(last)[-1]
    assert name == "error"
    assert data["error"]["code"] == "no_engine"
    assert "Try again shortly" in data["error"]["message"]
    assert not other.calls


# Rates.


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts Debian's Redis on one port, again and again."""
    program = shutil.which("redis-server")
    assert program, "redis-server is missing: make test-programs"
    (port,) = free_ports(1)
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        return started[-1]

    start.port = port  # type: ignore[attr-defined]
    yield start
    for process in started:
        process.kill()
        process.wait()


def statuses(*frontends: Frontend) -> list[int]:
    return [frontend.post({"prompt": "x"}).status for frontend in frontends]


def test_two_frontends_count_together_and_each_for_itself_while_redis_is_away(
    another: Another, fake: FakeTriton, redis: Any
) -> None:
    process = redis()
    storage = f"redis://127.0.0.1:{redis.port}/0"
    one, two = (another(rate_limit="3/hour", rate_storage=storage) for _ in range(2))
    eventually(lambda: metric(one, "rate_storage_up") == {"": 1.0}, one)
    assert statuses(one, two, one) == [200, 200, 200]
    refused = two.post({"prompt": "x"})
    assert (refused.status, refused.error["code"]) == (429, "rate_limited")
    assert refused.headers["X-RateLimit-Remaining"] == "0"
    assert int(refused.headers["Retry-After"]) > 0
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Now each has its own three.
    assert statuses(one, one, one, one) == [200, 200, 200, 429]
    assert statuses(two, two, two, two) == [200, 200, 200, 429]
    assert metric(one, "rate_storage_up") == {"": 0.0}
    redis()
    eventually(lambda: metric(one, "rate_storage_up") == {"": 1.0}, one)
    # It is looked for again after 1, 2, 4 ... s, and is empty: three more for both together.
    eventually(lambda: one.post({"prompt": "x"}).status == 200, one)


def test_a_redis_that_hangs_does_not_hold_requests_up(another: Another, fake: FakeTriton, redis: Any) -> None:
    process = redis()
    one = another(rate_limit="1000/hour", rate_storage=f"redis://127.0.0.1:{redis.port}/0")
    assert statuses(one) == [200]
    process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    assert statuses(one, one, one) == [200, 200, 200]
    assert time.monotonic() - began < WAIT_S / 4
    process.send_signal(signal.SIGCONT)
