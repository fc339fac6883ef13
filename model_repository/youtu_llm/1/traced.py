"""Texts that record which of their characters a caller wrote, whatever a chat template does with them.

The values that a template gets are `Traced`; what it slices, joins and formats from them stays so. If an
operation cannot be traced character by character, the whole result counts as the caller's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import wraps
from typing import Any

_NAME = re.compile(r"%\(([^)]*)\)")
_PRINTF = re.compile(r"(%(?:\([^)]*\))?[#0\- +]*(?:\d+|\*)?(?:\.(?:\d+|\*))?[hlL]?[a-zA-Z%])")


class Traced(str):
    """A text with one mark per character: 1 where a caller wrote it, 0 where a template did.

    Without `marks` all of it is the caller's. It equals, and hashes as, the plain text.
    """

    __slots__ = ("_marks",)
    _marks: bytes

    def __new__(cls, text: str, marks: bytes | None = None) -> Traced:
        made = super().__new__(cls, str.__str__(text))
        made._marks = b"\1" * len(text) if marks is None else marks
        return made

    def template_text(self, blank: str) -> str:
        """The text with `blank`, one character, in the place of each character of the caller's."""
        return "".join(blank if mark else c for c, mark in zip(str.__str__(self), self._marks, strict=True))

    def __str__(self) -> str:
        return self

    def __repr__(self) -> str:
        return _closed(super().__repr__(), self)

    def __format__(self, spec: str) -> str:
        return _closed(super().__format__(spec), self) if spec else self

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(len(self)))

    def __getitem__(self, at: Any) -> Traced:
        marks = self._marks[at]
        return Traced(super().__getitem__(at), marks if isinstance(marks, bytes) else bytes([marks]))

    def __add__(self, other: object) -> Any:
        return joined([self, other]) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: str) -> Any:
        return joined([other, self]) if isinstance(other, str) else NotImplemented

    def __mul__(self, times: Any) -> Traced:
        return Traced(super().__mul__(times), self._marks * times)

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> Any:
        return percent(self, values)

    def __rmod__(self, template: str) -> Any:
        return percent(template, self)

    def join(self, texts: Iterable[str]) -> str:
        parts: list[str] = []
        for text in texts:
            parts += [text] if not parts else [self, text]
        return joined(parts)

    def split(self, sep: str | None = None, maxsplit: int = -1) -> list[str]:  # type: ignore[override]
        return self._pieces(super().split(sep, maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: int = -1) -> list[str]:  # type: ignore[override]
        return self._pieces(super().rsplit(sep, maxsplit), len(sep or ""))

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._pieces(super().splitlines(keepends), 0)

    def partition(self, sep: str) -> Any:
        return tuple(self._pieces(super().partition(sep), 0))

    def rpartition(self, sep: str) -> Any:
        return tuple(self._pieces(super().rpartition(sep), 0))

    def lstrip(self, chars: str | None = None) -> str:
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None) -> str:
        return self[: len(super().rstrip(chars))]

    def strip(self, chars: str | None = None) -> str:
        return self.lstrip(chars).rstrip(chars)

    def removeprefix(self, prefix: str) -> str:
        return self[len(self) - len(super().removeprefix(prefix)) :]

    def removesuffix(self, suffix: str) -> str:
        return self[: len(super().removesuffix(suffix))]

    def replace(self, old: str, new: str, count: int = -1) -> str:  # type: ignore[override]
        if not old:
            return _closed(super().replace(old, new, count), (self, new))
        return Traced(new, marks_of(new)).join(self.split(old, count))

    def _pieces(self, texts: Iterable[str], gap: int) -> list[str]:
        """Parts of this text, in their order, `gap` characters or white space between them."""
        found: list[str] = []
        at = 0
        for text in texts:
            start = self.find(text, at)
            at = start + len(text)
            found.append(self[start:at])
            at += gap
        return found


def _of_same_length(name: str) -> Any:
    plain = getattr(str, name)

    def method(self: Traced, *args: Any) -> str:
        text = plain(self, *args)
        return Traced(text, self._marks) if len(text) == len(self) else _closed(text, self)

    return wraps(plain)(method)


def _of_any_length(name: str) -> Any:
    plain = getattr(str, name)

    def method(self: Traced, *args: Any) -> str:
        return _closed(plain(self, *args), (self, args))

    return wraps(plain)(method)


for _name in ("capitalize", "casefold", "lower", "swapcase", "title", "upper"):
    setattr(Traced, _name, _of_same_length(_name))
for _name in ("center", "expandtabs", "ljust", "rjust", "translate", "zfill"):
    setattr(Traced, _name, _of_any_length(_name))


def traced(value: Any) -> Any:
    """A JSON value with every text in it, the keys included, as the caller's."""
    if isinstance(value, str):
        return Traced(value)
    if isinstance(value, dict):
        return {traced(key): traced(item) for key, item in value.items()}
    return [traced(item) for item in value] if isinstance(value, list) else value


def marks_of(text: str) -> bytes:
    """One byte per character; all 0 for a plain text."""
    return text._marks if isinstance(text, Traced) else bytes(len(text))


def has_callers(value: Any) -> bool:
    """Whether a caller wrote some of a text, or of the texts in a list or a mapping."""
    if isinstance(value, str):
        return 1 in marks_of(value)
    if isinstance(value, Mapping):
        return any(has_callers(part) for item in value.items() for part in item)
    return isinstance(value, list | tuple) and any(map(has_callers, value))


def _closed(text: str, source: Any) -> str:
    return Traced(text) if has_callers(source) else text


def text_of(value: Any) -> str:
    """What a template writes for a value."""
    return value if isinstance(value, str) else _closed(str(value), value)


def joined(texts: Iterable[str]) -> str:
    """The texts in a row."""
    texts = list(texts)
    text = "".join(texts)
    if not any(isinstance(part, Traced) for part in texts):
        return text
    return Traced(text, b"".join(map(marks_of, texts)))


def percent(template: Any, values: Any) -> Any:
    """`template % values`."""
    if not isinstance(template, str):
        return template % values
    text = str.__mod__(str.__str__(template), values)
    if not has_callers(values):
        return _closed(text, template)
    pieces = _PRINTF.split(template)
    if has_callers(template) or any("*" in form for form in pieces[1::2]):
        return Traced(text)
    rest = list(values) if isinstance(values, tuple) else [values]
    parts: list[str] = []
    for at, piece in enumerate(pieces):
        if at % 2 == 0 or piece == "%%":
            parts.append(piece[: len(piece) // (1 + at % 2)])
            continue
        name = _NAME.match(piece)
        value = values[name[1]] if name else rest.pop(0)
        simple = piece == f"{name[0] if name else '%'}s" and isinstance(value, str)
        parts.append(value if simple else _closed(piece % (values if name else (value,)), value))
    return joined(parts)
