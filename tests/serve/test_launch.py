"""Starting, watching and ending, with cheap programs in the place of Triton and the frontend."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve import processes
from serve.launch import RESTARTS, get
from serve.run_folder import HOME, PREFIX
from serve.settings import reachable
from tests.limits import WAIT_S
from tests.serve.test_guard import eventually, gone

ROOT = Path(__file__).resolve().parent.parent.parent
ENDS_WELL = (
    "import signal, sys, time, pathlib\n"
    "def end(*_): print(NAME, 'ends', time.monotonic(), flush=True); sys.exit()\n"
    "signal.signal(signal.SIGTERM, end); print(NAME, 'runs', flush=True); time.sleep(600)"
)


def leaves_a_mark(file: Path) -> str:
    """A program that makes `file` when it is told to end, for when nobody reads its output any more."""
    return ENDS_WELL.replace("print(NAME, 'ends', time.monotonic(), flush=True)", f"open({str(file)!r}, 'w')")


def command_of(pid: int) -> str:
    """The command line of process `pid`; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def run_of(data_dir: Path) -> Path:
    """The folder of the latest run from a data folder."""
    return HOME / f"{PREFIX}{(data_dir / 'log' / 'latest').resolve().name}"


class Launch:
    """`serve.launch.Server` in a process of its own, with `programs` (name -> Python).

    A program is ready, and works, when the Python expression `ready` is true; `name` in it is the program's.
    """

    def __init__(
        self, folder: Path, programs: dict[str, str], *, ready: str = "True", hang_timeout: float = 0
    ) -> None:
        script = (
            "import os, sys, threading, time\n"
            "from pathlib import Path\n"
            "threading.Thread(target=time.sleep, args=[600], daemon=True).start()\n"  # as a library may
            "from serve.launch import Server\n"
            "from serve.messages import flush, say\n"
            "from serve.run_folder import RunFolder\n"
            "from serve.program import Program\n"
            "from serve.watch import Watch\n"
            f"folder, limit = Path({str(folder)!r}), {hang_timeout}\n"
            f"programs = {programs!r}\n"
            "started = [Program(name, [sys.executable, '-c', f'NAME = {name!r}\\n{code}'], grace=5)"
            " for name, code in programs.items()]\n"
            "def watch(name):\n"
            "    def probe(timeout):\n"
            f"        if not ({ready}): raise OSError('not ready')\n"
            "    return Watch(probe, probe, limit)\n"
            "run = RunFolder(folder)\n"
            "watches = {name: watch(name) for name in programs}\n"
            "status = Server(started, run, watches, lambda: say('UP'), limit).run()\n"
            "run.close()\n"
            "flush()\n"
            "sys.exit(status)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.folder = folder
        self.lines: list[str] = []

    def until(self, text: str) -> str:
        """Read its output as far as a line with `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {self.lines}")

    def until_all(self, *texts: str) -> None:
        """Read its output until each of `texts` has come, in whatever order."""
        for text in texts:
            if not any(text in line for line in self.lines):
                self.until(text)

    def end(self) -> int:
        """Wait for its end; returns the exit status."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait(120)

    @property
    def run(self) -> Path:
        """The folder of its run."""
        return run_of(self.folder)


def test_it_is_up_and_ends_its_programs_from_the_last_to_the_first(tmp_path: Path) -> None:
    launch = Launch(tmp_path, {"below": ENDS_WELL, "above": ENDS_WELL})
    launch.until_all("UP", "below runs", "above runs")
    launch.process.terminate()
    assert launch.end() == 0
    ends = {line.split()[2]: float(line.split()[-1]) for line in launch.lines if " ends " in line}
    assert ends["above"] < ends["below"]
    assert launch.lines[-1] == "everything has stopped"


def test_a_program_that_does_not_start_ends_it_with_its_last_lines(tmp_path: Path) -> None:
    launch = Launch(
        tmp_path, {"below": "raise SystemExit('no such model')", "above": ENDS_WELL}, ready="False"
    )
    assert launch.end() == 1
    assert any("below does not start" in line for line in launch.lines)
    assert "    no such model" in launch.lines
    assert any("above ends" in line for line in launch.lines)


@pytest.mark.slow
def test_a_program_that_dies_again_and_again_is_given_up(tmp_path: Path) -> None:
    """Also when it was ready each time: without a bound it would be started for ever."""
    launch = Launch(tmp_path, {"below": "import time; time.sleep(0.7); raise SystemExit(3)"})
    assert launch.end() == 1
    again = [line for line in launch.lines if "restarting it" in line]
    assert 2 <= len(again) <= RESTARTS
    assert again[0] == f"below exited; restarting it (1 of at most {RESTARTS})"
    assert any("below " in line and "; the end of its log:" in line for line in launch.lines)


def test_a_program_that_was_ready_may_die_before_that_is_seen_again(tmp_path: Path) -> None:
    """The fault: a second kill, after an answer, was taken for a program that cannot start."""
    ready = tmp_path / "ready"
    ready.touch()
    launch = Launch(tmp_path, {"below": ENDS_WELL}, ready=f"os.path.exists({str(ready)!r})")
    launch.until_all("UP", "below runs")
    ready.unlink()
    for number in (1, 2, 3):
        pids = processes.descendants(launch.process.pid)
        [guard] = [pid for pid in pids if "serve.guard" in command_of(pid)]
        os.kill(guard, signal.SIGKILL)
        launch.until(f"below exited; restarting it ({number} of")
        launch.until("below runs")
    launch.process.terminate()
    assert launch.end() == 0


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "print('ignores it', flush=True); time.sleep(600)"
    )
    launch = Launch(tmp_path, {"below": stubborn})
    launch.until_all("UP", "ignores it")
    launch.process.send_signal(signal.SIGINT)
    launch.until("stopping")
    launch.process.send_signal(signal.SIGINT)
    launch.end()
    assert "everything has stopped" in launch.lines[-1]
    # Its programs have 5 s to end and their guards 10 more; the second signal waits for neither.


