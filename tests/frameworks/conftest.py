"""A server with SmolLM2, shared by the tests of this folder; or one that runs, at FRAMEWORKS_URL.

Run by `make test-frameworks` in an environment of its own, without the rest of the test suite's packages.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
START_S = 600.0


@dataclass(frozen=True)
class Served:
    """Where the server is (`v1`: with the path of OpenAI's routes), and its model's name."""

    url: str
    model: str

    @property
    def v1(self) -> str:
        return f"{self.url}/v1"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def name_of_model(url: str) -> str:
    with urllib.request.urlopen(f"{url}/v1/models", timeout=10) as reply:
        name: str = json.load(reply)["data"][0]["id"]
        return name


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    if url := os.environ.get("FRAMEWORKS_URL"):
        yield Served(url, name_of_model(url))
        return
    log = tmp_path_factory.mktemp("serve") / "output.txt"
    ports = {name: str(free_port()) for name in ("PORT", "HTTP_PORT", "GRPC_PORT", "METRICS_PORT")}
    environment = os.environ | {f"YOUTU_{name}": port for name, port in ports.items()}
    environment |= {"YOUTU_MODEL": os.environ.get("MODEL") or "smollm2"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [ROOT / ".venv" / "bin" / "python", "-m", "serve"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{ports['PORT']}"
        until = time.monotonic() + START_S
        while b"Up after" not in log.read_bytes():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.2)
        yield Served(url, name_of_model(url))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)
