"""Each kind of file is read in a process of its own, told by its bytes; harmful ones cost what is allowed."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from frontend.documents import reader
from frontend.documents.reader import Busy, Contents, Reader
from frontend.documents.unreadable import CODES, Unreadable
from frontend.errors import STATUSES

from . import made

MEMORY = 512 * 2**20
SLACK_S = 10.0
"""What the start of a process may take on a machine that is busy."""


def read(data: bytes, name: str = "file", seconds: float = 30, memory: int = MEMORY) -> Contents:
    return Contents.from_json(json.loads(Reader(seconds, memory).read(data, name)))


def refused(data: bytes, name: str = "file", seconds: float = 30, memory: int = MEMORY) -> Unreadable:
    with pytest.raises(Unreadable) as caught:
        Reader(seconds, memory).read(data, name)
    return caught.value


def texts(contents: Contents) -> str:
    return "\n".join(each.text for each in contents.passages)


def test_a_pdf_is_read_page_by_page_also_in_chinese_fonts_that_it_does_not_hold() -> None:
    found = read(made.pdf("Returns\nwithin 30 days", "年假须提前三天申请，\n由经理批准。"), "a.pdf")
    assert found.kind == "pdf"
    assert [(each.page, each.text) for each in found.passages] == [
        (1, "Returns\nwithin 30 days"),
        (2, "年假须提前三天申请，由经理批准。"),  # the line that the page broke
    ]


def test_a_docx_is_read_by_its_headings_with_its_tables() -> None:
    file = made.docx_of(
        "# 请假", "年假须提前三天。", [["项目", "天数"], ["年假", "10"]], "# Travel", "By train."
    )
    found = read(file)
    assert found.kind == "docx"
    assert [each.section for each in found.passages] == ["请假", None, "Travel"]
    assert "项目 | 天数\n年假 | 10" in texts(found)


def test_every_passage_of_a_table_repeats_its_header() -> None:
    rows: list[list[object]] = [["item", "price"], *([f"thing {at}", at + 0.5] for at in range(200))]
    found = read(made.xlsx_of(Prices=rows))
    assert found.kind == "xlsx"
    assert len(found.passages) > 3
    for each in found.passages:
        assert each.text.startswith("item | price\nthing ")
        assert each.section == "Prices"
    table = "\n".join(";".join(map(str, row)) for row in rows).encode()
    assert all(each.text.startswith("item | price\n") for each in read(table, "a.csv").passages)


def test_markdown_source_and_json_keep_their_text() -> None:
    code = "def f():\n    return 1\n"
    assert texts(read(code.encode(), "f.py")) == code.strip("\n")
    assert read(code.encode(), "f.py").kind == "code"
    assert read(b'{"a": [1, 2]}', "a.json").kind == "json"
    fenced = read(b"# A\n\n```sh\n# no heading\n```\n", "a.md")
    assert [each.section for each in fenced.passages] == ["A"]


CHINESE = "公司员工手册：年假须提前三个工作日申请，由部门经理批准。\n"
TRADITIONAL = "公司員工手冊：年假須提前三個工作日申請，由部門經理批准。\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (CHINESE, "utf-8"),
        (CHINESE, "utf-8-sig"),
        (CHINESE, "gb18030"),
        (TRADITIONAL, "big5"),
        (TRADITIONAL, "gb18030"),
        (CHINESE, "utf-16"),
        (CHINESE * 3 + "OK, 3 days.\n", "utf-16-le"),
        ("Three days before.\n", "utf-16-be"),
        ("Überprüfung der Geräte, größer als früher: müßig.\n" * 20, "cp1252"),
    ],
)
@pytest.mark.parametrize("times", [1, 200])
def test_a_text_in_an_older_encoding_is_read(text: str, encoding: str, times: int) -> None:
    found = texts(read((text * times).encode(encoding), "a.txt"))
    assert found.split("\n")[0] == text.split("\n")[0]
    assert "\ufffd" not in found


def test_the_bytes_decide_not_the_name() -> None:
    assert read(made.pdf("Hello there"), "report.txt").kind == "pdf"
    assert read(made.xlsx_of(S=[["a"], ["b"]]), "table.docx").kind == "xlsx"
    assert read(b"plain words", "letter.pdf").kind == "code"


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "document_image", "picture (PNG)"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "document_image", "picture (JPEG)"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'></svg>", "document_image", "picture (SVG)"),
        (b"\x7fELF\2\1\1\0" + bytes(range(256)) * 20, "document_kind", "no text file"),
        (b"", "document_empty", "no text"),
        (b" \n\t\n", "document_empty", "no text"),
        (made.pdf(""), "document_empty", "pages are pictures"),
        (made.pdf_with_password(), "document_encrypted", "password"),
        (made.office_with_password(), "document_encrypted", "password"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(900), "document_kind", "save the file as .docx"),
        (made.pdf("Hello there")[:700], "document_damaged", "cut off"),
        (made.docx_of("Hello there")[:3000], "document_damaged", "cut off"),
        (made.zip_bomb(), "document_too_big_inside", "209715200"),
        (made.docx_with_entities(made.ENTITIES), "document_damaged", "damaged"),
        (made.xlsx_with_entities(made.ENTITIES), "document_damaged", "damaged"),
        (made.xlsx_with_entities(made.OUTSIDE), "document_damaged", "damaged"),
        (made.pdf_with_looping_pages(), "document_damaged", "damaged"),
        (made.pdf_that_draws_itself(), "document_damaged", "damaged"),
    ],
)
def test_what_cannot_be_read_is_refused_in_words(data: bytes, code: str, words: str) -> None:
    begun = time.monotonic()
    error = refused(data)
    assert (error.code, words in error.message) == (code, True), error.message
    assert time.monotonic() - begun < SLACK_S


def test_a_file_that_xml_names_is_not_read_into_a_document() -> None:
    found = texts(read(made.docx_with_entities(made.OUTSIDE)))
    assert found.strip() == "before"


def test_an_archive_that_lies_about_its_sizes_gets_no_more_than_it_claims() -> None:
    assert texts(read(made.lying_zip_bomb())) == "x"


@pytest.mark.slow
def test_a_pdf_that_unpacks_to_a_gigabyte_ends_at_the_limit_of_memory() -> None:
    error = refused(made.pdf_bomb(), memory=256 * 2**20)
    assert error.code == "document_damaged"
    assert "268435456 bytes of memory" in error.message


def test_a_workbook_without_end_ends_at_the_limit_of_time() -> None:
    begun = time.monotonic()
    error = refused(made.xlsx_of_full_rows(), seconds=2)
    assert error.code == "document_too_slow"
    assert "2 seconds" in error.message
    assert time.monotonic() - begun < 2 + SLACK_S


def test_empty_rows_between_two_cells_cost_nothing() -> None:
    found = read(made.xlsx_far_away())
    assert found.passages[0].text.startswith("1\n")
    assert found.passages[-1].text.endswith("| 2")


def test_a_header_or_heading_of_great_length_is_not_repeated() -> None:
    """The fault it guards against: a first row of a megabyte in front of every passage of a table."""
    table = "x" * 100_000 + ",b\n" + "1,2\n" * 20_000
    assert read(table.encode(), "a.csv").characters < 2 * len(table)
    section = read(("# " + "y" * 50_000 + "\n" + "word. " * 20_000).encode(), "a.md").passages[-1].section
    assert section is not None
    assert len(section) <= 120


def test_the_worker_writes_no_file_and_sees_no_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOUTU_API_KEY", "very-secret")
    worker = tmp_path / "frontend" / "documents"
    worker.mkdir(parents=True)
    (worker / "__init__.py").touch()
    (worker.parent / "__init__.py").touch()
    program = f"""
