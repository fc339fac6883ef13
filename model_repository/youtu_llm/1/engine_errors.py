"""Error messages of engines, translated to errors of the contract.

Our engine sends the contract's own lines. NVIDIA's backend sends prose; this is the one place that reads it.
All other prose is Triton's, about a wrong request of `youtu_llm`, or from a failing engine: the
caller is not at fault and gets no details.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from youtu_contract.errors import Error, context_length_exceeded
from youtu_contract.triton_errors import error_of_triton

# TensorRT-LLM 1.2: of its executor's own queue, and of a prompt beyond what the engine was built for.
_QUEUE_FULL = re.compile(r"maximum queue size|queue is full", re.IGNORECASE)
_TOO_LONG = re.compile(r"prompt length \((\d+)\) exceeds maximum input length \((\d+)\)", re.IGNORECASE)


def error_of_our_engine(message: str) -> Error:
    """An `error_message` of `youtu_engine`."""
    return Error.from_line(message) or _failure(message)


def error_of_nvidia(message: str) -> Error:
    """An `error_message` of NVIDIA's `tensorrt_llm`: its first line, for its call stack follows."""
    first = message.partition("\n")[0]
    if found := _TOO_LONG.search(first):
        sent, limit = int(found[1]), int(found[2])
        return context_length_exceeded(None, sent, limit + 1).error
    if _QUEUE_FULL.search(first):
        return Error("queue_full", "the queue is full")
    return _failure(first)


def _failure(message: str) -> Error:
    """Triton's own prose: an engine that is away may come back, everything else is a failure."""
    error = error_of_triton(message)
    return error if error.code in ("queue_full", "not_ready") else Error("engine_error", message)


ERRORS_OF_ENGINES: dict[str, Callable[[str], Error]] = {
    "youtu_engine": error_of_our_engine,
    "tensorrt_llm": error_of_nvidia,
}
"""Engine model -> how its error messages are read."""
