"""Has files read, each by a process of its own: what a file does to its reader does nothing to the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import Kind
from .unreadable import Unreadable

AT_ONCE = 2
"""Files that are read at once."""
TURN_S = 10.0
"""How long a file waits for its turn."""
ROOT = Path(__file__).resolve().parents[2]


class Busy(Exception):
    """As many files are read as may."""


@dataclass(frozen=True)
class Passage:
    """A piece of a document. `page` counts from 1; `section`: the headings above it, or its sheet."""

    text: str
    page: int | None
    section: str | None


@dataclass(frozen=True)
class Contents:
    """What a document says, and its words for `ranking`: of each, passage and count in turn."""

    kind: Kind
    characters: int
    passages: tuple[Passage, ...]
    lengths: array[int]
    postings: dict[str, array[int]]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Contents:
        """What the worker writes."""
        return cls(
            value["kind"],
            value["characters"],
            tuple(Passage(each["text"], each["page"], each["section"]) for each in value["passages"]),
            array("I", value["lengths"]),
            {word: array("I", places) for word, places in value["postings"].items()},
        )

    @property
    def size(self) -> int:
        """Bytes in memory, roughly."""
        postings = sum(160 + 4 * len(places) for places in self.postings.values())
        return 3 * self.characters + 200 * len(self.passages) + postings


class Reader:
    """`seconds` and `memory` (bytes): the limits of each process. Threads share it."""

    def __init__(self, seconds: float, memory: int) -> None:
        self._seconds = seconds
        self._memory = memory
        self._places = threading.BoundedSemaphore(AT_ONCE)

    def read(self, data: bytes, name: str, wait_s: float = TURN_S) -> bytes:
        """The worker's JSON of the file (`Contents.from_json`). Raises Unreadable, Busy."""
        if not self._places.acquire(timeout=wait_s):
            raise Busy
        try:
            return self._read(data, name)
        finally:
            self._places.release()

    def _read(self, data: bytes, name: str) -> bytes:
        environ = {key: value for key, value in os.environ.items() if not key.startswith("YOUTU_")}
        # Libraries for numbers start a thread for each core, and each takes address space.
        environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        worker = subprocess.Popen(
            [sys.executable, "-m", "frontend.documents.worker"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        order = {"name": name, "seconds": self._seconds, "memory": self._memory}
        try:
            answer, _ = worker.communicate(json.dumps(order).encode() + b"\n" + data, self._seconds)
        except subprocess.TimeoutExpired:
            raise self._too_slow() from None
        finally:
            if worker.poll() is None:
                worker.kill()
            worker.communicate()
        if worker.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            raise self._too_slow()
        value = self._refusal(answer, worker.returncode)
        if value is not None:
            raise value
        return answer

    def _refusal(self, answer: bytes, status: int) -> Unreadable | None:
        if status != 0 or not answer:
            message = f"reading it failed: it is damaged, or needs more than {self._memory} bytes of memory"
            return Unreadable("document_damaged", message)
        if not answer.startswith(b'{"error":'):
            return None
        code, message = json.loads(answer)["error"]
        return Unreadable(code, message or f"reading the file takes more than {self._memory} bytes of memory")

    def _too_slow(self) -> Unreadable:
        return Unreadable("document_too_slow", f"reading the file takes more than {self._seconds:g} seconds")
