"""The text of a file of each kind, as parts that know their place in it. Runs in the worker's process."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .encodings import cleaned, decode
from .files import Kind
from .unreadable import Unreadable

HEADING = re.compile(r"(#{1,6})\s+(.+?)\s*#*$")
TITLE_CHARACTERS = 120
HEADER_CHARACTERS = 300
"""A longer first row is not repeated with each passage."""
FENCE = re.compile(r"\s{0,3}(```|~~~)")


@dataclass(frozen=True)
class Part:
    """Text that belongs together. `page` from 1; `section`: a heading, or the name of a sheet.

    `header`: the first row of a table, which every passage of it repeats.
    """

    text: str
    page: int | None = None
    section: str | None = None
    header: str | None = None


def parts(data: bytes, kind: Kind) -> Iterator[Part]:
    """The parts of the file, in order. Raises Unreadable."""
    yield from READERS[kind](data)


def _text(data: bytes) -> Iterator[Part]:
    yield Part(cleaned(decode(data)))


def _markdown(data: bytes) -> Iterator[Part]:
    yield from sections(cleaned(decode(data)).split("\n"))


def sections(lines: Iterable[str]) -> Iterator[Part]:
    """A part for each heading of a text in Markdown; its section is the path of headings that leads there."""
    path: list[tuple[int, str]] = []
    held: list[str] = []
    fenced = False

    def part() -> Part:
        return Part("\n".join(held), section=" › ".join(title for _, title in path) or None)

    for line in lines:
        fenced ^= FENCE.match(line) is not None
        heading = None if fenced else HEADING.match(line)
        if heading is not None:
            yield part()
            held = []
            level = len(heading[1])
            path = [(depth, title) for depth, title in path if depth < level]
            path.append((level, heading[2][:TITLE_CHARACTERS]))
        held.append(line)
    yield part()


def _csv(data: bytes) -> Iterator[Part]:
    text = cleaned(decode(data))
    try:
        delimiter = csv.Sniffer().sniff(text[:8192], ",;\t|").delimiter
    except csv.Error:
        delimiter = "\t" if "\t" in text.split("\n", 1)[0] else ","
    csv.field_size_limit(len(text) + 1)
    try:
        yield from _table(csv.reader(io.StringIO(text), delimiter=delimiter), None)
    except csv.Error:  # then it is read as it stands
        yield Part(text)


def _table(rows: Iterable[Iterable[object]], sheet: str | None) -> Iterator[Part]:
    """All rows as lines of cells with ` | ` between them; the first row with anything in it is the header."""
    header: str | None = None
    lines: list[str] = []
    for row in rows:
        cells = [" ".join(_cell(value).split()) for value in row]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        line = " | ".join(cells)
        lines.append(line)
    if not lines:
        return
    if len(lines) > 1 and len(lines[0]) <= HEADER_CHARACTERS:
        header = lines.pop(0)
    yield Part("\n".join(lines), section=sheet, header=header)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return cleaned(str(value))


def _pdf(data: bytes) -> Iterator[Part]:
    import pypdfium2
    from pypdfium2 import raw

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if raw.FPDF_GetLastError() == raw.FPDF_ERR_PASSWORD or "password" in str(error).lower():
            message = "the PDF is protected by a password; save it without one and send it again"
            raise Unreadable("document_encrypted", message) from error
        raise Unreadable("document_damaged", "the PDF is damaged or cut off") from error
    count, failed = len(document), 0
    for number in range(count):
        try:
            page = document[number]
            text = page.get_textpage().get_text_bounded()
            page.close()
        except pypdfium2.PdfiumError:  # one page that is broken does not take the others with it
            failed += 1
            continue
        yield Part(unwrapped(cleaned(text)), page=number + 1)
    if count == failed:
        raise Unreadable("document_damaged", f"the PDF is damaged: none of its {count} pages can be read")


_HYPHENATED = re.compile(r"(?<=[a-z])[-\xad\ufffe]\n(?=[a-z])")
_WRAPPED_CHINESE = re.compile(r"(?<=[\u3400-\u9fff，、；：（“])\n(?=[\u3400-\u9fff，、；：）”])")


def unwrapped(text: str) -> str:
    """Lines that the width of a page broke within a word are joined: words must be found again."""
    return _WRAPPED_CHINESE.sub("", _HYPHENATED.sub("", text)).replace("\ufffe", "-").replace("\xad", "")


def _docx(data: bytes) -> Iterator[Part]:
    import docx
    from docx.table import Table
    from lxml.etree import LxmlError

    try:
        document = docx.Document(io.BytesIO(data))
        blocks = list(document.iter_inner_content())
    except (KeyError, ValueError, OSError, AttributeError, LxmlError) as error:
        raise Unreadable("document_damaged", f"the .docx file is damaged ({type(error).__name__})") from error
    lines: list[str] = []
    for block in blocks:
        if isinstance(block, Table):
            yield from sections(lines)
            lines = []
            yield from _table(map(_cells, block.rows), None)
            continue
        style = block.style.name if block.style is not None and block.style.name else ""
        level = re.fullmatch(r"(?:Heading|标题|標題) ?([1-6])", style)
        text = cleaned(block.text)
        lines.append(f"{'#' * int(level[1])} {' '.join(text.split())}" if level and text.strip() else text)
        lines.append("")
    yield from sections(lines)


def _cells(row: Any) -> list[str]:
    """The texts of a row; a cell over several columns, which comes once for each, once."""
    return [cell.text for cell in {id(cell._tc): cell for cell in row.cells}.values()]


def _xlsx(data: bytes) -> Iterator[Part]:
    import zipfile
    from xml.etree.ElementTree import ParseError

    import openpyxl
    from defusedxml.common import DefusedXmlException
    from lxml.etree import LxmlError

    try:
        # data_only: what a formula gave when the file was saved, not the formula.
        book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
        for sheet in book.worksheets:
            yield from _table(sheet.iter_rows(values_only=True), sheet.title[:TITLE_CHARACTERS])
    except DefusedXmlException as error:
        message = "the .xlsx file defines XML entities, as attacks do; it is not read"
        raise Unreadable("document_damaged", message) from error
    except (
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        OSError,
        EOFError,
        ParseError,
        LxmlError,
        zipfile.BadZipFile,
    ) as error:
        raise Unreadable("document_damaged", f"the .xlsx file is damaged ({type(error).__name__})") from error


READERS: dict[Kind, Callable[[bytes], Iterator[Part]]] = {
    "text": _text,
    "code": _text,
    "json": _text,
    "markdown": _markdown,
    "csv": _csv,
    "pdf": _pdf,
    "docx": _docx,
    "xlsx": _xlsx,
}
