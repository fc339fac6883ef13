"""Markdown, as a model writes it, to HTML that can do nothing: no scripts, no images, nothing that loads.

Safe twice over: HTML in the text is text to the parser (html=False), and what comes out is cut down to the
elements and attributes listed here. An image is shown as a link to it. It knows no HTTP and no page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import nh3
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.token import STANDARD_TYPES

MAX_CODE = 3000
"""Characters of code that are coloured in one text; what is beyond stays plain."""
MAX_FORMULA = 1000
"""Characters of one formula; a longer one is shown as its source."""
MAX_FORMULA_LINES = 40
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
    allowed_classes={"span": set(STANDARD_TYPES.values())},
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


def blocks(text: str) -> list[Block]:
    """The top-level blocks of `text`, in order. Lines end with LF, CRLF or CR."""
    env: dict[str, Any] = {}
    tokens = _PARSER.parse(text, env)
    found = []
    for part in _top_level(tokens):
        html = _PARSER.renderer.render(part, _PARSER.options, env)
        found.append(Block(part[0].map[0] if part[0].map else 0, _CLEANER.clean(html)))
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


def _formula(source: str, display: str) -> str:
    if len(source) <= MAX_FORMULA:
        try:
            markup: str = convert(source, display=display)
            return markup
        except Exception:  # noqa: S110  # Its parser fails on half a formula in many ways.
            pass
    return f"<code>{escape(source)}</code>"


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
    env["coloured"] = env.get("coloured", 0) + len(code)
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
    parser = MarkdownIt("commonmark", {"html": False, "breaks": True, "maxNesting": 20})
    parser.enable(["table", "strikethrough"])
    dollarmath_plugin(
        parser,
        allow_labels=False,
        allow_space=False,
        allow_digits=False,
        allow_blank_lines=False,
        double_inline=True,
    )
    parser.inline.ruler.after("text", "address", _address)
    parser.inline.ruler.before("escape", "bracket_inline", _brackets_inline)
    parser.block.ruler.before("fence", "bracket_block", _brackets_block, {"alt": ["paragraph", "list"]})
    for name, rule in {
        "fence": _fence,
        "code_block": _code_block,
        "image": _image,
        "heading_open": _heading,
        "heading_close": _heading,
        "th_open": _cell,
        "td_open": _cell,
        "math_inline": _formula_rule("inline"),
        "math_inline_double": _formula_rule("block"),
        "math_block": _formula_rule("block"),
        "bracket_inline": _formula_rule("inline"),
        "bracket_block": _formula_rule("block"),
    }.items():
        parser.add_render_rule(name, rule)
    return parser


def _formula_rule(display: str) -> Any:
    return lambda renderer, tokens, at, options, env: _formula(tokens[at].content.strip(), display)


_COLOURS = HtmlFormatter(nowrap=True)
_PARSER = _parser()
