"""`server`: the whole of it with the demonstration's engine, started once for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.running import RunningServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("server"))
    try:
        yield running.wait_until_up()
        assert running.end() == 0, running.log
        assert running.left_behind() == []
    finally:
        running.kill()
