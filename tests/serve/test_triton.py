"""Triton's parts as the wheel has them, and its command line against the binary's own list of options."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve import triton
from serve.run_folder import RunFolder
from serve.settings import Settings


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    run = RunFolder(tmp_path / "data")
    yield run
    run.close()


def test_the_backend_folder_has_library_helpers_and_our_stub(tmp_path: Path) -> None:
    found = triton.find_in_wheel()
    (tmp_path / "backends" / "old").mkdir(parents=True)
    folder = triton.lay_out_backend(found, tmp_path / "backends")
    names = {part.name for part in (folder / "python").iterdir()}
    assert names == {"libtriton_python.so", "triton_python_backend_utils.py", triton.STUB}
    assert f"/{sys.version_info[0]}.{sys.version_info[1]}/" in str(
        (folder / "python" / triton.STUB).resolve()
    )
    assert not (folder / "old").exists()


def test_the_stub_finds_every_library(run: RunFolder) -> None:
    found = triton.find_in_wheel()
    environment = os.environ | triton.environment(found, run)
    listed = subprocess.run(["ldd", found.stub], env=environment, capture_output=True, text=True, check=True)
    assert "not found" not in listed.stdout
    assert str(found.libpython) in listed.stdout


def test_the_first_python3_on_the_path_is_ours(run: RunFolder) -> None:
    """The stub is isolated: PYTHONPATH means nothing to it, `python3` on the PATH everything."""
    first = Path(triton.environment(triton.find_in_wheel(), run)["PATH"].split(os.pathsep)[0])
    assert (first / "python3").exists()
    assert first.samefile(Path(sys.executable).parent)


def test_the_binary_knows_every_option(run: RunFolder, tmp_path: Path) -> None:
    found = triton.find_in_wheel()
    command = triton.command(found, Settings(), run, tmp_path / "models", tmp_path / "backends")
    environment = os.environ | triton.environment(found, run)
    shown = subprocess.run(
        [found.server, "--help"], env=environment, capture_output=True, text=True, check=False
    )
    known = set(re.findall(r"^  --([a-z0-9-]+)", shown.stdout + shown.stderr, re.MULTILINE))
    assert len(known) > 50
    used = {option.removeprefix("--").partition("=")[0] for option in command[1:]}
    assert used <= known


def test_settings_reach_the_command_line(run: RunFolder, tmp_path: Path) -> None:
    settings = Settings(
        triton_host="127.0.0.2",
        http_port=1,
        grpc_port=2,
        metrics_port=3,
        drain_timeout=7.4,
        log_level="warning",
    )
    command = triton.command(
        triton.find_in_wheel(), settings, run, tmp_path / "models", tmp_path / "backends"
    )
    for option in (
        f"--model-repository={tmp_path / 'models'}",
        f"--backend-directory={tmp_path / 'backends'}",
        "--http-address=127.0.0.2",
        "--http-port=1",
        "--grpc-address=127.0.0.2",
        "--grpc-port=2",
        "--metrics-address=127.0.0.2",
        "--metrics-port=3",
        "--exit-timeout-secs=7",
        "--log-info=false",
        "--log-warning=true",
    ):
        assert option in command
    assert f"--backend-config=python,shm-region-prefix-name={run.shared_memory_prefix}" in command
