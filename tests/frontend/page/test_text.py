"""An answer's text on the page: Chinese emphasis, tables, tasks, text from right to left, copies, paper."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.frontend.conftest import script

from .conftest import Visits, answers, ask, fits, tool, wait_until

pytestmark = pytest.mark.browser

CHINESE = """**注意：**请先备份，~~删除。~~保留。

| 订单号 | 金额 | 下单时间 | 说明 |
|---|--:|---|---|
| 123456789 | 1,234,567.89 | 2026-11-27 10:30 | 已从仓库发出，<br>预计三天内送达，请保持电话畅通。 |
| 987654321012345678 | 12.00 | +86 138 0000 0000 | 客户要求改地址，等待确认后再发货，不另收费用。 |

- [x] 已付款
- [ ] 待发货：**请核对。**
- 普通的一项
"""
LINES = """() => [...document.querySelectorAll(".block td")].map((cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return [cell.textContent, new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size];
})"""


@pytest.mark.parametrize(("language", "width"), [("zh-CN", 1280), ("zh-CN", 360), ("en-US", 360)])
def test_chinese_markdown(visit: Visits, shots: Path, language: str, width: int) -> None:
    """The fault: asterisks were shown, and a narrow table broke 123456789 into three lines."""
    page = visit(language, width)
    ask(page, script(pieces=[CHINESE]), wait=True)
    expect(answers(page).locator("strong").first).to_have_text("注意：")
    expect(answers(page).locator("s")).to_have_text("删除。")
    expect(answers(page).locator("td br")).to_have_count(1)
    expect(answers(page).locator("li.task")).to_have_text(["☑ 已付款", "☐ 待发货：请核对。"])
    lines = dict(page.evaluate(LINES))
    for number in (
        "123456789",
        "1,234,567.89",
        "2026-11-27 10:30",
        "+86 138 0000 0000",
        "987654321012345678",
    ):
        assert lines[number] == 1, lines
    assert lines["客户要求改地址，等待确认后再发货，不另收费用。"] <= 4
    assert fits(page)
    box = answers(page).locator(".scroll")
    assert box.evaluate("(box) => box.scrollWidth > box.clientWidth") == (width == 360)
    page.screenshot(path=shots / f"text-{language}-{width}.png")


def test_text_from_right_to_left(visit: Visits, shots: Path) -> None:
    page = visit("zh-CN")
    text = (
        "# مرحبا\n\nاكتب `print(1)` ثم **انظر**.\n\n- أول\n- ثان\n\n"
        "你好\n\n| اسم | x |\n|-|-|\n| قيمة | y |\n\n```\nx = 1\n```\n"
    )
    ask(page, script(pieces=[text]), wait=True)
    directions = (
        answers(page)
        .locator(".block > :is(h3, p, ul), td, pre")
        .evaluate_all("(nodes) => nodes.map((node) => [node.tagName, getComputedStyle(node).direction])")
    )
    assert directions == [
        ["H3", "rtl"],
        ["P", "rtl"],
        ["UL", "rtl"],
        ["P", "ltr"],
        ["TD", "rtl"],
        ["TD", "ltr"],
        ["PRE", "ltr"],
    ]
    page.fill("#draft", "مرحبا")
    assert page.locator("#draft").evaluate("(field) => getComputedStyle(field).direction") == "rtl"
    page.screenshot(path=shots / "text-rtl.png")


PLAIN = """注意：请先备份，删除。保留。

订单号\t金额\t下单时间\t说明
123456789\t1,234,567.89\t2026-11-27 10:30\t已从仓库发出， 预计三天内送达，请保持电话畅通。
987654321012345678\t12.00\t+86 138 0000 0000\t客户要求改地址，等待确认后再发货，不另收费用。

☑ 已付款
☐ 待发货：请核对。
• 普通的一项

1. 一
   二
2. 三
   • 四

def f():
    return "*"

引用 粗
第二行"""


def test_an_answer_is_copied_without_its_markdown(visit: Visits) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    more = (
        '\n1. 一\n\n   二\n2. 三\n   - 四\n\n```python\ndef f():\n    return "*"\n```\n\n'
        "> 引用 **粗**\n> 第二行\n"
    )
    ask(page, script(pieces=[CHINESE + more]), wait=True)
    tool(page, "Copy as plain text").click()
    expect(tool(page, "Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == PLAIN


def paper(page: Page) -> str:
    """What is on paper, in words."""
    page.emulate_media(media="print")
    return str(page.evaluate("document.body.innerText"))


def test_the_whole_conversation_is_printed(visit: Visits, shots: Path) -> None:
    page = visit("zh-CN", color_scheme="dark")
    long = "".join(f"第 {number} 段。\n\n" for number in range(60))
    for at in range(3):
        ask(page, script(pieces=[f"**问题：**{at}\n\n{long}"]), wait=True)
    page.reload()
    expect(page.locator(".turn")).to_have_count(6)
    page.evaluate("window.print = () => (window.printed = document.querySelectorAll('.turn strong').length)")
    page.locator("#turns").press("Control+p")
    wait_until(page, lambda: bool(page.evaluate("window.printed === 3")), "the command to print")
    text = paper(page)
    assert text.count("第 59 段。") == 3
    for control in ("#sidebar", "#form", ".tools", ".gauge"):
        expect(page.locator(control).first).to_be_hidden()
    sizes = page.evaluate("[document.body.scrollHeight, document.getElementById('turns').clientHeight]")
    assert min(sizes) > 6000
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(255, 255, 255)"
    page.pdf(path=shots / "print.pdf")
    assert (shots / "print.pdf").read_bytes().count(b"/Type /Page\n") > 3
