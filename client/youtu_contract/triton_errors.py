"""What Triton 2.51 itself says of a request that never reaches a model, as errors of the contract.

Triton sends prose in place of the contract's JSON line; this is the one place that reads it. Source of the
wording: messages of the running server, and triton-inference-server/core at r24.10 (infer_request.cc,
model_repository_manager.cc, server.cc).
"""

from __future__ import annotations

import re

from .errors import Error

_NOT_READY = re.compile(
    r"^(\[[^\]]*\] )?(Request for unknown model|Stub process .{0,80} is not healthy"
    r"|Server is (exiting|stopping|not ready)|Model .{0,80} is (being )?(unloaded|stopp))"
    r"|is not at ready state$|has no available versions",
    re.IGNORECASE,
)
_QUEUE_FULL = re.compile(r"^(\[[^\]]*\] )?exceeds maximum queue size", re.IGNORECASE)
_INVALID = re.compile(
    r"^(\[[^\]]*\] )?(unexpected (inference|shape|deadline)|expected \d+ inputs|inference input"
    r"|inference request batch-size|input '[^']*' |input byte size|input tensor|missing input|batch size"
    r"|unable to find|failed to find|unexpected total byte|unexpected number of|unexpected explicit tensor"
    r"|unexpected datatype)",
    re.IGNORECASE,
)
_INPUT = re.compile(r"(?:input|INPUT|tensor)s? '([^']{1,60})'")


def error_of_triton(message: str) -> Error:
    """An `error_message` that is no line of the contract."""
    if _QUEUE_FULL.search(message):
        return Error("queue_full", message)
    if _NOT_READY.search(message):
        return Error("not_ready", message)
    if _INVALID.search(message):
        found = _INPUT.search(message)
        return Error("invalid_value", message, found[1] if found else None)
    return Error("engine_error", message)
