"""The page at `/`, in Debian's Chromium: it streams, shows text as text, in both languages, loses nothing."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.client.fake_triton import FakeTriton

from .conftest import ROOT, Frontend, script

STATIC = ROOT / "frontend" / "static"
CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def test_both_languages_have_every_word() -> None:
    """The fault: a word that exists in one language only shows as `undefined` in the other."""
    source = (STATIC / "strings.js").read_text(encoding="utf-8")
    english, chinese = (
        re.findall(r"^    (\w+): ", part, re.M) for part in re.split(r"^  zh: \{", source, flags=re.M)
    )
    assert english == chinese
    html = (ROOT / "frontend" / "templates" / "index.html").read_text(encoding="utf-8")
    code = (STATIC / "chat.js").read_text(encoding="utf-8")
    used = re.findall(r'data-(?:text|hint|label)="(\w+)"', html) + re.findall(
        r'\b(?:say|show)\("(\w+)"', code
    )
    assert used
    assert set(used) <= set(english)


def test_nothing_is_fetched_from_elsewhere(app: FlaskClient) -> None:
    html = app.get("/").get_data(as_text=True)
    assert "<script>" not in html
    assert " style=" not in html
    assert " on" not in re.sub(r">[^<]*<", "><", html)
    files = re.findall(r'(?:src|href)="([^"]+)"', html)
    assert len(files) == 3
    size = len(html)
    for path in [*files, "/static/strings.js", "/static/stream.js"]:
        reply = app.get(path)
        assert reply.status_code == 200
        assert "http://" not in reply.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in reply.text
        size += len(reply.data)
    assert size < 40_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where pictures of the page go: `SHOTS` of the environment, or a folder that pytest cleans up."""
    folder = Path(os.environ.get("SHOTS", tmp_path))
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def visit(browser: Browser, frontend: Frontend) -> Iterator[Any]:
    """Opens the page: `visit(language, width)`. At the end nothing may have been said on the console."""
    contexts = []
    said: list[str] = []

    def open_(language: str = "en-US", width: int = 1280, at: Frontend = frontend) -> Page:
        context = browser.new_context(locale=language, viewport={"width": width, "height": 740})
        contexts.append(context)
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://127.0.0.1:{at.port}/")
        return page

    yield open_
    for context in contexts:
        context.close()
    # A refused request is what some tests are about; Chromium writes it down by itself.
    assert [text for text in said if not text.startswith("Failed to load resource")] == []


def ask(page: Page, question: str) -> None:
    page.fill("#draft", question)
    page.press("#draft", "Enter")


def fits(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en-US", {"send": "Send", "demo": "demo", "about": "It is not Youtu-LLM-2B."}),
        ("zh-CN", {"send": "发送", "demo": "演示", "about": "不是 Youtu-LLM-2B"}),
    ],
)
def test_a_question_streams_an_answer(
    visit: Any, shots: Path, language: str, words: dict[str, str], width: int
) -> None:
    page = visit(language, width)
    expect(page.locator("#model")).to_have_text("youtu-demo")
    for name, text in words.items():
        expect(page.locator(f"#{name}")).to_contain_text(text)
    expect(page.locator("#send")).to_be_disabled()
    page.screenshot(path=shots / f"empty-{language}-{width}.png")
    answer = [
        "def is_prime(n):\n",
        "    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))\n\n",
        "质数只能被 1 和自身整除。" * 6,
    ]
    ask(page, script(pieces=answer, delay=0.8))
    text = page.locator(".assistant .text")
    expect(text).to_have_text(answer[0])  # The first piece stands there while the rest is still to come.
    expect(page.locator("#stop")).to_be_visible()
    page.screenshot(path=shots / f"streaming-{language}-{width}.png")
    expect(text).to_have_text("".join(answer))
    expect(page.locator(".facts")).to_contain_text("3 tokens" if language == "en-US" else "3 个 token")
    expect(page.locator("#stop")).to_be_hidden()
    ask(page, "你好，谢谢！ And in English, please.")
    expect(page.locator(".assistant .text").nth(1)).to_contain_text("You said: 你好，谢谢！")
    expect(page.locator(".assistant.open")).to_have_count(0)
    assert fits(page)
    page.screenshot(path=shots / f"done-{language}-{width}.png")


@pytest.mark.browser
def test_the_whole_conversation_is_sent(visit: Any, fake: FakeTriton) -> None:
    page = visit()
    ask(page, "one")
    expect(page.locator(".facts")).to_contain_text("tokens")
    ask(page, "two")
    expect(page.locator(".facts")).to_have_count(2)
    expect(page.locator(".assistant.open")).to_have_count(0)
    messages = fake.calls[-1].inputs["messages"]
    messages = json.loads(messages) if isinstance(messages, str) else messages
    assert [message["content"] for message in messages] == ["one", "You said: one", "two"]


@pytest.mark.browser
def test_hostile_text_is_shown_as_text(visit: Any) -> None:
    hostile = (
        "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script><b>b</b> &lt;"
    )
    page = visit()
    ask(page, script(pieces=[hostile, "."], delay=1))
    expect(page.locator(".assistant.open .text")).to_have_text(hostile)
    expect(page.locator("main img, main script, main b")).to_have_count(0)
    expect(page.locator(".assistant .text")).to_have_text(f"{hostile}.")
    page.reload()
    expect(page.locator(".assistant .text")).to_have_text(f"{hostile}.")
    expect(page.locator("main img, main script, main b")).to_have_count(0)
    assert page.title() == "youtu-demo"


