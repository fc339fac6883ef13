"""A fake Triton and a client of it, new for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from youtu_client import Client

from tests.client.fake_triton import FakeTriton
from tests.limits import WAIT_S


@pytest.fixture
def fake() -> Iterator[FakeTriton]:
    with FakeTriton() as server:
        yield server


@pytest.fixture
def client(fake: FakeTriton) -> Iterator[Client]:
    with Client(fake.address, timeout=WAIT_S) as made:
        yield made
