"""A step, and running them in order up to the first that finds something else than assumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build.errors import BuildError
from build.tensorrt_llm.machine import Container, Gpu
from serve.settings import Settings


class NotAsAssumed(Exception):
    """`found` says what the machine showed, `change` what to change in this repository or on the machine."""

    def __init__(self, found: str, change: str) -> None:
        super().__init__(f"{found}: {change}")
        self.found, self.change = found, change


@dataclass
class Verification:
    """What the steps share: the settings, a folder to work in, and what earlier steps have found."""

    settings: Settings
    folder: Path
    gpu: Gpu | None = None
    container: Container | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    at_the_end: list[Callable[[], None]] = field(default_factory=list)

    def close(self) -> None:
        """End what steps have started."""
        while self.at_the_end:
            self.at_the_end.pop()()

    def machine(self) -> tuple[Gpu, Container]:
        if self.gpu is None or self.container is None:
            raise AssertionError("the first step looks for both")
        return self.gpu, self.container


@dataclass(frozen=True)
class Step:
    """`run` returns what was found, in a few words; it raises NotAsAssumed, or BuildError."""

    name: str
    run: Callable[[Verification], str]


@dataclass(frozen=True)
class Row:
    """How a step ended; `change` is empty when all was as assumed."""

    name: str
    found: str
    seconds: float
    change: str = ""


def verify(steps: Sequence[Step], verification: Verification, show: Callable[[Row], None]) -> list[Row]:
    """Run the steps until one fails; `show` is called after each."""
    rows = []
    try:
        for step in steps:
            begun = time.monotonic()
            found, change = "", ""
            try:
                found = step.run(verification)
            except NotAsAssumed as error:
                found, change = error.found, error.change
            except (BuildError, OSError) as error:
                found, change = "could not be checked", str(error)
            rows.append(Row(step.name, found, round(time.monotonic() - begun, 1), change))
            show(rows[-1])
            if change:
                break
    finally:
        verification.close()
    return rows
