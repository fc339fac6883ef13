"""Write a large file, which gets its name only when complete, from one process at a time."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from build.errors import BuildError


@contextmanager
def whole_file(output: Path, nbytes: int) -> Iterator[Path]:
    """The empty file `.NAME.part` to write to, which becomes `output` at the end of the block, if that is
    reached; what an interrupted run left there is overwritten.

    BuildError when the disk has less than `nbytes` of room or writing fails, and when another process is
    writing the same file.
    """
    part = output.with_name(f".{output.name}.part")
    output.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(
                f"another process is writing {output}: wait until it finishes, or stop it"
            ) from None
        if not part.exists() or not part.samefile(f"/proc/self/fd/{lock.fileno()}"):
            raise BuildError(f"another process has just written {output}: try again")
        try:
            lock.truncate(0)
            free = shutil.disk_usage(output.parent).free
            if free < nbytes:
                raise BuildError(
                    f"{output.parent} has {free / 1e9:.2f} GB free, {output.name} needs {nbytes / 1e9:.2f} GB"
                )
            yield part
            os.fsync(lock.fileno())
            part.replace(output)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise BuildError(f"writing {part} failed: {error}") from error
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    folder = os.open(output.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
