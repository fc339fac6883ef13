"""Everything that was made in a browser in one file, and files that the terminal and the page share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from youtu_cli.conversation import Conversation

from .conftest import Visits, answers, ask, questions
from .test_bench import start

pytestmark = pytest.mark.browser


def export(page: Page, path: Path) -> Any:
    page.keyboard.press("Control+,")
    with page.expect_download() as event:
        page.get_by_role("button", name="Export everything as JSON").click()
    event.value.save_as(path)
    page.keyboard.press("Escape")
    return json.loads(path.read_text())


def bring(page: Page, path: Path, said: str) -> None:
    page.keyboard.press("Control+,")
    page.set_input_files("#import-file", path)
    expect(page.locator("#data-said")).to_have_text(said)
    page.keyboard.press("Escape")


def kept(page: Page, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(
        'async (name) => (await import("/static/store.js")).all(name)', name
    )
    return found


def test_everything_moves_to_another_browser(visit: Visits, tmp_path: Path) -> None:
    page = visit()
    page.keyboard.press("Control+,")
    page.click("#preset-new")
    page.fill("#question-input", "Mine")
    page.press("#question-input", "Enter")
    page.fill("#p-system", "Be kind.")
    page.fill("#p-temperature", "0.1")
    page.locator("#p-temperature").blur()
    page.keyboard.press("Escape")
    page.select_option("#preset", label="Mine")
    page.select_option("#thinking", "false")
    ask(page, "hello", wait=True)
    page.click("#open-library")
    page.click("#library-new")
    page.fill("#library-text", "Dear {name},")
    page.click("#library-form button[type=submit]")
    page.keyboard.press("Escape")
    page.click("#to-bench")
    expect(page.locator("#b-source")).to_be_visible()
    start(page, "question,category\none,a\ntwo,b\n")
    expect(page.locator("#b-counts")).to_have_text("2 of 2 answered")
    page.locator(".b-row").first.click()
    page.fill("#b-answer", "corrected")
    page.click("#b-good")
    expect(page.locator("#b-counts")).to_contain_text("1 good")
    file = export(page, tmp_path / "all.json")
    assert set(file) == {"format", "version", "exported", "conversations", "presets", "templates", "batches"}
    other = visit()
    said = "New: 1 conversations, 2 messages, 1 presets, 1 texts, 1 lists."
    bring(other, tmp_path / "all.json", said)
    bring(other, tmp_path / "all.json", "New: 0 conversations, 0 messages.")
    same = {
        "conversations": ("id", "title", "created", "updated", "leaf", "start", "preset", "thinking"),
        "messages": ("id", "conversation", "parent", "role", "content", "created"),
        "presets": ("id", "name", "system", "temperature", "thinking", "created"),
        "templates": ("id", "title", "text", "category", "created"),
        "batches": ("id", "name", "created", "preset", "running"),
        "rows": ("batch", "number", "question", "answer", "original", "good", "state", "category", "tokens"),
    }
    for name, fields in same.items():
        before, after = (
            [[one.get(field) for field in fields] for one in kept(at, name)] for at in (page, other)
        )
        assert sorted(after, key=str) == sorted(before, key=str), name
    other.locator("#sessions a").click()
    expect(other.locator("#preset option:checked")).to_have_text("Mine")
    expect(other.locator("#thinking")).to_have_value("false")
    other.click("#to-bench")
    expect(other.locator("#b-counts")).to_have_text("2 of 2 answered · 1 good")


HOSTILE = {
    "presets": [
        {"id": "x"},
        {"id": 1, "name": "n"},
        None,
        {"id": "y", "name": "n", "temperature": "1", "z": 1},
    ],
    "templates": [{"id": "t"}, {"id": "u", "text": "ok", "title": {}}],
    "batches": [
        {
            "id": "b",
            "name": "n",
            "running": True,
            "runner": {"tab": "x"},
            "rows": [{"number": 0}, {"number": 2}],
        }
    ],
}


def test_files_are_not_trusted(visit: Visits, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(
        json.dumps({"format": "youtu-conversations", "version": 2, "conversations": [], **HOSTILE})
    )
    page = visit()
    bring(page, path, "New: 0 conversations, 0 messages, 1 presets, 1 texts, 1 lists.")
    assert kept(page, "presets") == [{"id": "y", "name": "n", "created": 0}]
    assert kept(page, "templates") == [{"id": "u", "text": "ok", "title": "", "category": "", "created": 0}]
    assert kept(page, "rows") == []
    assert kept(page, "batches")[0]["running"] is False


def test_the_terminal_and_the_page_share_a_format(visit: Visits, tmp_path: Path) -> None:
    """The fault: each wrote a format that the other did not read."""
    talk = Conversation(
        "Be brief.", [{"role": "user", "content": "一"}, {"role": "assistant", "content": "**二**"}]
    )
    path = tmp_path / "talk.json"
    talk.write(path)
    page = visit()
    bring(page, path, "New: 1 conversations, 2 messages.")
    page.locator("#sessions a").click()
    expect(answers(page).locator("strong")).to_have_text("二")
    expect(page.locator("#preset option:checked")).to_have_text("Be brief.")
    ask(page, "three", wait=True)
    export(page, path)
    back = Conversation.read(path)
    assert back.system == "Be brief."
    assert [turn["content"] for turn in back.messages] == ["一", "**二**", "three", "You said: three"]
    back.messages += [{"role": "user", "content": "four"}, {"role": "assistant", "content": "five"}]
    back.write(path)
    other = visit()
    bring(other, path, "New: 1 conversations, 6 messages.")
    talk.write(path)
    third = visit()
    bring(third, path, "New: 1 conversations, 2 messages.")
    talk.messages += [{"role": "user", "content": "more"}]
    talk.write(path)
    bring(third, path, "New: 0 conversations, 1 messages.")
    third.locator("#sessions a").click()
    expect(questions(third).last).to_have_text("more")


@pytest.mark.parametrize("turns", ['{"system": "S", "messages": %s}', "%s"])
def test_what_the_terminal_wrote_before_and_the_apis_take(visit: Visits, tmp_path: Path, turns: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(turns % '[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]')
    page = visit()
    bring(page, path, "New: 1 conversations, 2 messages.")
    page.locator("#sessions a").click()
    expect(answers(page)).to_have_text("a")
