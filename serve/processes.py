"""Linux process facts that the standard library does not offer: parents, children, orphans."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ZOMBIE = "Z"


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def end_with_parent(number: signal.Signals, parent: int) -> None:
    """Have the kernel send us `number` when our `parent` ends, however it ends. Holds across exec.

    It is sent at once when the parent has ended already.
    """
    _prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def reap(but: Collection[int]) -> None:
    """Collect the exit statuses of ended children, except those in `but`, whose Popen collects its own.

    Adopted zombies do harm: Triton's stubs live on as long as their parent's pid exists.
    """
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid in but:
                return
            os.waitpid(ended.si_pid, 0)


class _Process(NamedTuple):
    pid: int
    state: str
    parent: int
    session: int


def _stat(pid: int) -> _Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:  # ended meanwhile
        return None
    state, parent, _group, session = text.rpartition(")")[2].split()[:4]
    return _Process(pid, state, int(parent), int(session))


def _all() -> Iterator[_Process]:
    """Every process that can be seen."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (process := _stat(int(entry.name))):
            yield process


def children(pid: int) -> set[int]:
    """Pids of the children of `pid`, also of those that have ended and of which nobody has asked how."""
    return {process.pid for process in _all() if process.parent == pid}


def zombies(pids: Iterable[int]) -> set[int]:
    """Those of `pids` that have ended and of which nobody has asked how."""
    return {pid for pid in pids if (process := _stat(pid)) and process.state == ZOMBIE}


def descendants(pid: int) -> list[int]:
    """Pids of the living children of `pid`, their children, and so on."""
    living = [process for process in _all() if process.state != ZOMBIE]
    found = [pid]
    for known in found:
        found += [process.pid for process in living if process.parent == known]
    return found[1:]


def of_session(session: int) -> list[int]:
    """Pids of the living processes of a session (setsid), which has the pid of its first process."""
    return [process.pid for process in _all() if process.session == session and process.state != ZOMBIE]


def stopped(pids: Iterable[int]) -> set[int]:
    """Those of `pids` that a signal (SIGSTOP) or a debugger has stopped."""
    return {pid for pid in pids if (process := _stat(pid)) and process.state in ("T", "t")}


def holds_files(pid: int) -> bool:
    """Whether a process may still hold ports: a killed one loses its environment before its files.

    A zombie still does while one of its threads has not ended.
    """
    process = _stat(pid)
    if process is None or process.state != ZOMBIE:
        return process is not None
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/task").iterdir()) > 1
    except OSError:
        return False


def with_variable(name: str, value: str) -> list[int]:
    """Pids of the living processes, ours excepted, that were started with this environment variable."""
    mark = f"{name}={value}".encode()
    found = []
    for process in _all():
        with contextlib.suppress(OSError):  # ended, or another user's
            variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
            if mark in variables and process.state != ZOMBIE and process.pid != os.getpid():
                found.append(process.pid)
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each of `pids` that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
