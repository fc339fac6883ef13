"""What a model writes and CommonMark does not read: emphasis beside Chinese punctuation, `<br>`, task lists.

Rules for markdown-it-py, shared by the terminal and the page's renderer. Independent of both.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.common.utils import isMdAsciiPunct, isPunctChar, isWhiteSpace
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.state_inline import Delimiter
from markdown_it.token import Token

BOXES = {"[ ] ": "☐ ", "[x] ": "☑ ", "[X] ": "☑ "}
"""How a task in a list begins, and how it is shown."""

_BREAK = re.compile(r"<br\s{0,3}/?>[ \t]{0,80}\n?", re.IGNORECASE)
_REACH = 8
"""Characters that are looked at beyond a punctuation mark."""


def add_to(parser: MarkdownIt) -> None:
    """Put the rules in the place of the parser's own, of which `strikethrough` must be enabled."""
    parser.inline.ruler.at("emphasis", _emphasis)
    parser.inline.ruler.at("strikethrough", _strikethrough)
    parser.inline.ruler.before("escape", "line_break", _line_break)
    parser.core.ruler.push("tasks", lambda state: mark_tasks(state.tokens))


def mark_tasks(tokens: Sequence[Token]) -> None:
    """Put a box in the place of `[ ]` and `[x]` where a list's item begins; it gets the class `task`."""
    for at in range(2, len(tokens)):
        item, paragraph, text = tokens[at - 2 : at + 1]
        if (item.type, paragraph.type, text.type) != ("list_item_open", "paragraph_open", "inline"):
            continue
        first = text.children[0] if text.children else None
        if first and first.type == "text" and (box := BOXES.get(first.content[:4])):
            first.content = box + first.content[4:]
            item.attrs["class"] = "task"


def _emphasis(state: StateInline, silent: bool) -> bool:
    marker = state.src[state.pos]
    if silent or marker not in "*_":
        return False
    length, opens, closes = _flanks(state, split=marker == "*")
    for _ in range(length):
        _delimiter(state, marker, length, opens, closes)
    state.pos += length
    return True


def _strikethrough(state: StateInline, silent: bool) -> bool:
    if silent or not state.src.startswith("~~", state.pos):
        return False
    length, opens, closes = _flanks(state, split=True)
    if length % 2:
        state.push("text", "", 0).content = "~"
    for _ in range(length // 2):
        _delimiter(state, "~~", 0, opens, closes)
    state.pos += length
    return True


def _delimiter(state: StateInline, text: str, length: int, opens: bool, closes: bool) -> None:
    state.push("text", "", 0).content = text
    state.delimiters.append(Delimiter(ord(text[0]), length, len(state.tokens) - 1, -1, opens, closes))


def _flanks(state: StateInline, *, split: bool) -> tuple[int, bool, bool]:
    """The length of a run of markers, and whether it can open and close. `split`: also within a word.

    As CommonMark 0.31 has it, but that a mark which belongs to Chinese, Japanese or Korean text counts as a
    letter, and that other punctuation may follow such text without a space between them.
    """
    src, start = state.src, state.pos
    end = start
    while end < state.posMax and src[end] == src[start]:
        end += 1
    before = src[start - 1] if start else " "
    after = src[end] if end < state.posMax else " "
    space_before, space_after = isWhiteSpace(ord(before)), isWhiteSpace(ord(after))
    mark_before, mark_after = _is_mark(before), _is_mark(after)
    # Identifiers with underscores in them stay as they are.
    east_before = split and _is_east_asian(src[max(0, start - _REACH) : start][::-1])
    east_after = split and _is_east_asian(src[end : min(end + _REACH, state.posMax)])
    left = not space_after and (not mark_after or east_after or space_before or mark_before or east_before)
    right = not space_before and (not mark_before or east_before or space_after or mark_after or east_after)
    opens = left and (split or not right or mark_before)
    closes = right and (split or not left or mark_after)
    return end - start, opens, closes


def _is_mark(character: str) -> bool:
    return isMdAsciiPunct(ord(character)) or isPunctChar(character)


def _is_east_asian(text: str) -> bool:
    """Whether the first character is, or the first that is no punctuation of the West.

    Quotation marks and dashes are shared by all scripts: the text beside them says whose they are.
    """
    for character in text:
        if unicodedata.east_asian_width(character) in "WFH":
            return True
        if not _is_mark(character):
            return False
    return False


def _line_break(state: StateInline, silent: bool) -> bool:
    """`<br>`, the only way to begin a new line in a cell of a table; with the line end that follows it."""
    found = _BREAK.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    if not silent:
        state.push("hardbreak", "br", 0)
    state.pos = found.end()
    return True
