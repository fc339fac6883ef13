"""One frontend and three real Tritons: one is killed, one is stopped, all are restarted in turn, under load.

Every request is accounted for: it is answered whole, or, if a part of its answer had been delivered, ends
with an error that says to try again. How soon a fault is noticed is printed (pytest -s).
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.callers import CALLERS, Load, account
from tests.e2e.running import RunningServer
from tests.limits import WAIT_S

HANG_TIMEOUT_S = 6.0
TRITON: dict[str, Any] = {"frontend": "off", "triton_http": "off", "slots": "2", "drain_timeout": "20"}
pytestmark = pytest.mark.slow


class Fleet:
    """Three Tritons and a frontend in front of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tritons = [RunningServer(folder / f"triton{at}", **TRITON) for at in range(3)]
        self.addresses = [triton.grpc_url for triton in self.tritons]
        for triton in self.tritons:
            triton.wait_until_up()
        self.frontend = RunningServer(
            folder / "frontend", triton_servers=",".join(self.addresses), hang_timeout=str(HANG_TIMEOUT_S)
        ).wait_until_up()

    def restart(self, at: int) -> None:
        """Start the Triton of that number again, on its port."""
        grpc_port = str(self.tritons[at].settings.grpc_port)
        folder = self.folder / f"triton{at}-{time.monotonic_ns()}"
        self.tritons[at] = RunningServer(folder, grpc_port=grpc_port, **TRITON).wait_until_up()

    def up(self) -> list[bool]:
        """Which Tritons the frontend takes to be working."""
        connection = http.client.HTTPConnection("127.0.0.1", self.frontend.settings.port, timeout=WAIT_S)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        gauges = {
            line.split('"')[1]: line.endswith(" 1.0") for line in lines if line.startswith("youtu_server_up{")
        }
        return [gauges[address] for address in self.addresses]

    def wait_for(self, expected: list[bool]) -> float:
        """Seconds until the frontend sees it so."""
        began = time.monotonic()
        while self.up() != expected:
            assert time.monotonic() - began < WAIT_S, f"{self.up()}, not {expected}:\n{self.frontend.log}"
            time.sleep(0.05)
        return time.monotonic() - began


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = Fleet(tmp_path_factory.mktemp("fleet"))
    try:
        yield made
    finally:
        for server in (made.frontend, *made.tritons):
            server.kill()


def only_those_that_had_tokens_failed(fleet: Fleet) -> None:
    """A request without a token is another server's, and its caller notices nothing."""
    log = fleet.frontend.data_dir / "log" / "latest" / "frontend.log"
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    failed = [line for line in lines if line.get("error") and line["route"] == "/chat"]
    assert all(line.get("tokens", 0) > 0 for line in failed), failed


def kill(server: RunningServer, number: int) -> None:
    for pid in sorted(server.processes()):  # the launcher first, which would replace the others
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def test_one_is_killed(fleet: Fleet) -> None:
    fleet.wait_for([True, True, True])
    with Load(fleet.frontend.settings.port) as load:
        load.wait(20)
        kill(fleet.tritons[0], signal.SIGKILL)
        noticed = fleet.wait_for([False, True, True])
        load.wait(20)
    print(f"death noticed after {noticed:.2f} s")
    account(load, to_retry=CALLERS)
    only_those_that_had_tokens_failed(fleet)
    fleet.tritons[0].wait()
    fleet.restart(0)
    fleet.wait_for([True, True, True])


def test_one_is_stopped(fleet: Fleet) -> None:
    with Load(fleet.frontend.settings.port) as load:
        load.wait(20)
        began = time.monotonic()
        kill(fleet.tritons[1], signal.SIGSTOP)
        fleet.wait_for([True, False, True])  # it is asked last from here on
        passed_over = time.monotonic() - began
        load.wait(20)
        # Those that wait at the stopped one are given up within the hang timeout.
        stuck_until = time.monotonic() + HANG_TIMEOUT_S
        while time.monotonic() < stuck_until:
            time.sleep(0.1)
        load.wait(CALLERS)
    print(f"a stop is passed over after {passed_over:.2f} s")
    account(load, to_retry=CALLERS)
    only_those_that_had_tokens_failed(fleet)
    kill(fleet.tritons[1], signal.SIGCONT)
    fleet.wait_for([True, True, True])


def test_all_are_restarted_in_turn(fleet: Fleet) -> None:
    """A drain: what runs on a Triton that ends is finished there, what comes goes elsewhere."""
    with Load(fleet.frontend.settings.port) as load:
        for at in range(3):
            load.wait(10)
            assert fleet.tritons[at].end() == 0, fleet.tritons[at].log
            load.wait(10)
            fleet.restart(at)
            fleet.wait_for([True, True, True])
        load.wait(10)
    account(load)


def test_the_load_sees_what_is_lost(fleet: Fleet) -> None:
    """The accounting itself: with no Triton left, requests are refused, and that is seen."""
    answers: list[str] = []
    with Load(fleet.frontend.settings.port) as load:
        for triton in fleet.tritons:
            kill(triton, signal.SIGKILL)
        load.wait(20)
        answers += [what for _, what in load.outcomes]
    assert any(what == "refused, to retry" for what in answers)
    with pytest.raises(AssertionError):
        account(load, to_retry=CALLERS)
