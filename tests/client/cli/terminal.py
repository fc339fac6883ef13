"""A program on a terminal: a pseudo-terminal with a real emulator (pyte) behind it, so that tests see what a
person would see, the lines that scrolled away included."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence

import pyte
from pyte.screens import Char

from tests.limits import WAIT_S

# Makes the terminal it is given the controlling one, so that ^C typed there is a signal here.
ON_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


class _Emulator(pyte.HistoryScreen):
    """Hands what a terminal answers (where its cursor is) to `reports`."""

    reports: Callable[[str], object] | None = None

    def write_process_input(self, data: str) -> None:
        if self.reports is not None:
            self.reports(data)


class Screen:
    """The emulator. Bytes go in by `feed`; `lines` is all that was ever shown, from the top."""

    def __init__(self, columns: int, rows: int, reports: Callable[[str], object] | None = None) -> None:
        self._screen = _Emulator(columns, rows, history=10_000)
        self._screen.reports = reports
        self._stream = pyte.ByteStream(self._screen)

    def feed(self, data: bytes) -> None:
        self._stream.feed(data)

    @property
    def rows(self) -> list[list[Char]]:
        columns = range(self._screen.columns)
        buffer = [self._screen.buffer[row] for row in range(self._screen.lines)]
        return [[line[column] for column in columns] for line in [*self._screen.history.top, *buffer]]

    @property
    def lines(self) -> list[str]:
        return ["".join(char.data for char in row).rstrip() for row in self.rows]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip("\n")

    @property
    def cursor(self) -> int:
        """The line that the cursor is in, counted as in `lines`."""
        return len(self._screen.history.top) + int(self._screen.cursor.y)

    def style(self, text: str) -> Char:
        """The first cell of `text` where it stands last, for its colour and weight."""
        for line, row in reversed(list(zip(self.lines, self.rows, strict=True))):
            if text in line:
                assert line.isascii(), "cells and characters differ where characters are wide"
                return row[line.index(text)]
        raise AssertionError(f"{text!r} is not in {self.text}")


class Terminal:
    """A command on a terminal of `columns` by `rows`, in an environment that is `env` and nothing else."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], *, columns: int = 80, rows: int = 24
    ) -> None:
        self.fd, there = os.openpty()
        fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process = subprocess.Popen(
            [sys.executable, "-c", ON_TERMINAL, *command],
            env=dict(env),
            stdin=there,
            stdout=there,
            stderr=there,
            start_new_session=True,
        )
        os.close(there)
        self.screen = Screen(columns, rows, lambda report: os.write(self.fd, report.encode()))
        self.raw = b""
        self._typed_at = 0

    def type(self, keys: str) -> None:
        """Press keys; Enter is "\\r". `wait` looks from the line on where the cursor is now."""
        self._typed_at = self.screen.cursor
        os.write(self.fd, keys.encode())

    def read(self, seconds: float) -> None:
        """Take in what comes within `seconds`, at least once."""
        until = time.monotonic() + seconds
        while select.select([self.fd], [], [], max(0.0, until - time.monotonic()))[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:  # the other side has gone
                return
            self.raw += data
            self.screen.feed(data)
            if time.monotonic() >= until:  # a program that never pauses would be read for ever
                return

    @property
    def new(self) -> str:
        """What stands in the line where the last keys were typed, and below it."""
        return "\n".join(self.screen.lines[self._typed_at :])

    def wait_until(self, there: Callable[[], bool], what: str, timeout: float = WAIT_S) -> None:
        until = time.monotonic() + timeout
        while not there():
            assert time.monotonic() < until, f"waited {timeout} s for {what}, saw\n{self.screen.text}"
            assert self.process.poll() is None or select.select([self.fd], [], [], 0)[0], (
                f"it ended with {self.process.returncode} before {what}:\n{self.screen.text}"
            )
            self.read(0.02)

    def wait(self, text: str, timeout: float = WAIT_S) -> None:
        """Until `text` stands in the line where the last keys were typed, or below."""
        self.wait_until(lambda: text in self.new, repr(text), timeout)

    def prompt(self, timeout: float = WAIT_S) -> None:
        """Until an empty prompt is below what was typed last, and takes keys."""

        def there() -> bool:
            at, lines = self.screen.cursor, self.screen.lines
            fresh = at > self._typed_at or not self._typed_at
            return (
                fresh and lines[at] == ">" and self.raw.rfind(b"\x1b[?2004h") > self.raw.rfind(b"\x1b[?2004l")
            )

        self.wait_until(there, "a prompt", timeout)

    def ask(self, text: str, answer: str) -> None:
        """Type a line, wait for an answer and the next prompt."""
        self.type(text + "\r")
        self.wait(answer)
        self.prompt()

    def end(self) -> int:
        """The exit status of the program, which must be about to end."""
        until = time.monotonic() + WAIT_S
        while self.process.poll() is None and time.monotonic() < until:
            self.read(0.02)
        code = self.process.wait(0.1)
        self.read(0.05)
        os.close(self.fd)
        return code

    def kill(self) -> None:
        """End it by force, if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            os.close(self.fd)
