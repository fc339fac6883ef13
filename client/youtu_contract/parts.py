"""The parser that takes a model's text apart while it comes: thinking, calls of tools, and content.

    <think>…</think>                                              only at the very beginning
    <tool_call>{"name": "…", "arguments": {…}}</tool_call>        anywhere after, if tools were offered

is Youtu-LLM's format (its chat template; ms-swift's agent template for it says the same). A tag may come in
several pieces: what may become one is held back until it is decided. White space around tags is dropped.
A call that is not such an object stays text. It runs in `youtu_llm`; all others receive the parts.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

THINK, THINK_END = "<think>", "</think>"
CALL, CALL_END = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class Reasoning:
    """A piece of the thinking."""

    text: str


@dataclass(frozen=True)
class Content:
    """A piece of the text that is neither thinking nor a call of a tool."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """One whole call of a tool; `arguments` is JSON."""

    name: str
    arguments: str
    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")


Part = Reasoning | Content | ToolCall


class PartsParser:
    """Takes text in pieces, gives parts.

    thinking: the text begins within the thinking; tools: whether calls of tools are looked for.
    """

    def __init__(self, *, thinking: bool = False, tools: bool = False) -> None:
        self._state = "start"
        self._inside, self._tools = thinking, tools
        self._held = ""
        self._before_call = ""  # the tag and the white space before it, should it turn out to be no call
        self._started = False  # whether the present stretch has shown something but white space
        self._trim = thinking  # whether white space at its beginning is dropped

    def feed(self, text: str) -> Iterator[Part]:
        """The parts that are certain once `text` has come, too."""
        self._held += text
        while (state := self._state) is not None:
            yield from getattr(self, f"_{state}")()
            if self._state == state:
                return

    def end(self) -> Iterator[Part]:
        """What was held back; no text comes any more."""
        held, self._held = self._held, ""
        if self._state == "thinking" or (self._state == "start" and self._inside):
            yield from self._show(Reasoning, held.rstrip())
        elif self._state == "call":
            yield from self._show(Content, self._before_call + held)
        else:
            yield from self._show(Content, held)

    def _start(self) -> Iterator[Part]:
        text = self._held.lstrip()
        if text.startswith(THINK):
            self._held = text[len(THINK) :]
            self._enter("thinking", trim=True)
        elif not THINK.startswith(text):
            self._enter("thinking" if self._inside else "content", trim=self._inside)
        yield from ()

    def _thinking(self) -> Iterator[Part]:
        before, tag, after = self._held.partition(THINK_END)
        if tag:
            yield from self._show(Reasoning, before.rstrip())
            self._held = after
            self._enter("content", trim=True)
        else:
            yield from self._certain(Reasoning, THINK_END)

    def _content(self) -> Iterator[Part]:
        if not self._tools:
            held, self._held = self._held, ""
            yield from self._show(Content, held)
            return
        before, tag, after = self._held.partition(CALL)
        if tag:
            shown = before.rstrip()
            yield from self._show(Content, shown)
            self._before_call = before[len(shown) :] + CALL
            self._held = after
            self._enter("call", trim=False)
        else:
            yield from self._certain(Content, CALL)

    def _call(self) -> Iterator[Part]:
        inner, tag, after = self._held.partition(CALL_END)
        if not tag:
            return
        self._held = after
        call = _parsed(inner)
        if call is None:
            yield from self._show(Content, self._before_call + inner + CALL_END)
            self._enter("content", trim=False)
        else:
            yield call
            self._enter("content", trim=True)

    def _enter(self, state: str, *, trim: bool) -> None:
        self._state, self._started, self._trim = state, False, trim

    def _certain(self, kind: type[Reasoning] | type[Content], tag: str) -> Iterator[Part]:
        """All but an ending that may turn out to be the beginning of `tag`, and white space before it."""
        text = self._held
        sure = len(text)
        for size in range(min(len(tag) - 1, len(text)), 0, -1):
            if text.endswith(tag[:size]):
                sure -= size
                break
        shown = text[:sure].rstrip()
        self._held = text[len(shown) :]
        yield from self._show(kind, shown)

    def _show(self, kind: type[Reasoning] | type[Content], text: str) -> Iterator[Part]:
        if self._trim and not self._started:
            text = text.lstrip()
        if text:
            self._started = True
            yield kind(text)


def _parsed(text: str) -> ToolCall | None:
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return None
    arguments = value.get("arguments", {})
    return ToolCall(
        value["name"], arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    )
