"""Formulas in Markdown: LaTeX between dollars or brackets to MathML, as escaped XML. Independent of HTTP."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape, unescape
from typing import Any
from xml.etree.ElementTree import tostring

from latex2mathml.converter import convert_to_element
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin

MAX_FORMULA = 1000
"""Characters of one formula; a longer one is shown as its source."""
MAX_FORMULA_LINES = 40

_REFERENCE = re.compile(r"&#x[0-9A-Fa-f]+;")
"""How latex2mathml writes the characters that it chose itself, within text that is the caller's."""
_AMPERSAND = "\ufdd0"
"""In place of an ampersand that would make a reference of the caller's text. Unicode keeps it free."""

_EMPTY_END = re.compile(r"&(\s*\\end\{)")
"""An empty last cell, for which latex2mathml drops the whole row."""


def add_to(parser: MarkdownIt) -> None:
    """Make `parser` read formulas and write MathML."""
    dollarmath_plugin(
        parser,
        allow_labels=False,
        allow_space=False,
        allow_digits=False,
        allow_blank_lines=False,
        double_inline=True,
    )
    parser.inline.ruler.before("escape", "bracket_inline", _brackets_inline)
    parser.block.ruler.before("fence", "bracket_block", _brackets_block, {"alt": ["paragraph", "list"]})
    for name, display in {
        "math_inline": "inline",
        "math_inline_double": "block",
        "math_block": "block",
        "bracket_inline": "inline",
        "bracket_block": "block",
    }.items():
        parser.add_render_rule(name, _rule(display))


def _rule(display: str) -> Any:
    def formula(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
        source = tokens[at].content.strip()
        if len(source) <= MAX_FORMULA:
            try:
                return _mathml(source, display)
            except Exception:  # noqa: S110  # Its parser fails on half a formula in many ways.
                pass
        return f"<code>{escape(source)}</code>"

    return formula


def _mathml(source: str, display: str) -> str:
    # Not its `convert`, which unescapes all of the text, so that `<` begins an element.
    source = _REFERENCE.sub(lambda found: _AMPERSAND + found[0][1:], source)
    root = convert_to_element(_EMPTY_END.sub(r"&{}\1", source), display=display)
    for element in root.iter():
        if element.text:
            text = _REFERENCE.sub(lambda found: unescape(found[0]), element.text)
            element.text = text.replace(_AMPERSAND, "&")
    return tostring(root, encoding="unicode")


def _brackets_inline(state: StateInline, silent: bool) -> bool:
    """`\\( … \\)`, which models write as often as dollars."""
    if not state.src.startswith("\\(", state.pos):
        return False
    start = state.pos + 2
    end = state.src.find("\\)", start, min(state.posMax, start + MAX_FORMULA))
    if end < 0:
        return False
    if not silent:
        state.push("bracket_inline", "math", 0).content = state.src[start:end]
    state.pos = end + 2
    return True


def _brackets_block(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    r"""`\[ … \]` that starts a line and ends one."""
    start = state.bMarks[first] + state.tShift[first]
    if not state.src.startswith("\\[", start):
        return False
    size = 0
    for line in range(first, min(last, first + MAX_FORMULA_LINES)):
        size += state.eMarks[line] - state.bMarks[line]
        text = state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]].rstrip()
        if size > 2 * MAX_FORMULA or (not text and line > first):
            return False
        if text.endswith("\\]"):
            break
    else:
        return False
    if not silent:
        token = state.push("bracket_block", "math", 0)
        token.content = state.getLines(first, line + 1, state.blkIndent, False).strip()[2:-2]
        token.map = [first, line + 1]
    state.line = line + 1
    return True
