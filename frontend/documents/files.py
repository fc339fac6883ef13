"""What a file is, told by its bytes; its name decides only among the kinds of text.

A name that says otherwise is no fault: the page of a report that was saved as `.txt` is still a PDF.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePath
from typing import Literal

from .unreadable import Unreadable

Kind = Literal["text", "markdown", "csv", "json", "code", "pdf", "docx", "xlsx"]

IMAGES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\1\0": "ICO",
}
IMAGE_BRANDS = (b"avif", b"heic", b"heix", b"mif1")

MARKDOWN = (".md", ".markdown", ".mdown")
TABLES = (".csv", ".tsv", ".tab")
JSONS = (".json", ".jsonl", ".ndjson", ".geojson")
TEXTS = ("", ".txt", ".text", ".log", ".rst", ".tex", ".srt", ".vtt", ".eml")

UNPACKED_BYTES = 200 * 2**20
"""How much a .docx or .xlsx may hold when it is unpacked."""
MEMBERS = 5000
"""How many files it may hold."""


def kind_of(data: bytes, name: str) -> Kind:
    """The kind of this file. Raises Unreadable for those that are not read here."""
    head = data[:16]
    if b"%PDF-" in data[:1024]:
        return "pdf"
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_archive(data)
    if head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _refuse_ole(data)
    if (picture := _picture(data)) is not None:
        message = f"this is a picture ({picture}); the model reads text only, so send the text that it shows"
        raise Unreadable("document_image", message)
    return _kind_of_text(name)


def _picture(data: bytes) -> str | None:
    for start, name in IMAGES.items():
        if data.startswith(start) and b"\0" in data[:4096]:
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[4:8] == b"ftyp" and data[8:12] in IMAGE_BRANDS:
        return "HEIF"
    if b"<svg" in data[:512] and data.lstrip()[:5] in (b"<svg ", b"<?xml", b"<!DOC"):
        return "SVG"
    return None


def _kind_of_archive(data: bytes) -> Kind:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
        raise Unreadable("document_damaged", "the file is damaged or cut off") from error
    unpacked = sum(member.file_size for member in members)
    if unpacked > UNPACKED_BYTES or len(members) > MEMBERS:
        message = (
            f"unpacked, the file has {unpacked} bytes in {len(members)} files; "
            f"{UNPACKED_BYTES} bytes in {MEMBERS} files are allowed"
        )
        raise Unreadable("document_too_big_inside", message)
    names = {member.filename for member in members}
    if any(name.startswith("word/") for name in names):
        return "docx"
    if any(name.startswith("xl/") and name.endswith(".xml") for name in names):
        return "xlsx"
    raise Unreadable("document_kind", "this archive is neither .docx nor .xlsx; send the files in it")


def _refuse_ole(data: bytes) -> Kind:
    if "EncryptedPackage".encode("utf-16-le") in data:
        message = "the file is protected by a password; save it without one and send it again"
        raise Unreadable("document_encrypted", message)
    message = "the formats .doc, .xls and .ppt are not read; save the file as .docx, .xlsx or PDF"
    raise Unreadable("document_kind", message)


def _kind_of_text(name: str) -> Kind:
    suffix = PurePath(name).suffix.lower()
    if suffix in MARKDOWN:
        return "markdown"
    if suffix in TABLES:
        return "csv"
    if suffix in JSONS:
        return "json"
    return "text" if suffix in TEXTS else "code"
