"""A checkout and a data folder with names that a shell, or Python without UTF-8, stumbles over."""

from __future__ import annotations

import json
import shutil
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.running import ROOT, RunningServer

NAMES = {
    "spaces, parentheses and &": "my (new) & other files",
    "Chinese": "资料/我的项目",
    "quotes and signs": 'it\'s "100%" $HOME; #1',
}
SOURCES = ("build", "client", "frontend", "model_repository", "serve", "tests")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_it_serves_from_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    """The fault: Triton starts its models through a shell, unquoted, with a Python that reads only ASCII."""
    checkout = tmp_path / name / "checkout"
    for source in SOURCES:
        shutil.copytree(ROOT / source, checkout / source, ignore=shutil.ignore_patterns("__pycache__"))
    (checkout / ".venv").symlink_to(ROOT / ".venv")
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", "serve"]
    running = RunningServer(checkout / "var", command=command, cwd=checkout)
    try:
        running.wait_until_up()
        request = urllib.request.Request(
            f"{running.http_url}/chat", b'{"prompt": "hi"}', {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            assert json.load(answer)["model"] == "youtu-demo"
        assert running.end() == 0, running.log
        assert running.left_behind() == []
    finally:
        running.kill()
