"""The conversations of the page: kept in the browser, found, renamed, carried over, never overwritten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error, Page, expect

from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import script

from .conftest import Visits, answers, ask, facts, questions, ready, reload, tool, wait_kept, wait_until

pytestmark = pytest.mark.browser


def titles(page: Page) -> Any:
    return page.locator(".session-title")


def more(page: Page, title: str, item: str) -> None:
    """An entry of a conversation's menu."""
    page.get_by_role("button", name=f"More for “{title}”").click()
    page.locator(".session-tools").get_by_role("button", name=item).click()


def test_a_reload_loses_nothing(visit: Visits) -> None:
    page = visit()
    ask(page, "remember me", wait=True)
    page.click("#language")
    page.fill("#draft", "half a quest")
    reload(page)
    expect(questions(page)).to_have_text("remember me")
    expect(answers(page)).to_have_text("You said: remember me")
    expect(page.locator("#draft")).to_have_value("half a quest")
    expect(page.locator("#fresh")).to_have_text("新对话")
    ask(page, script(unending=True, delay=0.05))
    expect(answers(page).nth(1)).to_contain_text("t9 ")
    reload(page)
    expect(answers(page).nth(1)).to_contain_text("t0 t1 t2 ")
    expect(facts(page).nth(1)).to_have_text("已中断")
    page.click("#fresh")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator("#empty")).to_be_visible()


def test_a_crash_loses_nothing(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, "first", wait=True)
    ask(page, script(unending=True, delay=0.05))
    expect(answers(page).nth(1)).to_contain_text("t20 ")
    page.fill("#draft", "half a quest")
    wait_kept(page, "drafts", "half a quest")
    wait_kept(page, "messages", "t0 t1 t2 ")
    context, url = page.context, page.url
    with pytest.raises(Error, match="crash"):
        page.goto("chrome://crash")
    fake.calls[1].wait_cancelled()
    page.close()
    page = visit.tab(context, url)  # a new tab, which does not know the old one's draft by its id
    expect(answers(page).nth(1)).to_contain_text("t0 t1 t2 ")
    expect(page.locator("#draft")).to_have_value("half a quest")
    # Only by and by: the other tab might be alive and just slow.
    expect(facts(page).nth(1)).to_have_text("broken off")
    expect(tool(page, "Answer again")).to_be_visible()


def test_the_list_has_titles_and_is_searched(visit: Visits) -> None:
    page = visit()
    for text in ("About teapots\nsecond line", "Printers", "怎么退货？"):
        ask(page, text, wait=True)
        page.click("#fresh")
        expect(page.locator(".turn")).to_have_count(0)
    expect(titles(page)).to_have_text(["怎么退货？", "Printers", "About teapots"])
    page.keyboard.press("Control+k")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("SECOND line")  # in the text, not in the title
    expect(titles(page)).to_have_text(["About teapots"])
    page.fill("#search", "退货")
    expect(titles(page)).to_have_text(["怎么退货？"])
    page.fill("#search", "nowhere")
    expect(page.locator("#no-sessions")).to_have_text("Nothing found.")
    page.fill("#search", "")
    titles(page).nth(2).click()
    expect(questions(page)).to_have_text("About teapots\nsecond line")


def test_rename_delete_and_clear(visit: Visits) -> None:
    page = visit()
    for text in ("one", "two"):
        page.click("#fresh")
        expect(page.locator(".turn")).to_have_count(0)
        ask(page, text, wait=True)
    more(page, "two", "Rename")
    field = page.locator("#question-input")
    expect(field).to_have_value("two")
    field.fill("<b>second</b>")
    field.press("Enter")
    expect(titles(page)).to_have_text(["<b>second</b>", "one"])
    more(page, "<b>second</b>", "Delete")
    page.locator("#question").get_by_role("button", name="Cancel").click()
    expect(titles(page)).to_have_count(2)
    more(page, "<b>second</b>", "Delete")
    page.locator("#question-yes").click()
    expect(titles(page)).to_have_text(["one"])
    expect(page.locator(".turn")).to_have_count(0)
    reload(page)
    expect(titles(page)).to_have_text(["one"])
    page.click("#open-settings")
    page.get_by_role("button", name="Delete all").click()
    page.locator("#question-yes").click()
    expect(page.locator("#data-said")).to_have_text("All conversations are deleted.")
    reload(page)
    expect(titles(page)).to_have_count(0)


def test_each_conversation_has_its_own_draft(visit: Visits) -> None:
    page = visit()
    ask(page, "one", wait=True)
    page.fill("#draft", "draft of one")
    page.click("#fresh")
    expect(page.locator("#draft")).to_have_value("")
    page.fill("#draft", "draft of none")
    titles(page).click()
    expect(page.locator("#draft")).to_have_value("draft of one")
    page.click("#fresh")
    expect(page.locator("#draft")).to_have_value("draft of none")


