"""The text contract as bytes: arguments to a ModelInferRequest. Its answers are `transcript`'s to read.

What can be asked stands in the rows of `youtu_contract`. Only what the wire cannot carry is checked here (a
wrong type, an int too large for its tensor); what a value may be is the server's to say.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

# Generated code without annotations: the only place where it meets the type checker.
from tritonclient.grpc import service_pb2, service_pb2_grpc  # type: ignore[import-untyped]
from youtu_contract.errors import Refused
from youtu_contract.rows import OPTIONS, TEXT_INPUTS, Options
from youtu_contract.values import add_input, encoded, encoded_json, encoded_text

from .errors import InvalidRequest, from_error

Message: TypeAlias = "Mapping[str, Any]"
Prompt: TypeAlias = "str | Sequence[Message]"
RawPrompt: TypeAlias = "str | Sequence[int]"


class Sampling(Options, total=False):
    """Options of one request. What is absent or None is left to the server's defaults."""

    timeout: float | None
    request_id: str | None
    metadata: Mapping[str, str] | None


_NAMES = (*OPTIONS, "timeout", "request_id", "metadata")


def stub(channel: Any) -> Any:
    """The generated stub of Triton's gRPC service on a channel, sync or asyncio."""
    return service_pb2_grpc.GRPCInferenceServiceStub(channel)


def stream_infer(channel: Any) -> Any:
    """ModelStreamInfer for one request per call: to gRPC that is a unary-stream call of the same method.

    The generated stub makes it stream-stream, which costs a thread (or a task) per call to send one message.
    """
    return channel.unary_stream(
        f"/{service_pb2.DESCRIPTOR.services_by_name['GRPCInferenceService'].full_name}/ModelStreamInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )


def live_request() -> Any:
    return service_pb2.ServerLiveRequest()


def probe_request(model: str) -> Any:
    """The question whether text would come out now; takes the way of a request, but no slot."""
    request = service_pb2.ModelInferRequest(model_name=model, id="probe")
    add_input(request, TEXT_INPUTS["probe"], [True])
    return request


def config_request(model: str) -> Any:
    return service_pb2.ModelConfigRequest(name=model)


def infer_request(
    model: str, prompt: Prompt | RawPrompt, *, raw: bool, stream: bool, options: Mapping[str, Any]
) -> Any:
    """One request of the text contract.

    `raw` sends `prompt` as it stands (a text or token ids), else it is a conversation (a string: one user
    message). `options` are those of `Sampling`; `timeout` and `metadata` are the call's. Raises
    InvalidRequest naming the field, TypeError for an option that does not exist.
    """
    unknown = sorted(set(options) - set(_NAMES))
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; there are {', '.join(_NAMES)}")
    request = service_pb2.ModelInferRequest(model_name=model)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    try:
        request.id = _request_id(options.get("request_id"))
        name, elements = _prompt(prompt, raw=raw)
        add_input(request, TEXT_INPUTS[name], elements)
        add_input(request, TEXT_INPUTS["stream"], [stream])
        for option, row in OPTIONS.items():
            value = options.get(option)
            if value is not None and (elements := encoded(option, row, value)):
                add_input(request, row, elements)
    except Refused as refused:
        raise from_error(refused.error) from None
    return request


def _prompt(prompt: Prompt | RawPrompt, *, raw: bool) -> tuple[str, list[Any]]:
    """The input that carries it, and its elements. Raises Refused."""
    if not raw:
        return "messages", [encoded_json("messages", _conversation(prompt))]
    if isinstance(prompt, str):
        return "text_input", [encoded_text("text", prompt)]
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise InvalidRequest(f"text must be a string or a list of token ids, not {type(prompt).__name__}")
    if not prompt:
        raise InvalidRequest("text must be a string or at least one token id, not an empty list")
    return "input_ids", encoded("text", TEXT_INPUTS["input_ids"], prompt)


def seconds(timeout: object, default: float | None = None) -> float:
    """A timeout, or `default` where it is None; InvalidRequest unless it is a number above 0."""
    value = default if timeout is None else timeout
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise InvalidRequest(f"timeout must be a number of seconds above 0, not {value!r}")
    return min(float(value), 1e8)  # gRPC cannot count further; it is three years.


def _request_id(value: object) -> str:
    if value is None:
        return uuid.uuid4().hex
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"request_id must be a non-empty string, not {value!r}")
    encoded_text("request_id", value)
    return value


def _conversation(prompt: object) -> list[dict[str, Any]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise InvalidRequest(f"messages must be a string or a list of messages, not {type(prompt).__name__}")
    for at, message in enumerate(prompt):
        if not isinstance(message, Mapping):
            raise InvalidRequest(
                f"messages[{at}] must be a dict with role and content, not {type(message).__name__}"
            )
    return [dict(message) for message in prompt]
