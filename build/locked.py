"""One process at a time: a second one waits, with a message that says for what."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path`, made with its folder if need be; `what` says what another process is doing.

    The lock ends with the process that holds it, however that ends; the empty file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting: another process is %s", what)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
