"""The images' health check and the unit for systemd."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.addresses import free_ports
from serve.program import AFTER_GRACE
from serve.settings import Settings
from tests.client.fake_triton import FakeTriton
from tests.limits import START_S

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def fake() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


def health(*question: str, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "docker/health.py", *question],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "client"), **variables},
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.strip()


def test_triton_alone_loading_hanging_and_broken_are_told_apart(fake: FakeTriton) -> None:
    given = {"YOUTU_FRONTEND": "off", "YOUTU_GRPC_PORT": str(fake.port)}
    assert health(**given) == (0, "")
    assert health("live", **given) == (0, "")
    fake.ready = False
    status, word = health("ready", **given)
    assert (status, word.partition(":")[0]) == (1, "loading")
    assert health("live", **given)[0] == 0
    fake.ready, fake.stalled = True, True
    for question in ("ready", "live"):
        status, word = health(question, **given)
        assert (status, word.partition(":")[0]) == (1, "hangs")
    fake.stalled = False
    with fake.holding_probes():
        status, word = health("live", **given)
        assert (status, word.partition(":")[0]) == (1, "no answer")
    fake.stop()
    status, word = health("live", **given)
    assert (status, word.partition(":")[0]) == (1, "no answer")


def test_without_a_frontend_there_is_no_answer() -> None:
    status, word = health(YOUTU_PORT=str(free_ports(1)[0]))
    assert status == 1
    assert word.startswith("no answer: ")


def test_the_unit_of_systemd_is_one(tmp_path: Path) -> None:
    """Its own tool reads it; only what must exist on the machine is another program here."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("this machine has no systemd-analyze")
    text = (ROOT / "docker" / "youtu.service").read_text(encoding="utf-8")
    text = text.replace("/opt/youtu/.venv/bin/python", sys.executable).replace("/opt/youtu", str(ROOT))
    for broken in (False, True):
        (tmp_path / "youtu.service").write_text(
            text.replace("Restart=on-failure", "Restart=now") if broken else text
        )
        command = [program, "verify", "--man=no", str(tmp_path / "youtu.service")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S)
        assert ("youtu.service" in done.stderr) == broken, done.stderr


def test_what_the_unit_allows() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[method-assign,assignment]
    unit.read(ROOT / "docker" / "youtu.service", encoding="utf-8")
    service = unit["Service"]
    defaults = Settings()
    grace = 2 * (defaults.drain_timeout + 5 + AFTER_GRACE) + defaults.leave_timeout
    assert int(service["TimeoutStopSec"]) >= grace
    assert service["KillMode"] == "mixed", (
        "else all get the signal at once, and Triton ends before the frontend"
    )
    assert service["ExecStart"] == f"{service['WorkingDirectory']}/.venv/bin/python -m serve"
    assert service["User"] == "youtu"
    assert service["NoNewPrivileges"] == "yes"
    assert f"/var/lib/{service['StateDirectory']}" == service["Environment"].removeprefix("YOUTU_DATA_DIR=")