def test_two_tabs_do_not_overwrite_each_other(visit: Visits, fake: FakeTriton) -> None:
    one = visit()
    ask(one, "shared", wait=True)
    one.fill("#draft", "draft in one")
    wait_kept(one, "drafts", "draft in one")
    two = visit.tab(one.context, one.url)
    expect(answers(two)).to_have_text("You said: shared")
    expect(two.locator("#draft")).to_have_value("")
    two.fill("#draft", "draft in two")
    wait_kept(two, "drafts", "draft in one", "draft in two")
    # Both answer below the same turn at the same time.
    ask(one, script(pieces=["from ", "one"], stepped=True))
    ask(two, script(pieces=["from ", "two"], stepped=True))
    for call in fake.wait_calls(3)[1:]:
        call.step(2)
    expect(answers(one).nth(1)).to_have_text("from one")
    expect(answers(two).nth(1)).to_have_text("from two")
    for page in (one, two):
        expect(page.locator("#stop")).to_be_hidden()
        reload(page)
        expect(page.locator(".turn.user .versions")).to_contain_text("/2")
    texts = ["from one", "from two"]
    if "two" in (answers(one).nth(1).text_content() or ""):
        texts.reverse()
    expect(answers(one).nth(1)).to_have_text(texts[0])
    one.locator(".turn.user .versions button:not([disabled])").click()
    expect(answers(one).nth(1)).to_have_text(texts[1])
    # Drafts, too, are each tab's own.
    one.fill("#draft", "draft in one")
    two.fill("#draft", "draft in two")
    wait_kept(one, "drafts", "draft in one", "draft in two")
    reload(one)
    reload(two)
    expect(one.locator("#draft")).to_have_value("draft in one")
    expect(two.locator("#draft")).to_have_value("draft in two")


def test_a_duplicated_tab_is_another_one(visit: Visits) -> None:
    """The fault: a duplicated tab brings the first one's id along, and they overwrite each other's drafts."""
    one = visit()
    ask(one, "shared", wait=True)
    kept = one.evaluate("JSON.stringify({ ...sessionStorage })")
    context = one.context
    two = context.new_page()
    two.goto(f"{visit.url}/static/icon.svg")
    two.evaluate(
        "(kept) => Object.entries(JSON.parse(kept)).forEach(([k, v]) => sessionStorage.setItem(k, v))", kept
    )
    two.goto(one.url)
    ready(two)

    def tab_id(page: Page) -> Any:
        return page.evaluate("sessionStorage.getItem('youtu.tab')")

    wait_until(two, lambda: bool(tab_id(one) != tab_id(two)), "an id of its own")
    one.fill("#draft", "draft in one")
    two.fill("#draft", "draft in two")
    wait_kept(two, "drafts", "draft in one", "draft in two")
    stored = one.evaluate(
        """async () => {
            const store = await import("/static/store.js");
            return (await store.all("drafts")).map(({ text }) => text).sort();
        }"""
    )
    assert stored == ["draft in one", "draft in two"]


def test_another_tab_follows_an_answer_that_is_being_written(visit: Visits, fake: FakeTriton) -> None:
    """The fault: a second tab takes an answer under way for one that broke off."""
    one = visit()
    ask(one, "shared", wait=True)
    two = visit.tab(one.context, one.url)
    ask(one, script(pieces=["be", "ing ", "writ", "ten"], stepped=True))
    call = fake.wait_calls(2)[1]
    call.step()
    expect(answers(two).nth(1)).to_contain_text("be")
    expect(two.locator(".turn.assistant").nth(1)).to_have_class("turn assistant open")
    three = visit.tab(one.context, one.url)
    expect(three.locator(".turn.assistant").nth(1)).to_have_class("turn assistant open")
    call.step(3)
    for page in (two, three):
        expect(answers(page).nth(1)).to_have_text("being written")
        expect(facts(page).nth(1)).to_contain_text("finished")
    expect(titles(two)).to_have_text(["shared"])
    more(two, "shared", "Rename")
    two.fill("#question-input", "renamed")
    two.click("#question-yes")
    expect(titles(one)).to_have_text(["renamed"])


def test_a_deleted_conversation_stays_deleted_while_its_answer_runs(visit: Visits) -> None:
    """The fault: the tab that writes the answer saves it, and brings the conversation back to life."""
    one = visit()
    ask(one, script(unending=True, delay=0.1))
    expect(answers(one)).to_contain_text("t1 ")
    two = visit.tab(one.context, visit.url + "/")
    two.get_by_role("button", name="More for").click()
    two.locator(".session-tools").get_by_role("button", name="Delete").click()
    two.click("#question-yes")
    expect(titles(two)).to_have_count(0)
    one.wait_for_timeout(1000)
    reload(two)
    expect(titles(two)).to_have_count(0)
    kept = two.evaluate(
        """async () => {
            const store = await import("/static/store.js");
            return (await store.all("messages")).length;
        }"""
    )
    assert kept == 0


def save(page: Page, path: Path, act: Any) -> str:
    with page.expect_download() as event:
        act()
    event.value.save_as(path)
    return path.read_text(encoding="utf-8")


