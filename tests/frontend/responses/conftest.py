"""The official SDK, pointed at the running frontend."""

from __future__ import annotations

from tests.frontend.openai.conftest import sdk

__all__ = ["sdk"]
