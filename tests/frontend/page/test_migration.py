"""What earlier versions of the page have kept or exported: messages whose thinking was part of their text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from playwright.sync_api import Page, expect

from tests.frontend.conftest import script

from .conftest import Visits, answers, ask, facts, ready, reload, wait_until

pytestmark = pytest.mark.browser


class Old(NamedTuple):
    """An answer as it was kept, and what it is now."""

    raw: str
    thinks: bool
    content: str
    reasoning: str | None


SHAPES = {
    "starts within, closed": Old("so it is\n</think>\n\n42", True, "42", "so it is"),
    "starts within, not closed": Old("so it is", True, "", "so it is"),
    "starts within and opens": Old("<think>so</think>42", True, "42", "so"),
    "tags": Old("\n<think>\nhm\n\nwell</think>\n\n**yes** </think>", False, "**yes** </think>", "hm\n\nwell"),
    "cut off": Old("<think>hm, 1 <", False, "", "hm, 1 <"),
    "empty": Old("<think>\n\n</think>\n\nplain", False, "plain", None),
    "none": Old("  just text\n", False, "  just text\n", None),
    "later": Old("Use <think>x</think>.", False, "Use <think>x</think>.", None),
    "looks like it": Old("<thinking>x</thinking>", False, "<thinking>x</thinking>", None),
    "beginning of it": Old("<thi", False, "<thi", None),
}

FACTS = {
    "model": "youtu-old",
    "finish_reason": "stop",
    "token_count": 7,
    "usage": {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8, "cached_tokens": 0},
    "timings": {"ttft_s": 0.1, "total_s": 0.2, "tokens_per_second": 9},
}


def conversation(number: int, name: str, old: Old) -> dict[str, Any]:
    """One as version 1 exported it: a question, an answer, and a question that looks like thinking."""
    answer: dict[str, Any] = {"id": f"b{number}", "parent": f"a{number}", "role": "assistant"}
    answer |= {"content": old.raw, "created": 2}
    if old.thinks:
        answer["thinks"] = True
    if name == "cut off":
        answer["end"] = "stopped"
    else:
        answer["facts"] = FACTS | ({"starts_in_thinking": True} if old.thinks else {})
    asked = {"id": f"a{number}", "parent": None, "role": "user", "content": f"q{number}", "created": 1}
    last = {"id": f"d{number}", "parent": f"b{number}", "role": "user", "content": "<think>my", "created": 3}
    return {
        "id": f"c{number}",
        "title": name,
        "named": True,
        "created": number,
        "updated": number,
        "leaf": last["id"],
        "start": None,
        "preset": "general",
        "messages": [asked, answer, last],
    }


CONVERSATIONS = [conversation(number, name, old) for number, (name, old) in enumerate(SHAPES.items())]

WRITE = """(conversations) => new Promise((resolve, reject) => {
    const request = indexedDB.open("youtu", 1);
    request.onupgradeneeded = () => {
        const made = (name, keyPath, index) => {
            const store = request.result.createObjectStore(name, { keyPath });
            if (index) store.createIndex(index, index);
        };
        made("conversations", "id");
        made("messages", "id", "conversation");
        made("drafts", ["conversation", "tab"], "conversation");
        made("presets", "id");
        made("batches", "id");
        made("rows", ["batch", "number"], "batch");
    };
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
        window.database = request.result;
        database.onversionchange = () => database.close();
        const writing = database.transaction(["conversations", "messages", "drafts", "presets"], "readwrite");
        for (const { messages, ...conversation } of conversations) {
            writing.objectStore("conversations").put(conversation);
            for (const message of messages) {
                writing.objectStore("messages").put({ ...message, conversation: conversation.id });
            }
        }
        writing.objectStore("drafts").put({ conversation: "c0", tab: "x", text: "half a quest", updated: 1 });
        writing.objectStore("presets").put({ id: "mine", name: "Mine", created: 1 });
        writing.oncomplete = resolve;
    };
})"""
"""Writes the database as version 1 of the page did, and keeps it open as that page did."""


def old_tab(visit: Visits, conversations: list[dict[str, Any]]) -> Page:
    """A tab of a new browser profile that has kept these; it is not our page, but of the same origin."""
    context = visit.browser.new_context(locale="en-US")
    visit.contexts.append(context)
    page = context.new_page()
    page.goto(f"{visit.url}/static/icon.svg")
    page.evaluate(WRITE, conversations)
    return page


def kept(page: Page, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate(
        'async (name) => (await import("/static/store.js")).all(name)', name
    )
    return found


def check_messages(page: Page) -> None:
    messages = {message["id"]: message for message in kept(page, "messages")}
    assert len(messages) == 3 * len(SHAPES)
    for number, old in enumerate(SHAPES.values()):
        message = messages[f"b{number}"]
        assert (message["content"], message.get("reasoning")) == (old.content, old.reasoning)
        assert "thinks" not in message
        assert message.get("facts", FACTS) == FACTS
        assert ("facts" in message) != (message.get("end") == "stopped")
        assert messages[f"a{number}"]["content"] == f"q{number}"
        assert messages[f"d{number}"]["content"] == "<think>my"


def check_shown(page: Page) -> None:
    """Every conversation as the page shows it: thinking folded, the text of the answer alone."""
    titles = page.locator(".session-title")
    expect(titles).to_have_text(list(reversed(SHAPES)))
    for name, old in SHAPES.items():
        titles.get_by_text(name, exact=True).click()
        # The page that renders an answer drops what Markdown does not show.
        shown = old.content.replace("**", "").replace("<think>", "").replace("</think>", "").strip(" .\n")
        expect(answers(page)).to_contain_text(shown[:4])
        expect(facts(page)).to_contain_text("stopped" if name == "cut off" else "7 tokens")
        expect(page.locator(".thinking summary")).to_have_count(1 if old.reasoning else 0)
        if old.reasoning:
            expect(page.locator(".thinking summary")).to_have_text("Thoughts")
            expect(page.locator(".thought")).to_be_hidden()
            page.click(".thinking summary")
            expect(page.locator(".thought")).to_contain_text(old.reasoning.split("\n")[-1])


def test_what_version_1_kept_is_migrated(visit: Visits, shots: Path) -> None:
    old = old_tab(visit, CONVERSATIONS)
    old.goto(visit.url)
    ready(old)
    check_messages(old)
    check_shown(old)
    old.screenshot(path=shots / "migrated.png")
    assert [draft["text"] for draft in kept(old, "drafts") if draft["tab"] == "x"] == ["half a quest"]
    assert [preset["name"] for preset in kept(old, "presets")] == ["Mine"]
    # Only once: an answer that looks like thinking now stays as it is.
    ask(old, script(pieces=["plain"]), wait=True)
    old.evaluate(
        """async () => {
            const store = await import("/static/store.js");
            await store.change("messages", "b6", (message) => void (message.content = "<think>literal"));
        }"""
    )
    reload(old)
    assert {message["id"]: message for message in kept(old, "messages")}["b6"]["content"] == "<think>literal"


def test_an_export_of_version_1_is_migrated(visit: Visits, tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    file.write_text(
        json.dumps({"format": "youtu-conversations", "version": 1, "conversations": CONVERSATIONS})
    )
    page = visit()
    page.click("#open-settings")
    page.set_input_files("#import-file", file)
    expect(page.locator("#data-said")).to_have_text(
        f"New: {len(SHAPES)} conversations, {3 * len(SHAPES)} messages."
    )
    page.keyboard.press("Escape")
    check_messages(page)
    check_shown(page)


OLD_MARKDOWN = (
    "<!-- youtu:conversation -->\n# old\n\n<!-- youtu:user -->\n## You\n\nq\n\n"
    "<!-- youtu:assistant -->\n## Assistant\n\n<think>hm</think>\n\nyes\n"
)


def test_an_old_markdown_file_is_migrated(visit: Visits, tmp_path: Path) -> None:
    file = tmp_path / "old.md"
    file.write_text(OLD_MARKDOWN)
    page = visit()
    page.click("#open-settings")
    page.set_input_files("#import-file", file)
    expect(page.locator("#data-said")).to_have_text("New: 1 conversations, 2 messages.")
    (answer,) = [message for message in kept(page, "messages") if message["role"] == "assistant"]
    assert (answer["content"], answer["reasoning"]) == ("yes", "hm")


@pytest.mark.parametrize("kind", ["json", "md"])
def test_an_export_of_today_keeps_the_parts(visit: Visits, tmp_path: Path, kind: str) -> None:
    """Also where an answer begins like thinking, or thinking looks like the marks of the file."""
    page = visit()
    pieces = ["<think>", "> hm\n\n<!-- youtu:user -->\nwell\n>", "</think>", "> <think>no\n\n> more"]
    ask(page, script(pieces=pieces), wait=True)
    ask(page, script(pieces=["<thi", "nking>"]), wait=True)
    page.evaluate(
        """async () => {
            const store = await import("/static/store.js");
            const last = (await store.all("messages")).find(({ content }) => content === "<thinking>");
            await store.change("messages", last.id, (message) => void (message.content = "<think>literal"));
        }"""
    )
    file = tmp_path / f"today.{kind}"
    page.click("#open-settings")
    with page.expect_download() as event:
        page.click("#export-all" if kind == "json" else "#export-all-md")
    event.value.save_as(file)
    other = visit()
    other.click("#open-settings")
    other.set_input_files("#import-file", file)
    expect(other.locator("#data-said")).to_have_text("New: 1 conversations, 4 messages.")
    parts = [
        (message["content"], message.get("reasoning"))
        for message in sorted(kept(other, "messages"), key=lambda message: message["created"])
        if message["role"] == "assistant"
    ]
    assert parts == [
        ("> <think>no\n\n> more", "> hm\n\n<!-- youtu:user -->\nwell\n>"),
        ("<think>literal", None),
    ]


TALK = """() => {
    window.channel = new BroadcastChannel("youtu");
    channel.onmessage = ({ data }) => {
        if (data.kind === "here") channel.postMessage({ kind: "answer", tab: "old" });
    };
    addEventListener("pagehide", () => channel.postMessage({ kind: "gone", tab: "old" }));
}"""
"""What version 1 of the page said to other tabs."""

FINISH = """(facts) => new Promise((resolve) => {
    const writing = database.transaction("messages", "readwrite");
    writing.objectStore("messages").put({
        id: "b0", conversation: "c0", parent: "a0", role: "assistant", created: 2, facts,
        content: "<think>hm</think>the end",
    });
    writing.oncomplete = resolve;
})"""


@pytest.mark.parametrize("goes", ["closed", "reloaded"])
def test_the_migration_waits_for_a_tab_with_the_earlier_page(visit: Visits, shots: Path, goes: str) -> None:
    """The fault: once the store has a new version, an earlier page cannot even save the answer under way."""
    talk = conversation(0, "talk", Old("<think>hm", False, "", "hm"))
    talk["messages"].pop()
    talk["leaf"] = "b0"
    old = old_tab(visit, [talk])
    old.evaluate(TALK)
    new = old.context.new_page()
    new.set_default_timeout(60_000)
    new.on("pageerror", lambda error: visit.said.append(f"{error} {error.stack}"))
    new.goto(visit.url)
    expect(new.locator("#notice-text")).to_contain_text("Another tab still runs an earlier version")
    new.screenshot(path=shots / "earlier-tab.png")
    old.evaluate(FINISH, FACTS)  # its connection is open, and what it writes is kept
    expect(new.locator("body[data-ready]")).to_have_count(0)
    if goes == "closed":
        old.close(run_before_unload=True)
    else:
        old.goto(visit.url)
        ready(old)
    ready(new)
    expect(new.locator("#notice")).to_be_hidden()
    new.locator(".session-title").click()
    expect(answers(new)).to_have_text("the end")
    expect(new.locator(".thinking summary")).to_have_text("Thoughts")


def test_a_tab_that_does_not_let_go_of_the_store_does_not_stop_the_page(visit: Visits) -> None:
    old = old_tab(visit, CONVERSATIONS[:1])
    old.evaluate("database.onversionchange = null")
    new = visit.tab(old.context, visit.url)
    expect(new.locator("#notice-text")).to_have_text("This browser does not keep the conversations: blocked")
    ask(new, "hello", wait=True)
    expect(answers(new)).to_have_text("You said: hello")
    old.close()
    # The upgrade that was waiting is done now, and nothing holds the store.
    wait_until(
        new,
        lambda: new.evaluate("async () => (await indexedDB.databases())[0].version") == 3,
        "version 3",
    )
    reload(new)
    assert {message["id"] for message in kept(new, "messages")} == {"a0", "b0", "d0"}
