"""Documents in the page: attached by button, drop and paste, kept over a reload, quoted, and opened again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Page, expect

from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import Frontend
from tests.frontend.documents.made import pdf, pdf_with_password

from .conftest import Visits, answers, ask, fits, reload, wait_until
from .test_sessions import more

RULES = "# 请假\n\n年假须提前三天申请。\n".encode()


def file(name: str, data: bytes, kind: str = "") -> FilePayload:
    return {"name": name, "mimeType": kind, "buffer": data}


def attach(page: Page, *files: FilePayload) -> None:
    page.set_input_files("#attach-file", list(files))


def chips(page: Page) -> Any:
    return page.locator("#attachments .chip")


def transfer(page: Page, event: str, at: str, *files: tuple[str, str, bytes], text: str = "") -> None:
    """A drop or a paste of these files: name, type, bytes."""
    page.evaluate(
        """([event, at, files, text]) => {
            const data = new DataTransfer();
            for (const [name, type, bytes] of files) {
                data.items.add(new File([new Uint8Array(bytes)], name, { type }));
            }
            if (text) data.setData("text/plain", text);
            const made = event === "paste"
                ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
                : new DragEvent(event, { dataTransfer: data, bubbles: true, cancelable: true });
            document.querySelector(at).dispatchEvent(made);
        }""",
        [event, at, [[name, kind, list(content)] for name, kind, content in files], text],
    )


def test_a_document_is_attached_asked_about_and_opened(visit: Visits, fake: FakeTriton, shots: Path) -> None:
    page = visit("zh-CN", counting=True)
    attach(page, file("规定.md", RULES), file("a.pdf", pdf("Returns are free.")))
    expect(chips(page)).to_have_count(2)
    expect(chips(page).first).to_contain_text(re.compile(r"规定\.md\s*\d+ .*token"))
    page.fill("#draft", "年假提前几天？")
    expect(page.locator("#tokens")).to_have_text(re.compile(r"^\d+ .*token"))
    page.screenshot(path=shots / "documents-attached.png")
    ask(page, "年假提前几天？", wait=True)
    expect(answers(page).last).to_contain_text("年假须提前三天申请。")  # the fake repeats what it was asked
    sources = page.locator(".turn.assistant .sources")
    expect(sources.locator("> summary")).to_have_text("来源（2）")
    sources.locator("> summary").click()
    sources.get_by_text("[1] 规定.md").click()
    expect(sources.locator(".passage").first).to_have_text(RULES.decode().strip())
    page.screenshot(path=shots / "documents-sources.png")
    reload(page)
    expect(chips(page)).to_have_count(2)
    expect(page.locator(".turn.assistant .sources > summary")).to_have_text("来源（2）")
    ask(page, "还有呢？", wait=True)
    expect(page.locator(".turn.assistant .sources")).to_have_count(2)


def test_what_is_attached_survives_a_reload_and_goes_when_it_is_removed(visit: Visits) -> None:
    page = visit()
    attach(page, file("a.txt", b"first words"))
    page.fill("#draft", "half a question")
    expect(chips(page)).to_contain_text("tokens")
    reload(page)
    expect(page.locator("#draft")).to_have_value("half a question")
    expect(chips(page)).to_have_count(1)
    page.get_by_role("button", name="Remove “a.txt”").click()
    expect(chips(page)).to_have_count(0)
    reload(page)
    expect(chips(page)).to_have_count(0)


def test_a_file_that_was_being_read_is_read_after_the_reload(visit: Visits) -> None:
    page = visit()
    page.route("**/documents?name=*", lambda route: None)  # never answered
    attach(page, file("a.txt", b"first words"))
    expect(chips(page)).to_contain_text("is being read")
    page.unroute("**/documents?name=*")
    reload(page)
    expect(chips(page)).to_contain_text(re.compile(r"\d+ tokens"))


def test_drop_and_paste_attach_and_a_pasted_text_stays_text(visit: Visits) -> None:
    page = visit()
    transfer(page, "dragover", "#turns", ("a.txt", "text/plain", b"dropped"))
    expect(page.locator("#chat")).to_have_class("dropping")
    transfer(page, "drop", "#turns", ("a.txt", "text/plain", b"dropped"))
    expect(page.locator("#chat")).not_to_have_class("dropping")
    expect(chips(page)).to_have_count(1)
    transfer(page, "paste", "#draft", ("b.csv", "text/csv", b"a,b\n1,2\n"))
    expect(chips(page)).to_have_count(2)
    # As a spreadsheet does it: the cells as text, and a picture of them.
    transfer(page, "paste", "#draft", ("image.png", "image/png", b"\x89PNG"), text="cells")
    page.wait_for_timeout(300)
    expect(chips(page)).to_have_count(2)


@pytest.mark.parametrize(
    ("language", "said"),
    [("en-US", "A picture: the model reads text only."), ("zh-CN", "这是图片，模型只能阅读文字。")],
)
def test_a_pasted_picture_is_declined_in_words(visit: Visits, language: str, said: str) -> None:
    page = visit(language)
    transfer(page, "paste", "#draft", ("image.png", "image/png", b"\x89PNG\r\n\x1a\n"))
    expect(chips(page)).to_contain_text(said)
    page.fill("#draft", "what is on it?")
    page.press("#draft", "Enter")
    expect(page.locator("#notice")).to_be_visible()
    expect(page.locator("#draft")).to_have_value("what is on it?")
    chips(page).get_by_role("button").click()
    page.press("#draft", "Enter")
    expect(answers(page)).to_contain_text("what is on it?")


def test_what_cannot_be_read_says_why_in_the_language_of_the_page(visit: Visits, shots: Path) -> None:
    page = visit("zh-CN", 360)
    attach(
        page, file("a.pdf", pdf_with_password()), file("b.png", b"\x89PNG\r\n\x1a\n\0"), file("c.txt", b" ")
    )
    expect(chips(page).nth(0)).to_contain_text("文件有密码")
    expect(chips(page).nth(1)).to_contain_text("这是图片")
    expect(chips(page).nth(2)).to_contain_text("没有文字")
    assert fits(page)
    page.screenshot(path=shots / "documents-unread.png")


def test_a_server_that_forgot_the_documents_gets_them_again(visit: Visits, frontend: Frontend) -> None:
    page = visit()
    attach(page, file("a.txt", b"The warehouse opens at seven."))
    expect(chips(page)).to_contain_text(re.compile(r"\d+ tokens"))
    kept = page.evaluate(
        """async () => {
            const { among } = await import("/static/attachments.js");
            return (await among(null)).map(({ facts }) => facts.id);
        }"""
    )
    assert frontend.send("DELETE", f"/documents/{kept[0]}", None).status == 200
    ask(page, "When does it open?", wait=True)
    expect(page.locator(".turn.assistant .sources > summary")).to_have_text("Sources (1)")


def test_documents_belong_to_their_conversation_and_go_with_a_branch(visit: Visits) -> None:
    page = visit()
    attach(page, file("a.txt", b"The warehouse opens at seven."))
    ask(page, "When does it open?", wait=True)
    page.click("#fresh")
    expect(chips(page)).to_have_count(0)
    ask(page, "hello", wait=True)
    expect(page.locator(".sources")).to_have_count(0)
    page.locator("#sessions a, #sessions button").filter(has_text="When does it open?").first.click()
    expect(chips(page)).to_have_count(1)
    page.locator(".turn.assistant").get_by_role("button", name="Branch", exact=False).first.click()
    expect(page.locator("#sessions li")).to_have_count(3)
    expect(chips(page)).to_have_count(1)


def test_what_was_attached_goes_with_its_conversation(visit: Visits) -> None:
    page = visit()
    attach(page, file("a.txt", b"first"))
    ask(page, "first", wait=True)
    count = """async (age) => {
        const { among, sweep } = await import("/static/attachments.js");
        const id = location.hash.split("/")[2];
        const store = await import("/static/store.js");
        const now = Date.now;
        Date.now = () => now() + age;
        await sweep(new Set((await store.all("conversations")).map(({ id }) => id)));
        Date.now = now;
        return (await among(window.kept ??= id)).length;
    }"""
    assert page.evaluate(count, 3_600_000) == 1
    more(page, "first", "Delete")
    page.locator("#question-yes").click()
    expect(page.locator("#sessions li")).to_have_count(0)
    assert page.evaluate(count, 0) == 1  # a tab may have made its conversation a moment ago
    assert page.evaluate(count, 3_600_000) == 0


def test_text_of_a_document_is_only_text(visit: Visits) -> None:
    page = visit()
    attach(
        page, file("<img src=x onerror=document.title='evil'>.txt", b"<script>document.title='evil'</script>")
    )
    ask(page, "q", wait=True)
    page.locator(".turn.assistant .sources > summary").click()
    page.locator(".turn.assistant .sources details > summary").first.click()
    expect(page.locator(".passage")).to_have_text("<script>document.title='evil'</script>")
    assert page.title() != "evil"


def test_the_count_grows_while_a_question_is_typed(visit: Visits) -> None:
    page = visit(counting=True)
    page.fill("#draft", "12345678901234567890")
    expect(page.locator("#tokens")).to_have_text("20 tokens")  # of the fake, whose tokens are characters
    attach(page, file("a.txt", b"0123456789"))
    expect(page.locator("#tokens")).to_have_text("30 tokens")
    page.fill("#draft", "")
    expect(page.locator("#tokens")).to_have_text("10 tokens")


def test_the_knowledge_base_is_chosen_and_stays_chosen(
    visit: Visits, another: Any, tmp_path: Path, shots: Path
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "rules.md").write_bytes(RULES)
    frontend: Frontend = another(documents_dir=folder)
    page = visit("zh-CN", at=frontend, counting=True)
    wait_until(
        page, lambda: json.loads(frontend.get("/documents").body)["knowledge"]["complete"], "the folder"
    )
    reload(page)
    page.locator("#knowledge").check()
    page.set_viewport_size({"width": 360, "height": 740})
    page.fill("#draft", "年假提前几天申请？")
    assert fits(page)
    expect(page.locator("#tokens")).to_be_visible()
    send, foot = (page.locator(at).bounding_box() for at in ("#send", ".composer-foot"))
    assert send is not None
    assert foot is not None
    assert send["x"] + send["width"] > foot["x"] + foot["width"] - 20  # also where the line wraps
    page.wait_for_timeout(400)  # the sidebar goes
    page.screenshot(path=shots / "documents-knowledge.png")
    ask(page, "年假提前几天？", wait=True)
    expect(page.locator(".turn.assistant .sources > summary")).to_have_text("来源（1）")
    reload(page)
    expect(page.locator("#knowledge")).to_be_checked()
    page.locator("#knowledge").uncheck()
    ask(page, "年假提前几天？", wait=True)
    expect(page.locator(".turn.assistant .sources")).to_have_count(1)


def test_without_a_knowledge_base_none_is_offered(visit: Visits) -> None:
    page = visit()
    expect(page.locator("#attach")).to_be_visible()
    expect(page.locator("#knowledge-line")).to_be_hidden()
