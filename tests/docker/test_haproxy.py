"""docker/haproxy.cfg and docker/tls.cfg, run by HAProxy in front of real frontends (and fake Tritons)."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest

from serve.addresses import free_ports
from tests.callers import CALLERS, Load, account
from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import Frontend, script
from tests.limits import WAIT_S

DOCKER = Path(__file__).resolve().parents[2] / "docker"
NAMES = ("one", "two", "three")
TALK = script(tokens=5, delay=0.01)


class Stacks:
    """Three frontends with a fake Triton each, behind HAProxy."""

    def __init__(self, folder: Path) -> None:
        self.fakes = [FakeTriton().start() for _ in NAMES]
        self.frontends = [
            Frontend(fake.port, folder / f"log-{name}", leave_timeout=3)
            for fake, name in zip(self.fakes, NAMES, strict=True)
        ]
        for frontend in self.frontends:
            frontend.start()
        (self.port,) = free_ports(1)
        self._socket = folder / "haproxy.sock"
        text = (DOCKER / "haproxy.cfg").read_text(encoding="utf-8")
        for old, new in (
            ("/run/haproxy-youtu.sock mode", f"{self._socket} mode"),
            ("bind 127.0.0.1:8080\n", f"bind 127.0.0.1:{self.port}\n"),
            *(
                (f"server {name} 127.0.0.1:{8081 + at}\n", f"server {name} 127.0.0.1:{frontend.port}\n")
                for at, (name, frontend) in enumerate(zip(NAMES, self.frontends, strict=True))
            ),
        ):
            assert text.count(old) == 1
            text = text.replace(old, new)
        self.process = start_haproxy(folder, text)
        self.wait_for("UP", "UP", "UP")

    def command(self, line: str) -> str:
        """What HAProxy answers to a command."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._socket))
            connection.sendall(f"{line}\n".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode()

    def states(self) -> list[str]:
        """UP, DOWN or DRAIN of each stack."""
        rows = [line.split(",") for line in self.command("show stat").splitlines()]
        column = rows[0].index("status")
        found = {row[1]: row[column].split(" ")[0] for row in rows if row[0] == "stacks"}
        return [found[name] for name in NAMES]

    def wait_for(self, *states: str) -> float:
        """Seconds until HAProxy sees the stacks so."""
        began = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                if self.states() == list(states):
                    return time.monotonic() - began
            assert time.monotonic() - began < WAIT_S, self.states()
            time.sleep(0.02)

    def ask(self, prompt: str = TALK, **headers: str) -> Any:
        """POST /chat; the reply as JSON."""
        data = json.dumps({"prompt": prompt}).encode()
        given = {"Content-Type": "application/json", **headers}
        url = f"http://127.0.0.1:{self.port}/chat"
        with urllib.request.urlopen(urllib.request.Request(url, data, given), timeout=WAIT_S) as reply:
            return json.load(reply)

    def asked(self) -> list[int]:
        return [len(fake.calls) for fake in self.fakes]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for frontend in self.frontends:
            frontend.stop(signal.SIGKILL)
        for fake in self.fakes:
            fake.stop()


def start_haproxy(folder: Path, text: str) -> subprocess.Popen[bytes]:
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
    assert program, "haproxy is missing: make test-programs"
    file = folder / "haproxy.cfg"
    file.write_text(text, encoding="utf-8")
    checked = subprocess.run([program, "-c", "-f", str(file)], capture_output=True, text=True, cwd=folder)
    assert checked.returncode == 0, checked.stderr
    return subprocess.Popen([program, "-db", "-f", str(file)], cwd=folder, stderr=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def shared_stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stacks]:
    made = Stacks(tmp_path_factory.mktemp("stacks"))
    yield made
    made.end()


@pytest.fixture
def stacks(shared_stacks: Stacks) -> Stacks:
    for frontend in shared_stacks.frontends:
        if frontend.process.poll() is not None:
            frontend.start()
    shared_stacks.wait_for("UP", "UP", "UP")
    for fake in shared_stacks.fakes:
        fake.calls.clear()
    return shared_stacks


def opened(stacks: Stacks, prompt: str) -> HTTPConnection:
    """A stream that has been asked for."""
    connection = HTTPConnection("127.0.0.1", stacks.port, timeout=WAIT_S)
    body = json.dumps({"prompt": prompt, "stream": True})
    connection.request("POST", "/chat", body, {"Content-Type": "application/json"})
    return connection


def eventually(holds: Callable[[], object]) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_the_fewest_requests_are_asked_next_and_pieces_are_not_held_back(stacks: Stacks) -> None:
    connections = [opened(stacks, script(tokens=2, stepped=True)) for _ in NAMES]
    eventually(lambda: stacks.asked() == [1, 1, 1])
    replies = []
    for fake in stacks.fakes:
        fake.calls[0].step()
    for connection in connections:
        replies.append(connection.getresponse())
        first = b""
        while b"t0" not in first:  # and t1 has not been made
            first += replies[-1].read1(65536)
        assert b"t1" not in first
    for fake in stacks.fakes:
        fake.calls[0].step()
    for reply in replies:
        assert b"t1" in reply.read()
    for connection in connections:
        connection.close()


def test_a_named_conversation_returns_to_its_stack(stacks: Stacks) -> None:
    for name in range(6):
        before = stacks.asked()
        for _ in range(4):
            stacks.ask(**{"X-Conversation-ID": f"conversation {name}"})
        grown = sorted(now - then for now, then in zip(stacks.asked(), before, strict=True))
        assert grown == [0, 0, 4]
    assert min(stacks.asked()) > 0
    before = stacks.asked()
    for _ in range(9):
        stacks.ask()
    assert all(now > then for now, then in zip(stacks.asked(), before, strict=True)), "unnamed ones stick"


def test_one_is_killed_under_load(stacks: Stacks) -> None:
    with Load(stacks.port, lambda _: TALK) as load:
        load.wait(20)
        stacks.frontends[0].stop(signal.SIGKILL)
        noticed = stacks.wait_for("DOWN", "UP", "UP")
        load.wait(30)
    print(f"death noticed after {noticed:.2f} s")
    account(load, broken=CALLERS)  # those that it was answering


def test_what_was_sent_is_not_sent_again(stacks: Stacks) -> None:
    connection = opened(stacks, script(prefill=60))
    eventually(lambda: sum(stacks.asked()) == 1)
    stacks.frontends[stacks.asked().index(1)].stop(signal.SIGKILL)
    with contextlib.suppress(OSError):
        assert connection.getresponse().status in (502, 200)
    time.sleep(1)
    assert sum(stacks.asked()) == 1


def test_one_is_stopped_under_load(stacks: Stacks) -> None:
    with Load(stacks.port, lambda _: TALK) as load:
        load.wait(20)
        stacks.frontends[1].process.send_signal(signal.SIGSTOP)
        try:
            noticed = stacks.wait_for("UP", "DOWN", "UP")
            seen = len(stacks.fakes[1].calls)
            stacks.ask()
            assert len(stacks.fakes[1].calls) == seen
        finally:
            stacks.frontends[1].process.send_signal(signal.SIGCONT)
        load.wait(CALLERS)
    print(f"a stop is noticed after {noticed:.2f} s")
    account(load)


def test_all_are_restarted_in_turn_under_load(stacks: Stacks) -> None:
    """SIGTERM, nothing else: unready for 3 s (YOUTU_LEAVE_TIMEOUT) before it refuses anything."""
    with Load(stacks.port, lambda _: TALK) as load:
        for at, frontend in enumerate(stacks.frontends):
            load.wait(10)
            assert frontend.stop(signal.SIGTERM) == 0
            assert stacks.states()[at] == "DOWN"
            load.wait(10)
            frontend.start()
            stacks.wait_for("UP", "UP", "UP")
    account(load)


def test_a_stack_is_drained_by_a_command_and_its_answer_is_finished(stacks: Stacks) -> None:
    connection = opened(stacks, script(tokens=3, stepped=True))
    eventually(lambda: sum(stacks.asked()) == 1)
    at = stacks.asked().index(1)
    fake = stacks.fakes[at]
    (command,) = re.findall(
        r'echo "(set server stacks/one state drain)"', (DOCKER / "haproxy.cfg").read_text()
    )
    stacks.command(command.replace("one", NAMES[at]))
    try:
        for _ in range(9):
            stacks.ask()
        assert len(fake.calls) == 1
        fake.calls[0].step(3)
        assert b"t2" in connection.getresponse().read()
    finally:
        stacks.command(f"set server stacks/{NAMES[at]} state ready")


def test_tls_in_three_lines(stacks: Stacks, tmp_path: Path) -> None:
    """The certificate is made as docs/servers.md says."""
    (port,) = free_ports(1)
    page = (DOCKER.parent / "docs" / "servers.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^openssl req .*$", page, re.MULTILINE)
    subprocess.run(["bash", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "youtu.pem").stat().st_mode & 0o077 == 0
    text = (DOCKER / "tls.cfg").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip() and not line.startswith("#")]) == 3
    text = text.replace("8443", str(port)).replace("127.0.0.1:8080", f"127.0.0.1:{stacks.frontends[0].port}")
    process = start_haproxy(tmp_path, text)
    try:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "youtu.pem"))
        until = time.monotonic() + WAIT_S
        while True:
            connection = HTTPSConnection("localhost", port, timeout=WAIT_S, context=trusted)
            with contextlib.suppress(ConnectionRefusedError):
                connection.request(
                    "POST", "/chat", json.dumps({"prompt": "x"}), {"Content-Type": "application/json"}
                )
                break
            assert time.monotonic() < until
            time.sleep(0.05)
        assert json.load(connection.getresponse())["response"] == "You said: x"
        connection.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            HTTPSConnection("localhost", port, timeout=WAIT_S, context=ssl.create_default_context()).connect()
    finally:
        process.kill()
        process.wait()