import json, os, sys
sys.path.insert(0, {str(reader.ROOT)!r})
for name in [name for name in sys.modules if name.startswith("frontend")]: del sys.modules[name]
from frontend.documents.worker import limit
order = json.loads(sys.stdin.buffer.readline()); limit(order["seconds"], order["memory"])
said = [key for key in os.environ if key.startswith("YOUTU_")]
try:
    with open({str(tmp_path / "written")!r}, "wb") as file: file.write(b"x"); file.flush()
    said.append("written")
except OSError: pass
print(json.dumps(dict(kind="text", characters=1, passages=[dict(text=str(said), page=None, section=None)],
                      lengths=[1], postings=dict())))
"""
    (worker / "worker.py").write_text(
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + program, encoding="utf-8"
    )
    monkeypatch.setattr(reader, "ROOT", tmp_path)
    assert texts(read(b"x")) == "[]"
    assert not (tmp_path / "written").exists() or (tmp_path / "written").stat().st_size == 0


def test_no_more_are_read_at_once_than_may() -> None:
    busy = Reader(5, MEMORY)
    for _ in range(reader.AT_ONCE):
        busy._places.acquire()
    with pytest.raises(Busy):
        busy.read(b"x", "a.txt", wait_s=0.05)


def test_no_process_is_left_behind() -> None:
    def workers() -> list[int]:
        children = psutil.Process().children()
        return [child.pid for child in children if "frontend.documents.worker" in child.cmdline()]

    refused(made.xlsx_of_full_rows(), seconds=1)
    assert workers() == []


def test_every_code_has_a_status() -> None:
    assert CODES.items() <= STATUSES.items()
