"""Files of questions, as rows: CSV with any of three separators, JSON lines, workbooks of Excel.

Handles columns and their names; independent of the server.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .answer_file import COLUMNS
from .files import SUFFIXES, WORKBOOK, FileError, decode, kind_of
from .spreadsheet import unguarded

QUESTIONS = ("question", "问题", "問題")
"""What the column of the questions is called where the user names none, in any case."""
SEPARATORS = ",;\t"

csv.field_size_limit(2**26)


@dataclass(frozen=True)
class Row:
    """One question. `number` counts the rows of the input from 1; `id` is the file's own, or empty."""

    number: int
    id: str
    messages: tuple[Mapping[str, Any], ...]
    repeat: int = 0
    """How many rows before this one have the same id and conversation; each gets its own answer."""
    carried: Mapping[str, Any] = field(default_factory=dict)
    """The other columns, which are carried into the output."""

    @property
    def question(self) -> str:
        """The user's last message, for people to read."""
        return str(self.messages[-1].get("content", "")) if self.messages else ""

    @property
    def key(self) -> str:
        """The same for the same id and conversation: by it a later run knows the row again."""
        text = json.dumps([self.id, list(self.messages), self.repeat], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def questions(
    path: Path, *, column: str | None, id_column: str, encoding: str | None
) -> tuple[list[Row], str | None]:
    """The rows of a file of any kind, and a notice where its encoding had to be guessed. Raises FileError."""
    suffix = path.suffix.lower()
    if suffix == WORKBOOK:
        return _table_rows(path, _workbook(path), column, id_column), None
    if suffix not in SUFFIXES:
        raise FileError(f"{path}: the name must end in {', '.join((*SUFFIXES, WORKBOOK))}")
    text, notice = decode(path, encoding)
    return read_rows(path, text, column=column, id_column=id_column), notice


def carried_columns(rows: Iterable[Row]) -> list[str]:
    """The names of all columns that any row carries, in order."""
    return list(dict.fromkeys(name for row in rows for name in row.carried))


def read_rows(path: Path, text: str, *, column: str | None, id_column: str) -> list[Row]:
    """The questions of an input file, without empty ones. Raises FileError naming line and column.

    `column` None: the first of QUESTIONS that is there.
    """
    if kind_of(path) == "csv":
        return _table_rows(path, _csv(path, text, column), column, id_column)
    return _jsonl_rows(path, text, column, id_column)


def _csv(path: Path, text: str, column: str | None) -> Iterator[Sequence[str]]:
    """The lines of a CSV file, the header first."""
    if text[:4].lower() == "sep=" and text[4:5]:  # as Excel writes it into the first line
        separator, text = text[4], text.partition("\n")[2]
    else:
        separator = "\t" if path.suffix.lower() == ".tsv" else _separator(text, column)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    whole = 0
    try:
        for line in reader:
            whole = reader.line_num
            yield line
    except csv.Error as error:
        raise FileError(f"{path}, after line {whole}: not CSV: {error}") from None


def _separator(text: str, column: str | None) -> str:
    """The one with which the header has a column of questions, or else most columns."""

    def header(separator: str) -> list[str]:
        try:
            return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
        except csv.Error:
            return []

    return max(SEPARATORS, key=lambda each: (_place(header(each), column) is not None, len(header(each))))


def _workbook(path: Path) -> Iterator[Sequence[str]]:
    """The lines of the first sheet, the header first."""
    try:
        import openpyxl
    except ImportError:
        raise FileError(
            f"{path}: workbooks need openpyxl: pip install 'youtu-client[excel]', or save it as CSV"
        ) from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever a damaged ZIP or XML file makes the library raise
        raise FileError(f"{path} cannot be read as a workbook: {error}") from None
    for line in book.worksheets[0].iter_rows(values_only=True):
        yield ["" if value is None else str(value) for value in line]
    book.close()


def _place(names: Sequence[str], column: str | None) -> int | None:
    """Where among `names` the questions are."""
    wanted = QUESTIONS if column is None else (column,)
    return next((at for name in wanted if (at := _index(names, name)) is not None), None)


def _index(names: Sequence[str], name: str) -> int | None:
    """Where `name` is, written just so or else in any case."""
    if name in names:
        return names.index(name)
    lower = [each.strip().lower() for each in names]
    return lower.index(name.lower()) if name.lower() in lower else None


def _table_rows(path: Path, lines: Iterator[Sequence[str]], column: str | None, id_column: str) -> list[Row]:
    names = [name.strip() for name in next(lines, [])]
    if tuple(names[: len(COLUMNS)]) == COLUMNS:  # a file of answers
        lines = ([unguarded(cell) for cell in line] for line in lines)
    at = _place(names, column)
    if at is None:
        have = ", ".join(repr(name) for name in names) or "none"
        wanted = column or QUESTIONS[0]
        raise FileError(f"{path} has no column {wanted!r}; its columns are {have}. Choose one with --column")
    if (count := names.count(names[at])) > 1:
        raise FileError(f"{path} has {count} columns named {names[at]!r}; column names must be unique")
    id_at = _index(names, id_column)
    carried = {
        place: name for place, name in enumerate(_unlike(names)) if names[place] and place not in (at, id_at)
    }
    rows = []
    for number, line in enumerate((line for line in lines if line), start=1):
        cells = dict(enumerate(line))
        question = cells.get(at, "")
        if question.strip():
            others = {name: cells.get(place, "") for place, name in carried.items()}
            identity = "" if id_at is None else cells.get(id_at, "").strip()
            message = {"role": "user", "content": question}
            rows.append(Row(number, identity, (message,), carried=others))
    return rows


def _unlike(names: Iterable[str]) -> list[str]:
    """The names, those that are there twice or mean something in the output with a number behind."""
    seen: Counter[str] = Counter(COLUMNS)
    found = []
    for name in names:
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def _jsonl_rows(path: Path, text: str, column: str | None, id_column: str) -> list[Row]:
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
        names = list(record)
        id_at = _index(names, id_column)
        identity = None if id_at is None else record[names[id_at]]
        identity = "" if identity is None else str(identity)
        at = _place(names, column)
        used = names[at] if at is not None else "messages"
        if at is not None:
            if not isinstance(record[used], str):
                raise FileError(f"{path}, line {number}: {used!r} is not a string")
            messages = [{"role": "user", "content": record[used]}] if record[used].strip() else []
        elif "messages" in record:
            messages = record["messages"]
            if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
                raise FileError(f"{path}, line {number}: 'messages' is not a list of objects")
        else:
            have = ", ".join(repr(name) for name in record) or "none"
            wanted = repr(column or QUESTIONS[0])
            raise FileError(f"{path}, line {number}: neither {wanted} nor 'messages'; its keys are {have}")
        if messages:
            others = [name for place, name in enumerate(names) if name != used and place != id_at]
            carried = dict(zip(_unlike(others), (record[name] for name in others), strict=True))
            rows.append(Row(number, identity, tuple(messages), carried=carried))
    return rows
