"""One request on its way: the way back to its caller, and which call of the engine it has."""

from __future__ import annotations

import secrets
import time
from typing import Any

from engine_client import EngineCall
from youtu_contract.responder import Responder


class Call(Responder):
    """`engine_id`: how the engine knows it; `trace`: the W3C context of Triton's span for it."""

    def __init__(self, request_id: str, sender: Any, trace: dict[str, str]) -> None:
        super().__init__(sender)
        self.trace = trace
        self.engine_id = f"youtu-{secrets.token_hex(8)}"
        self.log_name = f"request {request_id!r} ({self.engine_id})"
        self.arrival_ns = time.time_ns()
        self.heard_at: float | None = None  # when the engine last answered, or was asked
        self.engine_call: EngineCall | None = None
        self.cancelled = False

    def stop_engine(self) -> None:
        """End its call of the engine, if it has one."""
        if self.engine_call is not None:
            self.engine_call.stop()
