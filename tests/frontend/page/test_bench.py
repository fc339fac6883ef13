"""The bench of templates: tables in, corrected answers out; thousands of rows; going on where it was left."""

from __future__ import annotations

import csv
import io
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import script

from .conftest import Visits, fits, reload

pytestmark = pytest.mark.browser


def opened(visit: Visits, language: str = "en-US", width: int = 1280) -> Page:
    page = visit(language, width, path="/#/bench")
    expect(page.locator("#b-source")).to_be_visible()
    return page


def fill(page: Page, text: str) -> None:
    page.set_input_files("#b-file", {"name": "list.csv", "mimeType": "text/csv", "buffer": text.encode()})


def rows(page: Page) -> Any:
    return page.locator(".b-row")


def start(page: Page, text: str) -> None:
    fill(page, text)
    page.click("#b-create")
    page.click("#b-run")


def exported(page: Page, button: str, path: Path) -> str:
    with page.expect_download() as event:
        page.click(button)
    event.value.save_as(path)
    return path.read_bytes().decode("utf-8")


TABLE = (
    '工单号,问题,备注\r\nA1,"怎么退货？\n谢谢",x\r\n'
    'A2,"他说 ""你好""，然后呢？",\r\n,,\r\nA3,运费谁出？,y\r\n'
)


def test_a_table_becomes_answers_and_templates(visit: Visits, tmp_path: Path, shots: Path) -> None:
    page = opened(visit, "zh-CN")
    fill(page, TABLE)
    expect(page.locator("#b-column option:checked")).to_have_text("问题")
    expect(page.locator("#b-id-column option:checked")).to_have_text("工单号")
    expect(page.locator("#b-header")).to_be_checked()
    expect(page.locator("#b-create")).to_have_text("添加 3 个问题")
    page.screenshot(path=shots / "bench-source-zh-CN-1280.png")
    page.click("#b-create")
    page.select_option("#b-preset", "support")
    page.click("#b-run")
    expect(page.locator("#b-counts")).to_have_text("已回答 3 / 3")
    rows(page).nth(1).click()
    expect(page.locator("#b-answer")).to_have_value('You said: 他说 "你好"，然后呢？')
    page.fill("#b-answer", '您好，"第二行"\n好的')
    expect(page.locator("#b-state")).to_contain_text("已修改")
    page.click("#b-good")
    expect(page.locator("#b-counts")).to_contain_text("1 个满意")
    page.screenshot(path=shots / "bench-zh-CN-1280.png")
    text = exported(page, "#b-csv", tmp_path / "a.csv")
    assert text.startswith("\ufeff")
    records = list(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline="")))
    assert [record["id"] for record in records] == ["A1", "A2", "A3"]
    assert records[0]["question"] == "怎么退货？\n谢谢"
    assert records[1]["answer"] == '您好，"第二行"\n好的'
    assert records[1]["model_answer"] == 'You said: 他说 "你好"，然后呢？'
    assert [record["good"] for record in records] == ["", "yes", ""]
    assert [record["edited"] for record in records] == ["", "yes", ""]
    page.select_option("#b-filter", "benchGood")
    expect(rows(page)).to_have_count(1)
    lines = [json.loads(line) for line in exported(page, "#b-jsonl", tmp_path / "a.jsonl").splitlines()]
    assert len(lines) == 1
    assert [message["role"] for message in lines[0]["messages"]] == ["system", "user", "assistant"]
    assert lines[0]["messages"][2]["content"] == '您好，"第二行"\n好的'
    page.click("#b-restore")
    expect(page.locator("#b-answer")).to_have_value('You said: 他说 "你好"，然后呢？')


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("one\ntwo, with a comma\n\nthree", ["one", "two, with a comma", "three"]),
        ("id;question\n1;a;b\n2;c;\n", ["a;b", "c"]),
        ("x\tlonger text here\ny\tanother text\n", ["longer text here", "another text"]),
        ('"a ""quoted"" one"\n"b\nc"\n', ['a "quoted" one', "b\nc"]),
        ("\ufeffquestion\nonly\n", ["only"]),
        ("question\r\rold\rmac\r", ["old", "mac"]),
        ("prompt,id\n=1+1,7\n", ["=1+1"]),
        ('question\n"open', None),
    ],
)
def test_tables_of_every_kind(visit: Visits, text: str, found: list[str] | None) -> None:
    page = opened(visit)
    result = page.evaluate(
        """async (text) => {
            const { guess, questions } = await import("/static/bench_csv.js");
            const clean = new TextDecoder().decode(new TextEncoder().encode(text));
            try {
                return questions(clean, guess(clean)).map(({ question }) => question);
            } catch (error) {
                return error.line;
            }
        }""",
        text,
    )
    assert result == (2 if found is None else found)


