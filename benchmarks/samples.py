"""One request as it was measured, and the file of raw samples that everything can be computed from again.

All times are seconds on the generator's monotonic clock since the run began, as floats: Locust's own
statistics round to two digits above 100 ms and to whole milliseconds below, where the gaps between tokens
live.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TextIO

Outcome = Literal["done", "refused", "failed", "cancelled", "unsent"]


@dataclass
class Sample:
    """`intended` is when the request should have left, `sent` when it did; `chunks` are the arrivals of the
    pieces of text (a piece may hold several tokens); tokens are the server's own counts.

    Outcomes: done; refused (the server is full or not ready: 429, 503); failed; cancelled (we broke it off);
    unsent (it should have left and never did).
    """

    step: str
    intended: float
    sent: float = 0.0
    chunks: list[float] = field(default_factory=list)
    end: float = 0.0
    outcome: Outcome = "cancelled"
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    finish_reason: str = ""
    error: str = ""

    @property
    def ttft(self) -> float | None:
        """Time to first token: the first piece of text, from the intended start; None without a text."""
        return self.chunks[0] - self.intended if self.chunks else None

    @property
    def e2e(self) -> float:
        """The end of the answer, from the intended start."""
        return self.end - self.intended

    @property
    def tpot(self) -> float | None:
        """Time per output token after the first: (E2E - TTFT) / (tokens - 1); None below two tokens."""
        if self.ttft is None or self.output_tokens < 2:
            return None
        return (self.e2e - self.ttft) / (self.output_tokens - 1)

    @property
    def gaps(self) -> list[float]:
        """Inter-token latencies: times between neighbouring pieces."""
        return [late - early for early, late in pairwise(self.chunks)]


def write(file: TextIO, sample: Sample) -> None:
    """Append one sample as a line of JSON, at once: what was measured survives whatever comes next."""
    file.write(json.dumps(asdict(sample), ensure_ascii=False) + "\n")
    file.flush()


def read(path: Path) -> list[Sample]:
    """The samples of a file. ValueError names the line that is not one; a last half line is left out."""
    known = {each.name for each in fields(Sample)}
    lines = path.read_text(encoding="utf-8").split("\n")
    found = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            values: Any = json.loads(line)
            if odd := set(values) ^ known:
                raise ValueError(f"field {min(odd)} is {'missing' if odd & known else 'unknown'}")
            found.append(Sample(**values))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a sample: {error}") from None
    return found


def by_step(samples: Iterable[Sample]) -> dict[str, list[Sample]]:
    """Samples of each step, steps in the order they ran in."""
    steps: dict[str, list[Sample]] = {}
    for sample in samples:
        steps.setdefault(sample.step, []).append(sample)
    return steps
