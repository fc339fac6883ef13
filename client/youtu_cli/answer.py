"""One answer on its way to the user: streamed, its thinking folded, Ctrl-C stops it and nothing else.

How an answer looks in colour is `markdown`'s.
"""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from youtu_client import Client, Piece, Sampling, YoutuError

from .terminal import has_extra, is_screen, printable, quiet_keyboard
from .words import say

POLL = 0.05  # s; so late may Ctrl-C and the clock on the screen be


class View(Protocol):
    """Where an answer is shown. `tick` comes often, `end` once, with a note for the last line."""

    def add_thinking(self, text: str) -> None: ...
    def add_text(self, text: str) -> None: ...
    def tick(self) -> None: ...
    def end(self, note: str) -> None: ...


class Plain:
    """Text as it comes: for pipes and files to the last character, for terminals without what steers them.

    Thinking is left out; a terminal gets a line that says so.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._terminal = out.isatty()
        self._last = "\n"
        self._thinking_noted = False

    def add_thinking(self, text: str) -> None:
        if self._terminal and not self._thinking_noted:
            self._thinking_noted = True
            self.add_text(say("(thinking)") + "\n")

    def add_text(self, text: str) -> None:
        text = printable(text) if self._terminal else text
        self._out.write(text)
        self._out.flush()
        self._last = text or self._last

    def tick(self) -> None:
        pass

    def end(self, note: str) -> None:
        if note and self._terminal:
            self.add_text(f" ({note})")
        if not self._last.endswith("\n"):
            self.add_text("\n")


def view(unfold: str = "") -> View:
    """The best that standard output can show; `unfold` says how folded thinking can be seen."""
    if is_screen(sys.stdout) and has_extra():
        from .markdown import Rendered

        return Rendered(sys.stdout, unfold)
    return Plain(sys.stdout)


@dataclass
class Reply:
    """What came of one question. `text` is without the thinking.

    `end` is "stop", "length", "stopped" (by Ctrl-C) or "failed".
    """

    text: str
    thinking: str
    end: str
    failure: YoutuError | None = None


NOTES = {"length": "cut off at the length limit", "stopped": "stopped", "failed": "interrupted"}


def show_reply(client: Client, messages: list[dict[str, Any]], options: Sampling, unfold: str = "") -> Reply:
    """Show one answer as it comes. A failure is returned, not raised; the text until then is kept."""
    shown = view(unfold)
    pieces: list[Piece] = []
    end, failure = "stopped", None
    with _interrupts_held() as pressed:
        try:
            with client.stream(messages, **options) as stream:
                while not stream.done and not pressed:
                    piece = stream.poll(POLL)
                    if piece is not None:
                        pieces.append(piece)
                        if piece.reasoning:
                            shown.add_thinking(piece.reasoning)
                        if piece.content:
                            shown.add_text(piece.content)
                    shown.tick()
                if stream.done:
                    end = stream.answer.finish_reason
        except YoutuError as error:
            end, failure = "failed", error
        text = "".join(piece.content for piece in pieces)
        thinking = "".join(piece.reasoning for piece in pieces)
        noted = end in NOTES and (text or thinking or end == "stopped")
        shown.end(say(NOTES[end]) if noted else "")
    return Reply(text, thinking, end, failure)


@contextlib.contextmanager
def _interrupts_held() -> Iterator[list[int]]:
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
