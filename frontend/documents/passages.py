"""Cuts the parts of a document into passages: whole paragraphs, then whole sentences, of about one size."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from .formats import Part

WIDTH = 900
"""Of a passage, where a Chinese character counts 2 and any other 1: about 200 to 350 tokens."""
SMALL = WIDTH // 3
"""Parts below it are put together with the next, if they are on the same page or sheet."""

_WIDE = re.compile("[\u2e80-\uffef]+")
_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[。！？；!?])|(?<=[.;])\s|(?<=\n)")


def width(text: str) -> int:
    """Columns, roughly."""
    return len(text) + sum(map(len, _WIDE.findall(text)))


def passages(parts: Iterable[Part]) -> Iterator[Part]:
    """The passages in order, none of them blank. A text without sentences is cut where it is too long."""
    for part in _joined(parts):
        rest = part.text.strip("\n")
        head = f"{part.header}\n" if part.header else ""
        for text in _cut(rest, max(WIDTH // 2, WIDTH - width(head))):
            yield Part(head + text, part.page, part.section)


def _joined(parts: Iterable[Part]) -> Iterator[Part]:
    """Small neighbours as one: short sections under one heading, headings without a text."""
    held: Part | None = None
    for part in parts:
        if not part.text.strip():
            continue
        if held is None:
            held = part
            continue
        related = held.page == part.page and held.header is None and part.header is None
        small = width(held.text) < SMALL or width(part.text) < SMALL
        if related and small and width(held.text) + width(part.text) <= WIDTH:
            text = f"{held.text.rstrip()}\n\n{part.text.lstrip()}"
            held = Part(text, part.page, held.section or part.section)
            continue
        yield held
        held = part
    if held is not None:
        yield held


def _cut(text: str, limit: int) -> Iterator[str]:
    held = ""
    for piece in _pieces(text, limit):
        if held and width(held) + width(piece) > limit:
            yield held.strip("\n")
            held = ""
        held += piece
    if held.strip():
        yield held.strip("\n")


def _pieces(text: str, limit: int) -> Iterator[str]:
    """Pieces of at most `limit`, as large as they can be; together they are the text."""
    for paragraph in _kept(_PARAGRAPH, text):
        if width(paragraph) <= limit:
            yield paragraph
            continue
        for sentence in _kept(_SENTENCE, paragraph):
            if width(sentence) <= limit:
                yield sentence
            else:
                step = limit // 2 if width(sentence) > 1.5 * len(sentence) else limit
                yield from (sentence[at : at + step] for at in range(0, len(sentence), step))


def _kept(separator: re.Pattern[str], text: str) -> Iterator[str]:
    """The text in pieces that end with a separator each."""
    at = 0
    for match in separator.finditer(text):
        if match.end() > at:
            yield text[at : match.end()]
            at = match.end()
    if at < len(text):
        yield text[at:]
