"""What every test needs of the process it runs in."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

# How long one example takes says more about the machine than about what is tested.
settings.register_profile("no clocks", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clocks")


def pytest_configure() -> None:
    # A run in the background of a shell is told to ignore Ctrl-C, and the programs under test inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


collect_ignore = ["frameworks"]
"""They run in an environment of their own: `make test-frameworks`."""