def test_json_keeps_all_versions(visit: Visits, tmp_path: Path) -> None:
    page = visit()
    ask(page, "one", wait=True)
    tool(page, "Answer again").click()
    expect(page.locator(".versions")).to_have_text("2/2")
    expect(page.locator("#stop")).to_be_hidden()
    file = tmp_path / "all.json"
    page.click("#open-settings")
    text = save(page, file, lambda: page.click("#export-all"))
    assert len(json.loads(text)["conversations"][0]["messages"]) == 3
    other = visit()
    other.click("#open-settings")
    for said in ("New: 1 conversations, 3 messages.", "New: 0 conversations, 0 messages."):
        other.set_input_files("#import-file", file)
        expect(other.locator("#data-said")).to_have_text(said)
    other.keyboard.press("Escape")
    titles(other).click()
    expect(answers(other)).to_have_text("You said: one")
    expect(other.locator(".versions")).to_have_text("2/2")
    expect(facts(other)).to_contain_text("3 tokens")


def test_markdown_goes_out_and_comes_back(visit: Visits, tmp_path: Path) -> None:
    page = visit()
    awkward = "## You\n\n<!-- youtu:assistant -->\nnot mine\n\n\n# title"
    ask(page, awkward, wait=True)
    ask(page, script(pieces=["```python\nx = 1\n```\n\n- a\n- b\n"]), wait=True)
    file = tmp_path / "one.md"
    page.get_by_role("button", name="More for").click()
    exporting = page.locator(".session-tools").get_by_role("button", name="Export as Markdown")
    text = save(page, file, exporting.click)
    assert "```python\nx = 1\n```" in text
    other = visit()
    other.click("#open-settings")
    other.set_input_files("#import-file", file)
    expect(other.locator("#data-said")).to_have_text("New: 1 conversations, 4 messages.")
    other.keyboard.press("Escape")
    titles(other).click()
    expect(questions(other).first).to_have_text(awkward)
    assert questions(other).first.text_content() == awkward
    expect(answers(other).nth(1).locator("li")).to_have_text(["a", "b"])
    expect(facts(other).first).to_have_text("imported")


HOSTILE_FILE = {
    "format": "youtu-conversations",
    "version": 1,
    "conversations": [
        {
            "id": "x",
            "title": "<img src=x onerror=\"document.title='owned'\">",
            "created": "never",
            "leaf": "b",
            "messages": [
                {"id": "a", "parent": "b", "role": "user", "content": "<script>1</script>", "created": 1},
                {
                    "id": "b",
                    "parent": "a",
                    "role": "assistant",
                    "content": "<img src=http://evil.example/x onerror=\"document.title='owned'\">",
                    "html": "<img src=http://evil.example/x>",
                    "facts": {"model": "<b>x</b>", "timings": "?", "usage": None},
                },
            ],
        }
    ],
}


def test_an_imported_file_is_not_trusted(visit: Visits, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(json.dumps(HOSTILE_FILE))
    page = visit()
    page.click("#open-settings")
    page.set_input_files("#import-file", file)
    expect(page.locator("#data-said")).to_contain_text("New: 1 conversations")
    page.keyboard.press("Escape")
    titles(page).click()
    expect(questions(page)).to_have_text("<script>1</script>")
    expect(answers(page)).to_contain_text("<img src=")
    assert page.title().endswith(" · youtu-demo")
    assert not [url for url in visit.asked if "evil" in url]
    for name, text in {
        "a.json": "{",
        "b.json": "[]",
        "c.json": json.dumps({"format": "youtu-conversations", "conversations": [{"id": 5}]}),
        "d.md": "# Just some text",
    }.items():
        (tmp_path / name).write_text(text)
        page.click("#open-settings")
        page.set_input_files("#import-file", tmp_path / name)
        expect(page.locator("#data-said")).to_contain_text(f"{name} is not a file that this page has written")
        page.keyboard.press("Escape")
    expect(titles(page)).to_have_count(1)


def test_without_storage_the_page_says_so_and_works(visit: Visits, browser: Any) -> None:
    context = browser.new_context(locale="en-US")
    visit.contexts.append(context)
    context.add_init_script(
        "Object.defineProperty(window, 'indexedDB', { value: { open() { throw Error('no') } } })"
    )
    page = context.new_page()
    page.goto(visit.url)
    ready(page)
    expect(page.locator("#notice-text")).to_have_text("This browser does not keep the conversations: no")
    ask(page, "hello", wait=True)
    expect(answers(page)).to_have_text("You said: hello")
    page.click("#fresh")
    titles(page).click()
    expect(answers(page)).to_have_text("You said: hello")


def test_focus_stays_where_the_person_was(visit: Visits) -> None:
    """The fault: after a rename or a deletion the keyboard began at the top of the page again."""
    page = visit()
    for text in ("one", "two", "three"):
        page.click("#fresh")
        expect(page.locator(".turn")).to_have_count(0)
        ask(page, text, wait=True)
    more(page, "two", "Rename")
    page.fill("#question-input", "second")
    page.press("#question-input", "Enter")
    expect(titles(page)).to_have_text(["three", "second", "one"])
    expect(page.get_by_role("button", name="More for “second”")).to_be_focused()
    more(page, "second", "Delete")
    page.click("#question-yes")
    expect(titles(page)).to_have_text(["three", "one"])
    expect(page.locator("#sessions li", has_text="one").get_by_role("link")).to_be_focused()
