"""Conversations on disk: each chat keeps its own as it grows; any can be saved, loaded and taken up again.

Files are JSON, in the web page's format (`page_file`), and for the user's eyes only (mode 0600).
Independent of the terminal and the server.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from . import page_file
from .words import say

MAX_KEPT = 100  # conversations in the state folder; older ones go


class ConversationError(Exception):
    """A file is no conversation; the message names it and says why."""


@dataclass
class Conversation:
    """A system prompt and the turns so far, user and assistant in turn.

    The last turn may be a question without an answer: it failed, or was never answered.
    """

    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    name: str = field(default_factory=lambda: secrets.token_hex(10), compare=False)
    created: int = field(default_factory=lambda: time.time_ns() // 1_000_000, compare=False)

    @property
    def unanswered(self) -> bool:
        return bool(self.messages) and self.messages[-1]["role"] == "user"

    def write(self, file: Path) -> None:
        """Replace `file` in one step, so that a crash leaves the old one or the new one. Raises OSError."""
        facts = page_file.to_file(self.name, self.system, self.messages, self.created)
        text = json.dumps(facts, ensure_ascii=False, indent=1) + "\n"
        number, scratch = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # 0600
        try:
            with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as target:
                target.write(text)
            Path(scratch).replace(file)
        except BaseException:
            Path(scratch).unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, file: Path) -> Conversation:
        """Raises OSError, or ConversationError where it holds something else.

        A plain list of messages, as the APIs take it, is one too, and so is `{"system", "messages"}`.
        """
        try:
            facts = json.loads(file.read_text(encoding="utf-8-sig"))
        except ValueError as error:
            raise ConversationError(f"{file} is not JSON: {error}") from None
        if isinstance(facts, dict) and facts.get("format") == page_file.FORMAT:
            facts = page_file.newest(facts)
            if facts is None:
                raise ConversationError(f"{file} contains no conversation")
            kept = page_file.path(facts)
            facts = {
                **facts,
                "messages": [{key: one.get(key) for key in ("role", "content")} for one in kept],
            }
        system = facts.get("system") if isinstance(facts, dict) else None
        given = facts.get("messages") if isinstance(facts, dict) else facts
        if not isinstance(given, list) or not isinstance(system, str | None):
            raise ConversationError(f'{file} has no "messages" list, or its "system" is not text')
        messages = [_message(file, at, message) for at, message in enumerate(given)]
        if messages and messages[0]["role"] == "system":
            system = messages.pop(0)["content"]
        for at, message in enumerate(messages):
            expected = "assistant" if at % 2 else "user"
            if message["role"] != expected:
                raise ConversationError(f"{file}: turn {at + 1} has role {message['role']!r}, not {expected}")
        made = cls(system or None, messages)
        if isinstance(facts, dict) and isinstance(facts.get("id"), str):
            made.name = facts["id"]
            made.created = page_file.number(facts.get("created")) or made.created
        return made


def _message(file: Path, at: int, message: Any) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise ConversationError(f"{file}: messages[{at}] is not an object with role and content")
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise ConversationError(f"{file}: role and content of messages[{at}] must be text")
    return {"role": role, "content": content}


def state_folder() -> Path:
    """Where this user's history and conversations are, made if need be. Raises OSError."""
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser()
    except RuntimeError as error:
        raise OSError(f"the state folder: {error}") from None
    folder = base / "youtu"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def with_system(system: str | None, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation under a system prompt, unless there is none or it brings its own."""
    if not system or (messages and messages[0].get("role") == "system"):
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


class Autosave:
    """The file of one running chat in the state folder, and those of the chats before it."""

    def __init__(self) -> None:
        self.file: Path | None = None

    def save(self, conversation: Conversation) -> None:
        """Write it, unless there is nothing to keep. Raises OSError."""
        if self.file is None:
            if not conversation.messages:
                return
            folder = state_folder() / "chats"
            folder.mkdir(mode=0o700, exist_ok=True)
            for old in _by_age(folder)[MAX_KEPT - 1 :]:
                old.unlink(missing_ok=True)
            now = datetime.now()
            self.file = folder / f"{now:%Y%m%d-%H%M%S-%f}-{os.getpid()}.json"
        conversation.write(self.file)

    def latest(self) -> Path:
        """The conversation before this one. Raises ConversationError when there is none."""
        others = [file for file in _by_age(state_folder() / "chats") if file != self.file]
        if not others:
            raise ConversationError(say("there is no earlier conversation"))
        return others[0]

    def start_new(self) -> None:
        """What follows is another conversation, in a file of its own."""
        self.file = None


def _by_age(folder: Path) -> list[Path]:
    """Youngest first."""
    return sorted(
        folder.glob("[!.]*.json"), key=lambda file: (file.stat().st_mtime_ns, file.name), reverse=True
    )
