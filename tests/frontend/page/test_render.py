"""`POST /render`: Markdown to HTML that can do nothing, within limits. And the facts for the page."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.render import MAX_CHARS
from frontend.render_markdown import LANGUAGES, MAX_CELLS, MAX_HTML, OverBudget, blocks
from tests.client.fake_triton import FakeTriton


def html(text: str) -> str:
    return "".join(block.html for block in blocks(text))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("**b** *i* ~~s~~ `c`", "<p><strong>b</strong> <em>i</em> <s>s</s> <code>c</code></p>"),
        ("# One", "<h3>One</h3>"),
        ("one\ntwo", "one<br>\ntwo"),
        ("1. a\n2. b\n   - c", "<ol>\n<li>a</li>\n<li>b\n<ul>\n<li>c</li>"),
        ("|a|b|\n|:-:|--:|\n|1|2|", '<td data-align="center">1</td>\n<td data-align="right">2</td>'),
        ("> q", "<blockquote>\n<p>q</p>"),
        ('```python\ndef f(): return "<b>"\n```', '<span class="k">def</span>'),
        ("```python\nx\n```", '<pre data-language="python"><code>'),
        ("```nonsense\n<x>\n```", '<pre data-language="nonsense"><code>&lt;x&gt;\n</code></pre>'),
        ("见https://example.com/a。谢谢", '<a href="https://example.com/a"'),
        ("(see http://example.com/a_(b)?c=1&d=2).", '<a href="http://example.com/a_(b)?c=1&amp;d=2"'),
        ("[a](http://x.example) b", '<a href="http://x.example"'),
        ("$a^2$ 和 \\(b_1\\)", "<msup><mi>a</mi><mn>2</mn></msup>"),
        ("\\(b_1\\)", '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline">'),
        ("$$\n\\frac{1}{2}\n$$", 'display="block"><mrow><mfrac>'),
        ("\\[\nx = 1\n\\]", 'display="block"><mrow><mi>x</mi>'),
        ("于是 $$E=mc^2$$ 成立", 'display="block"'),
        ("$\\begin{pmatrix}1&2\\end{pmatrix}$", "<mtable><mtr><mtd><mn>1</mn></mtd>"),
    ],
)
def test_what_models_write(text: str, part: str) -> None:
    assert part in html(text)


@pytest.mark.parametrize("text", ["$5 and $10", "costs 5$, or 6$ there", "\\[ open", "\\( open", "a $ b $ c"])
def test_money_and_halves_are_no_mathematics(text: str) -> None:
    assert "<math" not in html(text)


def test_half_a_formula_is_shown_as_it_is() -> None:
    """The fault: latex2mathml fails on what it does not know, and the whole answer with it."""
    assert html("$\\left($ then") == "<p><code>\\left(</code> then</p>\n"
    assert "<math" not in html("$" + "x" * 1500 + "$")


HOSTILE = [
    "<script>alert(1)</script>",
    '<img src=x onerror="alert(1)">',
    "![x](http://evil.example/track.png)",
    "![x](/health)",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](vbscript:x)",
    "[x](/health)",
    "[x](//evil.example)",
    '[x](http://ok "\\" onmouseover=alert(1)")',
    "<javascript:alert(1)>",
    "[x]: javascript:alert(1)\n\n[x]",
    "<svg/onload=alert(1)>",
    '<a href="http://x" style="position:fixed">x</a>',
    "<style>*{display:none}</style>",
    "<iframe src=http://evil.example></iframe>",
    "<form action=http://evil.example><input>",
    "<math><mtext><script>alert(1)</script></mtext></math>",
    "$\\text{<script>alert(1)</script>}$",
    "$\\href{javascript:alert(1)}{x}$",
    "$\\style{background:url(http://evil.example)}{x}$",
    "```<script>\nx\n```",
    '```"onload=alert(1)\nx\n```',
    "|<img src=x>|\n|-|\n|<script>x</script>|",
    "&lt;script&gt; &#60;script&#62;",
    "<!-- --><script>x</script>",
    "<base href=http://evil.example>",
    "<meta http-equiv=refresh content=0>",
    "<link rel=stylesheet href=http://evil.example>",
]


def check_harmless(made: str) -> None:
    import html.parser

    allowed_targets = ("http://", "https://", "mailto:")

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in {"script", "img", "svg", "style", "iframe", "form", "input", "base", "meta"}
            assert tag not in {"link", "object", "embed", "video", "audio", "source", "template", "button"}
            for name, value in attrs:
                assert not name.startswith("on"), made
                assert name not in {"style", "src", "srcset", "id", "name", "xlink:href", "action"}, made
                if name == "href":
                    assert tag == "a"
                    assert value is not None
                    assert value.startswith(allowed_targets), made

    Reader().feed(made)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_does_nothing(text: str) -> None:
    for made in (html(text), html(f"- a\n\n  {text}"), html(f"> {text}"), html(f"**{text}**")):
        check_harmless(made)


@given(
    st.lists(st.sampled_from([*HOSTILE, "`", "```", "$", "$$", "\n", "|", "- ", "<", '"', "[", "](", ")"]))
)
@settings(max_examples=150, deadline=None)
def test_hostile_mixtures_do_nothing(parts: list[str]) -> None:
    check_harmless(html("".join(parts)))


def test_links_open_elsewhere_and_tell_nothing() -> None:
    made = html("[a](http://x.example/?a=1&b=2)")
    assert 'target="_blank"' in made
    assert 'rel="noopener noreferrer nofollow"' in made


ANSWER = """只需试除到平方根：

