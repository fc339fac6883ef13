"""From checked settings to a running server and its orderly end: what `make serve` does after the engine.

Starts Triton and the frontend under the supervisor, waits until both answer, then watches: a program that
ends is started again by the supervisor, a bounded number of times, and one that hangs is killed, so that it
is started again, too. Everything ends when a program cannot be brought up, when the supervisor itself dies or
hangs, or on SIGTERM, SIGINT or SIGHUP.
"""

from __future__ import annotations

import http.client
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from youtu_client import Client, EngineStalled, NotReady

from serve import processes, triton
from serve.guard import STOP
from serve.logs import Followed
from serve.messages import say
from serve.repository import Engine, render
from serve.run_folder import RunFolder
from serve.settings import Settings, reachable
from serve.supervisor import AFTER_GRACE, Program, Supervisor
from serve.watch import Stalled, Watch

RESTARTS, RESTARTS_WITHIN = 20, 600.0  # more of one program in so many seconds, and we give up
FAILED_STARTS = 2  # ends of a program that has never been ready
LOOK_EVERY = 0.25  # s
REPORT_EVERY = 5.0  # s between two lines while waiting
STOPPED_EVERY = 3.0  # s between two looks for processes that a signal has stopped
LAST_LINES = 8


def programs(settings: Settings, engine: Engine, run: RunFolder) -> list[Program]:
    """Triton and the frontend, with the files they need written to the run's folder."""
    found = triton.find(settings)
    linked = replace(engine, path=run.link("engine", engine.path))
    repository = render(settings, linked, run.path / "models")
    backends = triton.lay_out_backend(found, run.path / "backends")
    document = run.write("frontend.json", settings.to_document())
    return [
        Program(
            "triton",
            triton.command(found, settings, run, repository, backends),
            grace=settings.drain_timeout + 5,  # its own exit timeout, and unloading the models
            environment=triton.environment(found, run),
            guard_options=["--models", "--shared-memory", run.shared_memory_prefix],
        ),
        Program(
            "frontend",
            [str(run.python), "-m", "frontend", "--settings", str(document)],
            grace=settings.drain_timeout + 5,
        ),
    ]


def watches(settings: Settings) -> dict[str, Watch]:
    """What is asked of each program to know that it is ready, and that it works."""
    client = Client(settings.triton_grpc_address)

    def triton_works(timeout: float) -> None:
        try:
            client.probe(timeout)
        except EngineStalled as error:
            raise Stalled(str(error)) from error

    def frontend_is_ready(timeout: float) -> None:
        if triton_watch.up:  # it is not ready before
            get(settings.host, settings.port, "/health/ready", timeout)
        else:
            raise NotReady("Triton is not ready")

    def frontend_answers(timeout: float) -> None:
        # Not /health/ready: the frontend is not started again because Triton hangs.
        get(settings.host, settings.port, "/health/live", timeout)

    triton_watch = Watch(triton_works, triton_works, settings.hang_timeout)
    return {
        "triton": triton_watch,
        "frontend": Watch(frontend_is_ready, frontend_answers, settings.hang_timeout),
    }