def test_a_signal_that_a_librarys_thread_takes_is_heeded(tmp_path: Path) -> None:
    """The fault: such a thread blocks no signals; a second Ctrl-C that it took killed the launcher."""
    launch = Launch(tmp_path, {"below": ENDS_WELL})
    launch.until_all("UP", "below runs")
    main = launch.process.pid
    open_to_all = f"SigBlk:\t{0:016x}\n"
    tasks = [task for task in Path(f"/proc/{main}/task").iterdir() if task.name != str(main)]
    thread = next(int(task.name) for task in tasks if open_to_all in (task / "status").read_text())
    assert ctypes.CDLL(None).tgkill(main, thread, signal.SIGINT) == 0
    assert launch.end() == 0
    assert "everything has stopped" in launch.lines[-1]


def test_nothing_is_left_of_a_killed_launcher(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    launch = Launch(tmp_path, {"below": leaves_a_mark(ended)})
    launch.until("below runs")
    left = processes.descendants(launch.process.pid)
    assert len(left) == 2  # the guard and the program
    launch.process.kill()
    assert eventually(lambda: all(gone(pid) for pid in left), WAIT_S)
    assert ended.exists()
    shutil.rmtree(launch.run)


def test_a_guard_that_starts_while_the_launcher_is_killed_ends_too(tmp_path: Path) -> None:
    """It asks for a signal at its parent's end, which may have come before it asks."""
    script = (
        "import os, pathlib, signal, sys\n"
        "from serve.program import Child, Program\n"
        "from serve.run_folder import RunFolder\n"
        "run = RunFolder(pathlib.Path(sys.argv[1]))\n"
        "child = Child(Program('below', ['sleep', '600'], grace=5), run)\n"
        "child.start()\n"
        "os.kill(child.pid, signal.SIGSTOP)\n"
        "print(child.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    guard = int(output)
    os.kill(guard, signal.SIGCONT)
    assert eventually(lambda: gone(guard), WAIT_S)
    shutil.rmtree(run_of(tmp_path))


def test_waiting_is_reported(tmp_path: Path) -> None:
    launch = Launch(tmp_path, {"below": ENDS_WELL}, ready="False")
    assert "waiting for below (5 s)" in launch.until("waiting for below")
    launch.process.terminate()
    assert launch.end() == 0


def test_nobody_there_is_no_answer() -> None:
    for host, port in (("127.0.0.1", 9), ("nowhere.invalid", 80)):
        with pytest.raises(OSError, match=r"refused|not known|resolution"):
            get(host, port, "/", timeout=5)


def test_a_program_that_does_not_answer_any_more_is_replaced(tmp_path: Path) -> None:
    """The fault: a hung program was left as it was, for ever."""
    answers = tmp_path / "answers"
    code = f"open({str(answers)!r}, 'w').close()\n{ENDS_WELL}"
    launch = Launch(tmp_path, {"below": code}, ready=f"os.path.exists({str(answers)!r})", hang_timeout=5)
    launch.until("UP")
    answers.unlink()
    assert "no answer for" in launch.until("below hangs")
    launch.until("below exited; restarting it")
    launch.until("below is ready")
    launch.process.terminate()
    assert launch.end() == 0


def test_a_program_of_which_a_process_is_stopped_is_replaced(tmp_path: Path) -> None:
    """Also while it starts, when nobody can say how long it should take to answer."""
    code = f"import os; print(os.getpid(), 'is its pid', flush=True)\n{ENDS_WELL}"
    launch = Launch(tmp_path, {"below": code}, ready="False", hang_timeout=5)
    pid = int(launch.until("is its pid").split("|")[1].split()[0])
    os.kill(pid, signal.SIGSTOP)
    assert "has been stopped for" in launch.until("below hangs")
    launch.until("below exited; restarting it")
    launch.process.terminate()
    assert launch.end() == 0


def test_a_program_goes_on_while_the_launcher_is_stopped_and_ends_when_it_is_killed(tmp_path: Path) -> None:
    """Its output, far more than a pipe holds, is taken by its guard."""
    go, written, ended = tmp_path / "go", tmp_path / "written", tmp_path / "ended"
    chatter = (
        f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.1)\n"
        f"for _ in range(3000): print('x' * 1000, flush=True)\nopen({str(written)!r}, 'w').close()\n"
    )
    code = f"print(NAME, 'waits', flush=True)\n{chatter}{leaves_a_mark(ended)}"
    launch = Launch(tmp_path, {"below": code}, hang_timeout=5)
    launch.until("below waits")
    os.kill(launch.process.pid, signal.SIGSTOP)
    go.touch()
    assert eventually(written.exists, WAIT_S)
    log = tmp_path / "log" / "latest" / "below.log"
    assert eventually(lambda: "below runs" in log.read_text(), WAIT_S)
    assert log.read_text().count("x" * 1000) == 3000
    left = processes.descendants(launch.process.pid)
    launch.process.kill()
    assert eventually(lambda: all(gone(pid) for pid in left), WAIT_S)
    assert ended.exists()
    shutil.rmtree(launch.run)


def test_what_a_killed_guard_leaves_is_ended(tmp_path: Path) -> None:
    """Its program dies with it; what the program had started held ports and memory, stopped for ever."""
    code = (
        "import os, subprocess, sys\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"print(left.pid, 'is its pid', flush=True)\n{ENDS_WELL}"
    )
    launch = Launch(tmp_path, {"below": code})
    left = int(launch.until("is its pid").split("|")[1].split()[0])
    os.kill(left, signal.SIGSTOP)
    pids = processes.descendants(launch.process.pid)
    [guard] = [pid for pid in pids if "serve.guard" in command_of(pid)]
    os.kill(guard, signal.SIGKILL)
    launch.until("below exited; restarting it")
    assert eventually(lambda: gone(left), WAIT_S)
    launch.until("is its pid")
    launch.process.terminate()
    assert launch.end() == 0


def test_a_launcher_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """The fault: after a stop Python's sigtimedwait gives an uninitialised signal: it ended."""
    launch = Launch(tmp_path, {"below": ENDS_WELL})
    launch.until_all("UP", "below runs")
    os.kill(launch.process.pid, signal.SIGSTOP)
    time.sleep(1)  # longer than it waits for a signal
    os.kill(launch.process.pid, signal.SIGCONT)
    time.sleep(1)
    assert launch.process.poll() is None
    launch.process.terminate()
    assert launch.end() == 0
    assert sum(line.startswith("stopping") for line in launch.lines) == 1
    assert any("below ends" in line for line in launch.lines)


def test_output_that_nobody_reads_holds_nothing_up(tmp_path: Path) -> None:
    """The fault: with a full pipe as its output the launcher watched nothing and heeded no signal."""
    ready = tmp_path / "written"
    chatter = "for _ in range(3000): print('x' * 1000, flush=True)\n"
    launch = Launch(tmp_path, {"below": f"{chatter}open({str(ready)!r}, 'w').close()\n{ENDS_WELL}"})
    deadline = time.monotonic() + WAIT_S
    while not ready.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1)
    launch.process.terminate()
    assert launch.process.wait(WAIT_S) == 0  # nothing was read until now