```python
def is_prime(n):
    return n > 1
```

- 一
- 二

  还是二

| a | b |
|---|---|
| 1 | 2 |

$$
x
$$

end"""


def test_a_growing_text_changes_its_last_block_only() -> None:
    """What the page relies on when it sends a growing answer from its last block only."""
    lines = ANSWER.split("\n")
    whole = blocks(ANSWER)
    assert [block.line for block in whole] == [0, 2, 7, 12, 16, 20]
    for size in range(len(ANSWER)):
        part = blocks(ANSWER[:size])
        if part:
            assert part[:-1] == whole[: len(part) - 1]
            rest = "\n".join(lines[whole[len(part) - 1].line :])
            assert blocks(rest) == [
                type(block)(block.line - whole[len(part) - 1].line, block.html)
                for block in whole[len(part) - 1 :]
            ]


def test_line_numbers_count_every_kind_of_line_end() -> None:
    assert [block.line for block in blocks("a\r\n\r\nb\r\rc\n\nd")] == [0, 2, 4, 6]


SLOW = {
    "brackets": "[" * MAX_CHARS,
    "stars": "**a *b " * (MAX_CHARS // 7),
    "formulas": "\\[\n" * (MAX_CHARS // 3),
    "dollars": "$a$" * (MAX_CHARS // 3),
    "links": "[a](" * (MAX_CHARS // 4),
    "quotes": ">" * MAX_CHARS,
    "cells": "|" * (MAX_CHARS // 2) + "\n" + "|-" * (MAX_CHARS // 4),
    "addresses": "http://" * (MAX_CHARS // 7),
    "braces": "$$" + "{" * 480 + "}" * 480 + "$$",
    "code": ("```java\n" + "\n" * 900 + "\n```\n") * 16,
}


@pytest.mark.parametrize("name", SLOW)
def test_no_text_takes_long(name: str) -> None:
    """The fault: a text on which the parser is quadratic holds up everybody's answers."""
    begun = time.thread_time()
    blocks(SLOW[name][:MAX_CHARS])
    assert time.thread_time() - begun < 3.0


TABLES = {
    "wide": "|" + "a|" * 250 + "\n|" + "-|" * 250 + "\n" + "|\n" * 9000,
    "wider": "|" + "a|" * 2000 + "\n|" + "-|" * 2000 + "\n" + "|\n" * 5000,
    "widest": "|" + "a|" * 4000 + "\n|" + "-|" * 4000 + "\n",
    "long": "|a|b|\n|-|-|\n" + "|1|2|\n" * 9000,
    "many": ("|" + "a|" * 30 + "\n|" + "-|" * 30 + "\n" + "|\n" * 30 + "\n") * 200,
    "in lists": ("- |" + "a|" * 30 + "\n  |" + "-|" * 30 + "\n" + "  |\n" * 30 + "\n") * 200,
    "quoted": "> |" + "a|" * 250 + "\n> |" + "-|" * 250 + "\n" + "> |\n" * 9000,
}