def test_what_is_written_reads_back(visit: Visits) -> None:
    page = opened(visit)
    cells = [["a", 'b "c"', "d,e", "f\ng", " h ", "", "=1", "你好", "\r\n"]]
    back = page.evaluate(
        """async (cells) => {
            const { parse, restored, write } = await import("/static/bench_csv.js");
            return restored(parse(write(cells).replace("\\ufeff", ""), ","));
        }""",
        cells,
    )
    assert back == cells


def test_a_file_in_gbk_is_read_and_one_that_is_no_text_is_not(visit: Visits) -> None:
    page = opened(visit)
    data = "问题\n怎么退货？\n".encode("gb18030")
    page.set_input_files("#b-file", {"name": "old.csv", "mimeType": "text/csv", "buffer": data})
    expect(page.locator("#b-said")).to_contain_text("old.csv is not UTF-8; it was read as GBK.")
    expect(page.locator("#b-said")).to_contain_text("怎么退货？")
    page.set_input_files("#b-file", {"name": "x.csv", "mimeType": "text/csv", "buffer": b"\xff\xff\xff\x00"})
    expect(page.locator("#b-said")).to_contain_text("x.csv is no text in UTF-8 or GBK")
    page.fill("#b-paste", 'question\n"never closed\n')
    expect(page.locator("#b-said")).to_have_text("Line 2: a quotation mark is opened and never closed.")
    expect(page.locator("#b-create")).to_be_disabled()


def test_thousands_of_rows_stay_smooth(visit: Visits, shots: Path) -> None:
    page = opened(visit)
    fill(page, "question\n" + "".join(f"question {number}\n" for number in range(5000)))
    page.click("#b-create")
    expect(page.locator("#b-counts")).to_have_text("0 of 5,000 answered")
    assert rows(page).count() < 60
    page.evaluate("document.getElementById('b-rows').scrollTop = 4000 * 60")
    expect(page.locator(".b-row", has_text="question 4001")).to_be_visible()
    assert rows(page).count() < 60
    page.focus("#b-rows")
    page.keyboard.press("End")
    expect(page.locator("#b-question")).to_have_value("question 4999")
    expect(page.locator(".b-row[aria-selected=true]")).to_have_attribute("aria-posinset", "5000")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#b-question")).to_have_value("question 1")
    # A frame makes the rows that come into view, and no others.
    most, made = page.evaluate(
        """async () => {
            const box = document.getElementById("b-rows");
            let most = 0, made = 0;
            const count = (node) => (made += node.matches?.(".b-row") ? 1 : 0);
            const look = (changes) => changes.forEach(({ addedNodes }) => addedNodes.forEach(count));
            new MutationObserver(look).observe(box, { childList: true, subtree: true });
            for (let at = 0; at < 40; at += 1) {
                box.scrollTop = at * 5200;
                box.dispatchEvent(new Event("scroll"));
                await new Promise(requestAnimationFrame);
                most = Math.max(most, box.querySelectorAll(".b-row").length);
            }
            return [most, made];
        }"""
    )
    assert most < 60
    assert 0 < made < 2 * 40 * 60  # each place may be drawn for the new scrollTop and for the event
    page.screenshot(path=shots / "bench-5000-en-US-1280.png")


def test_leaving_the_page_and_coming_back_goes_on(visit: Visits, fake: FakeTriton) -> None:
    page = opened(visit)
    fake.silent_from = 3
    start(page, "question\n" + "\n".join(json_row(at=at) for at in range(12)))
    expect(page.locator("#b-counts")).to_contain_text("3 of 12 answered")
    fake.wait_calls(6)
    page.goto("about:blank")
    fake.silent_from = None
    page.go_back()
    expect(page.locator("#b-counts")).to_contain_text("12 of 12 answered")
    asked = [call.inputs["messages"][-1]["content"] for call in fake.calls if call.cancelled is None]
    assert len(set(asked)) == 12
    assert len(asked) <= 12 + 3  # what was under way when the page was left is asked again
    # Also while the conversation is looked at.
    page.click("#b-new")
    before = len(fake.calls)
    fake.silent_from = before
    start(page, "question\n" + "\n".join(json_row(at=at) for at in range(20, 26)))
    page.click("#to-chat")
    reload(page)
    expect(page.locator("#chat")).to_be_visible()
    fake.silent_from = None
    fake.wait_calls(before + 6)
    page.click("#to-bench")
    expect(page.locator("#b-counts")).to_contain_text("6 of 6 answered")


