"""Files of every kind, made here from their texts, and files that are meant to harm who reads them."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Sequence

import docx
import openpyxl

Object = bytes


def pdf_of(objects: Sequence[Object], trailer: bytes = b"") -> bytes:
    """A PDF of these objects, numbered from 1, of which the first is the catalogue."""
    made = bytearray(b"%PDF-1.7\n")
    offsets = []
    for number, content in enumerate(objects, 1):
        offsets.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = len(made)
    made += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    made += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    made += b"trailer\n<</Size %d/Root 1 0 R%s>>\n" % (len(objects) + 1, trailer)
    return bytes(made + b"startxref\n%d\n%%%%EOF\n" % table)


def stream(data: bytes, entries: bytes = b"") -> Object:
    return b"<</Length %d%s>>\nstream\n%s\nendstream" % (len(data), entries, data)


def pdf(*pages: str, trailer: bytes = b"", more: Sequence[Object] = ()) -> bytes:
    """A page for each text, a line for each of its lines; Chinese in a font that the reader has to know."""
    kids = b" ".join(b"%d 0 R" % (5 + 2 * at) for at in range(len(pages)))
    cid = (
        b"<</Type/Font/Subtype/Type0/BaseFont/STSong-Light/Encoding/UniGB-UCS2-H/DescendantFonts[<</Type/Font"
        b"/Subtype/CIDFontType0/BaseFont/STSong-Light/DW 1000/CIDSystemInfo<</Registry(Adobe)/Ordering(GB1)"
        b"/Supplement 2>>/FontDescriptor<</Type/FontDescriptor/FontName/STSong-Light/Flags 4/FontBBox"
        b"[0 -200 1000 900]/ItalicAngle 0/Ascent 800/Descent -200/CapHeight 700/StemV 80>>>>]>>"
    )
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[%s]/Count %d>>" % (kids, len(pages)),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>",
        cid,
    ]
    for at, text in enumerate(pages):
        objects.append(
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Resources<</Font<</F1 3 0 R/F2 4 0 R>>>>"
            b"/Contents %d 0 R>>" % (6 + 2 * at)
        )
        shown = []
        for line in text.split("\n"):
            if line.isascii():
                escaped = line.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
                shown.append(b"/F1 12 Tf (%s) Tj T*" % escaped.encode("latin-1"))
            else:
                shown.append(b"/F2 12 Tf <%s> Tj T*" % line.encode("utf-16-be").hex().encode())
        objects.append(stream(b"BT 14 TL 50 780 Td %s ET" % b" ".join(shown)))
    return pdf_of([*objects, *more], trailer)


def docx_of(*blocks: str | list[list[str]]) -> bytes:
    """Paragraphs (`# ` begins a heading) and tables."""
    document = docx.Document()
    for block in blocks:
        if isinstance(block, str):
            if block.startswith("# "):
                document.add_heading(block[2:], 1)
            else:
                document.add_paragraph(block)
            continue
        table = document.add_table(len(block), len(block[0]))
        for row, cells in zip(table.rows, block, strict=True):
            for cell, text in zip(row.cells, cells, strict=True):
                cell.text = text
    file = io.BytesIO()
    document.save(file)
    return file.getvalue()


def xlsx_of(**sheets: list[list[object]]) -> bytes:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    file = io.BytesIO()
    book.save(file)
    return file.getvalue()


def replaced(archive: bytes, name: str, content: bytes) -> bytes:
    """The archive with another content of one of its files."""
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as before,
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after,
    ):
        for member in before.namelist():
            after.writestr(member, content if member == name else before.read(member))
    return file.getvalue()


ENTITIES = (
    '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {new} "{f"&{old};" * 10}">' for old, new in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)
"""Nine levels, each ten times the one before: a gigabyte once it is expanded."""

OUTSIDE = '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY i SYSTEM "file:///etc/passwd">]>'

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def docx_with_entities(head: str) -> bytes:
    text = "<w:p><w:r><w:t>before &i; after</w:t></w:r></w:p>"
    body = f'<w:document xmlns:w="{_WORD}"><w:body>{text}</w:body></w:document>'
    return replaced(docx_of("x"), "word/document.xml", (head + body).encode())


def xlsx_with_entities(head: str) -> bytes:
    cell = '<c r="A1" t="inlineStr"><is><t>before &i; after</t></is></c>'
    body = f'<worksheet xmlns="{_SHEET}"><sheetData><row r="1">{cell}</row></sheetData></worksheet>'
    return replaced(xlsx_of(S=[["x"]]), "xl/worksheets/sheet1.xml", (head + body).encode())


def zip_bomb() -> bytes:
    """A .docx whose text is 400 MB of spaces, in 400 KB."""
    file = io.BytesIO(docx_of("x"))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/more.xml", b" " * (400 * 2**20))
    return file.getvalue()


def lying_zip_bomb() -> bytes:
    """The same, and its directory says that it is small."""
    made = bytearray(zip_bomb())
    size = (400 * 2**20).to_bytes(4, "little")
    while (at := made.find(size)) >= 0:
        made[at : at + 4] = (1000).to_bytes(4, "little")
    return bytes(made)


def xlsx_far_away() -> bytes:
    """A sheet with a cell in its last row and column, and nothing between."""
    body = (
        f'<worksheet xmlns="{_SHEET}"><sheetData><row r="1"><c r="A1"><v>1</v></c></row>'
        '<row r="1048576"><c r="XFD1048576"><v>2</v></c></row></sheetData></worksheet>'
    )
    return replaced(xlsx_of(S=[["x"]]), "xl/worksheets/sheet1.xml", body.encode())


def xlsx_of_full_rows() -> bytes:
    """Rows without end, each with a cell in the last column: 16,384 cells to be made of each."""
    rows = "".join(f'<row r="{at}"><c r="XFD{at}"><v>1</v></c></row>' for at in range(1, 100_000))
    body = f'<worksheet xmlns="{_SHEET}"><sheetData>{rows}</sheetData></worksheet>'
    return replaced(xlsx_of(S=[["x"]]), "xl/worksheets/sheet1.xml", body.encode())


def pdf_with_looping_pages() -> bytes:
    """A tree of pages that holds itself, and claims to have a billion."""
    return pdf_of([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[2 0 R 2 0 R]/Count 1000000000>>"])


def pdf_that_draws_itself(levels: int = 40) -> bytes:
    """A page whose forms draw the next form twice, 2 to the 40th times in all."""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Resources<</XObject<</X 5 0 R>>>>/Contents 4 0 R>>",
        stream(b"/X Do"),
    ]
    for level in range(levels):
        entries = b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X %d 0 R>>>>" % (6 + level)
        objects.append(stream(b"/X Do /X Do", entries))
    objects.append(stream(b"", b"/Type/XObject/Subtype/Form/BBox[0 0 9 9]"))
    return pdf_of(objects)


def pdf_bomb() -> bytes:
    """A page whose content is packed twice: 4 MB become 1 GB."""
    packed = zlib.compress(zlib.compress(b"0 0 m " * (180 * 2**20), 9), 9)
    content = stream(packed, b"/Filter[/FlateDecode/FlateDecode]")
    return pdf_of(
        [
            b"<</Type/Catalog/Pages 2 0 R>>",
            b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
            b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Contents 4 0 R>>",
            content,
        ]
    )


def pdf_with_password() -> bytes:
    """Encrypted (RC4 of 40 bits), with a password that nobody knows."""
    encrypt = b"<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (b"11" * 32, b"22" * 32)
    return pdf("secret", trailer=b"/Encrypt 7 0 R/ID[<00112233445566778899aabbccddeeff><00>]", more=[encrypt])


def office_with_password() -> bytes:
    """How an encrypted .docx or .xlsx begins: a container of the older formats, with this name in it."""
    name = "EncryptedPackage".encode("utf-16-le")
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + name + bytes(600)