@pytest.mark.parametrize("name", TABLES)
def test_the_cells_of_tables_are_counted(name: str) -> None:
    """The fault: a table of 16,000 characters took a second and became 760 kB."""
    made = html(TABLES[name][:MAX_CHARS])
    assert made.count("<td") + made.count("<th") <= MAX_CELLS + made.count("<thead")
    assert len(made) <= MAX_HTML


def test_a_table_that_is_large_enough_for_people_is_one() -> None:
    made = html("|" + "a|" * 20 + "\n|" + "-|" * 20 + "\n" + ("|" + "1|" * 20 + "\n") * 149)
    assert made.count("<td>1</td>") == 20 * 149


def test_rows_beyond_the_limit_stand_there_as_text() -> None:
    made = blocks("x\n\n|a|b|\n|-|-|\n" + "".join(f"|{n}|row {n}|\n" for n in range(2000)) + "\nend")
    assert [block.line for block in made] == [0, 2, 2 + 2 + MAX_CELLS // 2 - 1, 2005]
    assert "<td>row 5</td>" in made[1].html
    assert "|1999|row 1999|" in made[2].html
    assert "<td" not in made[2].html


LARGE = {
    "formulas": "$a$ " * 4000,
    "references": "[a]: http://" + "x" * 8000 + "\n\n" + "[a]" * 2600,
    "references apart": "[a]: http://" + "x" * 8000 + "\n\n" + "[a]\n\n" * 1500,
    "images": "[a]: http://" + "x" * 8000 + "\n\n" + "![a]" * 1900,
    "titles": '[a]: http://x "' + "&" * 8000 + '"\n\n' + "[a]" * 2600,
    "links": "[a](http://b)" * 1200,
    "addresses": "http://a " * 1700,
    "ampersands": "&" * MAX_CHARS,
    "code": "```html\n" + "<a>" * 5000,
}


@pytest.mark.parametrize("name", LARGE)
def test_no_text_becomes_very_long(name: str) -> None:
    """The fault: 8,000 characters of an address and 2,600 references to it became 10 MB."""
    made = html(LARGE[name][:MAX_CHARS])
    assert len(made) <= MAX_HTML + 6 * MAX_CHARS
    check_harmless(made)


def test_what_is_beyond_the_limit_stands_there_as_text() -> None:
    text = "# Head\n\n" + "$\\frac{a}{b}$ " * 40 + "\n\n"
    made = blocks(text + ("$\\frac{a}{b}$ " * 20 + "\n\n") * 100 + "**last** <b>\nline")
    assert made[0].html == "<h3>Head</h3>\n"
    assert "<mfrac>" in made[1].html
    assert made[-1].html == "<p>**last** &lt;b&gt;<br>\nline</p>\n"
    assert [block.line for block in made] == list(range(0, 2 * len(made), 2))


@pytest.mark.parametrize("cpu_s", [0.001, 0.02, 0.05, 0.1])
def test_what_is_beyond_the_time_stands_there_as_text(cpu_s: float) -> None:
    """Wherever the time runs out, each line is shown, with its number."""

    def over(*_args: object) -> None:
        raise OverBudget

    text = "".join(f"{number}. *a*\n{number}. $b$\n\n# {number}\n\n" for number in range(2000))
    before = signal.signal(signal.SIGPROF, over)
    try:
        made = blocks(text, cpu_s)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert made[-1].html == "<p># 1999</p>\n"
    assert [block.line for block in made[1::2]] == list(range(3, 10_000, 5))
    assert [block.line for block in made[::2]] == list(range(0, 10_000, 5))
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0


def test_the_last_row_of_a_matrix_survives_an_empty_cell() -> None:
    """The fault: the library drops a row whose last cell is empty."""
    made = html("$\\begin{matrix}a&b\\\\c&\\end{matrix}$")
    assert (made.count("<mtr>"), shown(made)) == (2, "abc\n")


@pytest.mark.parametrize(
    "sign", ["<", ">", "&", "<b>", "</mtext>", "&lt;", "&amp;", "&#60;", "&#x3c;", "a<b>c"]
)
@pytest.mark.parametrize(
    "command", ["text", "mathrm", "operatorname", "mbox", "textbf", "fbox", "mathbf", "hbox"]
)
def test_characters_in_formulas_survive(command: str, sign: str) -> None:
    """The fault: `$\\text{if x<y then}$` lost everything from the `<` on."""
    made = html(f"$\\{command}{{u{sign}v}} = w$")
    if "<code>" in made:
        pytest.skip("the library does not know this formula")
    check_harmless(made)
    assert shown(made).replace("\N{NO-BREAK SPACE}", " ") == f"u{sign}v=w\n"


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("\\text{if x<y then}", "if x<y then"),
        ("a<b", "a<b"),
        ("a \\lt b \\gt c", "a<b>c"),
        ("\\unicode{x3c}", "<"),
        ("\\left<x\\right>", "<x>"),
        ("\\text{<img src=x onerror=alert(1)>}", "<img src=x onerror=alert(1)>"),
        ("\\tag{<i>}", "(<i>)"),
        ("\\begin{cases} a & \\text{if } x<0 \\\\ b & \\text{if } x>0 \\end{cases}", "{aif x<0bif x>0"),
        ("\\begin{matrix}a&b\\\\c&d\\end{matrix}", "abcd"),
    ],
)
def test_formulas_are_shown_whole(formula: str, words: str) -> None:
    made = html(f"${formula}$")
    assert "<math" in made
    check_harmless(made)
    assert shown(made).strip().replace("\N{NO-BREAK SPACE}", " ") == words


