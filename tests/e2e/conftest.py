"""`server`: all of it with the demonstration's engine, shared by the tests of this folder; its `client`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from youtu_client import Client

from tests.e2e.running import KeptServer, RunningServer


@pytest.fixture(scope="session")
def kept_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServer]:
    with KeptServer(tmp_path_factory.mktemp("server")) as kept:
        yield kept


@pytest.fixture
def server(kept_server: KeptServer) -> RunningServer:
    return kept_server.running()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.grpc_url) as client:
        yield client
