"""The file of answers that `youtu batch` writes: appended to, mended after a crash, read to go on.

Handles half-written lines. Independent of the server.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .files import FileError, kind_of
from .spreadsheet import guarded

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
"""Of every file of answers; behind them are the columns of the questions that are carried along."""


class Answers:
    """The output file, open for appending. `done` maps the key of each row it already holds to its error.

    `carried`: the further columns that a new CSV file gets; one that is there keeps its own.
    """

    def __init__(self, path: Path, carried: Sequence[str] = ()) -> None:
        self.path = path
        self.kind = kind_of(path)
        self.done: dict[str, str] = {}
        self.repaired = False
        self._columns = (*COLUMNS, *carried)
        self._delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
        data = path.read_bytes() if path.exists() else b""
        whole = _whole_csv(data) if self.kind == "csv" else _whole_jsonl(data)
        if data and not whole and not data.startswith((b"{", codecs.BOM_UTF8)):
            raise FileError(f"{path} exists and is not an answer file of this command; it was not changed")
        self._read(data[:whole])
        if whole < len(data):
            os.truncate(path, whole)
            self.repaired = True
        self._file = path.open("ab")
        if not whole and self.kind == "csv":
            # The mark at the start is what makes Excel read the file as UTF-8.
            self._file.write(codecs.BOM_UTF8 + self._line(self._columns))
            self._file.flush()

    def write(self, record: Mapping[str, Any], carried: Mapping[str, Any]) -> None:
        """Append one answer, in one write, so that a kill leaves at most one half line behind."""
        if self.kind == "csv":
            values = {**carried, **record}
            line = self._line([_cell(values.get(name)) for name in self._columns])
        else:
            whole = {**record, "input": dict(carried)} if carried else record
            line = json.dumps(whole, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        self._file.write(line)
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _read(self, data: bytes) -> None:
        if not data:
            return
        foreign = FileError(
            f"{self.path} exists and is not an answer file of this command; it was not changed"
        )
        try:
            text = data.decode("utf-8-sig")
            if self.kind == "csv":
                reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=self._delimiter)
                names = tuple(reader.fieldnames or ())
                if names[: len(COLUMNS)] != COLUMNS:
                    raise foreign
                self._columns = names
                records = list(reader)
            else:
                records = [json.loads(line) for line in text.split("\n") if line.strip()]
            self.done = {record["key"]: record["error"] or "" for record in records}
        except (ValueError, TypeError, KeyError, csv.Error):
            raise foreign from None

    def _line(self, values: Any) -> bytes:
        out = io.StringIO(newline="")
        csv.writer(out, delimiter=self._delimiter).writerow(values)
        return out.getvalue().encode(errors="backslashreplace")


def _cell(value: Any) -> Any:
    """What a CSV file has for a value of JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return guarded(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | bool) else value


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
