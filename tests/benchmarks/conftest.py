"""`server`: one demonstration for the tests of this folder; `load`: the real load generator as its own
process.

Locust patches the interpreter it is imported into, so no test imports it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.running import ROOT, RunningServer

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
TIMEOUT = 60


def ran(module: str, *arguments: str, timeout: float = TIMEOUT) -> subprocess.CompletedProcess[str]:
    """`python -m MODULE ARGUMENTS` to its end, from the root of the repository."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("benchmarked"))
    try:
        yield running.wait_until_up()
        assert running.end() == 0, running.log
    finally:
        running.kill()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Run `python -m benchmarks.load` into tmp_path/run: exit status, the JSON line, what stderr said."""

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        done = ran("benchmarks.load", *arguments, "--out", str(tmp_path / "run"))
        lines = done.stdout.splitlines()
        return done.returncode, json.loads(lines[-1]) if lines else {}, done.stderr

    return run
