"""Linux process facts that the standard library has no door to: parents, children, and who outlives whom."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterable, Iterator
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ZOMBIE = "Z"


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def end_with_parent(number: signal.Signals) -> None:
    """Have the kernel send us `number` when our parent ends, however it ends. Holds across exec."""
    _prctl(PR_SET_PDEATHSIG, number)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def bury(but: int) -> None:
    """Ask how our ended children ended, except `but`, whose Popen asks itself.

    An adopted zombie is no mere blemish: Triton's stubs live on as long as their parent's pid exists.
    """
    with contextlib.suppress(ChildProcessError):
        while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if ended.si_pid == but:
                return
            os.waitpid(ended.si_pid, 0)


def _all() -> Iterator[tuple[int, int, str]]:
    """(pid, parent's pid, state) of every process that can be seen."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:  # ended meanwhile
                continue
            yield int(entry.name), int(parent), state


def children(pid: int) -> dict[int, str]:
    """Pid -> state letter of the children of `pid`. A zombie (Z) has ended and nobody has asked how."""
    return {child: state for child, parent, state in _all() if parent == pid}


def descendants(pid: int) -> list[int]:
    """Pids of the living children of `pid`, their children, and so on."""
    living = [(child, parent) for child, parent, state in _all() if state != ZOMBIE]
    found = [pid]
    for known in found:
        found += [child for child, parent in living if parent == known]
    return found[1:]


def stopped(pids: Iterable[int]) -> set[int]:
    """Those of `pids` that a signal (SIGSTOP) or a debugger has stopped."""
    return {pid for pid, _, state in _all() if state in ("T", "t")} & set(pids)


def with_variable(name: str, value: str) -> list[int]:
    """Pids of the living processes, ours excepted, that were started with this environment variable."""
    mark = f"{name}={value}".encode()
    found = []
    for pid, _, state in _all():
        with contextlib.suppress(OSError):  # ended, or another user's
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            if mark in variables and state != ZOMBIE and pid != os.getpid():
                found.append(pid)
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to each of `pids` that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
