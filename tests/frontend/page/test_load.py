"""What the page does per update, in counts: long answers, long conversations, many conversations."""

from __future__ import annotations

import json
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.frontend.conftest import script

from .conftest import Visits, answers, ask, ready

pytestmark = pytest.mark.browser

CHARACTERS = 45_000
PARAGRAPH = "每一行都会先检查，再写入结果；**注意：**请先备份，然后继续。" * 8 + "\n\n"
COUNT = """(selector) => {
    window.counted = { nodes: 0, characters: 0, updates: 0 };
    new MutationObserver((changes) => {
        counted.updates += 1;
        for (const { addedNodes } of changes) {
            for (const node of addedNodes) {
                counted.nodes += 1 + (node.querySelectorAll?.("*").length ?? 0);
                counted.characters += node.textContent.length;
            }
        }
    }).observe(document.querySelector(selector), { childList: true, subtree: true });
}"""


def counted(page: Page) -> dict[str, int]:
    found: dict[str, int] = page.evaluate("window.counted")
    return found


@pytest.mark.parametrize("kind", ["paragraphs", "one block"])
def test_a_long_answer_is_bounded_work(visit: Visits, kind: str) -> None:
    """The fault: 45,000 characters blocked the page for a quarter of the time they took to come."""
    text = (PARAGRAPH * 200)[:CHARACTERS]
    if kind == "one block":
        text = text.replace("\n\n", "")
    pieces = [text[at : at + 90] for at in range(0, len(text), 90)]
    page = visit()
    sizes: list[int] = []
    page.on(
        "request",
        lambda one: (
            sizes.append(len(json.loads(one.post_data or "{}").get("text", "")))
            if "render" in one.url
            else None
        ),
    )
    page.evaluate(COUNT, "#list")
    ask(page, script(pieces=pieces, delay=0.01))
    expect(page.locator("#stop")).to_be_visible()
    page.wait_for_timeout(500)
    expect(page.locator("#stop")).to_be_hidden(timeout=60_000)
    expect(answers(page)).to_contain_text(text[-20:].replace("*", "").strip())
    seen = counted(page)
    assert max(sizes) <= 15_000
    updates = len(sizes)
    assert updates < 8 * 60
    # An update makes the open block anew, and the text before the first update is shown as it comes.
    open_block = 15_000 if kind == "one block" else 4000
    assert seen["characters"] < CHARACTERS + updates * open_block + 90 * 90 * 30
    if kind == "paragraphs":
        assert sum(sizes) < 12 * CHARACTERS
        assert seen["characters"] < 14 * CHARACTERS


FILL = """async (count) => {
    const store = await import("/static/store.js");
    const records = Array.from({ length: count }, (_, at) => ({
        id: `c${at}`, title: `conversation ${at}`, named: true, created: at, updated: at, leaf: null,
        start: null, preset: "general",
    }));
    await store.put("conversations", ...records);
}"""


def test_many_conversations_are_not_drawn_anew_by_each_question(visit: Visits) -> None:
    """The fault: each send made the whole sidebar anew, several times over."""
    page = visit()
    page.evaluate(FILL, 1500)
    page.reload()
    ready(page)
    expect(page.locator("#sessions li")).to_have_count(1500)
    page.evaluate(COUNT, "#sessions")
    ask(page, "one", wait=True)
    expect(page.locator("#sessions li").first).to_contain_text("one")
    ask(page, "two", wait=True)
    expect(page.locator("#sessions li")).to_have_count(1501)
    assert 0 < counted(page)["nodes"] < 300  # a dozen elements for each time that one item has changed
    page.locator("#sessions li", has_text="conversation 1499").get_by_role("link").click()
    expect(page.locator("#sessions li.current")).to_contain_text("conversation 1499")
    assert counted(page)["nodes"] < 400
    titles: Any = page.locator(".session-title").evaluate_all(
        "(all) => all.slice(0, 3).map((one) => one.textContent)"
    )
    assert titles == ["one", "conversation 1499", "conversation 1498"]


def test_a_question_does_not_make_the_earlier_turns_anew(visit: Visits) -> None:
    page = visit()
    for number in range(6):
        ask(page, f"question {number}", wait=True)
    expect(answers(page).locator(".block")).to_have_count(6)
    page.evaluate(COUNT, "#list .turn:first-child")
    ask(page, "one more", wait=True)
    expect(answers(page).locator(".block")).to_have_count(7)
    assert counted(page)["nodes"] == 0
