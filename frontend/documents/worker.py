"""`python -m frontend.documents.worker`: reads one file, in a process that may be lost.

On stdin: a line of JSON {"name", "seconds", "memory"}, then the file. On stdout: a line of JSON, either
{"error": [code, message]} or {"kind", "characters", "passages": [{"text", "page", "section"}],
"lengths": words of each passage, "postings": {word: [passage, count, passage, count, …]}}.

Its limits are the kernel's: memory, CPU time, no files written, few opened.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections import Counter
from typing import Any

from .files import kind_of
from .formats import parts
from .passages import passages
from .unreadable import Unreadable
from .words import words

MAX_CHARACTERS = 4_000_000
"""Of the text of one document: about 2,000 pages."""
NICE = 10


def document(data: bytes, name: str) -> dict[str, Any]:
    """What the file says. Raises Unreadable."""
    kind = kind_of(data, name)
    characters = 0
    found: list[dict[str, Any]] = []
    lengths: list[int] = []
    postings: dict[str, list[int]] = {}
    for number, passage in enumerate(passages(parts(data, kind))):
        characters += len(passage.text)
        if characters > MAX_CHARACTERS:
            message = f"the text has more than {MAX_CHARACTERS} characters; send it in several files"
            raise Unreadable("document_too_long", message)
        found.append({"text": passage.text, "page": passage.page, "section": passage.section})
        # The headings above a passage say what it is about.
        counted = Counter(words(f"{passage.section or ''}\n{passage.text}"))
        lengths.append(counted.total())
        for word, count in counted.items():
            postings.setdefault(word, []).extend((number, count))
    if not found:
        message = "there is no text in it"
        if kind == "pdf":
            message = "the PDF has no text: its pages are pictures, and the model reads text only"
        raise Unreadable("document_empty", message)
    return {
        "kind": kind,
        "characters": characters,
        "passages": found,
        "lengths": lengths,
        "postings": postings,
    }


def limit(seconds: float, memory: int) -> None:
    """Hold this process to its limits."""
    os.nice(NICE)
    cpu = max(1, round(seconds))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Read the file on stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal: the frontend decides.
    given = json.loads(sys.stdin.buffer.readline())
    limit(given["seconds"], given["memory"])
    data = sys.stdin.buffer.read()
    try:
        answer = document(data, given["name"])
    except Unreadable as error:
        answer = {"error": [error.code, error.message]}
    except MemoryError:
        answer = {"error": ["document_too_big_inside", ""]}
    sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode())
    sys.stdout.buffer.flush()
    os._exit(0)  # what libraries would tidy up goes with the process


if __name__ == "__main__":
    main()
