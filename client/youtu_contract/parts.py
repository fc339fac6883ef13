"""The parser that takes a model's text apart while it comes: thinking, calls of tools, and content.

    <think>…</think>                                              only at the very beginning
    <tool_call>{"name": "…", "arguments": {…}}</tool_call>        anywhere after, if tools were offered

is Youtu-LLM's format (its chat template; ms-swift's agent template for it says the same). A tag may come in
several pieces: what may become one is held back until it is decided. White space around tags is dropped.
It runs in `youtu_llm`; all others receive the parts.

What a call may look like: a tag within a JSON string is part of the string. `parameters` stands for
`arguments` where that is missing; null, an empty text or neither of them is {}; a text is read as JSON; of
equal keys the last one counts. `ToolCall.arguments` is always a JSON object. A call without a name, with
other arguments or with what JSON does not know (NaN, Infinity, a number too large) is none: it stays text.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

THINK, THINK_END = "<think>", "</think>"
CALL, CALL_END = "<tool_call>", "</tool_call>"
# What decides where a call ends: a tag that is in no JSON string.
_MARKS = re.compile(rf'\\.|"|{CALL_END}', re.DOTALL)


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
        self._looked, self._in_string = 0, False  # how far the call has been read, and what it is in there
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
        while self._state == "call":
            yield from self._no_call()
            yield from self.feed("")
        held, self._held = self._held, ""
        if self._state == "thinking" or (self._state == "start" and self._inside):
            yield from self._show(Reasoning, held.rstrip())
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
        end = self._end_of_call()
        if end is None:
            return
        inner, self._held = self._held[:end], self._held[end + len(CALL_END) :]
        call = _parsed(inner)
        if call is None:
            self._held = inner + CALL_END + self._held
            yield from self._no_call()
        else:
            yield call
            self._enter("content", trim=True)

    def _no_call(self) -> Iterator[Part]:
        """What is held begins with no call: it is text up to the first end tag, in a string or not."""
        inner, tag, self._held = self._held.partition(CALL_END)
        yield from self._show(Content, self._before_call + inner + tag)
        self._enter("content", trim=False)

    def _end_of_call(self) -> int | None:
        """Where in the text that is held its end tag stands; None: it has not come yet."""
        text = self._held
        if (start := text.lstrip()) and not start.startswith("{"):  # it is no call, whatever follows
            end = text.find(CALL_END)
            return end if end >= 0 else None
        for mark in _MARKS.finditer(text, self._looked):
            self._looked = mark.end()
            if mark[0] == '"':
                self._in_string = not self._in_string
            elif mark[0] == CALL_END and not self._in_string:
                return mark.start()
        self._looked = max(self._looked, len(text) - len(CALL_END))
        return None

    def _enter(self, state: str, *, trim: bool) -> None:
        self._state, self._started, self._trim = state, False, trim
        self._looked, self._in_string = 0, False

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
        call = _loaded(text)
        name = call["name"]
        arguments = call.get("arguments")
        if arguments is None:
            arguments = call.get("parameters")
        if isinstance(arguments, str):
            arguments = _loaded(arguments) if arguments.strip() else None
        if arguments is None:
            arguments = {}
        if not isinstance(name, str) or not name or not isinstance(arguments, dict):
            return None
        name.encode()  # a lone surrogate is not a character
        return ToolCall(name, _dumped(arguments))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _loaded(text: str) -> Any:
    """JSON, if with unescaped line ends in its strings. Raises ValueError."""
    return json.loads(text, strict=False, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _dumped(value: dict[str, Any]) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which was escaped
        return json.dumps(value, allow_nan=False)
    return text
