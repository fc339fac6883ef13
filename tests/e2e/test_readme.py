"""What the READMEs and docs/contract.md tell a newcomer to type works (with the ports of this server)."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import PYTHON, ROOT, RunningServer
from tests.limits import START_S

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHINESE = (ROOT / "README.zh.md").read_text(encoding="utf-8")
CONTRACT = (ROOT / "docs" / "contract.md").read_text(encoding="utf-8")
LONGEST = 150  # lines of a README


def for_this(server: RunningServer, text: str) -> str:
    for port, own in (
        (8080, server.settings.port),
        (8000, server.settings.http_port),
        (8001, server.settings.grpc_port),
    ):
        text = re.sub(rf"(localhost|127\.0\.0\.1):{port}\b", f"127.0.0.1:{own}", text)
    return text


def python_blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README + CHINESE + CONTRACT, re.S)


@pytest.mark.parametrize("number", range(len(python_blocks())))
def test_python(server: RunningServer, tmp_path: Path, number: int) -> None:
    script = tmp_path / "example.py"
    script.write_text(for_this(server, python_blocks()[number]), encoding="utf-8")
    # OpenAI's SDK is the caller's to install; here it comes with the tests.
    python = sys.executable if "openai" in python_blocks()[number] else PYTHON
    done = subprocess.run([python, script], capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) > 10


@pytest.mark.parametrize("text", [README, CHINESE], ids=["en", "zh"])
def test_curl(server: RunningServer, text: str) -> None:
    lines = re.findall(r"^(?:\$ )?(curl .*)$", text, re.M)
    lines += re.findall(r"`(curl [^`]*)`", text)
    assert lines
    for line in lines:
        command = shlex.split(for_this(server, line))
        done = subprocess.run(
            [command[0], "-sS", "--max-time", str(int(START_S)), "--fail", *command[1:]], capture_output=True
        )
        assert done.returncode == 0, (line, done.stderr, done.stdout)
        assert len(done.stdout) > 20


@pytest.mark.parametrize("text", [README, CHINESE], ids=["en", "zh"])
def test_the_readmes_stay_short(text: str) -> None:
    assert len(text.splitlines()) <= LONGEST


def test_every_make_target_of_the_readmes_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z][a-z0-9-]*)", README + CHINESE))
    assert named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.M), f"make {target}"
