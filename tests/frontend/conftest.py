"""The frontend as a process in front of the fake Triton, and its app in this process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from youtu_client import Client

from frontend import create_app
from serve.addresses import free_ports
from serve.settings import Settings
from tests.client.fake_triton import PARAMETERS, FakeTriton
from tests.limits import START_S, WAIT_S

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Reply:
    """What came back over HTTP."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error of a body that is exactly the one shape."""
        assert list(self.json) == ["error"], self.body
        error: dict[str, Any] = self.json["error"]
        assert list(error) == ["message", "type", "param", "code"], error
        assert error["message"]
        assert "Traceback" not in error["message"]
        return error


class Frontend:
    """`python -m frontend` on a free port. `settings` are names of settings with their values."""

    def __init__(self, fake_port: int, log: Path, **settings: object) -> None:
        (self.port,) = free_ports(1)
        self.log = log
        given = {"port": self.port, "grpc_port": fake_port, **settings}
        variables = {f"YOUTU_{name.upper()}": str(value) for name, value in given.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("YOUTU_")}
        self.environ = {**kept, **variables, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
        self.process: subprocess.Popen[bytes]

    def start(self) -> Frontend:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "frontend"], cwd=ROOT, env=self.environ, stderr=log
            )
        until = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                if self.get("/health/live").status == 200:
                    return self
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)

    def stop(self, how: int = signal.SIGTERM) -> int:
        """The exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(WAIT_S)

    def lines(self) -> list[dict[str, Any]]:
        """The log so far, without a last line that is still being written."""
        whole, _, _ = self.log.read_text(errors="replace").rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def line(self, request_id: str, timeout: float = WAIT_S) -> dict[str, Any]:
        """The one log line of a request."""
        until = time.monotonic() + timeout
        while True:
            found = [line for line in self.lines() if line.get("request_id") == request_id]
            if found:
                assert len(found) == 1
                return found[0]
            assert time.monotonic() < until, f"no line for {request_id} in {self.log.read_text()}"
            time.sleep(0.02)

    def gauge(self, name: str) -> float:
        """A value of `/metrics` that has no labels."""
        lines = self.get("/metrics").body.decode().splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"youtu_{name} "))

    def wait_gauges(self, running: int, waiting: int, timeout: float = WAIT_S) -> None:
        """Until as many requests run and wait."""
        until = time.monotonic() + timeout
        while True:
            now = (self.gauge("num_requests_running"), self.gauge("num_requests_waiting"))
            if now == (running, waiting):
                return
            assert time.monotonic() < until, f"{now} run and wait, not {running} and {waiting}"
            time.sleep(0.01)

    def get(self, path: str, **headers: str) -> Reply:
        return self.send("GET", path, None, **headers)

    def post(self, body: object, **headers: str) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("POST", "/chat", data, **{"Content-Type": "application/json", **headers})

    def send(self, method: str, path: str, data: bytes | None, **headers: str) -> Reply:
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as response:
                return Reply(response.status, response.headers, response.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, error.headers, error.read())

    def connect(self, body: object, *head: str) -> socket.socket:
        """A connection on which `POST /chat` with this body has been sent; whoever calls reads or leaves."""
        data = json.dumps(body).encode()
        lines = ["POST /chat HTTP/1.1", "Host: localhost", "Content-Type: application/json", *head]
        lines += [f"Content-Length: {len(data)}", "", ""]
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=WAIT_S)
        connection.sendall("\r\n".join(lines).encode("latin-1") + data)
        return connection


def start_in_vain(frontend: Frontend, **environ: str) -> str:
    """What a second start says on stderr, ending with exit code 1."""
    environ = {**frontend.environ, **environ}
    done = subprocess.run(
        [sys.executable, "-m", "frontend"],
        cwd=ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def script(**orders: Any) -> str:
    """A question that tells the fake Triton what to do."""
    return "fake:" + json.dumps(orders)


def events(text: str) -> list[tuple[str, Any]]:
    """The events of an SSE body: (name, data), comments as ("comment", text)."""
    assert text.endswith("\n\n"), text[-80:]
    found: list[tuple[str, Any]] = []
    for block in text[:-2].split("\n\n"):
        if block.startswith(":"):
            found.append(("comment", block[1:].strip()))
            continue
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        found.append((fields.get("event", "message"), json.loads(fields["data"])))
    return found


@pytest.fixture(scope="session")
def shared_fake() -> Iterator[FakeTriton]:
    with FakeTriton() as fake:
        yield fake


@pytest.fixture
def fake(shared_fake: FakeTriton) -> FakeTriton:
    """The fake Triton, with no calls behind it."""
    shared_fake.calls.clear()
    shared_fake.ready = shared_fake.live = True
    shared_fake.queue_full = False
    shared_fake.silent_from = None
    return shared_fake


@pytest.fixture(scope="session")
def running(shared_fake: FakeTriton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Frontend]]:
    """The shared frontend, once a test has started it."""
    frontends: list[Frontend] = []
    yield frontends
    for frontend in frontends:
        frontend.stop(signal.SIGKILL)


@pytest.fixture
def frontend(
    running: list[Frontend], fake: FakeTriton, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Frontend]:
    """A running frontend with the default settings, shared by the tests that do not end it.

    A start that fails fails one test: the next test starts another one.
    """
    if not running:
        started = Frontend(fake.port, tmp_path_factory.mktemp("frontend") / "log")
        try:
            running.append(started.start())
        except BaseException:
            started.stop(signal.SIGKILL)
            raise
    yield running[0]
    if running[0].process.poll() is not None:
        pytest.fail(f"the shared frontend has ended:\n{running.pop().log.read_text()}")


@pytest.fixture(scope="session")
def app(shared_fake: FakeTriton) -> FlaskClient:
    """The app in this process: for what needs no socket."""
    settings = Settings.load({"YOUTU_GRPC_PORT": str(shared_fake.port)})
    return create_app(settings, Client(shared_fake.address, timeout=WAIT_S)).test_client()


@pytest.fixture
def another(fake: FakeTriton, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Starts a frontend with settings of its own: `another(api_key="k")`. `slots` are the engine's, too."""
    started: list[Frontend] = []

    def start(**settings: object) -> Frontend:
        if "slots" in settings:
            monkeypatch.setitem(PARAMETERS, "slots", str(settings["slots"]))
        port = settings.pop("grpc_port", fake.port)
        assert isinstance(port, int)
        started.append(Frontend(port, tmp_path / f"log{len(started)}", **settings))
        return started[-1].start()

    yield start
    for frontend in started:
        frontend.stop(signal.SIGKILL)
