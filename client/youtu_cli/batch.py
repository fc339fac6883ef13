"""`youtu batch`: a file of questions through the server, many at once, each answer written as it arrives.

It handles retries, progress and Ctrl-C; file formats are in `tables` and `answer_file`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from youtu_client import Answer, AsyncClient, InvalidRequest, Sampling, YoutuError
from youtu_contract.rows import OPTIONS

from .answer_file import Answers
from .conversation import with_system
from .files import FileError, kind_of
from .tables import Row, carried_columns, questions
from .terminal import print_error

FIRST_DELAY = 0.5
LONGEST_DELAY = 15.0


def batch(
    server: str,
    source: Path,
    target: Path,
    *,
    column: str | None,
    id_column: str,
    encoding: str | None,
    system: str | None,
    concurrency: int,
    retries: int,
    options: Sampling,
) -> int:
    """Answer what is not answered yet.

    0: all rows have an answer; 1: some have none; 2: an option that no row can have; 130: Ctrl-C.
    """
    kind_of(target)
    if target.exists() and source.samefile(target):
        raise FileError(f"{target} is also the input; use a different file for the answers")
    given, notice = questions(source, column=column, id_column=id_column, encoding=encoding)
    if notice:
        print_error(notice)
    seen: Counter[str] = Counter()
    rows = []
    for row in given:
        row = replace(row, messages=tuple(with_system(system, [dict(message) for message in row.messages])))
        rows.append(replace(row, repeat=seen[row.key]))
        seen[row.key] += 1
    answers = Answers(target, carried_columns(rows))
    try:
        if answers.repaired:
            print_error(f"{target} ended with an incomplete line, which was removed")
        work = Batch(rows, answers, retries=retries, options=options)
        code = asyncio.run(work.run(server, concurrency))
    finally:
        answers.close()
    sys.stderr.write(work.summary(target) + "\n")
    return code


class Batch:
    """One run over the rows that have no answer yet."""

    def __init__(self, rows: list[Row], answers: Answers, *, retries: int, options: Sampling) -> None:
        self.answers = answers
        self.retries = retries
        self.options = options
        self.todo = [row for row in rows if row.key not in answers.done]
        self.kept = len(rows) - len(self.todo)
        self.done = self.failed = 0
        self.refused = sum(1 for row in rows if answers.done.get(row.key))
        self.progress = Progress(len(self.todo))
        self.fatal: YoutuError | None = None
        self.wrong: str | None = None  # an option of the command that no row can have

    async def run(self, server: str, concurrency: int) -> int:
        queue = iter(self.todo)
        loop = asyncio.get_running_loop()
        async with AsyncClient(server) as client:
            workers = [
                asyncio.create_task(self._work(client, queue))
                for _ in range(min(concurrency, len(self.todo)))
            ]
            everything = asyncio.gather(*workers)
            interrupted = False

            def stop() -> None:
                nonlocal interrupted
                interrupted = True
                everything.cancel()

            with contextlib.suppress(
                NotImplementedError
            ):  # Windows: Ctrl-C raises KeyboardInterrupt instead.
                loop.add_signal_handler(signal.SIGINT, stop)
            try:
                await everything
            except asyncio.CancelledError:
                if not interrupted:
                    raise
            except YoutuError as error:
                self.fatal = error
                for worker in workers:
                    worker.cancel()
            finally:
                await asyncio.gather(*workers, return_exceptions=True)
                self.progress.end()
        if interrupted:
            return 130
        if self.wrong:
            return 2
        return 1 if self.fatal or self.failed or self.refused else 0

    async def _work(self, client: AsyncClient, queue: Iterator[Row]) -> None:
        for row in queue:
            record = await self._answer(client, row)
            if record is not None:
                self.answers.write(record, row.carried)
                self.done += 1
                self.refused += record["error"] is not None
            self.progress.show(self.done, self.failed)

    async def _answer(self, client: AsyncClient, row: Row) -> dict[str, Any] | None:
        """The output record; None when the row failed and stays open. Raises when the server stays away."""
        facts: dict[str, Any] = {"row": row.number, "id": row.id, "question": row.question, "answer": None}
        facts |= {"finish_reason": None, "prompt_tokens": None, "completion_tokens": None, "seconds": None}
        facts |= {"error": None, "key": row.key}
        began = time.monotonic()
        try:
            answer = await self._with_retries(client, row)
        except InvalidRequest as error:
            if wrong := self._wrong_option(error):
                self.wrong = wrong
                raise
            return facts | {"error": str(error)}
        except YoutuError as error:
            if error.retryable:
                raise
            self.failed += 1
            self.progress.note(f"row {row.number}: {error}")
            return None
        return facts | {
            "answer": answer.content,
            "finish_reason": answer.finish_reason,
            "prompt_tokens": answer.usage.prompt_tokens,
            "completion_tokens": answer.usage.completion_tokens,
            "seconds": round(time.monotonic() - began, 3),
        }

    def _wrong_option(self, error: InvalidRequest) -> str | None:
        """The option of the command that was refused, and would be with any other row."""
        root = re.split(r"[.\[]", error.param or "", maxsplit=1)[0]
        option = next((option for option, row in OPTIONS.items() if row.name == root), None)
        if option not in self.options or error.code == "context_length_exceeded":
            return None
        return "--thinking" if option == "chat_template_kwargs" else f"--{option.replace('_', '-')}"

    async def _with_retries(self, client: AsyncClient, row: Row) -> Answer:
        delay = FIRST_DELAY
        for left in range(self.retries, -1, -1):
            try:
                return await client.chat([dict(message) for message in row.messages], **self.options)
            except YoutuError as error:
                if not error.retryable or not left:
                    raise
            # Drawn from the upper half, so that those refused together do not come back together.
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(2 * delay, LONGEST_DELAY)
        raise AssertionError("unreachable")

    def summary(self, target: Path) -> str:
        """The last line of a run."""
        parts = [f"{self.done} written to {target}"]
        if self.kept:
            parts.append(f"{self.kept} were already there")
        if self.refused:
            parts.append(f"{self.refused} refused as invalid (see the column error)")
        if self.failed:
            parts.append(f"{self.failed} failed")
        left = len(self.todo) - self.done
        if left:
            again = "" if self.wrong else ": run the same command again"
            parts.append(f"{left} have no answer yet{again}")
        if isinstance(self.fatal, InvalidRequest):
            parts.append(f"gave up because {self.wrong} is invalid for every row: {self.fatal.reason}")
        elif self.fatal:
            parts.append(f"gave up because {self.fatal}")
        return "youtu: " + "; ".join(parts)


class Progress:
    """One line on stderr that renews itself; without a terminal a plain line every ten seconds."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._began = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._next = 0.0 if self._terminal else self._began + 10

    def show(self, done: int, failed: int) -> None:
        now = time.monotonic()
        if now < self._next and not (self._terminal and done + failed == self.total):
            return
        self._next = now + (0.1 if self._terminal else 10)
        rate = done / max(now - self._began, 1e-9)
        left = self.total - done - failed
        eta = f"{round(left / rate) // 60}:{round(left / rate) % 60:02}" if rate else "?"
        line = f"{done}/{self.total}  {rate:.1f}/s  ETA {eta}" + (f"  failed {failed}" if failed else "")
        sys.stderr.write(f"\r\x1b[K{line}" if self._terminal else f"{line}\n")
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """A line of its own above the progress."""
        sys.stderr.write(("\r\x1b[K" if self._terminal else "") + f"youtu: {' '.join(text.split())}\n")

    def end(self) -> None:
        if self._terminal and self.total:
            sys.stderr.write("\n")
