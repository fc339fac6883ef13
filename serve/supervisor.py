"""supervisord (PyPI: supervisor) around our programs: its configuration, its start, and what it says of them.

Each program runs under `serve.guard`. It knows programs as names and commands, and nothing of what they do.
"""

from __future__ import annotations

import configparser
import http.client
import io
import os
import shlex
import signal
import subprocess
import time
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from serve import processes
from serve.run_folder import VARIABLE, RunFolder

START_SECONDS = 3  # a program that ends sooner has not started
START_RETRIES = 3  # failed starts in a row until supervisord gives a program up (FATAL)
ANSWER_TIMEOUT = 5.0  # s for one of its answers
SECRETS = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}  # beside our settings; only fetching weights needs them
AFTER_GRACE = 10  # seconds from the end of a program's grace to the SIGKILL of its guard's group


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

    def guarded(self, python: str) -> list[str]:
        """The command line under the guard, which runs in the interpreter `python`."""
        guard = [python, "-m", "serve.guard", *self.guard_options, "--grace", str(self.grace)]
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        return [*guard, *(["env", *variables] if variables else []), *self.command]


@dataclass(frozen=True)
class State:
    """What supervisord says of a program: its `name` in supervisord's words (RUNNING, BACKOFF, FATAL …)."""

    name: str
    pid: int
    exit_status: int


class Supervisor:
    """A running supervisord; `end()` and then `process.poll()` until it is over."""

    def __init__(self, programs: Sequence[Program], run: RunFolder) -> None:
        """Start it. Programs log to NAME.log in the run's log folder, supervisord to supervisord.log."""
        socket_path = run.path / "supervisor.sock"
        draft = io.StringIO()
        _configuration(programs, run, socket_path).write(draft)
        configuration = run.write("supervisord.ini", draft.getvalue())
        self._transport = _Transport(socket_path)
        self._proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", self._transport)
        self._answered: float | None = None
        self.process = subprocess.Popen(
            [str(run.python), "-m", "supervisor.supervisord", "--nodaemon", "-c", str(configuration)],
            env=_environment(run),
            cwd=run.path / "root",
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for us; we tell it in order
            preexec_fn=_as_child,
        )

    def states(self) -> dict[str, State]:
        """Program -> state; empty while supervisord does not answer."""
        try:
            answer: Any = self._proxy.supervisor.getAllProcessInfo()
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            # Its transport keeps a connection that failed half-way, and every later call would fail on it.
            self._transport.close()
            return {}
        self._answered = time.monotonic()
        return {
            entry["name"]: State(entry["statename"], entry["pid"], entry["exitstatus"]) for entry in answer
        }

    @property
    def silent(self) -> float:
        """Seconds since it last answered; 0 before its first answer: on a busy machine a start takes long."""
        return 0.0 if self._answered is None else time.monotonic() - self._answered

    def end(self) -> None:
        """Ask it to end its programs and itself."""
        if self.process.poll() is None:
            self.process.terminate()


class _Transport(SupervisorTransport):  # type: ignore[misc]
    """XML-RPC over a Unix socket that, unlike supervisor's own, does not wait for ever for an answer."""

    def __init__(self, path: Path) -> None:
        super().__init__(None, None, f"unix://{path}")
        unlimited: Callable[[], Any] = self._get_connection

        def connected() -> Any:
            connection = unlimited()
            connection.connect()
            connection.sock.settimeout(ANSWER_TIMEOUT)
            return connection

        self._get_connection: Callable[[], Any] = connected


def _environment(run: RunFolder) -> dict[str, str]:
    """Ours for all programs, without settings and secrets: what a program needs of these, it is handed."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("YOUTU_") and name not in SECRETS
    }
    return ours | {VARIABLE: str(run.path), "PYTHONPATH": run.python_path}


def _as_child() -> None:
    os.umask(0o077)  # logs, sockets and whatever else the programs write are for their owner
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    processes.end_with_parent(signal.SIGTERM)


def _configuration(
    programs: Sequence[Program], run: RunFolder, socket_path: Path
) -> configparser.RawConfigParser:
    def literal(text: object) -> str:
        return str(text).replace("%", "%%")  # supervisord expands %(name)s

    log_size = "10MB" if run.keeps_logs else "1MB"  # else they take memory
    ini = configparser.RawConfigParser()
    ini["supervisord"] = {
        "logfile": literal(run.safe_logs / "supervisord.log"),
        "logfile_maxbytes": log_size,
        "logfile_backups": "2",
        "pidfile": literal(run.path / "supervisord.pid"),
        "umask": "077",
        "silent": "true",
    }
    ini["unix_http_server"] = {"file": literal(socket_path), "chmod": "0600"}
    ini["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    for place, program in enumerate(programs):
        ini[f"program:{program.name}"] = {
            "command": literal(shlex.join(program.guarded(str(run.python)))),
            "priority": str(place),
            "startsecs": str(START_SECONDS),
            "startretries": str(START_RETRIES),
            "autorestart": "true",
            "stopwaitsecs": str(round(program.grace + AFTER_GRACE)),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": literal(run.safe_logs / f"{program.name}.log"),
            "stdout_logfile_maxbytes": log_size,
            "stdout_logfile_backups": "2",
        }
    return ini