def json_row(at: int, **orders: Any) -> str:
    """A CSV cell that tells the fake what to do."""
    text = script(pieces=["a", f"{at}"], **orders).replace('"', '""')
    return f'"{at} {text}"'


def test_pause_stops_the_engine_and_start_goes_on(visit: Visits, fake: FakeTriton) -> None:
    page = opened(visit)
    fake.silent_from = 3
    start(page, "question\n" + "\n".join(json_row(at=at) for at in range(6)))
    expect(page.locator("#b-counts")).to_contain_text("3 of 6 answered")
    running = fake.wait_calls(6)[3:]
    page.click("#b-run")
    expect(page.locator("#b-run")).to_have_text("Start")
    for call in running:
        call.wait_cancelled()
    fake.silent_from = None
    reload(page)
    expect(page.locator("#b-run")).to_have_text("Start")
    page.click("#b-run")
    expect(page.locator("#b-counts")).to_contain_text("6 of 6 answered")


def test_one_slot_stays_free_for_people(visit: Visits, fake: FakeTriton) -> None:
    page = opened(visit)
    fake.silent_from = 0
    start(page, "question\n" + "\n".join(json_row(prefill=0.1, at=at) for at in range(9)))
    fake.wait_calls(3)
    page.wait_for_timeout(500)  # in which a fourth would come
    fake.silent_from = None
    expect(page.locator("#b-counts")).to_contain_text("9 of 9 answered")
    moments = [(call.started, 1) for call in fake.calls] + [(call.ended or 0, -1) for call in fake.calls]
    most = at_once = 0
    for _, step in sorted(moments):
        at_once += step
        most = max(most, at_once)
    assert most == 3  # of the fake's four


def test_what_fails_is_shown_and_what_passes_is_waited_for(visit: Visits, fake: FakeTriton) -> None:
    page = opened(visit)
    bad = script(fail_at=0, fail_times=1).replace('"', '""')
    fake.queue_full = True
    try:
        start(page, f'question\n"{bad}"\ngood one\n')
        expect(page.locator("#b-notice")).to_contain_text("The server is busy; the list goes on by itself.")
    finally:
        threading.Timer(0.1, lambda: setattr(fake, "queue_full", False)).start()
    expect(page.locator("#b-counts")).to_contain_text("1 of 2 answered · 1 failed")
    expect(page.locator("#b-notice")).to_be_hidden()
    page.select_option("#b-filter", "benchFailed")
    expect(rows(page)).to_have_count(1)
    rows(page).click()
    expect(page.locator("#b-state")).to_contain_text("failed")
    page.click("#b-again")
    expect(page.locator("#b-counts")).to_have_text("2 of 2 answered")


def test_two_tabs_do_not_answer_the_same_list(visit: Visits, fake: FakeTriton) -> None:
    one = opened(visit)
    fake.silent_from = 3
    start(one, "question\n" + "\n".join(json_row(at=at) for at in range(9)))
    expect(one.locator("#b-counts")).to_contain_text("3 of 9 answered")
    two = visit.tab(one.context, visit.url + "/#/bench")
    expect(two.locator("#b-notice")).to_contain_text("being answered in another tab")
    expect(two.locator("#b-run")).to_be_disabled()
    fake.silent_from = None
    expect(two.locator("#b-counts")).to_contain_text("9 of 9 answered")
    assert len(fake.calls) == 9


def test_lists_are_renamed_and_deleted(visit: Visits) -> None:
    page = opened(visit)
    fill(page, "question\na\n")
    page.click("#b-create")
    page.click("#b-rename")
    page.fill("#question-input", "Autumn")
    page.press("#question-input", "Enter")
    expect(page.locator("#b-batch option:checked")).to_have_text("Autumn")
    page.click("#b-delete")
    page.click("#question-yes")
    expect(page.locator("#b-source")).to_be_visible()
    reload(page)
    expect(page.locator("#b-source")).to_be_visible()


def test_the_bench_on_a_narrow_page(visit: Visits, shots: Path) -> None:
    page = opened(visit, "zh-CN", 360)
    assert fits(page)
    start(page, "怎么退货？\n运费谁出？\n")
    expect(page.locator("#b-counts")).to_have_text("已回答 2 / 2")
    page.screenshot(path=shots / "bench-zh-CN-360.png")
    rows(page).first.click()
    expect(page.locator("#b-answer")).to_be_visible()
    expect(page.locator("#b-rows")).to_be_hidden()
    assert fits(page)
    page.screenshot(path=shots / "bench-row-zh-CN-360.png")
    page.click("#b-next")
    expect(page.locator("#b-question")).to_have_value("运费谁出？")
    page.click("#b-back")
    expect(page.locator("#b-rows")).to_be_visible()
