"""Run code that a model wrote, with its tests, where it can do little harm: `passes(code, tests)`.

A process of its own, isolated (`python -I`), in an empty folder, without the environment's variables; limits
on processor time, wall time, memory, open files and output; and a seccomp filter that Linux enforces: no
network, no other programs, no new processes, no signals to others, and no file opened for writing, made,
renamed or removed.

What it does not protect from:

* reading: the code can read whatever this user can read, and hand it to its own output, which is thrown away;
* a fault in the Linux kernel or in CPython, and side channels of the processor;
* cheating: code that goes looking in its own process can find out what the runner expects of a passing test;
* load: for its seconds it takes a whole core, and its memory limit of this machine's memory;
* root: calls that only root may make (mount, reboot, …) are not denied, nor is changing the owner, times or
  attributes of files that are this user's. Run it as a plain user.

For code of unknown people use a virtual machine. Linux on x86-64 and arm64 only; elsewhere `passes` refuses.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import platform
import resource
import secrets
import signal
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

CPU_SECONDS = 5
WALL_SECONDS = 10.0
MEMORY = 512 << 20
OUTPUT = 64 << 10

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE_THREAD = 0x10000
_X32 = 0x40000000


@dataclass(frozen=True)
class _Machine:
    """Numbers of one architecture's system calls (Linux, arch/*/entry/syscalls)."""

    audit: int
    denied: tuple[int, ...]
    opens: dict[int, int]  # call -> which of its arguments holds the flags
    clone: int


_CLONE3 = 435
# io_uring_setup, openat2, pidfd_send_signal, pidfd_getfd: ways around the calls above
_EVERYWHERE = (425, 437, 424, 438)
_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        # socket connect fork vfork execve kill rename mkdir rmdir creat link unlink symlink chmod fchmod
        # chown truncate ptrace tkill tgkill mkdirat mknodat unlinkat renameat linkat symlinkat fchmodat
        # process_vm_readv process_vm_writev renameat2 execveat mknod rt_sigqueueinfo rt_tgsigqueueinfo
        (41, 42, 57, 58, 59, 62, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 76, 101, 200, 234, 258, 259, 263,
         264, 265, 266, 268, 310, 311, 316, 322, 133, 129, 297),
        {2: 1, 257: 2},
        56,
    ),
    "aarch64": _Machine(
        0xC00000B7,
        # mknodat mkdirat unlinkat symlinkat linkat renameat truncate fchmod fchmodat fchownat fchown ptrace
        # kill tkill tgkill socket connect execve process_vm_readv process_vm_writev renameat2 execveat
        # rt_sigqueueinfo rt_tgsigqueueinfo
        (33, 34, 35, 36, 37, 38, 45, 52, 53, 54, 55, 117, 129, 130, 131, 198, 203, 221, 270, 271, 276, 281,
        138, 240), {56: 2}, 220,
    ),
}  # fmt: skip


class SandboxError(Exception):
    """This machine cannot hold such code in; nothing was run."""


@dataclass(frozen=True)
class Verdict:
    """Whether the tests passed, and else why not: the last line of the error, or which limit was met."""

    passed: bool
    why: str = ""


def passes(code: str, tests: str) -> Verdict:
    """Run `code` and then `tests` (assertions) in one namespace. Raises SandboxError, never what the code
    raises.
    """
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        raise SandboxError(f"no sandbox for {sys.platform} on {platform.machine()}: nothing was run")
    token = secrets.token_hex(8)
    # a file, which has a limit, and not a pipe, which somebody would have to hold in memory
    with tempfile.TemporaryDirectory(prefix="youtu-sandbox-") as folder, tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__)), token],
            cwd=folder,
            env={"PATH": "", "LANG": "C.UTF-8"},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            process.communicate(_framed(code) + _framed(tests), timeout=WALL_SECONDS)
        except subprocess.TimeoutExpired:
            return Verdict(False, f"not done within {WALL_SECONDS:g} s")
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        output.seek(0)
        written = output.read(OUTPUT)
    lines = written.decode("utf-8", "replace").strip().splitlines() or [""]
    if process.returncode == 0 and lines[-1] == token:
        return Verdict(True)
    if len(written) == OUTPUT:
        return Verdict(False, f"wrote more than {OUTPUT >> 10} kB")
    if process.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return Verdict(False, f"more than {CPU_SECONDS} s of processor time")
    if lines[-1].startswith("sandbox: "):
        raise SandboxError(lines[-1].removeprefix("sandbox: "))
    return Verdict(False, lines[-1][:200] or f"it ended with {process.returncode}")


