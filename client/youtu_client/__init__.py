"""Client of a Youtu language model behind NVIDIA Triton. See `Client`, `AsyncClient` and `errors`.

Names are loaded when first used: gRPC reads GRPC_VERBOSITY as it is imported, and the command `youtu`, which
must keep gRPC's log lines out of its output, has to come first.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .aio import AsyncClient, AsyncStream
    from .answers import Answer, ModelInfo, Piece, Timings, Token, Usage
    from .client import Client
    from .errors import (
        Busy,
        Cancelled,
        ConnectionFailed,
        DeadlineExceeded,
        EngineStalled,
        InvalidRequest,
        NotReady,
        ServerError,
        YoutuError,
    )
    from .stream import Stream
    from .wire import Message, Prompt, Sampling

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Busy",
    "Cancelled",
    "Client",
    "ConnectionFailed",
    "DeadlineExceeded",
    "EngineStalled",
    "InvalidRequest",
    "Message",
    "ModelInfo",
    "NotReady",
    "Piece",
    "Prompt",
    "Sampling",
    "ServerError",
    "Stream",
    "Timings",
    "Token",
    "Usage",
    "YoutuError",
]

_ROOMS = ("client", "aio", "stream", "answers", "errors", "wire")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for room in _ROOMS:
            found = vars(importlib.import_module(f".{room}", __name__)).get(name)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
