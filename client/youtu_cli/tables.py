"""Files of questions in, files of answers out, for `youtu batch`: CSV and JSON lines, and where it stopped.

It knows encodings, columns and half-written lines; it knows no server.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}
COLUMNS = (
    "row",
    "id",
    "question",
    "answer",
    "finish_reason",
    "prompt_tokens",
    "completion_tokens",
    "seconds",
    "error",
    "key",
)

csv.field_size_limit(2**26)


class FileError(Exception):
    """A file cannot be used as it is; the message names it and says why."""


@dataclass(frozen=True)
class Row:
    """One question. `number` counts the rows of the input from 1; `id` is the file's own, or empty."""

    number: int
    id: str
    messages: tuple[Mapping[str, Any], ...]
    repeat: int = 0
    """How many rows before this one have the same id and conversation; each gets its own answer."""

    @property
    def question(self) -> str:
        """The user's last message, for people to read."""
        return str(self.messages[-1].get("content", "")) if self.messages else ""

    @property
    def key(self) -> str:
        """The same for the same id and conversation: by it a later run knows the row again."""
        text = json.dumps([self.id, list(self.messages), self.repeat], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


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
            raise FileError(f"--encoding {encoding}: there is no such encoding") from None
        except UnicodeDecodeError as error:
            raise FileError(f"{path} is not {encoding}: byte {error.start} does not fit") from None
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16"), None
    try:
        return data.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        where = error.start
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        raise FileError(f"{path} is neither UTF-8 (byte {where}) nor GBK; name its --encoding") from None
    return (
        text,
        f"{path} is not UTF-8 (byte {where}); reading it as GBK. If that is wrong, name its --encoding",
    )


def read_rows(path: Path, text: str, *, column: str, id_column: str) -> list[Row]:
    """The questions of an input file, without empty ones. Raises FileError naming line and column."""
    if kind_of(path) == "csv":
        return _csv_rows(path, text, column, id_column)
    return _jsonl_rows(path, text, column, id_column)


def _csv_rows(path: Path, text: str, column: str, id_column: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = names
        if column not in names:
            have = ", ".join(repr(name) for name in names) or "none"
            raise FileError(
                f"{path} has no column {column!r}; its columns are {have}. Name one with --column"
            )
        rows = []
        for number, record in enumerate(reader, start=1):
            question = record.get(column) or ""
            if question.strip():
                message = {"role": "user", "content": question}
                rows.append(Row(number, (record.get(id_column) or "").strip(), (message,)))
        return rows
    except csv.Error as error:
        raise FileError(f"{path}, after line {reader.line_num}: not CSV: {error}") from None


def _jsonl_rows(path: Path, text: str, column: str, id_column: str) -> list[Row]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise FileError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(record, dict):
            raise FileError(f"{path}, line {number}: not a JSON object")
        identity = record.get(id_column)
        identity = "" if identity is None else str(identity)
        if column in record:
            if not isinstance(record[column], str):
                raise FileError(f"{path}, line {number}: {column!r} is not a string")
            messages = [{"role": "user", "content": record[column]}] if record[column].strip() else []
        elif "messages" in record:
            messages = record["messages"]
            if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
                raise FileError(f"{path}, line {number}: 'messages' is not a list of objects")
        else:
            have = ", ".join(repr(name) for name in record) or "none"
            raise FileError(f"{path}, line {number}: neither {column!r} nor 'messages'; its keys are {have}")
        if messages:
            rows.append(Row(number, identity, tuple(messages)))
    return rows


class Answers:
    """The output file, open for appending. `done` maps the key of each row it already holds to its error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kind = kind_of(path)
        self.done: dict[str, str] = {}
        self.repaired = False
        data = path.read_bytes() if path.exists() else b""
        whole = _whole_csv(data) if self.kind == "csv" else _whole_jsonl(data)
        if data and not whole and not data.startswith((b"{", codecs.BOM_UTF8)):
            raise FileError(f"{path} exists and is not an answer file of this command; it is left as it is")
        self._read(data[:whole])
        if whole < len(data):
            os.truncate(path, whole)
            self.repaired = True
        self._file = path.open("ab")
        if not whole and self.kind == "csv":
            # The mark at the start is what makes Excel read the file as UTF-8.
            self._file.write(codecs.BOM_UTF8 + _csv_line(COLUMNS))
            self._file.flush()

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one answer, in one write, so that a kill leaves at most one half line behind."""
        if self.kind == "csv":
            line = _csv_line(["" if record.get(name) is None else record[name] for name in COLUMNS])
        else:
            line = json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _read(self, data: bytes) -> None:
        if not data:
            return
        foreign = FileError(
            f"{self.path} exists and is not an answer file of this command; it is left as it is"
        )
        try:
            text = data.decode("utf-8-sig")
            if self.kind == "csv":
                reader = csv.DictReader(io.StringIO(text, newline=""))
                if tuple(reader.fieldnames or ()) != COLUMNS:
                    raise foreign
                records = list(reader)
            else:
                records = [json.loads(line) for line in text.split("\n") if line.strip()]
            self.done = {record["key"]: record["error"] or "" for record in records}
        except (ValueError, TypeError, KeyError, csv.Error):
            raise foreign from None


def _csv_line(values: Any) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerow(values)
    return out.getvalue().encode(errors="backslashreplace")


def _whole_jsonl(data: bytes) -> int:
    return data.rfind(b"\n") + 1


def _whole_csv(data: bytes) -> int:
    """Bytes up to the last line end outside quotes: a doubled quote toggles twice and so changes nothing."""
    whole, end, quoted = 0, 0, False
    for part in data.splitlines(keepends=True):
        quoted ^= part.count(b'"') % 2 == 1
        end += len(part)
        if not quoted and part.endswith(b"\n"):
            whole = end
    return whole
