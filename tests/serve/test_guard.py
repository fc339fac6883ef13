"""The guard: its program's end is its end, a dead model's process ends Triton, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# A parent of one child, which never asks how the child ended: as Triton does with its models' processes.
PARENT = """
import os, sys, time
child = os.fork()
if child:
    print(child, flush=True)
time.sleep(60)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
)
# Waits in sigwait: a signal that a handler takes just before time.sleep() begins does not cut it short.
GRACEFUL = (
    "import signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM});"
    " print(1, flush=True); signal.sigwait({signal.SIGTERM}); sys.exit(7)"
)


def guarded(script: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "serve.guard", *options, sys.executable, "-c", script]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def pid_from(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def eventually(condition: Callable[[], bool], within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def gone(pid: int) -> bool:
    """Whether the process has ended, also when nobody has asked how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(("code", "status"), [("0", 0), ("3", 3)])
def test_the_programs_status_is_passed_on(code: str, status: int) -> None:
    assert guarded(f"raise SystemExit({code})").wait(10) == status


def test_death_by_a_signal_is_reported_as_a_shell_does() -> None:
    assert guarded("import os; os.kill(os.getpid(), 9)").wait(10) == 128 + 9


def test_a_program_that_does_not_exist_is_reported() -> None:
    command = [sys.executable, "-m", "serve.guard", "/no/such/program"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 127
    assert ended.stderr == "guard: cannot start /no/such/program: No such file or directory\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_on_a_signal_it_lets_the_program_end_well(number: signal.Signals) -> None:
    process = guarded(GRACEFUL)
    pid_from(process)
    process.send_signal(number)
    assert process.wait(10) == 7


def test_a_program_that_will_not_end_is_killed_after_its_grace() -> None:
    process = guarded(STUBBORN, "--grace", "0.5")
    pid_from(process)
    begun = time.monotonic()
    process.terminate()
    assert process.wait(10) == 128 + 9
    assert 0.5 <= time.monotonic() - begun < 3


def test_a_dead_model_process_ends_triton() -> None:
    """Triton itself would answer "ready" for ever and let that model's requests hang."""
    process = guarded(PARENT, "--models")
    model = pid_from(process)
    time.sleep(1.2)
    assert process.poll() is None  # while the model lives
    os.kill(model, signal.SIGKILL)
    assert process.wait(10) == 128 + 9
    assert process.stderr is not None
    assert f"process {model} of a model has died" in process.stderr.read().decode()


def test_other_programs_may_lose_children() -> None:
    process = guarded(PARENT)
    os.kill(pid_from(process), signal.SIGKILL)
    time.sleep(1.5)
    assert process.poll() is None
    process.terminate()
    process.wait(10)


def test_what_a_killed_program_leaves_running_ends_too() -> None:
    process = guarded("import os, time; pid = os.fork(); pid and (print(pid, flush=True), os._exit(0));"
                      "time.sleep(60)")  # fmt: skip
    orphan = pid_from(process)
    process.wait(10)
    assert gone(orphan)


def test_what_a_program_writes_is_in_its_log_which_is_rotated(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    script = (
        "import sys\n"
        "for n in range(3000): print(n, '字', file=sys.stderr if n % 2 else sys.stdout, flush=True)"
    )
    process = guarded(script, "--log", str(log), "--log-bytes", "4000")
    assert process.wait(60) == 0
    files = sorted(tmp_path.iterdir(), reverse=True)
    assert [file.name for file in files] == ["a.log.2", "a.log.1", "a.log"]
    assert all(file.stat().st_size < 4100 for file in files)
    lines = "".join(file.read_text() for file in files).splitlines()
    assert lines == [f"{n} 字" for n in range(3000)][-len(lines) :]
    assert process.communicate() == (b"", b"")


def test_bytes_that_are_no_text_and_a_last_line_without_an_end_are_logged(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    script = "import sys; sys.stdout.buffer.write(b'\\xff\\n' + b'x' * 200_000 + b'\\nend')"
    assert guarded(script, "--log", str(log)).wait(60) == 0
    assert log.read_bytes() == b"\xff\n" + b"x" * 200_000 + b"\nend"


def test_a_log_that_cannot_be_written_stops_no_program() -> None:
    """As on a disk that is full."""
    process = guarded("for n in range(20_000): print(n)  # more than a pipe holds", "--log", "/dev/full")
    assert process.wait(60) == 0


def test_what_the_guard_says_is_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    command = [sys.executable, "-m", "serve.guard", "--log", str(log), "/no/such/program"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 127
    assert log.read_text() == "guard: cannot start /no/such/program: No such file or directory\n"


def test_a_killed_guard_takes_its_program_along() -> None:
    process = guarded("import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    program = pid_from(process)
    process.kill()
    assert eventually(lambda: gone(program))


def test_a_guard_ends_well_when_its_parent_is_killed(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    script = (
        "import pathlib, signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM});"
        f"print(1, flush=True); signal.sigwait({{signal.SIGTERM}}); pathlib.Path({str(ended)!r}).touch()"
    )
    command = [sys.executable, "-m", "serve.guard", sys.executable, "-c", script]
    parent = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess; subprocess.run({command!r})"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )
    pid_from(parent)
    parent.kill()
    assert eventually(ended.exists)


def test_a_guard_whose_parent_has_ended_already_ends() -> None:
    assert guarded("import time; time.sleep(600)", "--parent", "1").wait(60) == 128 + 15


def test_shared_memory_of_that_name_is_removed_before_and_after() -> None:
    prefix = f"youtu-test-{os.getpid()}-"
    theirs, other = Path(f"/dev/shm/{prefix}left"), Path(f"/dev/shm/other-{prefix}")
    theirs.touch()
    other.touch()
    try:
        made = f"/dev/shm/{prefix}made"
        script = f"import os; assert not os.path.exists({str(theirs)!r}); open({made!r}, 'w').close()"
        assert guarded(script, "--shared-memory", prefix).wait(10) == 0
        assert not Path(made).exists()
        assert other.exists()
    finally:
        other.unlink()
        theirs.unlink(missing_ok=True)


def test_shared_memory_is_closed_to_other_users() -> None:
    """The fault: Triton makes its regions readable for everybody, and every prompt passes through them."""
    prefix = f"youtu-test-{os.getpid()}-"
    made = Path(f"/dev/shm/{prefix}made")
    script = f"open({str(made)!r}, 'w').close(); import os; os.chmod({str(made)!r}, 0o644); {GRACEFUL}"
    process = guarded(script, "--shared-memory", prefix)
    pid_from(process)
    assert eventually(lambda: made.stat().st_mode & 0o777 == 0o600, within=60)
    process.terminate()
    assert process.wait(60) == 7
