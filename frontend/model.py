"""What is served: the model behind Triton, its name and whether it takes requests. Knows only the client."""

from __future__ import annotations

from typing import Literal

from youtu_client import Client, ModelInfo, YoutuError

PROBE_S = 1.0
"""Seconds one question to Triton may take when somebody asks for our health."""

State = Literal["ready", "loading", "down"]


class ServedModel:
    """The model that `client` reaches. One per process; threads share it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._info: ModelInfo | None = None

    def info(self) -> ModelInfo:
        """Facts about the model, asked for once per life of the server behind. Raises YoutuError."""
        if self._info is None:
            self._info = self.client.model_info(timeout=PROBE_S)
        return self._info

    def forget(self) -> None:
        """What was known may be out of date: the server failed, and another may come back in its place."""
        self._info = None

    def state(self) -> State:
        """Whether requests are taken now: asks Triton, at most 2 * PROBE_S seconds."""
        if self.client.ready(timeout=PROBE_S):
            return "ready"
        self.forget()
        return "loading" if self.client.live(timeout=PROBE_S) else "down"

    def described(self) -> ModelInfo | None:
        """`info`, or None when it cannot be had."""
        try:
            return self.info()
        except YoutuError:
            return None
