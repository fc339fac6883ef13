"""Markdown on a terminal while it streams: what a person sees, in an emulator, and what may not get there."""

from __future__ import annotations

import io
import random
import re

import pytest
from youtu_cli.markdown import Rendered

from tests.client.cli.terminal import Screen

ANSWER = (
    """# 退货 and returns

An **important** word, *another*, `code`, a [link](https://example.com/a).
A second line.

1. first
2. second, which is longer than the screen is wide, so that it is wrapped
   ```python
   def f(x):
       return "text"  # comment
   ```
10. third

| item | 价格 |
|------|----:|
| tea  | 12 |
| a much longer one | 1,000 |
"""
    + "".join(f"| row {'x' * 2 * row} | {row} |\n" for row in range(12))
    + """

> quoted

- [x] done
- 中文列表

<div onclick="x">kept</div>

Formulas: \\(a_1 \\\\ b\\), $$x^2 \\{y\\}$$

```
"""
    + "".join(f"line {number}\n" for number in range(40))
    + "```\n\nThe end."
)


class Output(io.StringIO):
    """A terminal of its own: what is written goes to an emulator; each write is kept."""

    def __init__(self, columns: int, rows: int) -> None:
        super().__init__()
        self.screen = Screen(columns, rows)
        self.writes: list[str] = []

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.writes.append(text)
        self.screen.feed(text.replace("\n", "\r\n").encode())
        return len(text)


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def show(
    text: str, monkeypatch: pytest.MonkeyPatch, *, sizes: tuple[int, int] = (500, 500), rows: int = 24
) -> Output:
    """Stream `text` in pieces of random `sizes` to a terminal 44 columns wide, drawing after each."""
    monkeypatch.setenv("COLUMNS", "44")
    monkeypatch.setenv("LINES", str(rows))
    output = Output(44, rows)
    view = Rendered(output)
    chance, at = random.Random(rows), 0
    while at < len(text):
        size = chance.randint(*sizes)
        view.add_text(text[at : at + size])
        at += size
        view._next = 0
        view.tick()
    view.end("")
    return output


