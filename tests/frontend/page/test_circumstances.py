"""When things are not well: each circumstance has its words, and what was typed stays."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import Frontend, script

from .conftest import Visits, answers, ask, facts, fits, reload, tool

pytestmark = pytest.mark.browser


@pytest.mark.parametrize(
    ("language", "orders", "words"),
    [
        ("en-US", {"fail_at": 0, "fail_code": "DEADLINE_EXCEEDED"}, "within the time limit"),
        ("zh-CN", {"fail_at": 0, "fail_code": "DEADLINE_EXCEEDED"}, "未能在限定时间内"),
        (
            "en-US",
            {"fail_at": 0, "fail_code": "INVALID_ARGUMENT", "fail_message": "too long: 9 of 8"},
            "too long: 9 of 8",
        ),
        (
            "en-US",  # of the context only by its words
            {"fail_at": 0, "fail_code": "INVALID_ARGUMENT", "fail_message": "the context is odd"},
            "The server refused this: the context is odd",
        ),
        ("en-US", {"fail_at": 0}, "The server failed"),
        ("zh-CN", {"fail_at": 0}, "服务器在生成回答时出错"),
    ],
)
def test_a_failure_has_words_and_the_question_stays(
    visit: Visits, language: str, orders: dict[str, Any], words: str
) -> None:
    page = visit(language)
    ask(page, script(**orders))
    expect(page.locator("#notice-text")).to_contain_text(words)
    expect(page.locator("#draft")).to_have_value(script(**orders))
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#sessions li")).to_have_count(0)


@pytest.mark.parametrize(
    ("language", "words", "count"),
    [("en-US", "The server is busy.", "Trying again in"), ("zh-CN", "服务器繁忙。", "秒后自动重试")],
)
def test_a_busy_server_is_asked_again_by_itself(
    visit: Visits, fake: FakeTriton, shots: Path, language: str, words: str, count: str
) -> None:
    page = visit(language, 360)
    fake.queue_full = True
    try:
        ask(page, "patience")
        expect(page.locator("#notice-text")).to_have_text(words)
        expect(page.locator("#notice-count")).to_contain_text(count)
        expect(page.locator(".turn.user .text")).to_have_text("patience")
        page.screenshot(path=shots / f"busy-{language}-360.png")
        assert fits(page)
    finally:
        fake.queue_full = False
    expect(answers(page)).to_have_text("You said: patience")
    expect(page.locator("#notice")).to_be_hidden()
    assert len(fake.calls) >= 2


def test_waiting_can_be_cut_short_and_given_up(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    page.route(
        "**/chat",
        lambda route: route.fulfill(
            status=429,
            headers={"Retry-After": "60"},
            content_type="application/json",
            body='{"error":{"message":"full","type":"rate_limit_error","param":null,"code":"queue_full"}}',
        ),
    )
    ask(page, "patience")
    expect(page.locator("#notice-count")).to_contain_text(re.compile(r"in \d\d s"))
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#draft")).to_have_value("patience")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#notice")).to_be_hidden()
    page.press("#draft", "Enter")
    expect(page.locator("#notice-count")).to_contain_text(re.compile(r"in \d\d s"))
    page.unroute("**/chat")
    page.get_by_role("button", name="Try now").click()
    expect(answers(page)).to_have_text("You said: patience")


def test_a_question_that_waited_survives_a_reload(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    fake.queue_full = True
    try:
        ask(page, "patience")
        expect(page.locator("#notice-count")).to_contain_text("Trying again")
        reload(page)
        expect(page.locator(".turn.user .text")).to_have_text("patience")
    finally:
        fake.queue_full = False
    tool(page, "Answer again").click()
    expect(answers(page)).to_have_text("You said: patience")


def test_a_failure_in_the_middle_keeps_the_half(visit: Visits, shots: Path) -> None:
    page = visit("zh-CN", 360)
    ask(page, script(tokens=5, fail_at=3, delay=0.05))
    expect(page.locator("#notice-text")).to_have_text("服务器在生成回答时出错。")
    expect(answers(page)).to_have_text("t0 t1 t2")
    expect(facts(page)).to_have_text("已中断")
    page.screenshot(path=shots / "broken-zh-CN-360.png")


def test_an_engine_that_stalls_in_the_middle_is_gone(visit: Visits) -> None:
    page = visit()
    ask(page, script(pieces=["<think>", "hm", "x"], fail_at=2, fail_code="engine_stalled"))
    expect(page.locator("#notice-text")).to_contain_text("gone or restarting")
    expect(page.locator(".thinking summary")).to_have_text("Thoughts")
    expect(facts(page)).to_have_text("broken off")


def test_regenerating_that_fails_brings_the_old_version_back(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, "one", wait=True)
    page.route("**/chat", lambda route: route.abort())
    tool(page, "Answer again").click()
    expect(page.locator("#notice-text")).to_contain_text("cannot be reached")
    expect(answers(page)).to_have_text("You said: one")
    expect(page.locator(".versions")).to_have_count(0)
    tool(page, "Edit and send again", role="user").click()
    page.fill(".editing textarea", "two")
    page.press(".editing textarea", "Enter")
    expect(page.locator(".unanswered")).to_contain_text("Not answered.")
    page.unroute("**/chat")
    page.get_by_role("button", name="Try again").click()
    expect(answers(page)).to_have_text("You said: two")


def test_the_page_without_a_model_and_without_a_server(visit: Visits, another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another()
    fake.ready = False
    page = visit(at=frontend)
    expect(page.locator("#notice-text")).to_contain_text("The model is loading")
    expect(page.locator("#light")).to_have_attribute("data-state", "loading")
    fake.ready = True
    expect(page.locator("#model")).to_have_text("youtu-demo")
    expect(page.locator("#notice")).to_be_hidden()
    ask(page, "before", wait=True)
    frontend.stop()
    ask(page, "anyone?")
    expect(page.locator("#notice-text")).to_contain_text("cannot be reached")
    expect(page.locator("#draft")).to_have_value("anyone?")
    frontend.start()
    expect(page.locator("#notice")).to_be_hidden()
    reload(page)
    expect(answers(page)).to_have_text("You said: before")
    expect(page.locator("#draft")).to_have_value("anyone?")


def test_a_model_that_is_loading_is_waited_for(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    expect(page.locator("#model")).to_have_text("youtu-demo")
    fake.ready = False
    ask(page, "soon")
    expect(page.locator("#notice-text")).to_contain_text("The model is not ready")
    time.sleep(0.3)
    fake.ready = True
    expect(answers(page)).to_have_text("You said: soon")


def test_an_answer_that_was_cut_off_says_so(visit: Visits) -> None:
    page = visit()
    body = 'data: {"delta":"half"}\n\n'
    page.route("**/chat", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    ask(page, "x")
    expect(page.locator("#notice-text")).to_contain_text("connection broke")
    expect(answers(page)).to_have_text("half")
    expect(facts(page)).to_have_text("broken off")


@pytest.mark.parametrize(
    ("description", "shown"),
    [
        (
            "A real, very small model. It is not Youtu-LLM-2B.",
            "A real, very small model. It is not Youtu-LLM-2B.",
        ),
        ("small-one, int8 (Q8_0)", ""),
    ],
)
def test_a_model_that_has_more_to_say_than_its_name_says_it(
    visit: Visits, description: str, shown: str
) -> None:
    page = visit()
    told = page.evaluate("fetch('/page/facts').then((reply) => reply.json())")
    told |= {"demo": False, "model": "small-one", "description": description}
    page.route("**/page/facts", lambda route: route.fulfill(json=told))
    page.reload()
    expect(page.locator("#model")).to_have_text("small-one")
    expect(page).to_have_title("small-one")
    expect(page.locator("#demo")).to_be_hidden()
    expect(page.locator("#about")).to_have_text(shown)
    expect(page.locator("#about")).to_be_visible(visible=bool(shown))
