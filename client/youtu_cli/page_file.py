"""The file format that the terminal and the web page share: conversations as trees of messages, in JSON.

    {"format": "youtu-conversations", "version": 2, "conversations": [
        {"id", "title", "created", "updated", "leaf", "start", "preset", "system",
         "messages": [{"id", "parent", "role", "content", "created"}]}]}

A conversation is the path from its first message to `leaf`; times are milliseconds since 1970.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

FORMAT = "youtu-conversations"
VERSION = 2
TITLE = 60  # characters of the first question


def to_file(
    name: str, system: str | None, turns: Sequence[Mapping[str, str]], created: int
) -> dict[str, Any]:
    """One conversation as a file. By its `name` the page knows it again when it is imported once more."""
    messages = []
    for number, turn in enumerate(turns):
        message: dict[str, Any] = {
            "id": f"{name}-{number}",
            "parent": f"{name}-{number - 1}" if number else None,
            **turn,
            "created": created + number,
        }
        if turn["role"] == "assistant":
            message["end"] = "imported"
        messages.append(message)
    line = turns[0]["content"].strip().split("\n")[0] if turns else ""
    conversation = {
        "id": name,
        "title": line if len(line) <= TITLE else f"{line[:TITLE]}…",
        "created": created,
        "updated": time.time_ns() // 1_000_000,
        "leaf": messages[-1]["id"] if messages else None,
        "start": None,
        "preset": None,
        "system": system,
        "messages": messages,
    }
    return {"format": FORMAT, "version": VERSION, "conversations": [conversation]}


def newest(file: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The conversation of a file that was changed last; None where it holds none."""
    found = [one for one in file.get("conversations") or () if isinstance(one, Mapping)]
    return max(found, key=lambda one: number(one.get("updated")), default=None)


def path(conversation: Mapping[str, Any]) -> list[Any]:
    """The messages from the first to the last shown."""
    messages = [one for one in conversation.get("messages") or () if isinstance(one, Mapping)]
    by_id = {str(message.get("id")): message for message in messages}
    found: list[Any] = []
    at = by_id.get(str(conversation.get("leaf")))
    while at is not None and len(found) <= len(by_id):  # a file may hold a circle
        found.append(at)
        at = by_id.get(str(at.get("parent")))
    return found[::-1]


def number(value: Any) -> int:
    """A time, or 0."""
    return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0