@pytest.mark.parametrize("rows", [6, 24, 90])
@pytest.mark.parametrize("sizes", [(1, 3), (1, 40)])
def test_however_it_came_the_screen_and_what_scrolled_away_are_the_same(
    sizes: tuple[int, int], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = show(ANSWER, monkeypatch, sizes=(9999, 9999), rows=90).screen.text
    assert show(ANSWER, monkeypatch, sizes=sizes, rows=rows).screen.text == whole
    for line in (
        "1,000",
        "line 0",
        "line 39",
        "<div onclick",
        "\\(a_1 \\\\ b\\)",
        "$$x^2 \\{y\\}$$",
        "The end.",
    ):
        assert line in whole
    assert "def f(x):" in whole
    assert "\nA second line.\n" in whole
    assert "https://example.com/a" in whole


def test_nothing_is_erased_before_it_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flicker: whatever was on the screen before a write is there in the midst of it, too."""
    output = show("one two three\n\n" + "- item of a list\n" * 20, monkeypatch, sizes=(3, 3), rows=40)
    screen = Screen(44, 40)
    for written in output.writes:
        before = len(screen.text)
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.|\n", written.replace("\n", "\r\n"), re.DOTALL):
            screen.feed(part.encode())
            assert len(screen.text) >= before - 3, "lines vanish while they are drawn"


def test_a_long_block_costs_a_line_not_a_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "```python\n" + "".join(f"x{number} = {number}\n" for number in range(60)) + "```\n"
    output = show(text, monkeypatch, sizes=(8, 8), rows=80)
    assert len("".join(output.writes)) < 25 * len(text)


HOSTILE = [
    "\x1b]0;title\x07 \x1b[2J \x1b[31mred \x9b31m \x90q \r over \b\b\b \x7f \x00 \x0e \u202eesrever\u202c",
    "```sh\n\x1b]52;c;ZWNobw==\x07\x1b[?1049h\n\x9d0;x\x9c```\n",
    "`\x1b[8m` **\x1b[8m** [\x1b[8m](http://x/\x1b]8;;http://y\x07) ![\x1b[8m](\x1b[8m)",
    "| \x1b[8m | b |\n|---|---|\n| \x1b[2J | \x9b2J |\n",
    "&#27;[2J &#x1b;[2J &#155;2J &#13;over &#8; &#x202e; &#7; &#12;",
    "[a]: http://x/&#13;&#27; \"\x1b\"\n[a] <http://x/\x1b> \x1b\n=\n",
    "```\x1b[2J\x07 x\ncode\n```\n",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("thinking", [False, True])
def test_no_text_steers_the_terminal(text: str, thinking: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    output = Output(60, 24)
    view = Rendered(output)
    for character in text:
        view.add_thinking(character) if thinking else view.add_text(character)
        view._next = 0
        view.tick()
    view.end("note")
    written = "".join(output.writes)
    ours = re.sub(r"\x1b\[([0-9;]*m|[0-9]+A|J|K)", "", written)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", ours), repr(ours)
    assert "\x1b[8m" not in written  # hidden text


@pytest.mark.parametrize(
    "text",
    [
        *["</kbd>", "<kbd>", "![a](b) ![](c)", "[![a](b)](c)", "> " * 200 + "x", "- " * 200, "|||\n|-|-|\n|"],
        *["```", "#", "1. > - | a |\n   > - |---|\n", "[x](" * 500, "*" * 3000, "\n\n", "[a]: b", "&" * 50],
        *["~~", "\t\tx", "\U0001f469\u200d\U0001f4bb" * 40],
    ],
)  # fmt: skip
def test_odd_markdown_is_shown_and_breaks_nothing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = show(f"before\n\n{text}\n\nafter", monkeypatch, sizes=(1, 60))
    assert output.screen.lines[0] == "before"
    assert "after" in output.screen.text


def test_markdown_that_rich_cannot_draw_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("rich gives up")

    monkeypatch.setattr("youtu_cli.markdown._Code.__rich_console__", fails)
    text = show("before\n\n```\nsome code\n```\nafter", monkeypatch).screen.text
    assert text == "before\n\nsome code\n\nafter"


def test_colour_and_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "**bold** `code`\n\n```python\nreturn 1\n```\n"
    screen = show(text, monkeypatch).screen
    assert screen.style("bold").bold
    assert screen.style("return").fg != "default"
    monkeypatch.setenv("NO_COLOR", "1")
    screen = show(text, monkeypatch).screen
    assert screen.style("bold").bold
    assert {char.fg for row in screen.rows for char in row} == {"default"}


def test_code_can_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """No blanks before or behind it, which a selection with the mouse would take along."""
    output = show("```python\ndef f():\n    pass\n```\n", monkeypatch)
    assert output.screen.lines[:2] == ["def f():", "    pass"]
    assert not re.search(r" +(\x1b\[[0-9;]*[mK])*\n", "".join(output.writes))


def test_thinking_shows_its_end_and_is_folded_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    output = Output(44, 24)
    view = Rendered(output, "; /thinking shows it")
    for number in range(50):
        view.add_thinking(f"thought {number}\n")
        view._next = 0
        view.tick()
    said = re.sub(r"\d+ s\b", "N s", output.screen.text)
    assert said == "Thinking … N s\nthought 47\nthought 48\nthought 49"
    view.add_text("yes")
    view.tick()
    view.end("")
    said = re.sub(r"\d+ s\b", "N s", output.screen.text)
    assert said == "Thought for N s; /thinking shows it\n\nyes"


def test_a_narrower_window_leaves_no_second_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The terminal wraps what stands there; the lines to go up are counted as it shows them."""
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setenv("COLUMNS", "41")
    output = Output(41, 24)
    view = Rendered(output)
    view.add_text("word " * 16)
    view.tick()
    assert len(output.screen.text.splitlines()) == 2
    del output.writes[:]
    view._console.width = 21
    view.add_text("end")
    view.end("")
    assert any(written.startswith("\x1b[4A") for written in output.writes)
