"""Anthropic's official SDK, pointed at the running frontend."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from anthropic import Anthropic

from ..conftest import Frontend


@pytest.fixture
def sdk(frontend: Frontend) -> Iterator[Anthropic]:
    """The client, which does not try again by itself."""
    with Anthropic(base_url=f"http://127.0.0.1:{frontend.port}", api_key="none", max_retries=0) as client:
        yield client
