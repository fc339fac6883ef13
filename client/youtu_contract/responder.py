"""What a Python model of Triton needs to talk to one caller. Imported inside Triton's stub only."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Collection, Mapping
from typing import Any

import triton_python_backend_utils as pb_utils

from .errors import CODES, Error, invalid
from .values import Array, Read


class Responder:
    """The way back to the caller of one request of a decoupled model. Safe to use from several threads."""

    def __init__(self, sender: Any) -> None:
        self._sender, self._lock, self._closed = sender, threading.Lock(), False

    def send(self, outputs: Mapping[str, Array] | None, *, final: bool) -> None:
        """One response, or with None just the end. After the last one nothing goes out any more."""
        if outputs is None:
            self._send(None, final=final)
        else:
            tensors = [pb_utils.Tensor(name, array) for name, array in outputs.items()]
            self._send(pb_utils.InferenceResponse(tensors), final=final)

    def refuse(self, error: Error) -> None:
        """End with an error.

        A process that lacks even the memory for that ends itself, so that it is replaced.
        """
        try:
            status = getattr(pb_utils.TritonError, CODES[error.code].triton)
            failure = pb_utils.TritonError(error.to_line(), status)
            self._send(pb_utils.InferenceResponse(error=failure), final=True)
        except MemoryError:
            os._exit(1)

    def left(self) -> bool:
        """Whether the caller has gone. Triton dies when it is asked about a request that has ended."""
        with self._lock:
            return not self._closed and bool(self._sender.is_cancelled())

    def _send(self, response: Any, *, final: bool) -> None:
        flags = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL if final else 0
        # The stub drops outputs that nobody asked for without holding the GIL: these must not be the last
        # references to them.
        kept = response.output_tensors() if response else []
        with self._lock:
            if not self._closed:
                self._closed = final
                self._sender.send(response, flags) if response else self._sender.send(flags=flags)
        kept.clear()


def reader(request: Any) -> Read:
    """Reads the input tensors of a request by their names."""

    def read(name: str) -> Array | None:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        array: Array | None = None if tensor is None else tensor.as_numpy()
        return array

    return read


def check_parameters(request: Any, inputs: Collection[str]) -> None:
    """Refuse a request's parameters: Triton's `generate` makes one of each field that is no input.

    Its own are let through: `id`, and those that begin with triton_. Raises Refused.
    """
    for name in json.loads(request.parameters() or "{}"):
        if name in inputs:
            raise invalid(name, "is an input; it was sent as a parameter")
        if name != "id" and not name.startswith("triton_"):
            raise invalid(name, f"unknown input; expected one of {', '.join(inputs)}")