def shown(made: str) -> str:
    """The text of HTML, as a browser shows it."""
    import html.parser

    words: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_data(self, data: str) -> None:
            words.append(data)

    Reader().feed(made)
    return "".join(words)


def test_only_known_languages_are_coloured() -> None:
    """The fault: Pygments' lexers for Perl, Make and C# take seconds for 8,000 hostile characters."""
    assert not LANGUAGES & {"perl", "make", "makefile", "csharp", "c#"}
    from pygments.lexers import get_lexer_by_name

    for name in LANGUAGES:
        get_lexer_by_name(name)


def test_the_route(app: FlaskClient) -> None:
    reply = app.post("/render", json={"text": "# Hello\n\nworld"})
    assert reply.json == {
        "blocks": [{"line": 0, "html": "<h3>Hello</h3>\n"}, {"line": 2, "html": "<p>world</p>\n"}]
    }
    assert reply.headers["Server-Timing"].startswith("render;dur=")
    assert reply.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"text": "x" * (MAX_CHARS + 1)}, 400, f"at most {MAX_CHARS}"),
        ({}, 400, "text is missing"),
        ({"text": 5}, 400, "text should be a valid string, not 5"),
        ({"text": "", "more": 1}, 400, "unknown field `more`"),
        ({"text": "x" * 9 * MAX_CHARS}, 413, "bytes"),
    ],
)
def test_the_route_refuses(app: FlaskClient, body: dict[str, Any], status: int, words: str) -> None:
    reply = app.post("/render", json=body)
    assert reply.status_code == status
    assert reply.json is not None
    assert words in reply.json["error"]["message"]


def test_rendering_asks_for_the_key_and_the_page_does_not(another: Any) -> None:
    frontend = another(api_key="open-sesame")
    body = b'{"text": "x"}'
    json_type = {"Content-Type": "application/json"}
    assert frontend.send("POST", "/render", body, **json_type).status == 401
    key = {"Authorization": "Bearer open-sesame"}
    assert frontend.send("POST", "/render", body, **json_type, **key).status == 200
    assert frontend.get("/").status == 200
    assert frontend.get("/page/facts").json["needs_key"] is True


def test_the_facts_for_the_page(app: FlaskClient, fake: FakeTriton) -> None:
    reply = app.get("/page/facts")
    assert reply.json == {
        "status": "healthy",
        "model": "youtu-demo",
        "demo": True,
        "description": "A fake that repeats what it was told.",
        "context": 2048,
        "slots": 4,
        "queue": 64,
        "defaults": {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1},
        "needs_key": False,
    }
    fake.ready = False
    reply = app.get("/page/facts")
    assert reply.status_code == 503
    assert reply.json == {"status": "loading", "needs_key": False}
    assert reply.headers["Retry-After"]
