"""One program of the server: what to run, and its process under `serve.guard`.

It handles programs as names and commands, independent of what they do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from serve import processes
from serve.run_folder import VARIABLE, RunFolder

SECRETS = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}  # beside our settings; only fetching weights needs them
AFTER_GRACE = 10  # seconds from the end of a program's grace to the SIGKILL of its guard
LOG_BYTES, LOG_BYTES_IN_MEMORY = 10 << 20, 1 << 20  # of one log file; the latter when it is not on a disk


@dataclass(frozen=True)
class Program:
    """One program: what to run, with what added to the environment; `grace` is the seconds it has to end.

    All paths in it must be safe ones (serve.run_folder).

    Programs are started in their order in the list, and ended one after the other from the last to the first.
    """

    name: str
    command: Sequence[str]
    grace: float
    environment: Mapping[str, str] = field(default_factory=dict)
    guard_options: Sequence[str] = ()


class Child:
    """A program under its guard, which can be started again after each end.

    Start it from the main thread: the kernel ends the guard when the thread that started it ends.
    """

    def __init__(self, program: Program, run: RunFolder) -> None:
        """Starts nothing. The program will log to NAME.log in the run's log folder."""
        self.program = program
        self._run = run
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0

    def start(self) -> None:
        """Start it. OSError when that is impossible."""
        program, run = self.program, self._run
        log = run.safe_logs / f"{program.name}.log"
        command = [str(run.python), "-m", "serve.guard", *program.guard_options]
        command += ["--grace", str(program.grace), "--parent", str(os.getpid()), "--log", str(log)]
        command += ["--log-bytes", str(LOG_BYTES if run.keeps_logs else LOG_BYTES_IN_MEMORY)]
        if program.environment:
            command += ["env", *(f"{name}={value}" for name, value in program.environment.items())]
        self._started_at = time.monotonic()
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as output:  # for a guard that cannot run
            # No preexec_fn: with one Python forks instead of using vfork, and gRPC's threads survive no fork.
            self._process = subprocess.Popen(
                [*command, *program.command],
                env=_environment(run),
                cwd=run.path / "root",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                umask=0o077,  # logs and whatever else the programs write are for their owner
                start_new_session=True,  # a terminal's Ctrl-C is for the launcher, which ends them in order
            )

    @property
    def pid(self) -> int:
        """The guard's process; 0 when it does not run."""
        return self._process.pid if self._process else 0

    @property
    def age(self) -> float:
        """Seconds since its last start."""
        return time.monotonic() - self._started_at

    def ended(self) -> int | None:
        """Its exit status, once, when it has ended (128 and the number for a signal); else None."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        # A guard that was killed leaves what a program has started: it would keep its memory and its ports.
        processes.send(processes.of_session(self.pid), signal.SIGKILL)
        self._process = None
        return status if status >= 0 else 128 - status

    def terminate(self) -> None:
        """Ask it to end."""
        processes.send([self.pid] if self.pid else [], signal.SIGTERM)

    def kill(self) -> None:
        """End it, its guard and all that it has started."""
        if self.pid:
            processes.send([*processes.descendants(self.pid), self.pid], signal.SIGKILL)


def _environment(run: RunFolder) -> dict[str, str]:
    """Ours for all programs, without settings and secrets: what a program needs of these, it is handed."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("YOUTU_") and name not in SECRETS
    }
    return ours | {VARIABLE: str(run.path), "PYTHONPATH": run.python_path}
