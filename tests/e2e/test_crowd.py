"""Two hundred callers on four slots, and every process killed in turn beneath them.

Nothing hangs, nothing lies, nothing is left behind. `python -m tests.e2e.crowd` is the same for longer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from tests.e2e.crowd import Crowd, Tally
from tests.e2e.running import RunningServer

CALLERS, SECONDS = 200, 10.0


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    own = RunningServer(tmp_path_factory.mktemp("crowd") / "data")
    try:
        yield own.wait_until_up()
    finally:
        own.end()
        own.kill()


class Background(threading.Thread):
    """A crowd that comes while the test does something else."""

    def __init__(self, server: RunningServer, seconds: float, *, broken: bool) -> None:
        super().__init__(daemon=True)
        self._crowd = Crowd(server.http_url, CALLERS, seconds, broken=broken)
        self.start()

    def run(self) -> None:
        asyncio.run(self._crowd.run())

    def gone(self) -> Tally:
        """What became of it, once the last has left."""
        self.join(200)
        assert not self.is_alive()
        return self._crowd.tally


def worker(server: RunningServer) -> psutil.Process:
    """The frontend's process that answers."""
    return psutil.Process(server.pid_of("-m", "frontend"))


def gauges(server: RunningServer) -> tuple[float, float]:
    """Slots taken, requests waiting."""
    with urllib.request.urlopen(f"{server.http_url}/metrics", timeout=10) as reply:
        lines = reply.read().decode().splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return float(found["youtu_num_requests_running"]), float(found["youtu_num_requests_waiting"])


def answers(server: RunningServer) -> bool:
    request = urllib.request.Request(f"{server.http_url}/chat", b'{"prompt": "hi"}', method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return bool(reply.status == 200)
    except (urllib.error.HTTPError, OSError):
        return False


def ready(server: RunningServer) -> bool:
    try:
        with urllib.request.urlopen(f"{server.http_url}/health/ready", timeout=10) as reply:
            return bool(reply.status == 200)
    except (urllib.error.HTTPError, OSError):
        return False


@pytest.mark.slow
def test_two_hundred_on_four_slots(busy: RunningServer) -> None:
    Background(busy, 4.0, broken=False).gone()  # Threads, arenas and buffers are made when first needed.
    process = worker(busy)
    before = process.num_fds(), process.num_threads(), process.memory_info().rss
    tally = Background(busy, SECONDS, broken=False).gone()
    print(tally.report())
    assert not tally.faults, tally.faults[:3]
    assert tally.outcomes["answered"] > 50
    assert tally.outcomes["429"] > 20
    assert tally.outcomes["left"] > 50
    until = time.monotonic() + 10
    while gauges(busy) != (0, 0):
        assert time.monotonic() < until, gauges(busy)
        time.sleep(0.1)
    assert worker(busy).pid == process.pid
    time.sleep(2)
    assert process.num_fds() <= before[0] + 5
    assert process.num_threads() <= before[1] + 40
    assert process.memory_info().rss <= before[2] + 40 * 2**20
    assert answers(busy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "broken"),
    [
        (("triton_python_backend_stub", "llama_cpp"), False),
        (("triton_python_backend_stub", "youtu_llm"), False),
        (("bin/tritonserver",), False),
        (("-m", "frontend"), True),
    ],
    ids=["engine", "youtu_llm", "triton", "frontend"],
)
def test_killed_under_load(busy: RunningServer, victim: tuple[str, ...], broken: bool) -> None:
    crowd = Background(busy, 8.0, broken=broken)
    time.sleep(3)
    os.kill(busy.pid_of(*victim), signal.SIGKILL)
    tally = crowd.gone()
    print(tally.report())
    assert not tally.faults, tally.faults[:3]
    assert tally.outcomes["answered"] > 10
    until = time.monotonic() + 40
    while not ready(busy):
        assert time.monotonic() < until
        time.sleep(0.2)
    assert answers(busy), "ready, yet it does not answer"
    assert gauges(busy) == (0, 0)
