"""A fake Triton and a client of it, new for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from youtu_client import Client

from tests.client.fake_triton import FakeTriton


@pytest.fixture
def fake() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


@pytest.fixture
def client(fake: FakeTriton) -> Iterator[Client]:
    with Client(fake.address, timeout=20) as made:
        yield made
