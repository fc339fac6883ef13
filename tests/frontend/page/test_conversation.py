"""Asking and answering on the page: streaming, rendering, stopping, versions, branches, the context."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import script

from .conftest import (
    Visits,
    answers,
    ask,
    facts,
    fits,
    free_disk,
    hold_disk,
    questions,
    reload,
    tool,
    wait_kept,
)

pytestmark = pytest.mark.browser


def sent(fake: FakeTriton, at: int = -1) -> list[tuple[str, str]]:
    """The conversation that the model was sent."""
    messages = fake.calls[at].inputs["messages"]
    messages = json.loads(messages) if isinstance(messages, str) else messages
    return [(message["role"], message["content"]) for message in messages]


MARKDOWN = [
    "只需试除到平方根，复杂度 $O(\\sqrt{n})$：\n\n```python\ndef is_prime(n):\n",
    "    return n > 1 and all(n % d for d in range(2, n))\n```\n\n",
    "| 名称 | 价格 |\n|:--|--:|\n| 茶壶 | 128 |\n\n",
    "1. 先看 **订单号**\n2. 再联系客服\n\n$$\\frac{1}{2}$$\n",
]


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en-US", {"demo": "demo", "about": "It is not Youtu-LLM-2B.", "fresh": "New chat"}),
        ("zh-CN", {"demo": "演示", "about": "不是 Youtu-LLM-2B", "fresh": "新对话"}),
    ],
)
def test_a_question_streams_an_answer(
    visit: Visits, fake: FakeTriton, shots: Path, language: str, words: dict[str, str], width: int
) -> None:
    page = visit(language, width)
    expect(page.locator("#model")).to_have_text("youtu-demo")
    for name, text in words.items():
        expect(page.locator(f"#{name}")).to_contain_text(text)
    expect(page.locator("#send")).to_be_disabled()
    page.screenshot(path=shots / f"empty-{language}-{width}.png")
    ask(page, script(pieces=MARKDOWN, stepped=True))
    (call,) = fake.wait_calls(1)
    call.step()
    answer = answers(page)
    # The first piece stands there, rendered, while the rest is still to come.
    expect(answer.locator("pre")).to_contain_text("def is_prime(n):")
    expect(answer.locator("math")).to_have_count(1)
    expect(answer.locator("table")).to_have_count(0)
    expect(page.locator("#stop")).to_be_visible()
    page.screenshot(path=shots / f"streaming-{language}-{width}.png")
    call.step(3)
    expect(answer.locator("table td")).to_have_text(["茶壶", "128"])
    expect(answer.locator("ol li strong")).to_have_text("订单号")
    expect(answer.locator("math[display=block] mfrac")).to_have_count(1)
    expect(answer.locator("pre .k").first).to_have_text("def")
    unit = "tokens" if language == "en-US" else "个 token"
    expect(facts(page)).to_contain_text(f"4 {unit}")
    expect(facts(page)).to_contain_text(
        re.compile(r"first token \d+\.\d" if language == "en-US" else r"首个 token \d+\.\d")
    )
    expect(facts(page)).to_contain_text("finished" if language == "en-US" else "已完成")
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#gauge-text")).to_contain_text("/ 2,048")
    assert fits(page)
    page.screenshot(path=shots / f"done-{language}-{width}.png")


def test_the_whole_conversation_is_sent_without_what_was_thought(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, script(pieces=["<think>hm", ", well</think>\n\n", "one"], stepped=True))
    (call,) = fake.wait_calls(1)
    call.step()
    expect(page.locator(".thinking summary")).to_have_text("Thinking…")
    call.step(2)
    expect(page.locator(".thinking summary")).to_have_text("Thoughts")
    expect(answers(page)).to_have_text("one")
    expect(page.locator(".thought")).to_be_hidden()
    page.click(".thinking summary")
    expect(page.locator(".thought")).to_have_text("hm, well")
    ask(page, "two", wait=True)
    assert [text for _, text in sent(fake)][1:] == ["one", "two"]


def test_stop_cancels_and_keeps_what_came_and_continue_goes_on(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, script(unending=True, delay=0.05))
    expect(answers(page)).to_contain_text("t3 ")
    page.click("#stop")
    fake.calls[0].wait_cancelled()
    expect(facts(page)).to_have_text("stopped")
    expect(answers(page)).to_contain_text("t0 t1 t2 t3")
    tool(page, "Continue").click()
    expect(answers(page)).to_contain_text("You said: t0 t1")
    expect(answers(page)).to_have_count(1)
    assert [role for role, _ in sent(fake)] == ["user", "assistant"]
    assert fake.calls[-1].inputs["continue_final_message"] is True
    # What is sent is what is kept, and what comes goes on where that stops: shown once, and kept.
    come = sent(fake)[1][1]
    expect(answers(page)).to_have_text(f"{come}You said: {come}".strip())
    reload(page)
    expect(answers(page)).to_have_text(f"{come}You said: {come}".strip())


def test_an_answer_that_cannot_go_on_stays_as_it_was(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, script(pieces=["so far"], finish="length"), wait=True)
    fake.queue_full = True
    tool(page, "Continue").click()
    page.get_by_role("button", name="Cancel").click()
    fake.queue_full = False
    expect(answers(page)).to_have_text("so far")
    expect(facts(page)).to_contain_text("cut at the length limit")
    reload(page)
    expect(answers(page)).to_have_text("so far")
    tool(page, "Continue").click()
    expect(answers(page)).to_have_text("so farYou said: so far")


def test_editing_while_an_answer_is_written_loses_nothing(visit: Visits, fake: FakeTriton) -> None:
    """The fault: what was typed into the field of an earlier question vanished, and nothing was sent."""
    page = visit()
    ask(page, "first", wait=True)
    ask(page, script(unending=True, delay=0.05))
    expect(answers(page).nth(1)).to_contain_text("t1 ")
    expect(tool(page, "Edit and send again", 0, "user")).to_be_hidden()
    page.focus("#draft")
    page.keyboard.press("ArrowUp")
    page.fill(".editing textarea", "edited")
    page.press(".editing textarea", "Enter")
    expect(page.locator(".editing textarea")).to_have_value("edited")
    page.click("#stop")
    expect(facts(page).nth(1)).to_have_text("stopped")
    page.press(".editing textarea", "Enter")
    expect(answers(page).nth(1)).to_have_text("You said: edited")


def test_a_question_sent_twice_in_haste_is_asked_once(visit: Visits, fake: FakeTriton) -> None:
    """The fault: until the question was on disk, a second Enter sent it once more."""
    page = visit()
    page.fill("#draft", "one")
    hold_disk(page, "drafts")
    page.press("#draft", "Enter")
    page.press("#draft", "Enter")
    free_disk(page)
    expect(answers(page)).to_have_text("You said: one")
    expect(page.locator("#stop")).to_be_hidden()
    expect(questions(page)).to_have_text("one")
    assert len(fake.calls) == 1


def test_what_is_typed_while_the_disk_is_slow_is_the_next_draft(visit: Visits, fake: FakeTriton) -> None:
    """The faults: it vanished when the question before it was on disk; or that question stayed as a draft."""
    page = visit()
    hold_disk(page, "conversations", "messages", "drafts")
    page.locator("#draft").press_sequentially("one")
    page.press("#draft", "Enter")
    expect(page.locator("#draft")).to_have_value("")
    page.locator("#draft").press_sequentially("two")
    page.press("#draft", "Enter")  # too early
    page.wait_for_timeout(300)  # longer than the page waits before it saves a draft
    free_disk(page)
    expect(answers(page)).to_have_text("You said: one")
    expect(questions(page)).to_have_text("one")
    expect(page.locator("#draft")).to_have_value("two")
    wait_kept(page, "drafts", "two")
    reload(page)
    expect(page.locator("#draft")).to_have_value("two")
    page.click("#fresh")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#draft")).to_have_value("")
    assert len(fake.calls) == 1


@pytest.mark.parametrize("typed", [("one",), ("one", "two")])
def test_a_reload_before_the_question_is_on_disk_loses_nothing(visit: Visits, typed: tuple[str, ...]) -> None:
    page = visit()
    hold_disk(page, "conversations", "messages", "drafts")
    for text in typed:
        page.locator("#draft").press_sequentially(text)
        page.press("#draft", "Enter")
    reload(page)
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#draft")).to_have_value("\n".join(typed))


def test_escape_stops(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, script(unending=True, delay=0.05))
    expect(answers(page)).to_contain_text("t1 ")
    page.keyboard.press("Escape")
    fake.calls[0].wait_cancelled()
    expect(facts(page)).to_have_text("stopped")


def test_an_answer_cut_at_the_limit_says_so(visit: Visits) -> None:
    page = visit()
    ask(page, script(tokens=3, finish="length"), wait=True)
    expect(facts(page)).to_contain_text("cut at the length limit")
    expect(tool(page, "Continue")).to_be_visible()
    ask(page, "whole", wait=True)
    expect(tool(page, "Continue")).to_have_count(0)


def test_regenerate_keeps_the_first_version(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, "one", wait=True)
    ask(page, "two", wait=True)
    tool(page, "Answer again", 0).click()
    expect(questions(page)).to_have_count(1)  # what followed belongs to the first version
    expect(page.locator(".versions")).to_have_text("2/2")
    expect(facts(page)).to_contain_text("finished")
    assert sent(fake) == [("user", "one")]
    tool(page, "Earlier version").click()
    expect(questions(page)).to_have_text(["one", "two"])
    reload(page)
    expect(questions(page)).to_have_text(["one", "two"])
    tool(page, "Later version", 0).click()
    expect(questions(page)).to_have_text(["one"])


def test_edit_and_send_again_keeps_the_first_version(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, "first", wait=True)
    tool(page, "Edit and send again", role="user").click()
    field = page.locator(".editing textarea")
    expect(field).to_be_focused()
    field.fill("never mind")
    field.press("Escape")
    expect(questions(page)).to_have_text("first")
    page.focus("#draft")
    page.keyboard.press("ArrowUp")
    field.fill("second")
    field.press("Enter")
    expect(answers(page)).to_have_text("You said: second")
    expect(page.locator(".turn.user .versions")).to_have_text("2/2")
    assert sent(fake) == [("user", "second")]
    tool(page, "Earlier version", role="user").click()
    expect(answers(page)).to_have_text("You said: first")


def test_branch_makes_a_conversation_of_its_own(visit: Visits) -> None:
    page = visit()
    ask(page, "one", wait=True)
    ask(page, "two", wait=True)
    tool(page, "Branch into a new conversation", 0).click()
    expect(questions(page)).to_have_text(["one"])
    expect(page.locator(".session-title")).to_have_text(["one (branch)", "one"])
    ask(page, "three", wait=True)
    expect(answers(page)).to_have_text(["You said: one", "You said: three"])
    page.click("text=one >> nth=1")
    page.locator(".session-title", has_text=re.compile("^one$")).click()
    expect(questions(page)).to_have_text(["one", "two"])


def too_long(limit: int, count: int) -> dict[str, Any]:
    details = {"prompt_tokens": count, "context_tokens": limit}
    return {"fail_at": 0, "fail_code": "context_length_exceeded", "fail_details": details}


def test_a_full_context_offers_to_drop_the_oldest_turns(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    for text in ("one", "two", "three"):
        ask(page, text, wait=True)
    question = script(**too_long(2048, 3000), fail_times=1)
    ask(page, question)
    expect(page.locator("#notice-text")).to_contain_text("no longer fits the model's context")
    expect(page.locator("#draft")).to_have_value(question)
    page.get_by_role("button", name="Leave the oldest turns out").click()
    expect(answers(page).nth(3)).to_contain_text("You said: fake:")
    expect(page.locator(".divider")).to_contain_text("no longer sent")
    texts = [text for _, text in sent(fake)]
    assert texts[-1] == question
    assert "one" not in texts
    expect(page.locator(".turn.dropped").first).to_contain_text("one")
    reload(page)
    expect(page.locator(".divider")).to_be_visible()


def test_a_conversation_too_large_for_the_server_is_shortened_too(visit: Visits, fake: FakeTriton) -> None:
    """The fault: the body of a very long conversation is refused with 413, for which there was no way out."""
    page = visit()
    big = "x" * 400_000
    # The second time, 1.2 MB are to be sent: two questions and an answer.
    for place, words in ((facts(page), "finished"), (page.locator("#notice-text"), "no longer fits")):
        page.evaluate("(text) => { document.getElementById('draft').value = text }", big)
        page.press("#draft", "Enter")
        expect(place).to_contain_text(words)
    page.get_by_role("button", name="Leave the oldest turns out").click()
    expect(page.locator(".divider")).to_be_visible()
    expect(answers(page)).to_have_count(2)
    assert sent(fake) == [("user", big)]


def test_a_question_that_is_too_long_by_itself_says_so(visit: Visits) -> None:
    page = visit()
    ask(page, script(**too_long(2048, 9000)))
    page.get_by_role("button", name="Leave the oldest turns out").click()
    expect(page.locator("#notice-text")).to_contain_text("question by itself does not fit")
    expect(page.locator("#draft")).not_to_be_empty()


def test_the_gauge_warns_before_the_context_is_full(visit: Visits) -> None:
    page = visit()
    ask(page, script(tokens=1900, finish="length"), wait=True)
    expect(page.locator("#gauge-text")).to_contain_text("/ 2,048")
    expect(page.locator("#gauge")).to_have_class("gauge full")


def press_in_composition(page: Page, field: str) -> None:
    page.evaluate(
        """(field) => document.querySelector(field).dispatchEvent(new KeyboardEvent(
            "keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))""",
        field,
    )


def test_which_enter_sends(visit: Visits, fake: FakeTriton) -> None:
    """The fault: an input method's Enter, which chooses a Chinese word, sent the half-written question."""
    page = visit("zh-CN")
    page.fill("#draft", "ni hao")
    press_in_composition(page, "#draft")
    page.press("#draft", "Shift+Enter")
    page.keyboard.type("2")
    expect(page.locator("#draft")).to_have_value("ni hao\n2")
    assert fake.calls == []
    page.press("#draft", "Enter")
    expect(questions(page)).to_have_text("ni hao\n2")
    expect(answers(page)).to_contain_text("You said")
    tool(page, "修改并重新发送", role="user").click()
    press_in_composition(page, ".editing textarea")
    expect(page.locator(".editing textarea")).to_be_visible()
    assert len(fake.calls) == 1
