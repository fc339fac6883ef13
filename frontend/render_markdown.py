"""Markdown, as a model writes it, to HTML that can do nothing: no scripts, no images, nothing that loads.

Safe twice over: HTML in the text is text to the parser (html=False), and what comes out is cut down to the
elements and attributes listed here. An image is shown as a link to it. What a text may cost is bounded: what
goes beyond is shown as its source. Independent of HTTP and the page.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, table
from markdown_it.rules_core import StateCore, block, inline, normalize, text_join
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES
from youtu_cli import markdown_rules

from . import render_formula

MAX_CODE = 3000
"""Characters of code that are coloured in one text; what is beyond stays plain."""
MAX_CELLS = 3000
"""Cells of all tables in one text; the rows beyond are shown as their source."""
MAX_HTML = 200_000
"""Characters that one text may become; the blocks beyond are shown as their source, which adds little."""
_LANGUAGES = """
    bash sh shell zsh console powershell bat c cpp c++ objective-c java kotlin scala swift dart go rust python
    py python3 pycon ruby rb php lua r julia matlab haskell elixir javascript js jsx typescript ts tsx json
    html xml css scss sql graphql protobuf yaml yml toml ini dockerfile docker cmake nginx diff http jinja
    markdown md tex latex
"""
LANGUAGES = frozenset(_LANGUAGES.split())
"""What is coloured. Not all that Pygments knows: some take seconds for hostile text (C#, Make, Perl)."""

_SCHEME = re.compile(r"(?:^|[^A-Za-z0-9])(https?)$", re.IGNORECASE)
_ADDRESS = re.compile(r"://[A-Za-z0-9\-._~:/?#@!$&'()+,;=%]+")
_ENDS = ".,;:!?'_~"
"""Of the sentence, not of the address, where they stand last."""

_MATHML = """
    math mi mn mo ms mtext mspace mrow mfrac msqrt mroot mstyle mpadded mphantom menclose msub msup msubsup
    munder mover munderover mmultiscripts mprescripts none mtable mtr mtd
"""
_MATHS = set(_MATHML.split())
_TEXT = {"p", "h3", "h4", "h5", "h6", "strong", "em", "s", "code", "pre", "blockquote", "br", "hr"}
_TEXT |= {"span", "a"}
_LISTS = {"ul", "ol", "li"}
_TABLES = {"table", "thead", "tbody", "tr", "th", "td"}
_MATHS_STYLE = {"stretchy", "fence", "form", "mathvariant", "columnalign", "rowspacing", "columnspacing"}
_MATHS_STYLE |= {"linethickness", "displaystyle", "scriptlevel", "accent", "accentunder", "width", "notation"}
_MATHS_STYLE |= {"minsize", "maxsize", "lspace", "rspace", "movablelimits", "columnlines", "rowlines"}

_CLEANER = nh3.Cleaner(
    tags=_TEXT | _LISTS | _TABLES | _MATHS,
    attributes={
        "a": {"href", "title"},
        "ol": {"start"},
        "pre": {"data-language"},
        "th": {"data-align"},
        "td": {"data-align"},
        "math": {"display", "xmlns"},
        **{tag: _MATHS_STYLE for tag in _MATHS - {"math"}},
    },
    allowed_classes={"span": set(STANDARD_TYPES.values()), "li": {"task"}},
    set_tag_attribute_values={"a": {"target": "_blank"}},
    url_schemes={"http", "https", "mailto"},
    url_relative="deny",
    link_rel="noopener noreferrer nofollow",
)


@dataclass(frozen=True)
class Block:
    """A paragraph, list, table … at the top of the text. `line`: where it starts in the source, from 0.

    What is added to a text can change its last block, and no block before that one; except that the target
    of a link by reference may come later.
    """

    line: int
    html: str


class OverBudget(BaseException):
    """This text may take no more time, or become no longer. Not an Exception, which libraries catch."""


def blocks(text: str, cpu_s: float | None = None) -> list[Block]:
    """The top-level blocks of `text`, in order. Lines end with LF, CRLF or CR.

    With `cpu_s`, what is not done after so many seconds of CPU is shown as its source. That is for the main
    thread of a process in which SIGPROF raises OverBudget.
    """
    env: dict[str, Any] = {"html": 0, "cells": 0, "coloured": 0}
    state = StateCore(text, _PARSER, env)
    parts: list[list[Token]] | None = None
    found: list[Block] = []
    try:
        if cpu_s is not None:
            # Again and again: an exception in a callback of a library may get lost.
            signal.setitimer(signal.ITIMER_PROF, cpu_s, cpu_s / 5)
        normalize(state)
        block(state)
        parts = list(_top_level(state.tokens))
        for part in parts:
            found.append(_rendered(state, part))
        if cpu_s is not None:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except OverBudget:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if parts is None:
            return _paragraphs(text)
        lines = state.src.split("\n")
        found += [_source(lines, *_map(part)) for part in parts[len(found) :]]
    return found


def _rendered(state: StateCore, part: list[Token]) -> Block:
    state.tokens = part
    inline(state)
    text_join(state)
    markdown_rules.mark_tasks(part)
    html = _PARSER.renderer.render(part, _PARSER.options, state.env)
    clean = _CLEANER.clean(html)
    _count(state.env, len(clean) - len(html))
    return Block(_map(part)[0], clean)


def _count(env: Any, characters: int) -> None:
    env["html"] += characters
    if env["html"] > MAX_HTML:
        raise OverBudget


def _map(part: list[Token]) -> tuple[int, int]:
    """The first line of a block, and the line behind it."""
    first, end = part[0].map or (0, 0)
    return first, end


def _source(lines: list[str], first: int, end: int) -> Block:
    """Some lines as they were written."""
    text = escape("\n".join(lines[first:end]).strip())
    return Block(first, "<p>" + text.replace("\n", "<br>\n") + "</p>\n")


def _paragraphs(text: str) -> list[Block]:
    """A text as it was written, in blocks with blank lines between them."""
    lines = re.split("\r\n?|\n", text)
    found, first = [], 0
    for number, line in enumerate([*lines, ""]):
        if not line.strip():
            if number > first:
                found.append(_source(lines, first, number))
            first = number + 1
    return found


def _top_level(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    part: list[Token] = []
    depth = 0
    for token in tokens:
        part.append(token)
        depth += token.nesting
        if depth == 0:
            yield part
            part = []


class _Renderer(RendererHTML):
    """Stops when the text becomes too long: a reference to a long address can stand in it many times."""

    def render(self, tokens: Sequence[Token], options: Any, env: Any) -> str:
        made = []
        for at, token in enumerate(tokens):
            if token.type == "inline":
                made.append(self.render(token.children or [], options, env))
                continue
            made.append(self.rules.get(token.type, self.renderToken)(tokens, at, options, env))
            _count(env, len(made[-1]))
        return "".join(made)


def _table(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """A table, up to the row whose cells are too many; a row of one character can have hundreds of cells."""
    if not table(state, first, last, silent=True):
        return False
    delimiters = state.src[state.bMarks[first + 1] : state.eMarks[first + 1]]
    columns = delimiters.strip().strip("|").count("|") + 1
    rows = (MAX_CELLS - state.env["cells"]) // columns
    if rows < 1 or silent:
        return bool(rows >= 1)
    table(state, first, min(last, first + 1 + rows), False)
    state.env["cells"] += columns * (state.line - first - 1)
    return True


def _address(state: StateInline, silent: bool) -> bool:
    """A bare address as a link. Of ASCII only: in Chinese the next sentence follows it without a space."""
    if silent or state.linkLevel or not state.src.startswith("://", state.pos):
        return False
    scheme = _SCHEME.search(state.pending[-6:])
    rest = _ADDRESS.match(state.src, state.pos)
    if not scheme or not rest:
        return False
    path = rest[0].rstrip(_ENDS)
    while path.endswith(")") and path.count(")") > path.count("("):
        path = path[:-1].rstrip(_ENDS)
    target = scheme[1] + path
    if len(path) <= len("://") or not state.md.validateLink(target):
        return False
    state.pending = state.pending[: -len(scheme[1])]
    state.push("link_open", "a", 1).attrs = {"href": state.md.normalizeLink(target)}
    state.push("text", "", 0).content = target
    state.push("link_close", "a", -1)
    state.pos += len(path)
    return True


def _fence(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    token = tokens[at]
    language = token.info.split()[0][:30] if token.info.strip() else ""
    code = token.content
    inner = escape(code)
    env["coloured"] += len(code)
    if language.lower() in LANGUAGES and env["coloured"] <= MAX_CODE:
        inner = highlight(code, get_lexer_by_name(language, stripnl=False), _COLOURS)
    return f'<pre data-language="{escape(language)}"><code>{inner}</code></pre>'


def _code_block(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    return f'<pre data-language=""><code>{escape(tokens[at].content)}</code></pre>'


def _image(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    target = str(tokens[at].attrGet("src") or "")
    words = renderer.renderInlineAsText(tokens[at].children, options, env) or target
    return f'<a href="{escape(target)}">{escape(words)}</a>'


def _heading(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    """The page has its own h1 and h2."""
    level = min(6, int(tokens[at].tag[1:]) + 2)
    return f"<h{level}>" if tokens[at].nesting == 1 else f"</h{level}>\n"


def _cell(renderer: Any, tokens: Sequence[Token], at: int, options: Any, env: Any) -> str:
    """Alignment comes as a style attribute, which the page's policy forbids."""
    style = str(tokens[at].attrGet("style") or "")
    align = style.removeprefix("text-align:")
    return f'<{tokens[at].tag} data-align="{escape(align)}">' if align else f"<{tokens[at].tag}>"


def _parser() -> MarkdownIt:
    options = {"html": False, "breaks": True, "maxNesting": 20}
    parser = MarkdownIt("commonmark", options, renderer_cls=_Renderer)
    parser.enable(["table", "strikethrough"])
    parser.block.ruler.at("table", _table, {"alt": ["paragraph", "reference"]})
    parser.inline.ruler.after("text", "address", _address)
    render_formula.add_to(parser)
    markdown_rules.add_to(parser)
    for name, rule in {
        "fence": _fence,
        "code_block": _code_block,
        "image": _image,
        "heading_open": _heading,
        "heading_close": _heading,
        "th_open": _cell,
        "td_open": _cell,
    }.items():
        parser.add_render_rule(name, rule)
    return parser


_COLOURS = HtmlFormatter(nowrap=True)
_PARSER = _parser()
