"""Runs one program for the supervisor, so that it is neither left behind nor lives on broken.

    python -m serve.guard [--models] [--shared-memory PREFIX] [--grace SECONDS] COMMAND ...

The program ends with the guard, and the guard with the supervisor, also when they are killed. With --models
the program is Triton, and is killed when the process of a model dies: Triton would still answer "ready", let
that model's running requests hang for ever, and never start it again; the supervisor starts Triton anew.
Shared memory whose name begins with PREFIX is removed before and after, since a killed Triton leaves it, and
closed to other users: Triton lets them read it, and it holds what is asked and answered.
Told to end, the program has SECONDS for it. Exit status: the program's, or 128 and the signal it died of.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from serve import processes
from serve.run_folder import HOME, remove_regions

LOOK_EVERY = 0.5  # s; a model's process that is a zombie at two looks has died and will not come back
STOP = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def guard(command: Sequence[str], *, models: bool, shared_memory: str | None, grace: float) -> int:
    """Run `command` until it ends or we are told to; see the module. Returns the exit status."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {*STOP, signal.SIGCHLD})
    processes.adopt_orphans()
    processes.end_with_parent(signal.SIGTERM)
    child = subprocess.Popen(command, preexec_fn=_as_child)
    deadline = None
    dead: set[int] = set()
    while child.poll() is None:
        received = signal.sigtimedwait({*STOP, signal.SIGCHLD}, LOOK_EVERY)
        if shared_memory:
            _close_to_others(shared_memory)
        if received and received.si_signo in STOP and deadline is None:
            child.terminate()
            deadline = time.monotonic() + grace
        elif deadline and time.monotonic() > deadline:
            child.kill()
        elif models and not deadline and not received:
            zombies = {
                pid for pid, state in processes.children(child.pid).items() if state == processes.ZOMBIE
            }
            if gone := dead & zombies:
                _say(f"process {gone.pop()} of a model has died; ending Triton, to start it again whole")
                child.kill()
            dead = zombies
    processes.send(processes.descendants(os.getpid()), signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):  # until all that we adopted are buried
        while True:
            os.wait()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _as_child() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    processes.end_with_parent(signal.SIGKILL)


def _close_to_others(prefix: str) -> None:
    for region in HOME.glob(f"{prefix}*"):
        with contextlib.suppress(FileNotFoundError):
            if region.stat().st_mode & 0o077:
                region.chmod(0o600)


def _say(text: str) -> None:
    sys.stderr.write(f"guard: {text}\n")
    sys.stderr.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serve.guard", allow_abbrev=False)
    parser.add_argument("--models", action="store_true", help="watch the processes of Triton's models")
    parser.add_argument("--shared-memory", metavar="PREFIX", help="whose regions to close and to remove")
    parser.add_argument("--grace", type=float, default=30.0, metavar="SECONDS")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if arguments.shared_memory:
        remove_regions(arguments.shared_memory)
    try:
        return guard(
            arguments.command,
            models=arguments.models,
            shared_memory=arguments.shared_memory,
            grace=arguments.grace,
        )
    except OSError as error:
        _say(f"cannot start {arguments.command[0]}: {error.strerror}")
        return 127
    finally:
        if arguments.shared_memory:
            remove_regions(arguments.shared_memory)


if __name__ == "__main__":
    sys.exit(main())
