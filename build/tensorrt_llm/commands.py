"""Runs NVIDIA's programs: their output goes to a log, with a progress line at times; an error has its end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from build.errors import BuildError

LINE_SECONDS = 10.0  # between two lines of one step
LAST_LINES = 12


def say(text: str) -> None:
    """A line for the person who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def run(
    step: str, command: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> None:
    """Run `command`, its output to the file `log`. BuildError with the end of it when it fails.

    Interrupted, it ends the command before it passes that on.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    begun = next_line = time.monotonic()
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                list(map(str, command)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            raise BuildError(f"{step}: {command[0]} does not start: {error.strerror}") from None
        try:
            while process.poll() is None:
                if time.monotonic() >= next_line:
                    last = last_lines(log, 1)
                    say(f"{step}: {time.monotonic() - begun:.0f} s  {last[0][:100] if last else ''}".rstrip())
                    next_line += LINE_SECONDS
                try:
                    process.wait(0.1)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode:
        end = "\n".join(f"    {line}" for line in last_lines(log, LAST_LINES))
        raise BuildError(
            f"{step}: {Path(command[0]).name} ended with {process.returncode} after "
            f"{time.monotonic() - begun:.0f} s; the end of {log}:\n{end}"
        )
    say(f"{step}: done in {time.monotonic() - begun:.0f} s")


def last_lines(log: Path, count: int) -> list[str]:
    """The last `count` lines that are not empty, out of the last few kilobytes of the file."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 16384))
        text = file.read().decode(errors="replace")
    return [line.strip() for line in text.splitlines() if line.strip()][-count:]