def _framed(text: str) -> bytes:
    data = text.encode("utf-8", "replace")
    return struct.pack("<I", len(data)) + data


def _read(stream: BinaryIO) -> str:
    return str(stream.read(*struct.unpack("<I", stream.read(4))), "utf-8")


def _filter(machine: _Machine) -> bytes:
    """The program of struct sock_filter that the kernel asks about every system call."""

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("<HBBI", code, yes, no, value)

    denied = step(_RETURN, _ERRNO | errno.EPERM)
    program = step(_LOAD, _ARCHITECTURE) + step(_EQUAL, machine.audit, 1, 0) + step(_RETURN, _KILL)
    program += step(_LOAD, _NUMBER) + step(_AT_LEAST, _X32, 0, 1) + step(_RETURN, _KILL)
    for number in (*machine.denied, *_EVERYWHERE):
        program += step(_EQUAL, number, 0, 1) + denied
    for number, argument in machine.opens.items():
        program += step(_EQUAL, number, 0, 4) + step(_LOAD, _ARGUMENT + 8 * argument)
        program += step(_ANY_BIT, _WRITING, 0, 1) + denied + step(_RETURN, _ALLOW)
    program += step(_EQUAL, machine.clone, 0, 4) + step(_LOAD, _ARGUMENT)
    program += step(_ANY_BIT, _CLONE_THREAD, 1, 0) + denied + step(_RETURN, _ALLOW)
    # glibc then uses clone, whose flags can be looked at
    program += step(_EQUAL, _CLONE3, 0, 1) + step(_RETURN, _ERRNO | errno.ENOSYS)
    return program + step(_RETURN, _ALLOW)


def _lock_in() -> None:
    """Set the limits and install the filter in this process; there is no way back. Raises OSError."""
    for what, limit in (
        (resource.RLIMIT_CPU, CPU_SECONDS),
        (resource.RLIMIT_AS, MEMORY),
        (resource.RLIMIT_FSIZE, OUTPUT),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))
    program = _filter(_MACHINES[platform.machine()])
    code = ctypes.create_string_buffer(program, len(program))
    description = struct.pack("<HxxxxxxQ", len(program) // 8, ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    filters = ctypes.create_string_buffer(description, len(description))
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs")
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_void_p(ctypes.addressof(filters)), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def _child() -> None:
    """What the process does: lock itself in, run what stands on standard input, say the token."""
    token = sys.argv[1]
    code, tests = _read(sys.stdin.buffer), _read(sys.stdin.buffer)
    # imported before the memory limit, as most answers need them
    for module in ("collections", "functools", "heapq", "itertools", "math", "random", "re", "typing"):
        importlib.import_module(module)

    try:
        _lock_in()
    except (OSError, ValueError) as error:
        sys.stdout.write(f"sandbox: cannot be set up: {error}\n")
        return
    space: dict[str, object] = {"__name__": "answer"}
    try:
        exec(compile(code, "answer", "exec"), space)  # noqa: S102
        exec(compile(tests, "tests", "exec"), space)  # noqa: S102
    except BaseException as error:
        sys.stdout.write(f"\n{type(error).__name__}: {' '.join(str(error).split())}\n")
        sys.stdout.flush()
        os._exit(1)
    sys.stdout.write(f"\n{token}\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _child()
