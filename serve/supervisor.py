"""supervisord (PyPI: supervisor) around our programs: its configuration, its start, its door for questions.

Each program runs under `serve.guard`. It knows programs as names and commands, and nothing of what they do.
"""

from __future__ import annotations

import configparser
import http.client
import shlex
import signal
import subprocess
import sys
import tempfile
import xmlrpc.client
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

from serve import processes

START_SECONDS = 3  # a program that ends sooner has not started
START_RETRIES = 3  # failed starts in a row until supervisord gives a program up (FATAL)
AFTER_GRACE = 10  # seconds from the end of a program's grace to the SIGKILL of its guard's group


@dataclass(frozen=True)
class Program:
    """One program: what to run, with what added to the environment; `grace` is the seconds it has to end.

    Programs are started in their order in the list, and ended one after the other from the last to the first.
    """

    name: str
    command: Sequence[str]
    grace: float
    environment: Mapping[str, str] = field(default_factory=dict)
    guard_options: Sequence[str] = ()

    def guarded(self) -> list[str]:
        guard = [sys.executable, "-m", "serve.guard", *self.guard_options, "--grace", str(self.grace)]
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

    def __init__(self, programs: Sequence[Program], logs: Path, run: Path) -> None:
        """Start it. Programs log to `logs`/NAME.log, supervisord to `logs`/supervisord.log."""
        # A Unix socket's path has 108 bytes at most, and `run` may be deep: it gets a folder of its own.
        self._folder = tempfile.TemporaryDirectory(prefix="youtu-")
        socket = Path(self._folder.name) / "supervisor.sock"
        configuration = run / "supervisord.ini"
        with configuration.open("w", encoding="utf-8") as file:
            _configuration(programs, logs, run, socket).write(file)
        self._transport = SupervisorTransport(None, None, f"unix://{socket}")
        self._proxy = xmlrpc.client.ServerProxy("http://127.0.0.1", self._transport)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(configuration)],
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
        return {
            entry["name"]: State(entry["statename"], entry["pid"], entry["exitstatus"]) for entry in answer
        }

    def end(self) -> None:
        """Ask it to end its programs and itself."""
        if self.process.poll() is None:
            self.process.terminate()

    def close(self) -> None:
        """Remove what belongs to it. It must have ended."""
        self._folder.cleanup()


def _as_child() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    processes.end_with_parent(signal.SIGTERM)


def _configuration(
    programs: Sequence[Program], logs: Path, run: Path, socket: Path
) -> configparser.RawConfigParser:
    def literal(text: object) -> str:
        return str(text).replace("%", "%%")  # supervisord expands %(name)s

    ini = configparser.RawConfigParser()
    ini["supervisord"] = {
        "logfile": literal(logs / "supervisord.log"),
        "pidfile": literal(run / "supervisord.pid"),
        "silent": "true",
    }
    ini["unix_http_server"] = {"file": literal(socket), "chmod": "0600"}
    ini["rpcinterface:supervisor"] = {
        "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
    }
    for place, program in enumerate(programs):
        ini[f"program:{program.name}"] = {
            "command": literal(shlex.join(program.guarded())),
            "priority": str(place),
            "startsecs": str(START_SECONDS),
            "startretries": str(START_RETRIES),
            "autorestart": "true",
            "stopwaitsecs": str(round(program.grace + AFTER_GRACE)),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": literal(logs / f"{program.name}.log"),
            "stdout_logfile_maxbytes": "10MB",
            "stdout_logfile_backups": "2",
        }
    return ini
