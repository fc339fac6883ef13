"""From checked settings to a running server and shutdown: what `make serve` does after the engine.

Starts Triton and the frontend, each under a guard, waits until both respond, then supervises them. A program
that exits is restarted, a limited number of times, and one that hangs is killed and restarted.
Everything stops when a program cannot be started, or on SIGTERM, SIGINT or SIGHUP.
"""

from __future__ import annotations

import http.client
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from types import FrameType

from youtu_client import Client, EngineStalled, NotReady

from serve import processes, triton
from serve.guard import STOP
from serve.logs import Followed
from serve.messages import say
from serve.program import AFTER_GRACE, Child, Program
from serve.repository import Engine, render, slots
from serve.run_folder import RunFolder
from serve.settings import Settings, reachable
from serve.upgrade import LISTENER, Running, note
from serve.watch import Stalled, Watch

RESTARTS, RESTARTS_WITHIN = 20, 600.0  # more of one program in so many seconds, and we give up
FAILED_STARTS = 2  # ends of a program that has never been ready
SHORT_RUN, BACK_OFF = (
    3.0,
    1.0,
)  # s; a program that ended sooner than the first is started again after the second
CANNOT_START = 127  # stands for the exit status of a program that could not even be started
LOOK_EVERY, LOOK_EVERY_WHEN_UP = 0.25, 1.0  # s
REPORT_EVERY = 5.0  # s between two lines while waiting
STOPPED_EVERY = 3.0  # s between two looks for processes that a signal has stopped
LAST_LINES = 8


def programs(
    settings: Settings, engine: Engine, run: RunFolder, replaced: Running | None = None
) -> list[Program]:
    """Triton and, unless it is off, the frontend, with the files they need written to the run's folder."""
    found = triton.find(settings)
    linked = replace(engine, path=run.link("engine", engine.path))
    repository = render(settings, linked, run.path / "models")
    backends = triton.lay_out_backend(found, run.path / "backends")
    resolved = settings.model_copy(update={"slots": slots(settings, engine)})
    of_triton = Program(
        "triton",
        triton.command(found, settings, run, repository, backends),
        grace=settings.drain_timeout + 5,  # its own exit timeout, and unloading the models
        environment=triton.environment(found, run),
        guard_options=["--models", "--shared-memory", run.shared_memory_prefix],
    )
    return [of_triton] if settings.frontend == "off" else [of_triton, frontend(resolved, run, replaced)]


def frontend(settings: Settings, run: RunFolder, replaced: Running | None = None) -> Program:
    """The frontend, with its settings written to the run's folder; it takes over the socket of `replaced`."""
    document = run.write("frontend.json", settings.to_document())
    note(run, settings)
    command = [str(run.python), "-m", "frontend", "--settings", str(document)]
    command += ["--offer", str(run.path / LISTENER)]
    return Program(
        "frontend",
        command if replaced is None else [*command, "--take", str(replaced.listener)],
        grace=settings.leave_timeout + settings.drain_timeout + 5,
    )


def watches(settings: Settings, run: RunFolder) -> dict[str, Watch]:
    """What is asked of each program to know that it is ready, and that it works."""
    client = Client(settings.triton_servers or settings.triton_grpc_address)

    def triton_works(timeout: float) -> None:
        try:
            client.probe(timeout)
        except EngineStalled as error:
            raise Stalled(str(error)) from error

    def frontend_is_ready(timeout: float) -> None:
        if not (run.path / LISTENER).exists():  # in an upgrade another answers at the same address
            raise NotReady("the frontend is not listening yet")
        if settings.triton_servers or triton_watch.up:  # it is not ready before
            get(settings.host, settings.port, "/health/ready", timeout)
        else:
            raise NotReady("Triton is not ready")

    def frontend_answers(timeout: float) -> None:
        # Not /health/ready: the frontend is not started again because Triton hangs.
        get(settings.host, settings.port, "/health/live", timeout)

    triton_watch = Watch(triton_works, triton_works, settings.hang_timeout)
    web = {"frontend": Watch(frontend_is_ready, frontend_answers, settings.hang_timeout)}
    if settings.triton_servers:
        return web
    return {"triton": triton_watch, **({} if settings.frontend == "off" else web)}


