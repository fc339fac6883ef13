"""Lists of the bench that are kept: read back, asked again, searched, edited; the library that they feed."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from playwright.sync_api import Page, expect

from tests.client.fake_triton import FakeTriton

from .conftest import Visits, fits, reload
from .test_bench import exported, fill, opened, rows, start

pytestmark = pytest.mark.browser

FORMULAS = [
    "=1+1",
    "+86 138",
    "-5 度",
    "@somebody",
    "\tx",
    "'=quoted",
    "＝全角",
    " =spaced",
    "'plain",
    "a,b\n=c",
]


def kept_rows(page: Page) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = page.evaluate('async () => (await import("/static/store.js")).all("rows")')
    return found


def downloaded(page: Page, button: str, path: Path) -> bytes:
    with page.expect_download() as event:
        page.click(button)
    event.value.save_as(path)
    return path.read_bytes()


def load(page: Page, name: str, data: bytes) -> None:
    page.set_input_files("#b-file", {"name": name, "mimeType": "text/csv", "buffer": data})


@pytest.mark.parametrize("kind", ["csv", "jsonl", "xlsx"])
def test_an_export_is_read_back_with_its_answers_and_marks(visit: Visits, tmp_path: Path, kind: str) -> None:
    """The fault: a spreadsheet ran what began with `=`; what was exported came back as bare questions."""
    page = opened(visit)
    table = io.StringIO(newline="")
    csv.writer(table).writerows(
        [["问题", "分类", "订单号"], *[[f"q {at}", "退货", text] for at, text in enumerate(FORMULAS)]]
    )
    start(page, table.getvalue())
    expect(page.locator("#b-counts")).to_have_text(f"{len(FORMULAS)} of {len(FORMULAS)} answered")
    for at, text in enumerate(FORMULAS):
        rows(page).nth(at).click()
        page.fill("#b-answer", text)
        page.locator("#b-answer").blur()
        expect(page.locator("#b-state")).to_contain_text("edited")
    page.click("#b-good")
    expect(page.locator("#b-counts")).to_contain_text("1 good")
    before = kept_rows(page)
    data = downloaded(page, f"#b-{kind}", tmp_path / f"list.{kind}")
    if kind == "xlsx":
        sheet = openpyxl.load_workbook(io.BytesIO(data)).worksheets[0]
        cells = [cell for line in sheet.iter_rows(min_row=2) for cell in line if cell.value is not None]
        assert {cell.data_type for cell in cells} == {"s"}  # no formula among them
        assert [line[3].value for line in sheet.iter_rows(min_row=2)] == FORMULAS
    if kind == "csv":
        records = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))
        cells = [cell for record in records for cell in record]
        assert not [cell for cell in cells if cell.lstrip(" ")[:1] in "=+-@\t\r＝" and cell.strip()]
    page.click("#b-new")
    load(page, f"list.{kind}", data)
    page.click("#b-create")
    expect(page.locator("#b-counts")).to_have_text(f"{len(FORMULAS)} of {len(FORMULAS)} answered · 1 good")
    again = [row for row in kept_rows(page) if row["batch"] != before[0]["batch"]]
    names = ("question", "answer", "original", "good", "state", "category", "fields", "tokens", "finish")
    assert [[row.get(name) for name in names] for row in again] == [
        [row.get(name) for name in names] for row in before
    ]
    assert [row["answer"] for row in again] == [text for text in FORMULAS]


@pytest.mark.parametrize(
    ("text", "found", "column"),
    [
        ("你好,请问怎么退货\n我要退款,多久到账\n", ["你好,请问怎么退货", "我要退款,多久到账"], None),
        ("Hello, how are you\nHi, I want a refund\n", ["Hello, how are you", "Hi, I want a refund"], None),
        ("问题\n你好,请问怎么退货\n运费谁出?\n", ["你好,请问怎么退货", "运费谁出?"], "问题"),
        ("编号,问题\n1,你好,在吗\n2,运费谁出\n", ["你好,在吗", "运费谁出"], "问题"),
        ("标题,内容\n退货,怎么退货？\n物流,多久能到？\n", ["怎么退货？", "多久能到？"], "内容"),
        ("标题\n怎么退货？\n", ["怎么退货？"], "标题"),
        ("1,怎么退货\n2,多久能到\n", ["怎么退货", "多久能到"], "Column 2"),
        ("订单号,客户留言,时间\n1,退吗,2026-11-27 10:30\n", ["退吗"], "客户留言"),
        ("问题编号,客户的话,时间\n1,退吗,2026-11-27 10:30\n", ["退吗"], "客户的话"),
        ("分类,客户的话\n售后,怎么退货？\n", ["怎么退货？"], "客户的话"),
        ("sep=;\n编号;问题\n1;怎么退货？\n", ["怎么退货？"], "问题"),
        ("店铺,客户的话\n旗舰店,你们的运费是谁来出的？\n", None, None),
        ("店铺\t客户的话\n旗舰店\t你们的运费是谁来出的？\n", ["你们的运费是谁来出的？"], "客户的话"),
        ('{"question": "a", "id": 7}\n{"messages": [{"role": "user", "content": "b"}]}\n', ["a", "b"], None),
    ],
)
def test_columns_and_commas(visit: Visits, text: str, found: list[str] | None, column: str | None) -> None:
    """The faults: a comma inside a sentence made a second column; 标题 and 内容 were not known as names."""
    page = opened(visit)
    load(page, "list.csv", text.encode())
    said = page.locator("#b-said")
    if found is None:  # Words alone do not say whether it is a table: a person does.
        page.select_option("#b-kind", "table")
        page.check("#b-header")
        page.select_option("#b-column", label="客户的话")
        expect(said).to_have_text("你们的运费是谁来出的？")
        return
    expect(said).to_have_text(" · ".join(found))
    if column:
        expect(page.locator("#b-column option:checked")).to_have_text(column)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("l.xlsx", b"PK\x03\x04rest", "Save it as .xlsx or “CSV (UTF-8)”"),
        ("l.xls", b"\xd0\xcf\x11\xe0", "is a spreadsheet that cannot be read here"),
        ("l.csv", b"\xff\xff\xff\x00", "is no text in UTF-8 or GBK. Save it as CSV (UTF-8)"),
        ("l.bin", b"a\x00b", "is no text"),
    ],
)
def test_an_unreadable_file_leaves_nothing_that_could_be_added(
    visit: Visits, name: str, data: bytes, words: str
) -> None:
    """The fault: the file before it was still there, and its questions were added in its place."""
    page = opened(visit)
    fill(page, "question\nfrom the file before\n")
    expect(page.locator("#b-create")).to_be_enabled()
    load(page, name, data)
    expect(page.locator("#b-said")).to_contain_text(words)
    expect(page.locator("#b-create")).to_be_disabled()
    expect(page.locator("#b-paste")).to_have_value("")


def test_marked_rows_are_asked_again_and_old_stands_beside_new(
    visit: Visits, fake: FakeTriton, shots: Path
) -> None:
    page = opened(visit)
    start(page, "question\none\ntwo\nthree\n")
    expect(page.locator("#b-counts")).to_have_text("3 of 3 answered")
    for at in (0, 1):
        rows(page).nth(at).click()
        page.fill("#b-answer", f"corrected {at}")
        page.locator("#b-answer").blur()
        page.click("#b-good")
    expect(page.locator("#b-counts")).to_contain_text("2 good")
    expect(rows(page).nth(1).locator(".b-said")).to_have_text("corrected 1")
    count = len(fake.calls)
    expect(page.locator("#b-run")).to_be_disabled()
    page.select_option("#b-which", "benchRunGood")
    page.click("#b-run")
    fake.wait_calls(count + 2)
    expect(page.locator("#b-counts")).to_have_text("3 of 3 answered")
    assert len(fake.calls) == count + 2
    page.select_option("#b-filter", "benchNewer")
    expect(rows(page)).to_have_count(2)
    rows(page).nth(0).click()
    expect(page.locator("#b-before-text")).to_have_text("corrected 0")
    expect(page.locator("#b-answer")).to_have_value("You said: one")
    page.screenshot(path=shots / "bench-old-new.png")
    page.click("#b-keep-old")
    expect(page.locator("#b-answer")).to_have_value("corrected 0")
    expect(page.locator("#b-good")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#b-before")).to_be_hidden()
    page.select_option("#b-filter", "benchNewer")
    rows(page).nth(0).click()
    reload(page)
    page.select_option("#b-filter", "benchNewer")
    expect(rows(page)).to_have_count(1)
    rows(page).nth(0).click()
    page.click("#b-keep-new")
    expect(page.locator("#b-answer")).to_have_value("You said: two")
    expect(page.locator("#b-counts")).to_contain_text("2 good")


def test_rows_are_searched_edited_added_and_deleted(visit: Visits, fake: FakeTriton) -> None:
    page = opened(visit)
    table = "工单号,问题,类别,订单号\n7,订单 {订单号} 到哪？（{工单号}）,物流,A-1\n"
    table += "8,怎么退货？,售后,\n9,{缺} 运费谁出？,售后,\n"
    start(page, table)
    expect(page.locator("#b-counts")).to_have_text("3 of 3 answered")
    asked = {call.inputs["messages"][-1]["content"] for call in fake.calls}
    assert asked == {"订单 A-1 到哪？（7）", "怎么退货？", "{缺} 运费谁出？"}
    page.fill("#b-search", "运费")
    expect(rows(page)).to_have_count(1)
    page.fill("#b-search", "")
    page.select_option("#b-category", "售后")
    expect(rows(page)).to_have_count(2)
    rows(page).nth(0).click()
    page.fill("#b-question", "怎样退货？")
    page.fill("#b-row-category", "退换")
    page.locator("#b-row-category").blur()
    page.click("#b-add")
    expect(page.locator("#b-question")).to_have_value("")
    page.fill("#b-question", "新的一问")
    page.locator("#b-question").blur()
    expect(rows(page).nth(3)).to_contain_text("新的一问")
    reload(page)
    expect(rows(page)).to_have_count(4)
    page.click("#b-run")
    expect(page.locator("#b-counts")).to_have_text("4 of 4 answered")
    rows(page).nth(1).click()
    expect(page.locator("#b-question")).to_have_value("怎样退货？")
    expect(page.locator("#b-row-category")).to_have_value("退换")
    page.click("#b-remove")
    page.click("#question-yes")
    expect(rows(page)).to_have_count(3)
    assert [row["number"] for row in kept_rows(page)] == [1, 3, 4]


@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
def test_nothing_is_cut_off(visit: Visits, shots: Path, language: str) -> None:
    """The fault: at 1280×800 the buttons below the answer lay outside the window."""
    page = opened(visit, language)
    page.set_viewport_size({"width": 1280, "height": 800})
    start(page, "问题,类别\n" + "".join(f"问题 {at}：怎么退货？,售后\n" for at in range(30)))
    expect(page.locator("#b-counts")).to_contain_text("30")
    expect(page.locator(".b-mark.done").first).to_be_visible()
    rows(page).nth(1).click()
    assert fits(page)
    for button in page.locator("#bench button:visible, #bench select:visible, #bench textarea:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 800, button.inner_text()
        assert box["x"] + box["width"] <= 1280, button.inner_text()
        assert button.evaluate("(one) => one.scrollWidth <= one.clientWidth + 1"), button.inner_text()
    page.screenshot(path=shots / f"bench-row-{language}-1280.png")


def test_the_library_is_fed_by_the_bench_and_used_in_the_chat(visit: Visits, shots: Path) -> None:
    page = opened(visit, "zh-CN")
    start(page, "问题\n怎么退货？\n到哪了？\n")
    expect(page.locator("#b-counts")).to_have_text("已回答 2 / 2")
    rows(page).nth(1).click()
    page.fill("#b-answer", "您的订单 {订单号} 已由{快递}发出。")
    page.locator("#b-answer").blur()
    page.click("#b-good")
    for added in (1, 0):
        page.click("#b-goods-to-library")
        expect(page.locator("#b-said-library")).to_have_text(f"回复库新增 {added} 条")
    page.click("#to-chat")
    page.fill("#draft", "你好！")
    page.click("#open-library")
    expect(page.locator(".library-use")).to_have_count(1)
    page.click("#library-new")
    page.fill("#library-title", "开场白")
    page.fill("#library-text", "请用三句话总结：")
    page.click("#library-form button[type=submit]")
    expect(page.locator(".library-use")).to_have_count(2)
    page.screenshot(path=shots / "library-zh-CN-1280.png")
    page.fill("#library-search", "订单")
    page.locator(".library-use").click()
    page.fill("#question-input", "A-7")
    page.press("#question-input", "Enter")
    expect(page.locator("#question-title")).to_have_text("“快递”的值")
    page.fill("#question-input", "顺丰")
    page.press("#question-input", "Enter")
    expect(page.locator("#draft")).to_have_value("你好！\n您的订单 A-7 已由顺丰发出。")
    reload(page)
    page.click("#open-library")
    page.locator("#library-list li", has_text="开场白").get_by_role("button", name="删除").click()
    page.click("#question-yes")
    expect(page.locator(".library-use")).to_have_count(1)
    page.keyboard.press("Escape")


def test_json_lines_hold_what_is_needed_to_train(visit: Visits, tmp_path: Path) -> None:
    page = opened(visit)
    start(page, "question,order\nwhere is {order}?,A-1\n")
    expect(page.locator("#b-counts")).to_have_text("1 of 1 answered")
    line = json.loads(exported(page, "#b-jsonl", tmp_path / "l.jsonl"))
    assert line["question"] == "where is {order}?"
    assert line["fields"] == {"order": "A-1"}
    assert line["messages"][0]["content"] == "where is A-1?"


def test_a_workbook_is_read(visit: Visits) -> None:
    """As Excel's library writes it: shared strings, numbers, empty cells, several sheets."""
    book = openpyxl.Workbook()
    book.active.append(["编号", None, "问题", "分类"])
    book.active.append([1, None, '怎么退货？\n谢谢 <b> & "c"', "售后"])
    book.active.append([2.5, None, "=1+1 是多少", None])
    book.create_sheet("other").append(["x"])
    out = io.BytesIO()
    book.save(out)
    page = opened(visit, "zh-CN")
    load(page, "客户问题.xlsx", out.getvalue())
    expect(page.locator("#b-create")).to_have_text(
        "添加 1 个问题"
    )  # of a formula that nobody has computed, nothing
    page.click("#b-create")
    (row,) = kept_rows(page)
    assert (row["id"], row["question"], row["category"]) == ("1", '怎么退货？\n谢谢 <b> & "c"', "售后")
