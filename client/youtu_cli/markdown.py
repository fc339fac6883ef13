"""An answer on a terminal: Markdown in colour while it streams. Needs rich, of the extra `cli`.

What is finished (every block but the last) is printed once and scrolls away with the rest of the terminal.
The last block is drawn again as it grows: the lines that changed, over the old ones, in one write.
Nothing is erased first, so nothing flickers. A block taller than the screen shows its end until it is
finished. Independent of servers.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, Markdown
from rich.segment import Segment
from rich.style import Style
from rich.syntax import Syntax
from rich.text import Text

from . import markdown_rules
from .terminal import printable
from .words import say

REDRAW = 1 / 15  # s between two drawings, or five times what the last one took
THINKING_LINES = 3
DIM = Style(dim=True)


class Rendered:
    """A view (see `answer`) that draws Markdown on a terminal."""

    def __init__(self, out: TextIO, unfold: str = "") -> None:
        """`unfold` says how folded thinking can be seen."""
        # Highlighting numbers and the like is for logs; emoji codes would change what the model wrote.
        self._console = Console(file=out, highlight=False, emoji=False, markup=False)
        self._region = Region(self._console)
        self._unfold = unfold
        self._began = time.monotonic()
        self._thinking = ""
        self._thinking_s: float | None = None  # seconds, once the thinking is over
        self._open = ""  # the source of what is not printed for good yet
        self._printed = False
        self._next = 0.0

    def add_thinking(self, text: str) -> None:
        self._thinking += text

    def add_text(self, text: str) -> None:
        if self._thinking and self._thinking_s is None:
            self._fold()
        self._open += printable(text)

    def tick(self) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._draw()
            self._next = time.monotonic() + max(REDRAW, 5 * (time.monotonic() - now))

    def end(self, note: str) -> None:
        if self._thinking and self._thinking_s is None:
            self._fold()
        lines = self._laid_out(blocks(self._open))
        if note:
            lines += self._lines(Text(f"({note})", DIM))
        self._region.draw(lines, [])

    def _draw(self) -> None:
        # Half a line may yet turn out to belong to the block before it: only whole ones end a block.
        *finished, last = blocks(self._open[: self._open.rfind("\n") + 1]) or [[]]
        settled = self._laid_out(finished)
        if finished:
            self._printed = True
            self._open = "\n".join(self._open.split("\n")[_first_line(last) :])
        if self._open.strip():
            self._region.draw(settled, self._laid_out(blocks(self._open)))
        elif self._thinking_s is None:
            self._region.draw(settled, self._waiting())

    def _waiting(self) -> list[str]:
        seconds = int(time.monotonic() - self._began)
        if not self._thinking:
            return self._lines(Text(say("… {seconds} s", seconds=seconds), DIM)) if seconds else []
        tail = self._lines(Text(self._thinking[-2000:].strip(), DIM))
        return [
            *self._lines(Text(say("Thinking … {seconds} s", seconds=seconds), DIM)),
            *tail[-THINKING_LINES:],
        ]

    def _fold(self) -> None:
        self._thinking_s = time.monotonic() - self._began
        thought = say("Thought for {seconds} s", seconds=f"{self._thinking_s:.0f}")
        summary = Text(thought + self._unfold, DIM)
        self._region.draw(self._lines(summary), [])
        self._printed = True

    def _laid_out(self, found: list[list[Token]]) -> list[str]:
        """The lines of some blocks, an empty one before each but the very first."""
        laid: list[str] = []
        for block in found:
            lines = self._lines(_Answer(block))
            while lines and not lines[0]:
                del lines[0]
            while lines and not lines[-1]:
                del lines[-1]
            laid += ["", *lines] if laid or self._printed else lines
        return laid

    def _lines(self, shown: RenderableType) -> list[str]:
        # One column is left free: a full line would make the terminal wrap, each in its own way.
        options = self._console.options.update_width(max(1, self._console.width - 1))
        with self._console.capture() as capture:
            try:
                self._console.print(_Safe(shown, options), end="", soft_wrap=True)
            except Exception:
                # Markdown that rich cannot draw must not end the conversation; its source can be read.
                if not isinstance(shown, _Answer):
                    raise
                source = "\n".join(token.content for token in shown.parsed if token.content)
                self._console.print(_Safe(Text(source), options), end="", soft_wrap=True)
        return capture.get().removesuffix("\n").split("\n")


class Region:
    """The lines at the end of the terminal that may still change. The cursor rests below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: list[str] = []
        self._width = console.width

    def draw(self, settled: list[str], live: list[str]) -> None:
        """Put both in the place of the lines shown: `settled` for good; of too much `live`, the end."""
        live = live[-max(1, self._console.height - 1) :]
        lines = settled + live
        same = 0
        while same < min(len(lines), len(self._shown)) and lines[same] == self._shown[same]:
            same += 1
        self._rewrite(same, lines[same:])
        self._shown = live

    def _rewrite(self, start: int, lines: list[str]) -> None:
        rows = len(self._shown) - start
        if self._width != self._console.width:  # narrower now: long lines have been wrapped by the terminal
            self._width = self._console.width
            cells = [Text.from_ansi(line).cell_len for line in self._shown[start:]]
            rows = sum(max(1, -(-count // self._width)) for count in cells)
        if not rows and not lines:
            return
        up = f"\x1b[{rows}A" if rows else ""
        clear = "\x1b[J" if len(lines) < rows else ""
        self._console.file.write(up + "".join(f"{line}\x1b[K\n" for line in lines) + clear)
        self._console.file.flush()


def _parser() -> MarkdownIt:
    # HTML is text here: rich would leave it out.
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    parser.inline.ruler.before("escape", "formula", _formula)
    markdown_rules.add_to(parser)
    return parser


def _formula(state: Any, silent: bool) -> bool:
    r"""An inline rule: LaTeX stays as it is written, which Markdown would take \( and \\ out of."""
    for begin, end in (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$")):
        if state.src.startswith(begin, state.pos):
            found = state.src.find(end, state.pos + 2, state.posMax)
            if found >= 0:
                if not silent:
                    state.push("text", "", 0).content = state.src[state.pos : found + 2]
                state.pos = found + 2
                return True
    return False


PARSER = _parser()


def blocks(source: str) -> list[list[Token]]:
    """The tokens of each block (paragraph, list, table, code, ...) at the top level of a Markdown text."""
    found: list[list[Token]] = []
    for token in PARSER.parse(source):
        if token.level == 0 and token.nesting >= 0:
            found.append([])
        found[-1].append(token)
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"  # a model that breaks a line means it
    return found


def _first_line(block: list[Token]) -> int:
    return block[0].map[0] if block[0].map else 0


class _Code(CodeBlock):
    """Code in the terminal's own sixteen colours and without padding, so that it can be copied."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        code = str(self.text).rstrip()
        yield Syntax(code, self.lexer_name, theme="ansi_dark", word_wrap=True)


class _Heading(Heading):
    LEVEL_ALIGN = {}  # noqa: RUF012 (rich's own form); the default is left


class _Answer(Markdown):
    """Some blocks, parsed already. Links show where they lead: what a model calls a link may not be it."""

    elements = {**Markdown.elements, "fence": _Code, "code_block": _Code, "heading_open": _Heading}  # noqa: RUF012

    def __init__(self, block: list[Token]) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = block


class _Safe:
    """Anything of rich's as lines: nothing in their text steers the terminal (`&#13;` is one way to try)."""

    def __init__(self, shown: RenderableType, options: ConsoleOptions) -> None:
        self._shown, self._options = shown, options

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for line in console.render_lines(self._shown, self._options, pad=False):
            yield from _stripped(Segment(printable(segment.text), segment.style) for segment in line)
            yield Segment.line()


def _stripped(line: Iterable[Segment]) -> list[Segment]:
    """Without the blanks at its end."""
    kept = list(line)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        kept[-1] = Segment(kept[-1].text.rstrip(), kept[-1].style)
    return kept
