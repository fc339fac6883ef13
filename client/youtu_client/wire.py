"""The text contract as bytes: arguments to a ModelInferRequest. Its answers are `transcript`'s to read.

It knows the tensors of `youtu_llm` and nothing of channels, retries or threads. It checks only what the wire
cannot carry (a wrong type, an int too large for its tensor); what a value may be is the server's to say.
"""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, TypeAlias, TypedDict

# Generated code without annotations: the only place where it meets the type checker.
from tritonclient.grpc import service_pb2, service_pb2_grpc  # type: ignore[import-untyped]

from .errors import InvalidRequest

Message: TypeAlias = "Mapping[str, Any]"
Prompt: TypeAlias = "str | Sequence[Message]"
RawPrompt: TypeAlias = "str | Sequence[int]"


class Sampling(TypedDict, total=False):
    """Options of one request. What is absent or None is left to the server's defaults."""

    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_tokens: int | None
    repetition_penalty: float | None
    presence_penalty: float | None
    frequency_penalty: float | None
    seed: int | None
    stop: str | Sequence[str] | None
    chat_template_kwargs: Mapping[str, Any] | None
    logit_bias: Mapping[int, float] | None
    return_log_probs: bool | None
    return_prompt_log_probs: bool | None
    top_log_probs: int | None
    guided_decoding_guide_type: str | None
    guided_decoding_guide: str | None
    timeout: float | None
    request_id: str | None
    metadata: Mapping[str, str] | None


_INTEGERS = {
    "INT32": ("<i", -(2**31), 2**31 - 1),
    "UINT64": ("<Q", 0, 2**64 - 1),
}
_STRINGS = ("guided_decoding_guide_type", "guided_decoding_guide")
_OBJECTS = ("chat_template_kwargs", "logit_bias")
_NUMBERS = {
    "max_tokens": "INT32",
    "temperature": "FP32",
    "top_p": "FP32",
    "top_k": "INT32",
    "min_tokens": "INT32",
    "repetition_penalty": "FP32",
    "presence_penalty": "FP32",
    "frequency_penalty": "FP32",
    "seed": "UINT64",
    "return_log_probs": "BOOL",
    "return_prompt_log_probs": "BOOL",
    "top_log_probs": "INT32",
}


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
    _add(request, "probe", "BOOL", [struct.pack("<?", True)])
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
    unknown = sorted(set(options) - set(Sampling.__annotations__))
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; there are {', '.join(Sampling.__annotations__)}")
    request = service_pb2.ModelInferRequest(model_name=model)
    request.id = _request_id(options.get("request_id"))
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    if raw:
        if isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes):
            ids = [_number(f"text[{at}]", "INT32", index) for at, index in enumerate(prompt)]
            if not ids:
                raise InvalidRequest("text must be a string or at least one token id, not an empty list")
            _add(request, "input_ids", "INT32", ids)
        elif isinstance(prompt, str):
            _add(request, "text_input", "BYTES", [_text("text", prompt)])
        else:
            raise InvalidRequest(f"text must be a string or a list of token ids, not {_kind(prompt)}")
    else:
        _add(request, "messages", "BYTES", [_json("messages", _conversation(prompt))])
    _add(request, "stream", "BOOL", [struct.pack("<?", stream)])
    for name, datatype in _NUMBERS.items():
        if options.get(name) is not None:
            _add(request, name, datatype, [_number(name, datatype, options[name])])
    for name in _STRINGS:
        if options.get(name) is not None:
            _add(request, name, "BYTES", [_text(name, options[name])])
    for name in _OBJECTS:
        value = options.get(name)
        if value is not None:
            if not isinstance(value, Mapping):
                raise InvalidRequest(f"{name} must be a dict, not {_kind(value)}")
            _add(request, name, "BYTES", [_json(name, dict(value))])
    stop = options.get("stop")
    if stop is not None:
        words = [stop] if isinstance(stop, str) else stop
        if not isinstance(words, Sequence) or isinstance(words, bytes):
            raise InvalidRequest(f"stop must be a string or a list of strings, not {_kind(stop)}")
        if words:
            _add(
                request, "stop_words", "BYTES", [_text(f"stop[{at}]", word) for at, word in enumerate(words)]
            )
    return request


def seconds(timeout: object, default: float | None = None) -> float:
    """A timeout, or `default` where it is None; InvalidRequest unless it is a number above 0."""
    value = default if timeout is None else timeout
    if isinstance(value, bool) or not isinstance(value, Real) or not float(value) > 0:
        raise InvalidRequest(f"timeout must be a number of seconds above 0, not {value!r}")
    return min(float(value), 1e8)  # gRPC cannot count further; it is three years.


def _add(request: Any, name: str, datatype: str, elements: list[bytes]) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=[1, len(elements)])
    if datatype == "BYTES":
        elements = [struct.pack("<I", len(element)) + element for element in elements]
    request.raw_input_contents.append(b"".join(elements))


def _kind(value: object) -> str:
    return type(value).__name__


def _request_id(value: object) -> str:
    if value is None:
        return uuid.uuid4().hex
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"request_id must be a non-empty string, not {value!r}")
    _text("request_id", value)
    return value


def _text(field: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise InvalidRequest(f"{field} must be a string, not {_kind(value)}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{field} is not valid text: a lone surrogate at character {error.start}"
        ) from None


def _json(field: str, value: object) -> bytes:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"{field} cannot be written as JSON: {error}") from None
    return _text(field, text)


def _conversation(prompt: object) -> list[dict[str, Any]]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise InvalidRequest(f"messages must be a string or a list of messages, not {_kind(prompt)}")
    for at, message in enumerate(prompt):
        if not isinstance(message, Mapping):
            raise InvalidRequest(f"messages[{at}] must be a dict with role and content, not {_kind(message)}")
    return [dict(message) for message in prompt]


def _number(field: str, datatype: str, value: object) -> bytes:
    if datatype == "BOOL":
        if not isinstance(value, bool):
            raise InvalidRequest(f"{field} must be True or False, not {value!r}")
        return struct.pack("<?", value)
    if datatype == "FP32":
        if not isinstance(value, Real) or isinstance(value, bool):
            raise InvalidRequest(f"{field} must be a number, not {value!r}")
        try:
            return struct.pack("<f", float(value))
        except OverflowError:
            raise InvalidRequest(f"{field} does not fit a 32-bit float: {value!r}") from None
    form, low, high = _INTEGERS[datatype]
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise InvalidRequest(f"{field} must be a whole number, not {value!r}")
    if not low <= int(value) <= high:
        raise InvalidRequest(f"{field} must be from {low} to {high}, not {int(value)}")
    return struct.pack(form, int(value))