@pytest.mark.browser
def test_stop_cancels_and_keeps_what_came(visit: Any, fake: FakeTriton) -> None:
    page = visit()
    ask(page, script(unending=True, delay=0.05))
    expect(page.locator(".assistant .text")).to_contain_text("t3 ")
    page.click("#stop")
    fake.calls[0].wait_cancelled()
    expect(page.locator(".facts")).to_have_text("stopped")
    expect(page.locator(".assistant .text")).to_contain_text("t0 t1 t2 t3 ")
    ask(page, "next")
    expect(page.locator(".assistant .text").nth(1)).to_contain_text("You said: next")


@pytest.mark.browser
def test_a_reload_loses_nothing(visit: Any) -> None:
    page = visit()
    ask(page, "remember me")
    expect(page.locator(".facts")).to_contain_text("tokens")
    page.click("#language")
    page.fill("#draft", "half a quest")
    page.reload()
    expect(page.locator(".user .text")).to_have_text("remember me")
    expect(page.locator(".assistant .text")).to_have_text("You said: remember me")
    expect(page.locator("#draft")).to_have_value("half a quest")
    expect(page.locator("#send")).to_have_text("发送")
    ask(page, script(unending=True, delay=0.05))
    expect(page.locator(".assistant .text").nth(1)).to_contain_text("t2 ")
    page.reload()
    expect(page.locator(".assistant .text").nth(1)).to_contain_text("t0 t1 t2 ")
    expect(page.locator(".facts").nth(1)).to_have_text("已中断")
    page.click("#fresh")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()


@pytest.mark.browser
def test_which_enter_sends(visit: Any, fake: FakeTriton) -> None:
    """The fault: an input method's Enter, which chooses a Chinese word, sent the half-written question."""
    page = visit("zh-CN")
    page.fill("#draft", "ni hao")
    page.evaluate(
        """() => document.getElementById("draft").dispatchEvent(new KeyboardEvent(
            "keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))"""
    )
    page.press("#draft", "Shift+Enter")
    page.keyboard.type("2")
    expect(page.locator("#draft")).to_have_value("ni hao\n2")
    assert fake.calls == []
    page.press("#draft", "Enter")
    expect(page.locator(".user .text")).to_have_text("ni hao\n2")


@pytest.mark.browser
@pytest.mark.parametrize(
    ("orders", "words"),
    [
        ({"queue_full": True}, "busy. Try again in 1 s"),
        ({"not_ready": True}, "not ready. Try again in 2 s"),
        ({"fail_at": 0, "fail_code": "DEADLINE_EXCEEDED"}, "within the time limit"),
        (
            {"fail_at": 0, "fail_code": "INVALID_ARGUMENT", "fail_message": "too long: 9 of 8"},
            "too long: 9 of 8",
        ),
        ({"fail_at": 0}, "The server failed"),
    ],
)
def test_a_failure_has_words_and_the_question_stays(visit: Any, orders: dict[str, Any], words: str) -> None:
    page = visit()
    ask(page, script(**orders))
    expect(page.locator("#notice")).to_contain_text(words)
    expect(page.locator("#draft")).to_have_value(script(**orders))
    expect(page.locator(".turn")).to_have_count(0)


@pytest.mark.browser
def test_a_failure_in_the_middle_keeps_the_half(visit: Any, shots: Path) -> None:
    page = visit("zh-CN", 360)
    ask(page, script(tokens=5, fail_at=3, delay=0.05))
    expect(page.locator("#notice")).to_have_text("服务器在生成回答时出错。")
    expect(page.locator(".assistant .text")).to_have_text("t0 t1 t2 ")
    expect(page.locator(".facts")).to_have_text("已中断")
    page.screenshot(path=shots / "broken-zh-CN-360.png")


@pytest.mark.browser
def test_the_page_without_a_model_and_without_a_server(visit: Any, another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another()
    fake.ready = False
    page = visit(at=frontend)
    expect(page.locator("#notice")).to_contain_text("The model is loading")
    fake.ready = True
    expect(page.locator("#model")).to_have_text("youtu-demo")
    expect(page.locator("#notice")).to_be_hidden()
    frontend.stop()
    ask(page, "anyone?")
    expect(page.locator("#notice")).to_contain_text("cannot be reached")
    expect(page.locator("#draft")).to_have_value("anyone?")
    frontend.start()
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.browser
def test_the_key_is_asked_for_and_kept_for_this_visit(visit: Any, another: Any, shots: Path) -> None:
    frontend: Frontend = another(api_key="open-sesame")
    page = visit(width=360, at=frontend)
    ask(page, "hello")
    expect(page.locator("#notice")).to_contain_text("API key is missing or wrong")
    assert fits(page)
    page.screenshot(path=shots / "key-en-US-360.png")
    page.fill("#key", "open-sesame")
    page.press("#draft", "Enter")
    expect(page.locator(".assistant .text")).to_have_text("You said: hello")
    expect(page.locator("#notice")).to_be_hidden()
    page.reload()
    expect(page.locator("#key")).to_have_value("open-sesame")
    assert "open-sesame" not in page.evaluate("JSON.stringify(localStorage)")
