"""The way from the text contract to the engine: the token contract over Triton's own gRPC port.

Not through the Python backend's BLS: in Triton 2.51 its decoupled form locks up when several threads
use it at once (`ResponseIterator::Next` takes the GIL while it holds a mutex that a thread with the GIL waits
for). And a call is ended by the token contract's own `stop` request, never by cancelling it: with cancels
from in here Triton's gRPC server locked up or died about once in a thousand times
(tests/e2e/test_storm.py).

Knows tensors by name; knows neither text nor what an engine does.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.experimental  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2 as pb  # type: ignore[import-untyped]

_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # Triton is this very process's parent: when it cannot be reached now, it will be at once or never.
    ("grpc.max_reconnect_backoff_ms", 200),
    # The thread that reads a call takes its events itself. Otherwise gRPC starts a thread for them; when that
    # fails (no memory), it raises once, and every later call on the channel waits for ever.
    (grpc.experimental.ChannelOptions.SingleThreadedUnaryStream, 1),
]
STOP_TIMEOUT = 2.0  # s
_DATATYPES = {
    "int32": "INT32",
    "int64": "INT64",
    "uint64": "UINT64",
    "float32": "FP32",
    "bool": "BOOL",
    "object": "BYTES",
}
_DTYPES = {"INT32": np.int32, "INT64": np.int64, "FP32": np.float32}
# What a full queue is called: by our engine, and by Triton's scheduler in front of NVIDIA's.
_FULL = re.compile(r"queue is full|maximum queue size", re.IGNORECASE)

# How our engine begins what it says of a wrong request.
_INVALID = "invalid request: "


class EngineError(Exception):
    """The engine refused or failed.

    unavailable: the same request may succeed a little later; invalid: the request is at fault.
    """

    def __init__(self, message: str, *, unavailable: bool, invalid: bool = False) -> None:
        super().__init__(message)
        self.unavailable, self.invalid = unavailable, invalid


class EngineClient:
    """One channel to `url` (host:port), for requests to `model`. Safe to use from many threads."""

    def __init__(self, url: str, model: str) -> None:
        self._model = model
        self._channel = grpc.insecure_channel(url, options=_OPTIONS)
        # One request per call: the streaming method is opened as if only its answer were a stream.
        self._infer = self._channel.unary_stream(
            _METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )

    def start(
        self,
        request_id: str,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Sequence[str],
        trace: Mapping[str, str],
    ) -> EngineCall:
        """Send a request; its responses carry those of `outputs` that the engine has to tell.

        `trace`: W3C trace context, whose child the engine's span becomes.
        """
        request = pb.ModelInferRequest(model_name=self._model, id=request_id)
        for name, array in inputs.items():
            request.inputs.add(name=name, datatype=_DATATYPES[array.dtype.name], shape=array.shape)
            strings = array.dtype == np.object_
            request.raw_input_contents.append(_packed(array) if strings else array.tobytes())
        for name in outputs:
            request.outputs.add(name=name)
        return EngineCall(self, request_id, self._infer(request, metadata=tuple(trace.items())))

    def stop(self, request_id: str) -> None:
        """End the request of that id, if the engine has it; its responses then come to an end."""
        with contextlib.suppress(grpc.RpcError):
            for _ in self._infer(self._flagged("stop", request_id), timeout=STOP_TIMEOUT):
                pass

    def stalled_s(self, timeout: float) -> float:
        """Seconds for which the engine has made no progress although it has work, by its own account.

        Raises EngineError when it does not say so within `timeout` seconds.
        """
        stalled_ms = None
        for response in EngineCall(self, "", self._infer(self._flagged("probe"), timeout=timeout)):
            stalled_ms = response.get("stalled_ms", stalled_ms)
        if stalled_ms is None:
            raise EngineError("the engine does not answer a probe", unavailable=True)
        return float(stalled_ms[0]) / 1000

    def _flagged(self, flag: str, request_id: str = "") -> Any:
        """A request that consists of one flag."""
        request = pb.ModelInferRequest(model_name=self._model, id=request_id)
        # The engine's required tensors, of which it reads none.
        for name in ("input_ids", "input_lengths", "request_output_len"):
            request.inputs.add(name=name, datatype="INT32", shape=[1, 1])
            request.raw_input_contents.append(np.ones(1, np.int32).tobytes())
        request.inputs.add(name=flag, datatype="BOOL", shape=[1, 1])
        request.raw_input_contents.append(b"\x01")
        return request

    def close(self) -> None:
        self._channel.close()


class EngineCall:
    """The responses to one request, each as tensor name -> values (flat). Is to be read to its end."""

    def __init__(self, client: EngineClient, request_id: str, call: Any) -> None:
        self._client, self._request_id, self._call = client, request_id, call

    def stop(self) -> None:
        """Make it end soon. Does nothing when the request has not reached the engine yet: ask again then."""
        self._client.stop(self._request_id)

    def __iter__(self) -> Iterator[dict[str, list[Any]]]:
        """Raises EngineError."""
        try:
            for response in self._call:
                if response.error_message:
                    # After the first line NVIDIA's backend has its own call stack.
                    raise _error(response.error_message.splitlines()[0])
                yield _values(response.infer_response)
        except grpc.RpcError as error:
            raise EngineError(
                f"the engine does not answer: {error.details()}",
                unavailable=error.code() == grpc.StatusCode.UNAVAILABLE,
            ) from error


def _packed(strings: NDArray[Any]) -> bytes:
    return b"".join(len(data).to_bytes(4, "little") + data for data in strings.reshape(-1))


def _error(message: str) -> EngineError:
    if message.startswith(_INVALID):
        return EngineError(message.removeprefix(_INVALID), unavailable=False, invalid=True)
    return EngineError(message, unavailable=bool(_FULL.search(message)))


def _values(response: Any) -> dict[str, list[Any]]:
    return {
        output.name: np.frombuffer(raw, _DTYPES[output.datatype]).tolist()
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
