"""Runs one program for the launcher, so that it neither outlives it nor keeps running broken.

    python -m serve.guard [--models] [--shared-memory PREFIX] [--grace SECONDS] [--log FILE] COMMAND ...

The program ends with the guard, and the guard with the launcher, also when they are killed. With --models
the program is Triton, and is killed when the process of a model dies: Triton would still answer "ready", let
that model's running requests hang for ever, and never restart it; the launcher restarts Triton.
Shared memory whose name begins with PREFIX is removed before and after, since a killed Triton leaves it, and
closed to other users: Triton lets them read it, and it contains prompts and answers.
What the program writes goes to FILE, which is rotated; a full disk loses lines but stops no program.
Told to stop, the program has SECONDS to do so. Exit status: the program's, or 128 and the signal it died of.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from serve import processes
from serve.run_folder import HOME, remove_regions

LOOK_EVERY = 0.5  # s; a model's process that is a zombie at two looks has died and will not come back
SEARCH_EVERY = 10.0  # s between two searches for models' processes: each reads of every process in the system
STARTS_WITHIN = 10.0  # s in which they are searched for at every look
STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
OLD_LOGS = 2  # rotated files that are kept: FILE.1, FILE.2
PIECE = 1 << 16  # bytes of a line that are logged at once
LOGGED_WITHIN = 5.0  # s for the last lines of a program that has ended

_log = logging.getLogger("guard")


def guard(
    command: Sequence[str],
    *,
    parent: int,
    models: bool = False,
    shared_memory: str | None = None,
    grace: float = 30.0,
    logged: bool = False,
) -> int:
    """Run `command` until it ends or we are asked to end; see the module. Returns the exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP, signal.SIGCHLD})
    processes.adopt_orphans()
    processes.end_with_parent(signal.SIGTERM, parent)
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE if logged else None,
        stderr=subprocess.STDOUT if logged else None,
        preexec_fn=functools.partial(_as_child, os.getpid()),
    )
    copier = threading.Thread(target=_copy, args=[child.stdout], daemon=True)
    if logged:
        copier.start()  # only now: preexec_fn is unsafe beside threads
    deadline = None
    watched = _Models(child.pid)
    while child.poll() is None:
        received = signal.sigtimedwait({*STOP, signal.SIGCHLD}, LOOK_EVERY)
        if shared_memory:
            _close_to_others(shared_memory)
        if received and received.si_signo in STOP and deadline is None:
            child.terminate()
            deadline = time.monotonic() + grace
        elif deadline and time.monotonic() > deadline:
            child.kill()
        elif models and not deadline and not received and (gone := watched.dead()):
            _say(f"process {gone.pop()} of a model has died; stopping Triton so that it restarts as a whole")
            child.kill()
    processes.send(processes.descendants(os.getpid()), signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # until all that we adopted are reaped
        while True:
            os.wait()
    if logged:
        copier.join(LOGGED_WITHIN)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


class _Models:
    """The processes of the models of Triton, which is process `parent`."""

    def __init__(self, parent: int) -> None:
        self._parent, self._begun = parent, time.monotonic()
        self._searched = -SEARCH_EVERY
        self._known: set[int] = set()
        self._zombies: set[int] = set()

    def dead(self) -> set[int]:
        """Those that are zombies at this look and were at the one before."""
        now = time.monotonic()
        if now - self._begun < STARTS_WITHIN or now - self._searched >= SEARCH_EVERY:
            self._known, self._searched = processes.children(self._parent), now
        zombies = processes.zombies(self._known)
        dead, self._zombies = zombies & self._zombies, zombies
        return dead


def _as_child(parent: int) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    processes.end_with_parent(signal.SIGKILL, parent)


def _copy(output: BinaryIO) -> None:
    """Log what the program writes, line by line, until its last process has ended."""
    while line := output.readline(PIECE):
        _log.info(line.decode(errors="surrogateescape"))


def _log_to(path: Path | None, size: int) -> None:
    """Log to this file, which is rotated at `size` bytes; without one, to standard error."""
    handler = (
        logging.handlers.RotatingFileHandler(
            path, maxBytes=size, backupCount=OLD_LOGS, encoding="utf-8", errors="surrogateescape"
        )
        if path
        else logging.StreamHandler()
    )
    handler.terminator = ""  # lines bring their own
    logging.raiseExceptions = False  # a full disk is no reason to end
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)


def _close_to_others(prefix: str) -> None:
    for region in HOME.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            if region.stat().st_mode & 0o077:
                region.chmod(0o600)


def _say(text: str) -> None:
    _log.info(f"guard: {text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serve.guard", allow_abbrev=False)
    parser.add_argument("--models", action="store_true", help="supervise the processes of Triton's models")
    parser.add_argument("--shared-memory", metavar="PREFIX", help="owner of the regions to close and remove")
    parser.add_argument("--grace", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("--parent", type=int, default=os.getppid(), metavar="PID", help="signal to stop with")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="file for the program's output; default: ours"
    )
    parser.add_argument(
        "--log-bytes", type=int, default=10 << 20, metavar="BYTES", help="maximum size of FILE"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    _log_to(arguments.log, arguments.log_bytes)
    if arguments.shared_memory:
        remove_regions(arguments.shared_memory)
    try:
        return guard(
            arguments.command,
            parent=arguments.parent,
            models=arguments.models,
            shared_memory=arguments.shared_memory,
            grace=arguments.grace,
            logged=arguments.log is not None,
        )
    except OSError as error:
        _say(f"cannot start {arguments.command[0]}: {error.strerror}")
        return 127
    finally:
        if arguments.shared_memory:
            remove_regions(arguments.shared_memory)


if __name__ == "__main__":
    sys.exit(main())
