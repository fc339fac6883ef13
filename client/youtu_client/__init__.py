"""Client of a Youtu language model behind NVIDIA Triton. See `Client`, `AsyncClient` and `errors`."""

from .aio import AsyncClient, AsyncStream
from .answers import Answer, ModelInfo, Piece, Probed, Timings, Token, Tokens, Usage
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

__version__ = "0.1.0"

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
    "Probed",
    "Prompt",
    "Sampling",
    "ServerError",
    "Stream",
    "Timings",
    "Token",
    "Tokens",
    "Usage",
    "YoutuError",
]
