"""The way from the text contract to the engine: the token contract over Triton's own gRPC port.

One asyncio loop reads all calls: with a thread for each, a response costs half as much processor time again.

Not through the Python backend's BLS: in Triton 2.51 its decoupled form locks up when several threads
use it at once (`ResponseIterator::Next` takes the GIL while it holds a mutex that a thread with the GIL waits
for). And a call is ended by the token contract's own `stop` request, never by cancelling it: with cancels
from in here Triton's gRPC server locked up or died about once in a thousand times
(tests/e2e/test_storm.py).

Handles tensors by name; independent of text and the engine's internals.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
import grpc.aio  # type: ignore[import-untyped]
from engine_errors import ERRORS_OF_ENGINES
from tritonclient.grpc import service_pb2 as pb  # type: ignore[import-untyped]
from youtu_contract.errors import Error
from youtu_contract.rows import TOKEN_INPUTS
from youtu_contract.values import Array, add_array, add_input, outputs_of

_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # Triton is this very process's parent: when it cannot be reached now, it will be at once or never.
    ("grpc.max_reconnect_backoff_ms", 200),
]
STOP_TIMEOUT = 2.0  # s


class EngineError(Exception):
    """The engine refused or failed; `error` says why. The reason of a failure is not sent to the caller."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


class EngineClient:
    """One channel to `url` (host:port), for requests to `model`. Made and used in one asyncio loop."""

    def __init__(self, url: str, model: str) -> None:
        self._model = model
        self.error_of = ERRORS_OF_ENGINES[model]
        self._channel = grpc.aio.insecure_channel(url, options=_OPTIONS)
        # One request per call: the streaming method is opened as if only its answer were a stream.
        self._infer = self._channel.unary_stream(
            _METHOD,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )

    def start(
        self,
        request_id: str,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
        trace: Mapping[str, str],
    ) -> EngineCall:
        """Send a request; its responses carry those of `outputs` that the engine has.

        `trace`: W3C trace context, whose child the engine's span becomes.
        """
        request = pb.ModelInferRequest(model_name=self._model, id=request_id)
        for name, array in inputs.items():
            add_array(request, name, array)
        for name in outputs:
            request.outputs.add(name=name)
        return EngineCall(self, request_id, self._infer(request, metadata=tuple(trace.items())))

    async def stop(self, request_id: str) -> None:
        """End the request of that id, if the engine has it; its responses then come to an end."""
        with contextlib.suppress(grpc.RpcError):
            async for _ in self._infer(self._flagged("stop", request_id), timeout=STOP_TIMEOUT):
                pass

    async def probe(self, timeout: float) -> Probed:
        """How the engine is, by its own account.

        Raises EngineError when it does not say so within `timeout` seconds.
        """
        answer: dict[str, Any] = {}
        async for response in EngineCall(self, "", self._infer(self._flagged("probe"), timeout=timeout)):
            answer |= response
        if "stalled_ms" not in answer:
            raise EngineError(Error("not_ready", "the engine does not respond to a probe"))
        return Probed(
            float(answer["stalled_ms"][0]) / 1000, [int(n) for n in answer.get("device_memory", ())]
        )

    def _flagged(self, flag: str, request_id: str = "") -> Any:
        """A request that consists of one flag."""
        request = pb.ModelInferRequest(model_name=self._model, id=request_id)
        # The engine's required tensors, of which it reads none.
        for name in ("input_ids", "input_lengths", "request_output_len"):
            add_input(request, TOKEN_INPUTS[name], [1])
        add_input(request, TOKEN_INPUTS[flag], [True])
        return request

    async def close(self) -> None:
        await self._channel.close()


@dataclass(frozen=True)
class Probed:
    """What an engine says to a probe: seconds for which it has made no progress although it has work, and on
    a card the bytes in use there and in all."""

    stalled_s: float
    device_memory: list[int] = field(default_factory=list)


class EngineCall:
    """The responses to one request, each as tensor name -> values (flat). Is to be read to its end."""

    def __init__(self, client: EngineClient, request_id: str, call: Any) -> None:
        self._client, self._request_id, self._call = client, request_id, call

    async def stop(self) -> None:
        """Make it end soon. Does nothing when the request has not reached the engine yet: ask again then."""
        await self._client.stop(self._request_id)

    async def __aiter__(self) -> AsyncIterator[dict[str, list[Any]]]:
        """Raises EngineError."""
        try:
            async for response in self._call:
                if response.error_message:
                    raise EngineError(self._client.error_of(response.error_message))
                yield outputs_of(response.infer_response)
        except grpc.RpcError as error:
            gone = error.code() == grpc.StatusCode.UNAVAILABLE
            message = f"the engine does not respond: {error.details()}"
            raise EngineError(Error("not_ready" if gone else "engine_error", message)) from error
