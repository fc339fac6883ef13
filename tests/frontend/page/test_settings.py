"""Settings, presets, languages, colours and keys of the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import Frontend

from .conftest import Visits, answers, ask, fits, free_disk, hold_disk, reload

pytestmark = pytest.mark.browser


def inputs(fake: FakeTriton) -> dict[str, Any]:
    """What the model was asked for last, but for the conversation."""
    given = dict(fake.calls[-1].inputs)
    given.pop("messages")
    if "chat_template_kwargs" in given:
        given["chat_template_kwargs"] = json.loads(given["chat_template_kwargs"])
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in given.items()}


def system(fake: FakeTriton) -> str | None:
    messages = fake.calls[-1].inputs["messages"]
    messages = json.loads(messages) if isinstance(messages, str) else messages
    return messages[0]["content"] if messages[0]["role"] == "system" else None


def close(page: Page) -> None:
    page.keyboard.press("Escape")
    expect(page.locator("dialog[open]")).to_have_count(0)


def test_nothing_is_sent_that_was_not_set(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, "x", wait=True)
    assert inputs(fake) == {"stream": True, "return_parts": True}
    assert system(fake) is None
    page.click("#open-settings")
    expect(page.locator("#p-temperature")).to_have_attribute("placeholder", "default 0.7")
    expect(page.locator("#p-top_p")).to_have_attribute("placeholder", "default 0.9")
    expect(page.locator("#p-repetition_penalty")).to_have_attribute("placeholder", "default 1.1")
    expect(page.locator("#facts")).to_contain_text("youtu-demo")
    expect(page.locator("#facts")).to_contain_text("It is not Youtu-LLM-2B")
    expect(page.locator("#facts")).to_contain_text("2,048 tokens")
    expect(page.locator("#facts")).to_contain_text("4 answers, 64 more may wait")


def test_every_setting_reaches_the_model_and_is_kept(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    page.click("#open-settings")
    page.fill("#p-system", "Be brief.")
    for name, value in {
        "temperature": "0",
        "top_p": "0.5",
        "repetition_penalty": "1.3",
        "max_tokens": "77",
    }.items():
        page.fill(f"#p-{name}", value)
        page.press(f"#p-{name}", "Tab")
    page.select_option("#p-thinking", "false")
    close(page)
    for _ in range(2):
        ask(page, "x", wait=True)
        assert inputs(fake) == {
            "stream": True,
            "return_parts": True,
            "temperature": 0,
            "top_p": 0.5,
            "repetition_penalty": 1.3,
            "max_tokens": 77,
            "chat_template_kwargs": {"enable_thinking": False},
        }
        assert system(fake) == "Be brief."
        reload(page)
    page.click("#open-settings")
    page.click("#preset-reset")
    expect(page.locator("#p-system")).to_have_value("")
    close(page)
    ask(page, "y", wait=True)
    assert inputs(fake) == {"stream": True, "return_parts": True}


def test_a_number_that_does_not_fit_is_not_taken(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    page.click("#open-settings")
    page.fill("#p-top_p", "3")
    page.press("#p-top_p", "Tab")
    expect(page.locator("#p-top_p")).to_have_attribute("aria-invalid", "true")
    close(page)
    ask(page, "x", wait=True)
    assert inputs(fake) == {"stream": True, "return_parts": True}


@pytest.mark.parametrize(("language", "start"), [("en-US", "You are a coding"), ("zh-CN", "你是编程助手")])
def test_the_presets_of_the_three_scenes(visit: Visits, fake: FakeTriton, language: str, start: str) -> None:
    page = visit(language)
    options = page.locator("#preset option")
    expect(options).to_have_count(4)
    page.locator(".scene").nth(2).click()
    expect(page.locator("#preset")).to_have_value("coding")
    expect(page.locator("#draft")).not_to_be_empty()
    page.press("#draft", "Enter")
    expect(answers(page)).to_contain_text("You said")
    assert (system(fake) or "").startswith(start)
    assert inputs(fake)["temperature"] == 0.2
    # A conversation keeps its preset; a new one starts with the last chosen.
    page.click("#fresh")
    expect(page.locator(".scene").first).to_be_visible()
    expect(page.locator("#preset")).to_have_value("coding")
    page.select_option("#preset", "general")
    page.locator(".session-title").click()
    expect(page.locator("#preset")).to_have_value("coding")


def test_a_preset_chosen_right_after_a_new_chat_is_not_the_old_ones(visit: Visits) -> None:
    """The fault: a new chat began only once the draft was on disk; until then choices went to the old one."""
    page = visit()
    page.select_option("#preset", "support")
    ask(page, "one", wait=True)
    hold_disk(page, "drafts")
    page.click("#fresh")
    page.select_option("#preset", "coding")
    free_disk(page)
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#preset")).to_have_value("coding")
    page.locator(".session-title").click()
    expect(page.locator(".turn")).to_have_count(2)
    expect(page.locator("#preset")).to_have_value("support")


def test_own_presets_are_made_and_deleted(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    page.select_option("#preset", "support")
    page.click("#open-settings")
    page.click("#preset-new")
    page.fill("#question-input", "Mine")
    page.press("#question-input", "Enter")
    expect(page.locator("#edit-preset")).to_contain_text("Mine")
    page.fill("#p-system", "Mine only.")
    close(page)
    page.select_option("#preset", label="Mine")
    ask(page, "x", wait=True)
    assert system(fake) == "Mine only."
    reload(page)
    expect(page.locator("#preset option:checked")).to_have_text("Mine")
    page.click("#open-settings")
    page.click("#preset-delete")
    close(page)
    expect(page.locator("#preset option")).to_have_count(4)
    expect(page.locator("#preset")).to_have_value("general")


def background(page: Page) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_light_dark_and_automatic(visit: Visits, shots: Path) -> None:
    page = visit("zh-CN", color_scheme="dark")
    dark = background(page)
    page.screenshot(path=shots / "dark-zh-CN-1280.png")
    page.click("#open-settings")
    page.select_option("#theme", "light")
    light = background(page)
    assert light != dark
    reload(page)
    assert background(page) == light
    page.emulate_media(color_scheme="light")
    page.click("#open-settings")
    page.select_option("#theme", "auto")
    assert background(page) == light
    page.emulate_media(color_scheme="dark")
    assert background(page) == dark


@pytest.mark.parametrize("width", [1280, 360])
def test_the_language_is_chosen_and_complete(visit: Visits, shots: Path, width: int) -> None:
    page = visit("fr-FR", width)
    if width < 860:
        page.click("#open-sidebar")
    page.click("#open-settings")
    page.select_option("#language-choice", "zh")
    expect(page.locator("#settings-title")).to_have_text("设置")
    expect(page.locator("#p-name")).to_have_value("通用")
    assert fits(page)
    assert page.evaluate(
        "document.getElementById('settings').scrollWidth <= document.getElementById('settings').clientWidth"
    )
    page.screenshot(path=shots / f"settings-zh-{width}.png")
    english = page.evaluate(
        """() => {
            const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            const found = [];
            for (let node = walker.nextNode(); node; node = walker.nextNode()) {
                const hidden = node.parentElement.closest("script, noscript, kbd, [lang], #model, #facts");
                if (!hidden && /[A-Za-z]{3,}/.test(node.data)) found.push(node.data.trim());
            }
            return found;
        }"""
    )
    names = {"English", "Youtu", "JavaScript", "Markdown", "JSON", "CSV", "JSONL", "token", "Enter", "Shift"}
    left = [text for text in english if set(re.findall("[A-Za-z]{3,}", text)) - names - {"Top", "LLM"}]
    assert left == []
    reload(page)
    assert page.evaluate("document.documentElement.lang") == "zh-CN"


def test_the_key_is_asked_for_and_kept_for_this_visit(visit: Visits, another: Any, shots: Path) -> None:
    frontend: Frontend = another(api_key="open-sesame")
    page = visit(width=360, at=frontend)
    ask(page, "hello")
    expect(page.locator("#notice-text")).to_contain_text("API key is missing or wrong")
    expect(page.locator("#draft")).to_have_value("hello")
    expect(page.locator("#key")).to_be_focused()
    assert fits(page)
    page.screenshot(path=shots / "key-en-US-360.png")
    page.fill("#key", "open-sesame")
    page.press("#draft", "Enter")
    expect(answers(page)).to_have_text("You said: hello")
    expect(page.locator("#notice")).to_be_hidden()
    reload(page)
    expect(page.locator("#key")).to_have_value("open-sesame")
    expect(answers(page).locator("p")).to_have_text("You said: hello")  # rendering asks for it, too
    assert "open-sesame" not in page.evaluate("JSON.stringify(localStorage)")


def test_no_key_no_field(visit: Visits) -> None:
    expect(visit().locator("#key-line")).to_be_hidden()


def test_the_keyboard_reaches_everything(visit: Visits) -> None:
    page = visit()
    page.keyboard.press("Control+/")
    expect(page.locator("#shortcuts")).to_be_visible()
    expect(page.locator("#shortcut-list dd")).to_have_count(10)
    page.keyboard.press("Escape")
    page.keyboard.press("Control+,")
    expect(page.locator("#settings")).to_be_visible()
    page.keyboard.press("Escape")
    ask(page, "one", wait=True)
    page.keyboard.press("Control+Shift+O")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#draft")).to_be_focused()
    page.keyboard.press("Control+k")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".turn.user")).to_have_count(1)
    first = "document.querySelector('a[href], button, input, select, textarea').id"
    assert page.evaluate(first) == "skip"


def test_the_sidebar_of_a_narrow_page(visit: Visits, shots: Path) -> None:
    page = visit(width=360)
    ask(page, "one", wait=True)
    expect(page.locator("#sidebar")).not_to_be_in_viewport()
    page.click("#open-sidebar")
    expect(page.locator("#sidebar")).to_be_in_viewport()
    expect(page.locator("#close-sidebar")).to_be_focused()
    page.screenshot(path=shots / "sidebar-en-US-360.png")
    page.keyboard.press("Escape")
    expect(page.locator("#sidebar")).not_to_be_in_viewport()
    expect(page.locator("#open-sidebar")).to_be_focused()
    page.click("#open-sidebar")
    page.click("#fresh")
    expect(page.locator("#sidebar")).not_to_be_in_viewport()
    assert fits(page)
