"""From checked settings to a running server and its orderly end: what `make serve` does after the engine.

Starts Triton and the frontend under the supervisor, waits until both answer, then watches: a program that
ends is started again by the supervisor, a bounded number of times, and everything ends when it cannot be
brought up, when the supervisor itself dies, or on SIGTERM, SIGINT or SIGHUP.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from serve import processes, triton
from serve.guard import STOP
from serve.logs import Followed
from serve.repository import Engine, render
from serve.settings import Settings, reachable
from serve.supervisor import AFTER_GRACE, Program, Supervisor

ROOT = Path(__file__).resolve().parent.parent
RESTARTS, RESTARTS_WITHIN = 5, 600.0  # more of one program in so many seconds, and we give up
FAILED_STARTS = 2  # ends in a row of a program that had not become ready
LOOK_EVERY = 0.25  # s
REPORT_EVERY = 5.0  # s between two lines while waiting
LAST_LINES = 8


def say(text: str) -> None:
    """One line for the person at the terminal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def programs(settings: Settings, engine: Engine) -> list[Program]:
    """Triton and the frontend, with the files they need written to the data folder."""
    run = settings.data_dir.resolve() / "run"
    found = triton.find(settings)
    repository = render(settings, engine, run / "model_repository")
    backends = triton.lay_out_backend(found, run / "backends")
    prefix = triton.shared_memory_prefix(settings.data_dir)
    path = f"{ROOT}{os.pathsep}{ROOT / 'client'}"
    return [
        Program(
            "triton",
            triton.command(found, settings, repository, backends),
            grace=settings.drain_timeout + 5,  # its own exit timeout, and unloading the models
            environment=triton.environment(found),
            guard_options=["--models", "--shared-memory", prefix],
        ),
        Program(
            "frontend",
            [sys.executable, "-m", "frontend"],
            grace=settings.drain_timeout + 5,
            environment={"PYTHONPATH": path},
        ),
    ]


class Server:
    """All of it, from start to end. `run()` once."""

    def __init__(
        self,
        started: list[Program],
        data_dir: Path,
        ready: dict[str, Callable[[], bool]],
        up: Callable[[], None],
    ) -> None:
        """`ready`: program -> whether it answers. `up` is called once, when all do for the first time."""
        self._programs, self._ready, self._up = started, ready, up
        logs, run = data_dir.resolve() / "log", data_dir.resolve() / "run"
        for folder in (logs, run):
            folder.mkdir(parents=True, exist_ok=True)
        self._logs = {program.name: Followed(logs / f"{program.name}.log") for program in started}
        self._grace = sum(program.grace + AFTER_GRACE for program in started)
        self._waiting = {program.name: time.monotonic() for program in started}
        self._pids: dict[str, int] = {}
        self._restarts: dict[str, list[float]] = {program.name: [] for program in started}
        self._failed_starts = {program.name: 0 for program in started}
        self._report_at = time.monotonic() + REPORT_EVERY
        self._announced = False
        signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP, signal.SIGCHLD})
        processes.adopt_orphans()
        self._supervisor = Supervisor(started, logs, run)

    def run(self) -> int:
        """Watch until something ends it; 0 when it was asked to end, 1 when it failed."""
        while True:
            asked = signal.sigtimedwait(STOP, LOOK_EVERY)
            processes.bury(but=self._supervisor.process.pid)
            if asked:
                say("ending: answers that are being written are finished first (again: end at once)")
                return self._end(0)
            if self._supervisor.process.poll() is not None:
                say("the supervisor itself has died; ending everything")
                return self._end(1)
            self._show_logs()
            failed = self._look_at_states()
            if failed:
                say(f"{failed}; the end of its log:")
                for line in self._logs[failed.split()[0]].last_lines(LAST_LINES):
                    say(f"    {line}")
                return self._end(1)
            self._look_at_readiness()

    def _look_at_states(self) -> str | None:
        """Note restarts; returns a sentence when a program cannot be brought up."""
        for name, state in self._supervisor.states().items():
            if state.name == "FATAL":
                return f"{name} does not start (exit status {state.exit_status})"
            pid = state.pid if state.name in ("STARTING", "RUNNING") else 0
            before = self._pids.get(name)
            if before is None or pid == before:
                self._pids[name] = pid or before or 0
                continue
            if before:
                now = time.monotonic()
                recent = [at for at in self._restarts[name] if now - at < RESTARTS_WITHIN] + [now]
                self._restarts[name] = recent
                self._failed_starts[name] += name in self._waiting
                if self._failed_starts[name] == FAILED_STARTS:
                    return f"{name} does not start: it ended {FAILED_STARTS} times before it was ready"
                if len(recent) > RESTARTS:
                    return f"{name} ended {len(recent)} times in {RESTARTS_WITHIN / 60:.0f} minutes"
                say(f"{name} has ended; it is started again ({len(recent)} of at most {RESTARTS})")
                self._waiting[name] = now
                self._report_at = now + REPORT_EVERY
            self._pids[name] = pid
        return None

    def _look_at_readiness(self) -> None:
        for program in self._programs:  # in their order: the frontend is not ready before Triton is
            name = program.name
            if name not in self._waiting:
                continue
            if not self._pids.get(name) or not self._ready[name]():
                break
            self._failed_starts[name] = 0
            say(f"{name} is ready ({time.monotonic() - self._waiting.pop(name):.1f} s)")
        if self._waiting and time.monotonic() > self._report_at:
            self._report_at = time.monotonic() + REPORT_EVERY
            for name, since in self._waiting.items():
                say(f"waiting for {name} ({time.monotonic() - since:.0f} s)")
        if not self._waiting and not self._announced:
            self._announced = True
            self._up()

    def _show_logs(self) -> None:
        for name, log in self._logs.items():
            for line in log.new_lines():
                say(f"{name:8} | {line}")

    def _end(self, status: int) -> int:
        """End everything in order, and by force what has not ended in its time."""
        self._supervisor.end()
        deadline = time.monotonic() + self._grace
        while self._supervisor.process.poll() is None or processes.descendants(os.getpid()):
            again = signal.sigtimedwait({*STOP, signal.SIGCHLD}, LOOK_EVERY)
            processes.bury(but=self._supervisor.process.pid)
            self._show_logs()
            if time.monotonic() > deadline or (again and again.si_signo in STOP):
                processes.send(processes.descendants(os.getpid()), signal.SIGKILL)
        self._show_logs()
        self._supervisor.close()
        say("everything has ended")
        return status


def answers(host: str, port: int, path: str) -> bool:
    """Whether GET `path` is answered with 200 within two seconds."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
