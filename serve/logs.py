"""The programs' log files, followed onto the terminal."""

from __future__ import annotations

import re
from pathlib import Path
from typing import BinaryIO

# Triton's tables, its messages of level I, and one of level E that says there is no GPU. All is in the file.
ROUTINE = re.compile(r"^(\d{4}-\d\d-\d\dT\S+ (I |E .*CudaDriverHelper)|[|+]|\s*$)")


class Followed:
    """One log file from its present end on; it may be rotated, and need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO | None = path.open("rb") if path.exists() else None
        if self._file:
            self._file.seek(0, 2)

    def new_lines(self) -> list[str]:
        """Whole lines that have come since, but for Triton's routine."""
        lines = self._read()
        if self._rotated():
            if self._file:
                self._file.close()
            self._file = self.path.open("rb")
            lines += self._read()
        return [line for line in lines if not ROUTINE.match(line)]

    def _read(self) -> list[str]:
        if self._file is None:
            return []
        begin = self._file.tell()
        whole = self._file.read()
        whole = whole[: whole.rfind(b"\n") + 1]
        self._file.seek(begin + len(whole))
        return whole.decode(errors="replace").splitlines()

    def _rotated(self) -> bool:
        try:
            there = self.path.stat().st_ino
        except FileNotFoundError:
            return False
        return self._file is None or there != Path(f"/proc/self/fd/{self._file.fileno()}").stat().st_ino

    def last_lines(self, count: int) -> list[str]:
        """The end of the file but for the routine, to be shown when something went wrong."""
        if not self.path.exists():
            return []
        text = self.path.read_bytes()[-100_000:].decode(errors="replace")
        return [line for line in text.splitlines() if not ROUTINE.match(line)][-count:]
