"""One request on its way: what goes back to its reader, and which call of the engine it has.

Knows Triton's response sender; knows neither text nor tensors.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from typing import Any, Literal

import triton_python_backend_utils as pb_utils
from engine_client import EngineCall

Code = Literal["INVALID_ARG", "UNAVAILABLE", "INTERNAL"]
"""Names of Triton's error codes. The stub defines the codes only after it has imported the model."""


class Call:
    """One request on its way: the way to its reader, and the id that the engine knows it by."""

    def __init__(self, sender: Any, trace: dict[str, str]) -> None:
        self._sender, self._lock, self._closed = sender, threading.Lock(), False
        self.trace = trace
        self.engine_id = f"youtu-{secrets.token_hex(8)}"
        self.arrival_ns = time.time_ns()
        self.heard_at: float | None = None  # when the engine last said something of it, or was asked
        self._engine_call: EngineCall | None = None
        self.cancelled = False

    def follow(self, engine_call: EngineCall) -> None:
        """From here on a reader who leaves ends this call of the engine."""
        self._engine_call = engine_call

    def stop_engine(self) -> None:
        if self._engine_call is not None:
            self._engine_call.stop()

    def send(self, response: Any, *, final: bool) -> None:
        """One response, or with None just the end. After the last one nothing goes out any more."""
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        # The stub drops outputs that nobody asked for without holding the GIL: these must not be the last
        # references to them.
        kept = response.output_tensors() if response else []
        with self._lock:
            if not self._closed:
                self._closed = final
                self._sender.send(response, flags) if response else self._sender.send(flags=flags)
        kept.clear()

    def left(self) -> bool:
        """Whether the reader has gone. Triton dies when it is asked about a request that has ended."""
        with self._lock:
            return not self._closed and bool(self._sender.is_cancelled())


def refuse(call: Call, message: str, code: Code) -> None:
    """Answer with an error. Streams carry no status, so a wrong request is told by its first words too.

    A process that lacks even the memory for that ends itself, so that it is replaced.
    """
    if code == "INVALID_ARG":
        message = f"invalid request: {message}"
    try:
        error = pb_utils.TritonError(message, getattr(pb_utils.TritonError, code))
        call.send(pb_utils.InferenceResponse(error=error), final=True)
    except MemoryError:
        os._exit(1)
