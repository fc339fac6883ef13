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

from tests.e2e.running import ROOT, KeptServer, RunningServer
from tests.limits import START_S

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}


def ran(module: str, *arguments: str, timeout: float = START_S) -> subprocess.CompletedProcess[str]:
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
def kept_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServer]:
    with KeptServer(tmp_path_factory.mktemp("benchmarked")) as kept:
        yield kept


@pytest.fixture
def server(kept_server: KeptServer) -> RunningServer:
    return kept_server.running()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Run `python -m benchmarks.load` into tmp_path/run: exit status, the JSON line, what stderr said.

    That the generator was busy is a fault of the machine that the test runs on: it does not count here.
    """

    def run(*arguments: str) -> tuple[int, dict[str, Any], str]:
        done = ran("benchmarks.load", *arguments, "--out", str(tmp_path / "run"))
        lines = done.stdout.splitlines()
        summary: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        faults = [fault for step in summary.get("steps", []) for fault in step["faults"]]
        only_busy = bool(faults) and all(fault.startswith("the generator took") for fault in faults)
        return 0 if done.returncode == 3 and only_busy else done.returncode, summary, done.stderr

    return run
