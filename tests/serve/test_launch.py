"""Starting, watching and ending, with cheap programs in the place of Triton and the frontend."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve.launch import RESTARTS, answers
from serve.settings import reachable

ROOT = Path(__file__).resolve().parent.parent.parent
ENDS_WELL = (
    "import signal, sys, time, pathlib\n"
    "def end(*_): print(NAME, 'ends', time.monotonic(), flush=True); sys.exit()\n"
    "signal.signal(signal.SIGTERM, end); print(NAME, 'runs', flush=True); time.sleep(600)"
)


class Launch:
    """`serve.launch.Server` in a process of its own, with `programs` (name -> Python) and what is ready."""

    def __init__(self, folder: Path, programs: dict[str, str], *, ready: str = "True") -> None:
        script = (
            "import sys\n"
            "from pathlib import Path\n"
            "from serve.launch import Server, say\n"
            "from serve.supervisor import Program\n"
            f"programs = {programs!r}\n"
            "started = [Program(name, [sys.executable, '-c', f'NAME = {name!r}\\n{code}'], grace=5)"
            " for name, code in programs.items()]\n"
            f"ready = dict.fromkeys(programs, lambda: {ready})\n"
            f"sys.exit(Server(started, Path({str(folder)!r}), ready, lambda: say('UP')).run())\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.lines: list[str] = []

    def until(self, text: str) -> str:
        """Read its output as far as a line with `text`."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {self.lines}")

    def end(self) -> int:
        """Wait for its end; returns the exit status."""
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait(30)


def test_it_is_up_and_ends_its_programs_from_the_last_to_the_first(tmp_path: Path) -> None:
    launch = Launch(tmp_path, {"below": ENDS_WELL, "above": ENDS_WELL})
    launch.until("UP")
    time.sleep(0.5)
    launch.process.terminate()
    assert launch.end() == 0
    ends = {line.split()[2]: float(line.split()[-1]) for line in launch.lines if " ends " in line}
    assert ends["above"] < ends["below"]
    assert launch.lines[-1] == "everything has ended"


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
    """supervisord alone bounds only failed starts: what dies after four seconds is started for ever."""
    launch = Launch(tmp_path, {"below": "import time; time.sleep(0.7); raise SystemExit(3)"})
    assert launch.end() == 1
    again = [line for line in launch.lines if "it is started again" in line]
    assert 2 <= len(again) <= RESTARTS
    assert again[0] == f"below has ended; it is started again (1 of at most {RESTARTS})"
    assert any("below " in line and "; the end of its log:" in line for line in launch.lines)


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    launch = Launch(tmp_path, {"below": stubborn})
    launch.until("UP")
    time.sleep(0.5)
    launch.process.send_signal(signal.SIGINT)
    launch.until("ending")
    begun = time.monotonic()
    launch.process.send_signal(signal.SIGINT)
    launch.end()
    assert time.monotonic() - begun < 3


def test_nothing_is_left_of_a_killed_supervisor(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    code = ENDS_WELL.replace(
        "print(NAME, 'ends', time.monotonic(), flush=True)", f"open({str(ended)!r}, 'w')"
    )
    launch = Launch(tmp_path, {"below": code})
    launch.until("below runs")
    os.kill(int((tmp_path / "run" / "supervisord.pid").read_text()), signal.SIGKILL)
    assert launch.end() == 1
    assert ended.exists()


def test_waiting_is_reported(tmp_path: Path) -> None:
    launch = Launch(tmp_path, {"below": ENDS_WELL}, ready="False")
    assert "waiting for below (5 s)" in launch.until("waiting for below")
    launch.process.terminate()
    assert launch.end() == 0


def test_nobody_there_is_no_answer() -> None:
    assert not answers("127.0.0.1", 9, "/")
    assert not answers("nowhere.invalid", 80, "/")


def test_an_address_for_everyone_is_reached_over_the_loopback() -> None:
    assert (reachable("0.0.0.0"), reachable("::"), reachable("10.1.2.3")) == ("127.0.0.1", "::1", "10.1.2.3")
