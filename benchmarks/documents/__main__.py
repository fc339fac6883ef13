"""`python -m benchmarks.documents`: the hit rate, time and memory for 1,000 pages; a table, a JSON line."""

from __future__ import annotations

import platform
import random
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks import runs
from frontend.documents.folder import Folder
from frontend.documents.ranking import question_words, ranked
from frontend.documents.reader import Reader

from .hits import FIRST, HERE, LARGEST, questions, ranks, samples

PAGES = 1000
FILES = 50
PAGE_CHARACTERS = {"zh": 800, "en": 2400}
"""About what a printed page holds."""


def lines() -> dict[str, list[str]]:
    """The lines of the samples by their language."""
    found: dict[str, list[str]] = {"zh": [], "en": []}
    for path in sorted((HERE / "samples").iterdir()):
        for line in path.read_text(encoding="utf-8").splitlines():
            if len(line) > 20:
                found["en" if line.isascii() else "zh"].append(line)
    return found


def write_pages(folder: Path) -> None:
    """As many pages of mixed lines of the samples, half of them in each language."""
    chosen = random.Random(1)  # noqa: S311
    texts = lines()
    for number in range(FILES):
        language = ("zh", "en")[number % 2]
        words = []
        for page in range(PAGES // FILES):
            text = f"# Chapter {number}.{page}\n"
            while len(text) < PAGE_CHARACTERS[language]:
                text += chosen.choice(texts[language]) + f" ({chosen.randrange(10**6)})\n\n"
            words.append(text)
        (folder / f"{number}.md").write_text("\n".join(words), encoding="utf-8")


def main() -> None:
    """Print what was found and what it took."""
    asked = questions()
    documents = samples()
    found = ranks(documents, asked)
    hits = sum(rank is not None and rank <= FIRST for rank in found)
    first = sum(rank == 1 for rank in found)
    passages = sum(len(each.passages) for each in documents)
    say = sys.stdout.write
    say(f"{len(asked)} questions, {len(documents)} documents, {passages} passages\n")
    say(f"right passage first        {first / len(asked):6.1%}\n")
    say(f"among the first {FIRST}          {hits / len(asked):6.1%}\n")
    for question, rank in zip(asked, found, strict=True):
        if rank is None or rank > FIRST:
            say(f"  missed (rank {rank}): {question.text}\n")

    process = psutil.Process()
    before = process.memory_info().rss
    with tempfile.TemporaryDirectory() as scratch:
        write_pages(Path(scratch))
        folder = Folder(Path(scratch), Reader(60, 512 * 2**20), LARGEST)
        begun = time.perf_counter()
        folder.look()
        seconds = time.perf_counter() - begun
        begun = time.perf_counter()
        folder.look()
        again = time.perf_counter() - begun
    memory = process.memory_info().rss - before
    read = [each.contents for each in folder.state.documents]
    searched = []
    for question in asked:
        begun = time.perf_counter()
        ranked(read, question_words(question.text))
        searched.append(time.perf_counter() - begun)
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    characters = sum(each.characters for each in read)
    made = sum(len(each.passages) for each in read)
    say(f"\n{PAGES} pages in {len(read)} files: {characters:,} characters, {made:,} passages\n")
    say(f"reading them               {seconds:6.1f} s\n")
    say(f"looking again, no change   {1000 * again:6.1f} ms\n")
    say(f"memory of the frontend     {memory / 2**20:6.1f} MiB\n")
    say(f"largest reading process    {worker / 2**20:6.1f} MiB\n")
    say(f"search, median             {1000 * statistics.median(searched):6.1f} ms\n")
    say(f"search, slowest            {1000 * max(searched):6.1f} ms\n")
    result = {
        "questions": len(asked),
        "hit_rate": round(hits / len(asked), 4),
        "first": round(first / len(asked), 4),
        "pages": PAGES,
        "read_s": round(seconds, 2),
        "memory_mib": round(memory / 2**20, 1),
        "worker_mib": round(worker / 2**20, 1),
        "search_ms": round(1000 * statistics.median(searched), 2),
        "machine": f"{psutil.cpu_count()} cores, {platform.machine()}",
    }
    say(runs.line(result) + "\n")


if __name__ == "__main__":
    main()
