"""The official SDK, pointed at the running frontend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI

from ..conftest import Frontend


@pytest.fixture
def sdk(frontend: Frontend) -> Iterator[OpenAI]:
    """The client, which does not try again by itself."""
    with OpenAI(base_url=f"http://127.0.0.1:{frontend.port}/v1", api_key="none", max_retries=0) as client:
        yield client