def test_a_stopped_program_is_continued_to_end(tmp_path: Path) -> None:
    """The fault: it could not end, and was waited for as long as running answers are."""
    launch = Launch(
        tmp_path, {"below": f"import os; print(os.getpid(), 'is its pid', flush=True)\n{ENDS_WELL}"}
    )
    pid = int(launch.until("is its pid").split("|")[1].split()[0])
    launch.until_all("UP", "below runs")
    os.kill(pid, signal.SIGSTOP)
    launch.process.terminate()
    assert launch.end() == 0
    assert any("below ends" in line for line in launch.lines)


def test_no_setting_and_no_secret_is_in_a_programs_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault: Triton and its models had the frontend's API key in their environment."""
    monkeypatch.setenv("YOUTU_API_KEY", "sesame")
    monkeypatch.setenv("HF_TOKEN", "sesame")
    code = f"import os; print(dict(os.environ), 'environment', flush=True)\n{ENDS_WELL}"
    launch = Launch(tmp_path, {"below": code})
    shown = launch.until("environment")
    assert "sesame" not in shown
    assert "YOUTU_RUN" in shown
    launch.process.terminate()
    assert launch.end() == 0


def test_an_address_for_everyone_is_reached_over_the_loopback() -> None:
    assert (reachable("0.0.0.0"), reachable("::"), reachable("10.1.2.3")) == ("127.0.0.1", "::1", "10.1.2.3")
