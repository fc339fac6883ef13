"""What every test needs of the process it runs in."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    # A run in the background of a shell is told to ignore Ctrl-C, and the programs under test inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
