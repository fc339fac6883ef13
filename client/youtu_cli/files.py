"""The files that `youtu batch` takes, as bytes: which kind one is, and in which encoding.

Handles names and encodings; independent of columns and the server.
"""

from __future__ import annotations

import codecs
from pathlib import Path

SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
"""Of files of questions and of answers; questions may also be a workbook."""
WORKBOOK = ".xlsx"

LOW_TRAILS = 0.05
"""Share of second bytes below 0x80 from which on a text is taken for Big5: GB2312 has none of them."""


class FileError(Exception):
    """A file cannot be used as it is; the message names it and says why."""


def kind_of(path: Path) -> str:
    """ "csv" or "jsonl", by the suffix."""
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise FileError(f"{path}: the name must end in {', '.join(SUFFIXES)}") from None


def decode(path: Path, encoding: str | None) -> tuple[str, str | None]:
    """The text of a file and, when its encoding had to be guessed, a notice for the user."""
    data = path.read_bytes()
    if encoding is not None:
        try:
            return data.decode(encoding).removeprefix("\ufeff"), None
        except LookupError:
            raise FileError(f"--encoding: unknown encoding {encoding}") from None
        except UnicodeDecodeError as error:
            raise FileError(f"{path} is not {encoding}: byte {error.start} is invalid") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16"), None
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        where = error.start
    name, codec = ("Big5", "cp950") if _is_big5(data) else ("GBK", "gb18030")
    try:
        text = data.decode(codec)
    except UnicodeDecodeError:
        raise FileError(
            f"{path} is neither UTF-8 (byte {where}) nor GBK nor Big5; set its --encoding"
        ) from None
    return (
        text,
        f"{path} is not UTF-8 (byte {where}); reading it as {name}. If that is wrong, set its --encoding",
    )


def _is_big5(data: bytes) -> bool:
    """Most texts in one of the two encodings are valid in the other; their second bytes tell them apart."""
    try:
        data.decode("cp950")
    except UnicodeDecodeError:
        return False
    pairs = low = at = 0
    while at < len(data) - 1:
        if data[at] < 0x80:
            at += 1
            continue
        pairs += 1
        low += data[at + 1] < 0x80
        at += 2
    return low > LOW_TRAILS * pairs
