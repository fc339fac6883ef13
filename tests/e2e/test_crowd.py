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
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.e2e.crowd import PATIENCE_S, Crowd, Tally
from tests.e2e.running import KeptServer, RunningServer
from tests.limits import START_S, WAIT_S

CALLERS, SECONDS = 200, 10.0


@pytest.fixture(scope="module")
def kept_crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServer]:
    with KeptServer(tmp_path_factory.mktemp("crowd") / "data") as kept:
        yield kept


@pytest.fixture
def busy(kept_crowded: KeptServer) -> RunningServer:
    return kept_crowded.running()


def wait_until(there: Callable[[], bool], what: str, within: float = WAIT_S) -> None:
    until = time.monotonic() + within
    while not there():
        assert time.monotonic() < until, f"waited {within} s for {what}"
        time.sleep(0.1)


class Background(threading.Thread):
    """A crowd that comes while the test does something else."""

    def __init__(self, server: RunningServer, seconds: float, *, broken: bool = False, **least: int) -> None:
        super().__init__(daemon=True)
        counts = {name.removeprefix("status_"): count for name, count in least.items()}
        self._crowd = Crowd(server.http_url, CALLERS, seconds, broken=broken, least=counts)
        self.start()

    def answered(self, count: int) -> None:
        """Wait until so many have an answer."""
        wait_until(lambda: self._crowd.tally.outcomes["answered"] >= count, "answers")

    def run(self) -> None:
        asyncio.run(self._crowd.run())

    def gone(self) -> Tally:
        """What became of it, once the last has left."""
        self.join(3 * PATIENCE_S)
        assert not self.is_alive()
        return self._crowd.tally


def worker(server: RunningServer) -> psutil.Process:
    """The frontend's process that answers."""
    return psutil.Process(server.pid_of("-m", "frontend"))


def gauges(server: RunningServer) -> tuple[float, float]:
    """Slots taken, requests waiting."""
    with urllib.request.urlopen(f"{server.http_url}/metrics", timeout=WAIT_S) as reply:
        lines = reply.read().decode().splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return float(found["youtu_num_requests_running"]), float(found["youtu_num_requests_waiting"])


def answers(server: RunningServer) -> bool:
    request = urllib.request.Request(f"{server.http_url}/chat", b'{"prompt": "hi"}', method="POST")
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
            return bool(reply.status == 200)
    except (urllib.error.HTTPError, OSError):
        return False


def ready(server: RunningServer) -> bool:
    try:
        with urllib.request.urlopen(f"{server.http_url}/health/ready", timeout=WAIT_S) as reply:
            return bool(reply.status == 200)
    except (urllib.error.HTTPError, OSError):
        return False


@pytest.mark.slow
def test_two_hundred_on_four_slots(busy: RunningServer) -> None:
    Background(busy, 4.0).gone()  # Threads, arenas and buffers are made when first needed.
    process = worker(busy)
    before = process.num_fds(), process.num_threads(), process.memory_info().rss
    tally = Background(busy, SECONDS, answered=51, status_429=21, left=51).gone()
    print(tally.report())
    assert not tally.faults, tally.faults[:3]
    assert tally.outcomes["answered"] > 50
    assert tally.outcomes["429"] > 20
    assert tally.outcomes["left"] > 50
    wait_until(lambda: gauges(busy) == (0, 0), "the last to leave")
    assert worker(busy).pid == process.pid
    wait_until(lambda: process.num_fds() <= before[0] + 5, "connections to be closed")
    wait_until(lambda: process.num_threads() <= before[1] + 40, "threads to end")
    assert process.memory_info().rss <= before[2] + 40 * 2**20
    assert answers(busy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "broken"),
    [
        (("triton_python_backend_stub", "youtu_engine"), False),
        (("triton_python_backend_stub", "youtu_llm"), False),
        (("bin/tritonserver",), False),
        (("-m", "frontend"), True),
    ],
    ids=["engine", "youtu_llm", "triton", "frontend"],
)
def test_killed_under_load(busy: RunningServer, victim: tuple[str, ...], broken: bool) -> None:
    crowd = Background(busy, 8.0, broken=broken, answered=40)
    crowd.answered(20)
    os.kill(busy.pid_of(*victim), signal.SIGKILL)
    tally = crowd.gone()
    print(tally.report())
    assert not tally.faults, tally.faults[:3]
    assert tally.outcomes["answered"] > 10
    wait_until(lambda: ready(busy), "readiness", START_S)
    assert answers(busy), "ready, yet it does not answer"
    wait_until(lambda: gauges(busy) == (0, 0), "the last to leave")
