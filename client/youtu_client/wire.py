"""The text contract as bytes: arguments to a ModelInferRequest, responses to pieces and an answer.

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

from .answers import Answer, ModelInfo, Piece, Timings, Usage
from .errors import InvalidRequest, ServerError

Message: TypeAlias = "Mapping[str, Any]"
Prompt: TypeAlias = "str | Sequence[Message]"


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
    return_log_probs: bool | None
    timeout: float | None
    request_id: str | None


_INTEGERS = {
    "INT32": ("<i", -(2**31), 2**31 - 1),
    "UINT64": ("<Q", 0, 2**64 - 1),
}
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


def ready_request(model: str) -> Any:
    return service_pb2.ModelReadyRequest(name=model)


def config_request(model: str) -> Any:
    return service_pb2.ModelConfigRequest(name=model)


def infer_request(model: str, prompt: Prompt, *, raw: bool, stream: bool, options: Mapping[str, Any]) -> Any:
    """One request of the text contract.

    `raw` sends `prompt` as it stands, else it is a conversation (a string: one user message). `options` are
    those of `Sampling`; `timeout` is not the wire's. Raises InvalidRequest naming the field, TypeError for an
    option that does not exist.
    """
    unknown = sorted(set(options) - set(Sampling.__annotations__))
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; there are {', '.join(Sampling.__annotations__)}")
    request = service_pb2.ModelInferRequest(model_name=model)
    request.id = _request_id(options.get("request_id"))
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    if raw:
        if not isinstance(prompt, str):
            raise InvalidRequest(f"text must be a string, not {_kind(prompt)}")
        _add(request, "text_input", "BYTES", [_text("text", prompt)])
    else:
        _add(request, "messages", "BYTES", [_json("messages", _conversation(prompt))])
    _add(request, "stream", "BOOL", [struct.pack("<?", stream)])
    for name, datatype in _NUMBERS.items():
        if options.get(name) is not None:
            _add(request, name, datatype, [_number(name, datatype, options[name])])
    kwargs = options.get("chat_template_kwargs")
    if kwargs is not None:
        if not isinstance(kwargs, Mapping):
            raise InvalidRequest(f"chat_template_kwargs must be a dict, not {_kind(kwargs)}")
        _add(request, "chat_template_kwargs", "BYTES", [_json("chat_template_kwargs", dict(kwargs))])
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


class Transcript:
    """Gathers the responses of one call. `finished` once the last response has been fed."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.started = False
        self.finished = False
        self._texts: list[str] = []
        self._log_probs: list[float] | None = None
        self._end: dict[str, Any] = {}

    def feed(self, response: Any) -> Piece | None:
        """Take in one ModelStreamInferResponse; the piece it brings, if any.

        Raises ServerError when it is not the text contract. An `error_message` is the caller's to look at.
        """
        self.started = True
        infer = response.infer_response
        values = _outputs(infer)
        text: str = values.pop("text_output", "")
        log_probs: tuple[float, ...] | None = values.pop("output_log_probs", None)
        self._end.update(values)
        if "triton_final_response" in infer.parameters:
            self.finished = self.finished or infer.parameters["triton_final_response"].bool_param
        if log_probs is not None:
            self._log_probs = (self._log_probs or []) + list(log_probs)
        if not text and not log_probs:
            return None
        self._texts.append(text)
        return Piece(text, log_probs)

    def answer(self) -> Answer:
        """The whole. Raises ServerError when the end of the answer has not come: a half is no answer."""
        end = self._end
        try:
            usage = Usage(end["num_input_tokens"], end["num_output_tokens"], end.get("num_cached_tokens", 0))
            times = (end["arrival_time_ns"], end["first_token_time_ns"], end["last_token_time_ns"])
            finish_reason: str = end["finish_reason"]
        except KeyError as missing:
            raise ServerError(f"the stream ended without its last response: no {missing}") from None
        return Answer(
            text="".join(self._texts),
            finish_reason=finish_reason,
            usage=usage,
            timings=Timings(*times, tokens=usage.completion_tokens),
            request_id=self.request_id,
            log_probs=None if self._log_probs is None else tuple(self._log_probs),
        )


_FORMATS = {"INT32": "i", "INT64": "q", "UINT64": "Q", "BOOL": "?"}


def _outputs(response: Any) -> dict[str, Any]:
    if len(response.outputs) != len(response.raw_output_contents):
        raise ServerError("the response's tensors are not in raw_output_contents")
    values: dict[str, Any] = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        try:
            if tensor.datatype == "BYTES":
                values[tensor.name] = raw[4 : 4 + struct.unpack_from("<I", raw)[0]].decode()
            elif tensor.datatype == "FP32":
                values[tensor.name] = struct.unpack(f"<{len(raw) // 4}f", raw)
            else:
                (values[tensor.name],) = struct.unpack("<" + _FORMATS[tensor.datatype], raw)
        except (struct.error, UnicodeDecodeError, KeyError) as error:
            raise ServerError(f"output {tensor.name} ({tensor.datatype}) cannot be read: {error!r}") from None
    return values


def model_info(response: Any) -> ModelInfo:
    """ModelInfo out of a ModelConfigResponse. Raises ServerError when the model is not a `youtu_llm`."""
    values = {key: value.string_value for key, value in response.config.parameters.items()}
    try:
        return ModelInfo(
            id=values["model_id"],
            demo=values["demo"] == "true",
            description=values["description"],
            context=int(values["context"]),
            slots=int(values["slots"]),
            queue=int(values["queue"]),
            defaults={key: float(values[key]) for key in ("temperature", "top_p", "repetition_penalty")},
        )
    except (KeyError, ValueError) as error:
        raise ServerError(f"model {response.config.name!r} does not describe itself: {error!r}") from None
