"""The folder of a run: safe paths whatever the folders are called, and what a dead run leaves is ended."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serve import run_folder
from serve.run_folder import LOGS_KEPT, RunFolder, end_leftovers
from tests.serve.test_guard import eventually, gone

ROOT = Path(__file__).resolve().parents[2]
ODD = "my (data) & 资料 'x' $HOME #1;"
# A process of a run that ignores a polite end, as a hung one does.
WAITS = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);print(1, flush=True); time.sleep(600)"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    return folder


def process_of(run: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WAITS],
        env=os.environ | {run_folder.VARIABLE: str(run)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def abandoned(home: Path, data_dir: Path) -> Path:
    """The folder of a run whose launcher was killed."""
    script = (
        "import os, sys; from pathlib import Path; from serve.run_folder import RunFolder;"
        f"print(RunFolder(Path({str(data_dir)!r}), Path({str(home)!r})).path, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return Path(ended.stdout.strip())


def test_its_paths_are_plain_whatever_the_folders_are_called(home: Path, tmp_path: Path) -> None:
    """The fault: Triton's shell and its ASCII-only Python did not find what lay in such a folder."""
    engine = tmp_path / ODD / "engine"
    engine.mkdir(parents=True)
    (engine / "model.gguf").write_text("weights")
    run = RunFolder(tmp_path / ODD, home)
    safe = run.link("engine", engine) / "model.gguf"
    assert safe.read_text() == "weights"
    (run.safe_logs / "triton.log").write_text("line")
    assert (run.logs / "triton.log").read_text() == "line"
    for path in (safe, run.safe_logs, run.python, Path(run.python_path.split(":")[0])):
        assert re.fullmatch(r"[A-Za-z0-9/._-]+", str(path).removeprefix(str(home)))
    assert subprocess.run([run.python, "-c", "import uvicorn"], check=False).returncode == 0
    run.close()


def test_everything_in_it_is_for_its_owner(home: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "data", home)
    document = run.write("frontend.json", "{}")
    assert [path.stat().st_mode & 0o777 for path in (run.path, document, run.logs)] == [0o700, 0o600, 0o700]
    run.close()
    assert not run.path.exists()
    assert run.logs.exists()


def test_two_runs_from_one_data_folder_have_files_of_their_own(home: Path, tmp_path: Path) -> None:
    one, two = RunFolder(tmp_path, home), RunFolder(tmp_path, home)
    assert one.path != two.path
    assert one.logs != two.logs
    assert one.shared_memory_prefix != two.shared_memory_prefix
    assert (tmp_path / "log" / "latest").resolve() == two.logs
    one.close()
    two.close()


def test_old_logs_go_and_those_of_a_living_run_stay(home: Path, tmp_path: Path) -> None:
    living = RunFolder(tmp_path, home)
    for _ in range(LOGS_KEPT + 3):
        RunFolder(tmp_path, home).close()
    kept = sorted(entry for entry in (tmp_path / "log").glob("2*"))
    assert living.logs in kept
    assert len(kept) in (LOGS_KEPT, LOGS_KEPT + 1)  # within a second they have no order
    living.close()


def test_logs_go_elsewhere_when_the_data_folder_takes_none(home: Path, tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file where the folder of logs would be")
    run = RunFolder(tmp_path, home)
    assert run.logs.is_relative_to(run.path)
    (run.safe_logs / "triton.log").write_text("line")
    run.close()


def test_what_a_dead_run_left_is_ended(home: Path, tmp_path: Path) -> None:
    """The fault: a start after a kill during a hang found the ports taken for 40 s."""
    left = abandoned(home, tmp_path)
    assert left.is_dir()
    process = process_of(left)
    region = home / f"{run_folder.REGIONS}{left.name.removeprefix(run_folder.PREFIX)}-abc"
    region.touch()
    assert end_leftovers(home) == [process.pid]
    process.wait()
    assert not left.exists()
    assert not region.exists()


def test_a_living_run_is_left_alone(home: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path, home)
    process = process_of(run.path)
    try:
        assert end_leftovers(home) == []
        assert process.poll() is None
        assert run.path.is_dir()
    finally:
        process.kill()
        process.wait()
    run.close()


def test_a_stopped_process_of_a_dead_run_is_ended_too(home: Path, tmp_path: Path) -> None:
    left = abandoned(home, tmp_path)
    process = process_of(left)
    os.kill(process.pid, 19)
    end_leftovers(home)
    assert eventually(lambda: gone(process.pid), within=60)
    process.wait()


def test_other_files_of_that_name_are_no_run(home: Path) -> None:
    (home / f"{run_folder.PREFIX}file").write_text("not a folder")
    (home / f"{run_folder.PREFIX}link").symlink_to("/")
    assert end_leftovers(home) == []
    assert (home / f"{run_folder.PREFIX}file").exists()