class Server:
    """All of it, from start to end. `run()` once, in the main thread."""

    def __init__(
        self,
        started: list[Program],
        run: RunFolder,
        watched: dict[str, Watch],
        up: Callable[[], None],
        hang_timeout: float,
    ) -> None:
        """`watched`: program -> its watch. `up` is called once, when all are ready for the first time."""
        self._children = [Child(program, run) for program in started]
        self._watches, self._up, self._hang_timeout = watched, up, hang_timeout
        now = time.monotonic()
        names = [program.name for program in started]
        self._logs = {name: Followed(run.logs / f"{name}.log") for name in names}
        self._waiting = dict.fromkeys(names, now)  # program that is not ready -> since when
        self._start_at = dict.fromkeys(names, now)  # for a program that does not run
        self._restarts: dict[str, list[float]] = {name: [] for name in names}
        self._been_ready: set[str] = set()
        self._report_at = now + REPORT_EVERY
        self._announced = False
        self._stopped: dict[int, float] = {}  # process -> when it was first seen stopped
        self._look_for_stopped_at = now + STOPPED_EVERY
        signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP, signal.SIGCHLD})  # in the watches' threads, too
        for number in STOP:
            signal.signal(number, _to_main_thread)
        processes.adopt_orphans()

    def run(self) -> int:
        """Watch until something ends it; 0 when it was asked to end, 1 when it failed."""
        for watch in self._watches.values():
            watch.start()
        while True:
            for child in self._children:
                if failed := self._keep_running(child):
                    self._show_logs()
                    say(f"{failed}; the end of its log:")
                    for line in self._logs[child.program.name].last_lines(LAST_LINES):
                        say(f"    {line}")
                    return self._end(1)
            self._look_at_readiness()
            self._look_for_hangs()
            if self._wait(LOOK_EVERY if self._waiting else LOOK_EVERY_WHEN_UP):
                say("stopping: running answers finish first (signal again to stop at once)")
                return self._end(0)

    def _wait(self, seconds: float) -> bool:
        """Until a child ends, but not longer than that; True when a signal has asked us to end."""
        received = signal.sigtimedwait({*STOP, signal.SIGCHLD}, seconds)
        processes.reap(but={child.pid for child in self._children})
        self._show_logs()
        # Python gives an uninitialised number when it was itself stopped meanwhile (SIGSTOP).
        return received is not None and received.si_signo in STOP

    def _keep_running(self, child: Child) -> str | None:
        """Start it, again if it has ended; returns a sentence when it is given up."""
        status = child.ended()
        if status is not None and (failed := self._note_end(child, status)):
            return failed
        if child.pid or time.monotonic() < self._start_at[child.program.name]:
            return None
        try:
            child.start()
        except OSError as error:
            say(f"{child.program.name} cannot be started: {error}")
            return self._note_end(child, CANNOT_START)
        return None

    def _note_end(self, child: Child, status: int) -> str | None:
        """Count it, and have the program started again; returns a sentence when it is given up."""
        name, now = child.program.name, time.monotonic()
        recent = [at for at in self._restarts[name] if now - at < RESTARTS_WITHIN] + [now]
        self._restarts[name] = recent
        # Readiness is seen a moment late, so a program that was ready before is not judged by this.
        if name not in self._been_ready and len(recent) == FAILED_STARTS:
            return (
                f"{name} does not start: it exited {FAILED_STARTS} times before it was ready "
                f"(exit status {status})"
            )
        if len(recent) > RESTARTS:
            return f"{name} exited {len(recent)} times in {RESTARTS_WITHIN / 60:.0f} minutes"
        say(f"{name} exited; restarting it ({len(recent)} of at most {RESTARTS})")
        self._start_at[name] = now if child.age > SHORT_RUN else now + BACK_OFF
        self._waiting[name] = now
        self._report_at = now + REPORT_EVERY
        self._watches[name].restarted()
        return None

    def _look_at_readiness(self) -> None:
        for child in self._children:  # in their order: the frontend is not ready before Triton is
            name = child.program.name
            if name not in self._waiting:
                continue
            if not child.pid or not self._watches[name].up:
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
        """Kill a program that makes no progress; it is then started again, as one that has died."""
        for child in self._children:
            if fault := self._watches[child.program.name].fault:
                self._replace(child, fault)
        now = time.monotonic()
        if not self._hang_timeout or now < self._look_for_stopped_at:
            return
        self._look_for_stopped_at = now + STOPPED_EVERY
        # Once a program is up, its watch knows better what keeps it from working; only its guard has none.
        trees = {
            child: [
                child.pid,
                *([] if self._watches[child.program.name].up else processes.descendants(child.pid)),
            ]
            for child in self._children
            if child.pid
        }
        stopped = processes.stopped(pid for tree in trees.values() for pid in tree)
        self._stopped = {pid: self._stopped.get(pid, now) for pid in stopped}
        for child, tree in trees.items():
            since = [self._stopped[pid] for pid in tree if pid in self._stopped]
            if since and now - min(since) >= self._hang_timeout:
                self._replace(child, f"a process of it has been stopped for {now - min(since):.0f} s")

    def _replace(self, child: Child, fault: str) -> None:
        say(f"{child.program.name} hangs: {fault}; restarting it")
        self._watches[child.program.name].restarted()
        child.kill()

    def _show_logs(self) -> None:
        for name, log in self._logs.items():
            for line in log.new_lines():
                say(f"{name:8} | {line}")

    def _end(self, status: int) -> int:
        """End everything in order, and by force what has not ended in its time."""
        for watch in self._watches.values():
            watch.close()
        at_once = False
        for child in reversed(self._children):
            child.terminate()
            deadline = time.monotonic() + child.program.grace + AFTER_GRACE
            while child.pid and child.ended() is None:
                if at_once or time.monotonic() > deadline:
                    child.kill()
                # What is stopped could not end, and would be waited for as long as an answer may take.
                processes.send(
                    processes.stopped([child.pid, *processes.descendants(child.pid)]), signal.SIGCONT
                )
                at_once = self._wait(LOOK_EVERY) or at_once
        while left := processes.descendants(os.getpid()):  # what we have adopted
            processes.send(left, signal.SIGKILL)
            self._wait(LOOK_EVERY)
        self._show_logs()
        say("everything has stopped")
        return status


def _to_main_thread(number: int, _frame: FrameType | None) -> None:
    """For `sigtimedwait`: threads that a library started at its import (OpenBLAS) block no signals."""
    signal.pthread_kill(threading.get_ident(), number)  # Python runs us in the main thread


def get(host: str, port: int, path: str, timeout: float) -> None:
    """GET `path`. Raises OSError or HTTPException unless it is answered with 200 within `timeout` seconds."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=timeout)
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise http.client.HTTPException(f"{path} returned status {status}")
