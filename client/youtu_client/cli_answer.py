"""One answer on its way to the user: streamed, its thinking folded, Ctrl-C stops it and nothing else.

Here is also what makes a text safe for a terminal. How an answer looks in colour is `cli_markdown`'s.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from .client import Client
from .errors import YoutuError
from .thinking import Thoughts
from .wire import Sampling

# C0 without tab and line feed, DEL, C1: a terminal obeys them. The others reorder the text on the screen.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
POLL = 0.05  # s; so late may Ctrl-C and the clock on the screen be


def printable(text: str) -> str:
    """`text` without the characters that steer a terminal: it can be shown, and do nothing else."""
    return _OBEYED.sub("", text)


def say(message: str) -> None:
    """One line to stderr."""
    sys.stdout.flush()
    sys.stderr.write(f"youtu: {printable(' '.join(message.split()))}\n")
    sys.stderr.flush()


class View(Protocol):
    """Where an answer is shown. `tick` comes often, `end` once, with a note for the last line."""

    def thought(self, text: str) -> None: ...
    def said(self, text: str) -> None: ...
    def tick(self) -> None: ...
    def end(self, note: str) -> None: ...


class Plain:
    """Text as it comes: for pipes and files to the last character, for terminals without what steers them.

    Thinking is left out; a terminal is told of it.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._last = "\n"
        self._told = False

    def thought(self, text: str) -> None:
        if self._terminal and not self._told:
            self._told = True
            self.said("(thinking)\n")

    def said(self, text: str) -> None:
        text = printable(text) if self._terminal else text
        self._out.write(text)
        self._out.flush()
        self._last = text or self._last

    def tick(self) -> None:
        pass

    def end(self, note: str) -> None:
        if note and self._terminal:
            self.said(f" ({note})")
        if not self._last.endswith("\n"):
            self.said("\n")


def has_extra() -> bool:
    """Whether the libraries of the extra `cli` are installed."""
    return all(importlib.util.find_spec(name) for name in ("prompt_toolkit", "rich"))


def is_screen(*files: TextIO | None) -> bool:
    """Whether all are a terminal that can move its cursor (None: closed from the start)."""
    return (
        all(file is not None and file.isatty() for file in files) and os.environ.get("TERM", "dumb") != "dumb"
    )


def view(unfold: str = "") -> View:
    """The best that standard output can show; `unfold` says how folded thinking can be seen."""
    if is_screen(sys.stdout) and has_extra():
        from .cli_markdown import Rendered

        return Rendered(sys.stdout, unfold)
    return Plain(sys.stdout)


@dataclass
class Spoken:
    """What came of one question. `end` is "stop", "length", "stopped" (by Ctrl-C) or "failed"."""

    text: str
    thinking: str
    end: str
    failure: YoutuError | None = None


NOTES = {"length": "cut off at the limit", "stopped": "stopped", "failed": "broken off"}


def speak(client: Client, messages: list[dict[str, Any]], options: Sampling, unfold: str = "") -> Spoken:
    """Show one answer as it comes. A failure is returned, not raised; what was said until then is kept."""
    shown = view(unfold)
    thoughts: Thoughts | None = None
    end, failure = "stopped", None
    with _attention() as pressed:
        try:
            with client.stream(messages, **options) as stream:
                while not stream.done and not pressed:
                    piece = stream.poll(POLL)
                    if piece is not None:
                        thoughts = thoughts or Thoughts(inside=stream.starts_in_thinking)
                        _forward(thoughts, piece.text, shown)
                    shown.tick()
                if stream.done:
                    end = stream.answer.finish_reason
        except YoutuError as error:
            end, failure = "failed", error
        thoughts = thoughts or Thoughts()
        _forward(thoughts, None, shown)
        begun = thoughts.answer or thoughts.thinking
        shown.end(NOTES.get(end, "") if begun or end == "stopped" else "")
    return Spoken(thoughts.answer, thoughts.thinking, end, failure)


def _forward(thoughts: Thoughts, text: str | None, shown: View) -> None:
    """Feed a piece (None: the end) and hand on what it added to either part."""
    thinking, answer = len(thoughts.thinking), len(thoughts.answer)
    thoughts.end() if text is None else thoughts.feed(text)
    if len(thoughts.thinking) > thinking:
        shown.thought(thoughts.thinking[thinking:])
    if len(thoughts.answer) > answer:
        shown.said(thoughts.answer[answer:])


@contextlib.contextmanager
def _attention() -> Iterator[list[int]]:
    """While an answer runs: Ctrl-C fills the list instead of breaking into whatever is being written.

    What is typed meanwhile is not echoed into the answer.
    """
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: pressed.append(number))
    try:
        with quiet_keyboard():
            yield pressed
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def quiet_keyboard() -> Iterator[None]:
    """What is typed waits, unseen and unchanged, for whoever reads it; Ctrl-C is still a signal."""
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
