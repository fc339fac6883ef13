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

SERVER = triton.find_in_wheel().server.relative_to(sys.prefix)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    run = RunFolder(tmp_path / "data")
    yield run
    run.close()


def command_of(folder: Path, **settings: object) -> list[str]:
    """tritonserver's command line, without what comes before the program."""
    run = RunFolder(folder / "data")
    chosen = Settings.model_validate(settings)
    whole = triton.command(triton.find_in_wheel(), chosen, run, folder / "models", folder / "backends")
    run.close()
    return whole[whole.index(f"{run.path}/python/{SERVER}") :]


def value_of(command: list[str], option: str) -> str:
    (value,) = (text.partition("=")[2] for text in command if text.startswith(f"--{option}="))
    return value


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
    command = command_of(tmp_path)
    environment = os.environ | triton.environment(found, run)
    shown = subprocess.run(
        [found.server, "--help"], env=environment, capture_output=True, text=True, check=False
    )
    known = set(re.findall(r"^  --([a-z0-9-]+)", shown.stdout + shown.stderr, re.MULTILINE))
    assert len(known) > 50
    used = {option.removeprefix("--").partition("=")[0] for option in command[1:]}
    assert used <= known


def test_settings_reach_the_command_line(tmp_path: Path) -> None:
    command = command_of(
        tmp_path,
        triton_host="127.0.0.2",
        http_port=1,
        grpc_port=2,
        metrics_port=3,
        drain_timeout=7.4,
        log_level="warning",
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
        "--allow-http=true",
    ):
        assert option in command


def test_nothing_can_be_loaded_and_management_is_closed(tmp_path: Path) -> None:
    """In the mode `explicit` one POST to port 8000 loaded a model of the sender's, and ran its code."""
    command = command_of(tmp_path)
    assert value_of(command, "model-control-mode") == "none"
    assert not [option for option in command if option.startswith("--load-model")]
    assert value_of(command, "allow-vertex-ai") == value_of(command, "allow-sagemaker") == "false"
    for option in ("http-restricted-api", "grpc-restricted-protocol"):
        closed, _, header = value_of(command, option).partition(":")
        assert set(closed.split(",")) == {"model-repository", "logging", "trace", "shared-memory"}
        assert re.fullmatch(re.escape(triton.CLOSED) + "=[0-9a-f]{64}", header)


def test_each_start_has_a_key_of_its_own(tmp_path: Path) -> None:
    keys = {value_of(command_of(tmp_path), "http-restricted-api") for _ in range(3)}
    assert len(keys) == 3


def test_a_setting_opens_shared_memory_and_nothing_else(tmp_path: Path) -> None:
    command = command_of(tmp_path, triton_shared_memory="on")
    for option in ("http-restricted-api", "grpc-restricted-protocol"):
        closed = value_of(command, option).partition(":")[0]
        assert set(closed.split(",")) == {"model-repository", "logging", "trace"}


def test_a_setting_closes_http(tmp_path: Path) -> None:
    assert value_of(command_of(tmp_path, triton_http="off"), "allow-http") == "false"


@pytest.mark.parametrize(
    ("host", "http", "grpc"),
    [
        ("localhost", "127.0.0.1", "127.0.0.1"),
        ("::1", "ipv6:::1", "[::1]"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0"),
    ],
)
def test_triton_gets_addresses_in_its_own_notation(tmp_path: Path, host: str, http: str, grpc: str) -> None:
    """`localhost` made it listen on 255.255.255.255, `::1` was reported as in use."""
    command = command_of(tmp_path, triton_host=host)
    assert value_of(command, "http-address") == value_of(command, "metrics-address") == http
    assert value_of(command, "grpc-address") == grpc


def test_the_stack_is_raised_as_far_as_the_system_allows() -> None:
    """The prefix of the command raises the soft limit, and starts the program where it may not, too."""
    show = [*triton.WITH_STACK, "sh", "-c", "ulimit -Ss"]
    shown = subprocess.run(show, capture_output=True, text=True, check=True)
    assert int(shown.stdout) == triton.STACK
    lowered = ["sh", "-c", 'ulimit -s 8192; exec "$0" "$@"', *show]
    shown = subprocess.run(lowered, capture_output=True, text=True, check=True)
    assert (int(shown.stdout), shown.stderr) == (8192, "")