class Server:
    """All of it, from start to end. `run()` once."""

    def __init__(
        self,
        started: list[Program],
        run: RunFolder,
        watched: dict[str, Watch],
        up: Callable[[], None],
        hang_timeout: float,
    ) -> None:
        """`watched`: program -> its watch. `up` is called once, when all are ready for the first time."""
        self._programs, self._watches, self._up = started, watched, up
        self._hang_timeout = hang_timeout
        self._logs = {program.name: Followed(run.logs / f"{program.name}.log") for program in started}
        self._grace = sum(program.grace + AFTER_GRACE for program in started)
        self._waiting = {program.name: time.monotonic() for program in started}
        self._pids: dict[str, int] = {}
        self._restarts: dict[str, list[float]] = {program.name: [] for program in started}
        self._been_ready: set[str] = set()
        self._report_at = time.monotonic() + REPORT_EVERY
        self._announced = False
        self._stopped: dict[int, float] = {}  # process -> when it was first seen stopped
        self._look_for_stopped_at = time.monotonic() + STOPPED_EVERY
        signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP, signal.SIGCHLD})
        processes.adopt_orphans()
        self._supervisor = Supervisor(started, run)
        for watch in watched.values():  # after the supervisor's fork: gRPC's threads do not survive one
            watch.start()

    def run(self) -> int:
        """Watch until something ends it; 0 when it was asked to end, 1 when it failed."""
        while True:
            asked = signal.sigtimedwait(STOP, LOOK_EVERY)
            processes.bury(but=self._supervisor.process.pid)
            # Python gives an uninitialised number when it was itself stopped meanwhile (SIGSTOP).
            if asked and asked.si_signo in STOP:
                say("ending: answers that are being written are finished first (again: end at once)")
                return self._end(0)
            if self._supervisor.process.poll() is not None:
                say("the supervisor itself has died; ending everything")
                return self._end(1)
            if self._hang_timeout and self._supervisor.silent > self._hang_timeout:
                say(f"the supervisor has not answered for {self._supervisor.silent:.0f} s; ending everything")
                self._supervisor.process.kill()
                return self._end(1)
            self._show_logs()
            failed = self._look_at_states()
            if failed:
                say(f"{failed}; the end of its log:")
                for line in self._logs[failed.split()[0]].last_lines(LAST_LINES):
                    say(f"    {line}")
                return self._end(1)
            self._look_at_readiness()
            self._look_for_hangs()

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
                # Readiness is seen a moment late, so a program that was ready before is not judged by this.
                if name not in self._been_ready and len(recent) == FAILED_STARTS:
                    return f"{name} does not start: it ended {FAILED_STARTS} times before it was ready"
                if len(recent) > RESTARTS:
                    return f"{name} ended {len(recent)} times in {RESTARTS_WITHIN / 60:.0f} minutes"
                say(f"{name} has ended; it is started again ({len(recent)} of at most {RESTARTS})")
                self._waiting[name] = now
                self._report_at = now + REPORT_EVERY
                self._watches[name].restarted()
            self._pids[name] = pid
        return None

    def _look_at_readiness(self) -> None:
        for program in self._programs:  # in their order: the frontend is not ready before Triton is
            name = program.name
            if name not in self._waiting:
                continue
            if not self._pids.get(name) or not self._watches[name].up:
                break
            self._been_ready.add(name)
            say(f"{name} is ready ({time.monotonic() - self._waiting.pop(name):.1f} s)")
        if self._waiting and time.monotonic() > self._report_at:
            self._report_at = time.monotonic() + REPORT_EVERY
            for name, since in self._waiting.items():
                say(f"waiting for {name} ({time.monotonic() - since:.0f} s)")
        if not self._waiting and not self._announced:
            self._announced = True
            self._up()

    def _look_for_hangs(self) -> None:
        """Kill a program that does not get on; the supervisor starts it again, as one that has died."""
        for program in self._programs:
            if fault := self._watches[program.name].fault:
                self._replace(program.name, fault)
        now = time.monotonic()
        if not self._hang_timeout or now < self._look_for_stopped_at:
            return
        self._look_for_stopped_at = now + STOPPED_EVERY
        # Once a program is up, its watch knows better what keeps it from working; only its guard has none.
        trees = {
            name: [pid, *([] if self._watches[name].up else processes.descendants(pid))]
            for name, pid in self._pids.items()
            if pid
        }
        stopped = processes.stopped(pid for tree in trees.values() for pid in tree)
        self._stopped = {pid: self._stopped.get(pid, now) for pid in stopped}
        for name, tree in trees.items():
            since = [self._stopped[pid] for pid in tree if pid in self._stopped]
            if since and now - min(since) >= self._hang_timeout:
                self._replace(name, f"a process of it has been stopped for {now - min(since):.0f} s")

    def _replace(self, name: str, fault: str) -> None:
        say(f"{name} hangs: {fault}; it is ended, to start it again")
        self._watches[name].restarted()
        if guard := self._pids.get(name):
            processes.send([*processes.descendants(guard), guard], signal.SIGKILL)

    def _show_logs(self) -> None:
        for name, log in self._logs.items():
            for line in log.new_lines():
                say(f"{name:8} | {line}")

    def _end(self, status: int) -> int:
        """End everything in order, and by force what has not ended in its time."""
        for watch in self._watches.values():
            watch.close()
        self._supervisor.end()
        deadline = time.monotonic() + self._grace
        while self._supervisor.process.poll() is None or processes.descendants(os.getpid()):
            # What is stopped could not end, and would be waited for as long as an answer may take.
            processes.send(processes.stopped(processes.descendants(os.getpid())), signal.SIGCONT)
            again = signal.sigtimedwait({*STOP, signal.SIGCHLD}, LOOK_EVERY)
            processes.bury(but=self._supervisor.process.pid)
            self._show_logs()
            if time.monotonic() > deadline or (again and again.si_signo in STOP):
                processes.send(processes.descendants(os.getpid()), signal.SIGKILL)
        self._show_logs()
        say("everything has ended")
        return status


def get(host: str, port: int, path: str, timeout: float) -> None:
    """GET `path`. Raises OSError or HTTPException unless it is answered with 200 within `timeout` seconds."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=timeout)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise http.client.HTTPException(f"{path} was answered with {status}")
