"""A measuring program as a part of a larger run, in a process of its own; and its progress, for people.

Does not read the figures: the program leaves them in its folder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

NOT_APPLICABLE = 4  # exit status of a program whose library is not made for the model, or is not there


class NotMeasured(Exception):
    """Why there are no figures; stands in the row that would have them."""


class NotApplicable(NotMeasured):
    """It is not made for what is measured here, which is no failure of the run."""


def measure(module: str, arguments: Sequence[str], folder: Path) -> None:
    """`python -m MODULE ARGUMENTS --out FOLDER`, e.g. benchmarks.load, which Locust may patch.

    NotMeasured when it fails; a Ctrl-C, which it got too, goes on after it has written what it has.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments, "--out", str(folder)], stdout=subprocess.DEVNULL
    )
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
    if status == 130:
        raise KeyboardInterrupt
    if status not in (0, 3):
        raise NotMeasured(f"{module} could not be run (status {status})")


def say(text: str) -> None:
    """One line of progress, on standard error."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
