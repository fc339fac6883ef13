"""What the user types, one question at a time: with several lines, history and completion where
prompt_toolkit (of the extra `cli`) and a terminal are there, else plain lines. No conversation here.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from .conversation import state_folder
from .terminal import has_extra, is_screen, print_error, quiet_keyboard
from .words import say

PROMPT = "> "
Read = Callable[[], str]
"""Returns what was typed ("" where the user discarded it); EOFError at its end; KeyboardInterrupt for
Ctrl-C where nothing was typed."""


@contextlib.contextmanager
def editor(commands: Sequence[str]) -> Iterator[Read]:
    """The best that standard input allows. What is typed while nobody reads is there for the next reading."""
    if not is_screen(sys.stdin, sys.stdout):
        yield read_line
    elif not has_extra():
        print_error(say("for multi-line input, history and colour: pip install 'youtu-client[cli]'"))
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 (makes input() an editor)
        yield read_line
    else:
        with quiet_keyboard():
            yield _session(commands)


def read_line() -> str:
    """One line; one that ends in a backslash goes on in the next."""
    if sys.stdin is None:
        raise EOFError
    terminal = sys.stdin.isatty()
    try:
        text = input(PROMPT if terminal else "")
        while text.endswith("\\"):
            text = text[:-1] + "\n" + input("  " if terminal else "")
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        raise
    return text


def _session(commands: Sequence[str]) -> Read:
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document
    from prompt_toolkit.enums import DEFAULT_BUFFER
    from prompt_toolkit.filters import has_focus
    from prompt_toolkit.history import FileHistory, History, InMemoryHistory
    from prompt_toolkit.key_binding import KeyBindings
    from prompt_toolkit.shortcuts import CompleteStyle

    class Commands(Completer):
        """The commands, and files for those that take one."""

        def get_completions(self, document: Document, event: Any) -> Iterable[Completion]:
            text = document.text_before_cursor
            name, space, rest = text.partition(" ")
            if space and name in ("/save", "/load"):
                yield from PathCompleter(expanduser=True).get_completions(Document(rest), event)
            elif text.startswith("/") and not space:
                yield from (Completion(f"{one} ", -len(text)) for one in commands if one.startswith(text))

    class Kept(FileHistory):
        """A history that a full disk costs nothing but its last line."""

        def store_string(self, string: str) -> None:
            with contextlib.suppress(OSError):
                super().store_string(string)

    history: History
    try:
        file = state_folder() / "history"
        file.touch(mode=0o600)
        file.chmod(0o600)
        history = Kept(str(file))
    except OSError as error:
        print_error(say("input history cannot be saved: {error}", error=error))
        history = InMemoryHistory()

    keys = KeyBindings()
    writing = has_focus(DEFAULT_BUFFER)  # and not searching the history

    @keys.add("enter", filter=writing)
    def _send(event: Any) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("escape", "enter", filter=writing)
    @keys.add("c-j", filter=writing)
    def _new_line(event: Any) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("c-c", filter=writing)
    @keys.add("<sigint>", filter=writing)
    def _discard(event: Any) -> None:
        buffer = event.current_buffer
        if buffer.text:
            buffer.append_to_history()  # the arrow up brings it back
            event.app.exit(result="", style="class:aborting")
        else:
            event.app.exit(exception=KeyboardInterrupt, style="class:aborting")

    session: PromptSession[str] = PromptSession(
        f"\n{PROMPT}",
        multiline=True,
        prompt_continuation="  ",
        history=history,
        completer=Commands(),
        complete_while_typing=False,
        complete_style=CompleteStyle.READLINE_LIKE,
        key_bindings=keys,
        enable_suspend=True,
    )
    # Bytes that are no UTF-8 come as lone surrogates, which nothing can carry on.
    return lambda: session.prompt().encode(errors="replace").decode()
