"""Lines for the person at the terminal, written by a thread of its own.

A paused terminal (Ctrl-S) or a pipe that nobody reads accepts nothing. The launcher must supervise its
programs meanwhile, so it never waits for its own output: lines that are not accepted are dropped.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time

KEPT = 10_000  # lines that may wait to be written
FLUSH_S = 2.0


class _Writer:
    def __init__(self) -> None:
        self._lines: queue.Queue[str] = queue.Queue(KEPT)
        threading.Thread(target=self._run, name="messages", daemon=True).start()

    def put(self, line: str) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(line)

    def flush(self) -> None:
        """Wait until all is written, for FLUSH_S seconds at most."""
        until = time.monotonic() + FLUSH_S
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.01)

    def _run(self) -> None:
        while True:
            line = self._lines.get()
            # Not sys.stdout: its lock, held by a blocked write, would keep the process from ending.
            data = f"{line}\n".encode(errors="replace")
            with contextlib.suppress(OSError):  # nobody reads any more
                while data:
                    data = data[os.write(1, data) :]
            self._lines.task_done()


_writer: _Writer | None = None


def say(text: str) -> None:
    """One line on standard output. Never waits and never fails."""
    global _writer
    if _writer is None:
        sys.stdout.flush()
        _writer = _Writer()
    _writer.put(text)


def flush() -> None:
    """Before the process ends: flush what was logged."""
    if _writer is not None:
        _writer.flush()
