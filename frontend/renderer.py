"""A process that renders Markdown, so that rendering never holds the interpreter that serves the answers.

It is started when it is first needed, or by `start`, and started again when it has died. Independent of HTTP.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import threading
from collections import Counter
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import structlog

log = structlog.get_logger()

WAITING = 4
"""Texts at once: one that is rendered and those that wait. Each holds a thread of the server."""
WAITING_EACH = 2
"""Of one client, so that no client has all places."""
TURN_S = 2.0
"""How long one waits for its turn."""
ANSWER_S = 20.0
"""Far above the CPU time of one text, since the process has a low priority; then it is taken to hang."""


class Busy(Exception):
    """As many texts wait as may."""


class Broken(Exception):
    """The process died of this text, or hung, or cannot be started."""


class Renderer:
    """One per process; threads share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: Counter[str] = Counter()
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def start(self) -> None:
        """Start the process in the background, before it is needed."""
        if self._process is None:
            threading.Thread(target=self._start_now, daemon=True).start()

    def render(self, text: str, client: str) -> tuple[bytes, float]:
        """The blocks of `text` as JSON (see `render`), and the CPU seconds it took. Raises Busy, Broken."""
        with self._lock:
            if self._waiting.total() >= WAITING or self._waiting[client] >= WAITING_EACH:
                raise Busy
            self._waiting[client] += 1
        try:
            if not self._turn.acquire(timeout=TURN_S):
                raise Busy
            try:
                return self._ask(text)
            finally:
                self._turn.release()
        finally:
            with self._lock:
                self._waiting[client] -= 1
                self._waiting += Counter()  # Drops who has none.

    def _start_now(self) -> None:
        with self._turn:
            self._connected()

    def _ask(self, text: str) -> tuple[bytes, float]:
        for attempt in range(2):
            try:
                connection = self._connected()
                connection.send_bytes(text.encode("utf-8", "replace"))
                if not connection.poll(ANSWER_S):
                    break
                answer = connection.recv_bytes()
                return answer[8:], struct.unpack("d", answer[:8])[0]
            except (EOFError, OSError):
                # It may have died long ago; that it dies of this text is seen at the second attempt.
                self._end(f"it died, attempt {attempt + 1}")
        self._end(f"no answer within {ANSWER_S:g} s")
        raise Broken

    def _connected(self) -> Connection:
        if self._connection is None:
            ours, theirs = Pipe()
            command = [sys.executable, "-m", "frontend.render_worker", str(theirs.fileno())]
            environ = {name: value for name, value in os.environ.items() if not name.startswith("YOUTU_")}
            with theirs:
                self._process = subprocess.Popen(
                    command,
                    cwd=Path(__file__).resolve().parents[1],
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                )
            self._connection = ours
        return self._connection

    def _end(self, reason: str) -> None:
        if self._process is not None and self._connection is not None:
            log.warning("replacing the rendering process", reason=reason)
            self._connection.close()
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None
