"""The terminal: whether there is one, what may be written to it, and its keyboard while an answer runs."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from typing import TextIO

# C0 without tab and line feed, DEL, C1: a terminal obeys them. The others reorder the text on the screen.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` without the characters that steer a terminal: it can be shown, and do nothing else."""
    return _OBEYED.sub("", text)


def print_error(message: str) -> None:
    """One line to stderr."""
    sys.stdout.flush()
    sys.stderr.write(f"youtu: {printable(' '.join(message.split()))}\n")
    sys.stderr.flush()


def has_extra() -> bool:
    """Whether the libraries of the extra `cli` are installed."""
    return all(importlib.util.find_spec(name) for name in ("prompt_toolkit", "rich"))


def is_screen(*files: TextIO | None) -> bool:
    """Whether all are a terminal that can move its cursor (None: closed from the start)."""
    return (
        all(file is not None and file.isatty() for file in files) and os.environ.get("TERM", "dumb") != "dumb"
    )


@contextlib.contextmanager
def quiet_keyboard() -> Iterator[None]:
    """Typed input is not echoed and stays in the buffer for the next reader; Ctrl-C is still a signal."""
    if not is_screen(sys.stdin, sys.stdout) or os.name == "nt":
        yield
        return
    import termios

    keyboard = sys.stdin.fileno()
    # In the background (`youtu ask … &`) the terminal is not ours to set: trying would stop us.
    if os.tcgetpgrp(keyboard) != os.getpgrp():
        yield
        return
    before = termios.tcgetattr(keyboard)
    quiet = termios.tcgetattr(keyboard)
    quiet[0] &= ~termios.ICRNL  # or Enter would reach the editor as Ctrl-J
    quiet[3] &= ~(termios.ECHO | termios.ICANON)
    quiet[3] |= termios.NOFLSH  # or Ctrl-C would throw away what was typed
    termios.tcsetattr(keyboard, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(keyboard, termios.TCSANOW, before)
