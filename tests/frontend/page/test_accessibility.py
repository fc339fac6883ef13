"""axe-core over every view, in both languages, both widths and both colour schemes."""

from __future__ import annotations

from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Page, expect

from tests.frontend.conftest import script

from .conftest import Visits, ask

pytestmark = pytest.mark.browser

OPTIONS = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
ANSWER = (
    "<think>hm</think># Title\n\n**b** [link](http://example.com) `code`\n\n```python\n# why\ndef f(x):\n"
    '    return "s", 1, len(x)\n```\n\n|a|b|\n|-|-|\n|1|2|\n\n$a^2$\n\n> quote\n'
)


def check(page: Page, where: str) -> None:
    results: Any = Axe().run(page, options=OPTIONS).response
    found = [
        (violation["id"], node["target"], node["failureSummary"])
        for violation in results["violations"]
        for node in violation["nodes"]
    ]
    assert not found, f"{where}: {found}"
    assert len(results["passes"]) > 10


@pytest.mark.parametrize(
    ("language", "width", "colours"),
    [("en-US", 1280, "light"), ("zh-CN", 1280, "dark"), ("zh-CN", 360, "light"), ("en-US", 360, "dark")],
)
def test_every_view_passes(visit: Visits, language: str, width: int, colours: Any) -> None:
    # axe is evaluated as a string, which the page's policy forbids to itself.
    page = visit(language, width, color_scheme=colours, bypass_csp=True)
    expect(page.locator("#model")).to_have_text("youtu-demo")
    check(page, "empty")
    ask(page, script(pieces=[ANSWER]), wait=True)
    expect(page.locator(".turn pre .k").first).to_be_visible()
    page.click(".thinking summary")
    check(page, "conversation")
    ask(page, script(fail_at=0))
    expect(page.locator("#notice")).to_be_visible()
    page.locator(".turn.user").get_by_role("button").nth(1).click()
    check(page, "notice and editing")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+,")
    check(page, "settings")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+/")
    check(page, "shortcuts")
    page.keyboard.press("Escape")
    page.click("#open-library")
    page.click("#library-new")
    check(page, "a text of the library")
    page.fill("#library-title", "Greeting")
    page.fill("#library-text", "Dear {name},")
    page.fill("#library-category", "Letters")
    page.click("#library-form button[type=submit]")
    expect(page.locator(".library-use")).to_have_count(1)
    check(page, "library")
    page.keyboard.press("Escape")
    page.evaluate("document.querySelectorAll('.turn').forEach((turn) => turn.classList.add('dropped'))")
    check(page, "turns that are left out")
    if width < 860:
        page.click("#open-sidebar")
    page.locator("#sessions .more").click()
    check(page, "sidebar")
    page.click("#to-bench")
    expect(page.locator("#b-source")).to_be_visible()
    check(page, "bench, empty")
    page.set_input_files(
        "#b-file", {"name": "l.csv", "mimeType": "text/csv", "buffer": b"question,category\na,x\nb,y\nc,x\n"}
    )
    page.click("#b-create")
    page.click("#b-run")
    expect(page.locator("#b-counts")).to_contain_text("3")
    expect(page.locator(".b-mark.done")).to_have_count(3)
    check(page, "bench")
    page.locator(".b-row").nth(1).click()
    page.click("#b-good")
    check(page, "bench, one row")
    page.fill("#b-answer", "mine")
    page.locator("#b-answer").blur()
    page.click("#b-again")
    expect(page.locator("#b-before")).to_be_visible()
    check(page, "bench, old beside new")
