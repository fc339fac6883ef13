"""Emphasis beside Chinese punctuation, `<br>` and task lists, as the page and the terminal read them."""

from __future__ import annotations

import io
import re
import time
import unicodedata

import pytest
from youtu_cli.markdown import Rendered, blocks

from frontend import render_markdown

SHARED = "“”‘’—–…·‖′″※"
"""Marks that Chinese texts use and that Unicode does not call wide."""
BLOCKS = (
    range(0x3000, 0x3040),
    range(0xFE10, 0xFE20),
    range(0xFE30, 0xFE70),
    range(0xFF00, 0xFF66),
    range(0xFFE0, 0xFFE7),
)
MARKS = [
    *(chr(code) for each in BLOCKS for code in each if unicodedata.category(chr(code))[0] in "PS"),
    *(chr(code) for code in (0x30A0, 0x30FB)),
    *SHARED,
]
FORMS = [
    "{m}重要{p}{m}后文",
    "前文{m}{p}重要{m}后文",
    "前文{m}{p}重要{p}{m}后文",
    "前文{p}{m}重要{m}{p}后文",
    "前文{m}重要{p}{m}100 元",
    "Windows{m}{p}重要{m}",
    "前文{m}{p}{m}后文",
]
ELEMENTS = {"*": "em", "**": "strong", "~~": "s"}
RICH = {"*": "em_open", "**": "strong_open", "~~": "s_open"}


def html(text: str) -> str:
    return "".join(block.html for block in render_markdown.blocks(text))


def test_the_marks_are_those_of_chinese() -> None:
    assert set("，。、；：？！（）《》〈〉「」『』【】〔〕〖〗〘〙〚〛｛｝［］～￥％＆＊＠＃＋＝｜") <= set(
        MARKS
    )
    assert len(MARKS) > 130


@pytest.mark.parametrize("marker", ELEMENTS)
@pytest.mark.parametrize("form", FORMS)
def test_emphasis_beside_every_mark(form: str, marker: str) -> None:
    """The fault: `**注意：**请先备份` showed its asterisks, in the page and in the terminal."""
    element = ELEMENTS[marker]
    for mark in MARKS:
        text = form.format(m=marker, p=mark)
        before, inner, after = text.split(marker)
        made = html(text)
        assert made == f"<p>{before}<{element}>{inner}</{element}>{after}</p>\n", text
        tokens = [token.type for token in blocks(text)[0][1].children or []]
        assert tokens.count(RICH[marker]) == 1, text


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("***注意。***请", "<p><em><strong>注意。</strong></em>请</p>\n"),
        ("**甲：**一，**乙：**二", "<p><strong>甲：</strong>一，<strong>乙：</strong>二</p>\n"),
        ("**“甲”**和**“乙”**。", "<p><strong>“甲”</strong>和<strong>“乙”</strong>。</p>\n"),
        ("**`pip`：**安装", "<p><strong><code>pip</code>：</strong>安装</p>\n"),
        ("**한국어(Korean)**은", "<p><strong>한국어(Korean)</strong>은</p>\n"),
        ("**これは「強調」**です", "<p><strong>これは「強調」</strong>です</p>\n"),
        ("**(重要)**abc", "<p><strong>(重要)</strong>abc</p>\n"),
        ("单价 3 * 4 * 5 元", "<p>单价 3 * 4 * 5 元</p>\n"),
        ("类的__init__方法和a_b_c", "<p>类的__init__方法和a_b_c</p>\n"),
        ("**甲 **乙** 丙", "<p>**甲 <strong>乙</strong> 丙</p>\n"),
        ("a**(b)**c", "<p>a**(b)**c</p>\n"),
        ("甲~~~~删~~~~", "<p>甲<s><s>删</s></s></p>\n"),
        ("甲~~~删~~", "<p>甲~<s>删</s></p>\n"),
        ("约~5~元", "<p>约~5~元</p>\n"),
    ],
)
def test_emphasis_and_what_is_none(text: str, made: str) -> None:
    assert html(text) == made


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("|a|\n|-|\n|x<br>y<BR/>z<br />|", "<td>x<br>\ny<br>\nz<br>\n</td>"),
        ("一<br>\n二", "<p>一<br>\n二</p>"),
        ("`<br>`", "<code>&lt;br&gt;</code>"),
        ("<br onclick=x>", "&lt;br onclick=x&gt;"),
        ("- [ ] 一\n- [x] 二\n- [X] 三", '<li class="task">☐ 一</li>\n<li class="task">☑ 二</li>'),
        ("1. [x] **重要：**甲\n\n2. [ ] 乙", '<li class="task">\n<p>☑ <strong>重要：</strong>甲</p>'),
        ("- [y] 一\n- [x]", "<ul>\n<li>[y] 一</li>\n<li>[x]</li>"),
        ("[x] 一", "<p>[x] 一</p>"),
    ],
)
def test_line_breaks_and_tasks(text: str, part: str) -> None:
    assert part in html(text)


def test_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "60")
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    shown = Rendered(out)
    shown.add_text(
        "**注意：**请先备份，~~删除。~~保留\n\n|项|值|\n|-|-|\n|甲<br>乙|一|\n\n- [x] 完成\n- [ ] 未完\n"
    )
    shown.end("")
    text = re.sub(r"\x1b\[[0-9;]*[mK]", "", out.getvalue())
    assert "注意：请先备份，删除。保留" in text
    assert "\x1b[1m注意：\x1b[0m" in out.getvalue()
    assert re.search(r"甲 +一\s+乙", text)
    assert "☑ 完成" in text
    assert "☐ 未完" in text
    assert not re.search(r"\*|~~|\[x\]|<br>", text)


def test_many_markers_cost_no_more_than_they_did() -> None:
    """Each marker looks a few characters around itself, and no further."""
    for text in ("**。" * 5000, "*" * 15_000, "“" * 7000 + "**" + "”" * 7000, "~~。" * 5000):
        begun = time.process_time()
        render_markdown.blocks(text)
        assert time.process_time() - begun < 3
