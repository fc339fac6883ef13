"""The text contract as bytes: arguments to a ModelInferRequest, its responses to pieces, answers and facts.

What can be asked stands in the rows of `youtu_contract`. Only what the wire cannot carry is checked here (a
wrong type, an int too large for its tensor); what a value may be is the server's to say.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

# Generated code without annotations: the only place where it meets the type checker.
from tritonclient.grpc import service_pb2, service_pb2_grpc  # type: ignore[import-untyped]
from youtu_contract.errors import Refused
from youtu_contract.parts import ToolCall
from youtu_contract.rows import DEPLOYMENT_DEFAULTS, OPTIONS, TEXT_INPUTS, TEXT_OUTPUTS, Options
from youtu_contract.values import add_input, encoded, encoded_json, encoded_text, outputs_of

from .answers import Answer, ModelInfo, Piece, Probed, Timings, Token, Tokens, Usage
from .errors import InvalidRequest, ServerError, from_error

Message: TypeAlias = "Mapping[str, Any]"
Prompt: TypeAlias = "str | Sequence[Message]"
RawPrompt: TypeAlias = "str | Sequence[int]"


class Sampling(Options, total=False):
    """Options of one request. What is absent or None is left to the server's defaults."""

    timeout: float | None
    request_id: str | None
    metadata: Mapping[str, str] | None


BEGINNING = 256
"""Characters or tokens of a raw prompt by which requests are told to begin alike."""

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


def probed(responses: Sequence[Any]) -> Probed:
    """What a probe's responses say. Raises ServerError when they are not the text contract."""
    values: dict[str, list[Any]] = {}
    try:
        for response in responses:
            values |= outputs_of(response.infer_response)
        used, total = values.get("device_memory") or (0, 0)
        return Probed(values["stalled_ms"][0] / 1000, (used, total) if total else None)
    except (ValueError, KeyError, IndexError) as error:
        raise ServerError(f"cannot read the answer to a probe: {error}") from None


def config_request(model: str) -> Any:
    return service_pb2.ModelConfigRequest(name=model)


def tokenized(responses: Sequence[Any]) -> Tokens:
    """What the responses to a request with `tokenize` say. Raises ServerError when they do not."""
    values: dict[str, Any] = {}
    for response in responses:
        values |= _outputs(response.infer_response)
    try:
        return Tokens(values["prompt_token_ids"], values["prompt_tokens"])
    except KeyError as missing:
        raise ServerError(f"the answer has no {missing}: the server is older than this client") from None


def infer_request(
    model: str,
    prompt: Prompt | RawPrompt,
    *,
    raw: bool,
    stream: bool,
    options: Mapping[str, Any],
    tokenize: bool = False,
) -> Any:
    """One request of the text contract; `tokenize` asks for the prompt's tokens alone.

    `raw` sends `prompt` as it stands (a text or token ids), else it is a conversation (a string: one user
    message). `options` are those of `Sampling`; `timeout` and `metadata` are the call's. Raises
    InvalidRequest naming the field, TypeError for an option that does not exist.
    """
    unknown = sorted(set(options) - set(_NAMES))
    if unknown:
        raise TypeError(f"unknown option {unknown[0]!r}; expected one of {', '.join(_NAMES)}")
    request = service_pb2.ModelInferRequest(model_name=model)
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    try:
        request.id = _request_id(options.get("request_id"))
        name, elements = _prompt(prompt, raw=raw)
        add_input(request, TEXT_INPUTS[name], elements)
        add_input(request, TEXT_INPUTS["stream"], [stream])
        if tokenize:
            add_input(request, TEXT_INPUTS["tokenize"], [True])
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


def beginning(prompt: Prompt | RawPrompt, *, raw: bool) -> bytes:
    """What later requests of a conversation have in common with this one: all up to its first user message.

    Of a raw prompt, its first BEGINNING characters or tokens.
    """
    if raw:
        return repr(prompt[:BEGINNING]).encode("utf-8", "replace")
    messages = _conversation(prompt)
    users = (at for at, message in enumerate(messages) if message.get("role") == "user")
    head = messages[: next(users, 0) + 1]
    return repr([(message.get("role"), message.get("content")) for message in head]).encode(
        "utf-8", "replace"
    )


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


class Transcript:
    """Gathers the responses of one call. `finished` once the last response has been fed."""

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.started = False
        self.finished = False
        self._pieces: list[Piece] = []
        self.starts_in_thinking = False
        self._log_probs: list[float] | None = None
        self._tokens: list[Token] | None = None
        self._prompt_tokens: tuple[Token, ...] | None = None
        self._token_ids: list[int] | None = None
        self._prompt_ids: tuple[int, ...] | None = None
        self._end: dict[str, Any] = {}

    def feed(self, response: Any) -> Piece | None:
        """Take in one ModelStreamInferResponse; the piece it brings, if any.

        Raises ServerError when it is not the text contract. An `error_message` is the caller's to look at.
        """
        self.started = True
        infer = response.infer_response
        values = _outputs(infer)
        text: str = values.pop("text_output", "")
        self.starts_in_thinking = values.pop("starts_in_thinking", False) or self.starts_in_thinking
        log_probs: tuple[float, ...] | None = values.get("output_log_probs")
        token_ids: tuple[int, ...] | None = values.pop("output_token_ids", None)
        prompt_ids: tuple[int, ...] | None = values.pop("prompt_token_ids", None)
        top_ids: tuple[int, ...] = values.pop("top_prompt_token_ids", ())
        tokens = _tokens(values, "output_tokens", "output_log_probs", "top_tokens", "top_output_log_probs")
        if "prompt_log_probs" in values:
            values["prompt_log_probs"] = (math.nan, *values["prompt_log_probs"])
            self._prompt_tokens = _tokens(
                values,
                "prompt_tokens",
                "prompt_log_probs",
                "top_prompt_tokens",
                "top_prompt_log_probs",
                first=1,
                top_ids=top_ids,
            )
        self._end.update(values)
        if "triton_final_response" in infer.parameters:
            self.finished = self.finished or infer.parameters["triton_final_response"].bool_param
        if log_probs is not None:
            self._log_probs = (self._log_probs or []) + list(log_probs)
        if token_ids is not None:
            self._token_ids = (self._token_ids or []) + list(token_ids)
        self._prompt_ids = prompt_ids or self._prompt_ids
        if tokens is not None:
            self._tokens = (self._tokens or []) + list(tokens)
        reasoning, content = values.get("reasoning_output", ""), values.get("content_output", "")
        tool_calls: tuple[ToolCall, ...] = values.get("tool_calls_output", ())
        piece = Piece(text, log_probs, tokens, reasoning, content, tool_calls, token_ids, prompt_ids)
        if not any((text, log_probs, reasoning, content, tool_calls, token_ids, prompt_ids)):
            return None
        self._pieces.append(piece)
        return piece

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
            text="".join(piece.text for piece in self._pieces),
            finish_reason=finish_reason,
            usage=usage,
            timings=Timings(*times, tokens=usage.completion_tokens),
            request_id=self.request_id,
            log_probs=None if self._log_probs is None else tuple(self._log_probs),
            tokens=None if self._tokens is None else tuple(self._tokens),
            prompt_tokens=self._prompt_tokens,
            starts_in_thinking=self.starts_in_thinking,
            reasoning="".join(piece.reasoning for piece in self._pieces),
            content="".join(piece.content for piece in self._pieces),
            tool_calls=tuple(call for piece in self._pieces for call in piece.tool_calls),
            token_ids=None if self._token_ids is None else tuple(self._token_ids),
            prompt_token_ids=self._prompt_ids,
            reasoning_tokens=self._reasoning_tokens(),
            stop_reason=end.get("stop_word", end.get("stop_token_id")),
        )

    def _reasoning_tokens(self) -> int | None:
        """Those up to the last piece of thinking; None where nobody asked for tokens."""
        if self._token_ids is None:
            return None
        made = thought = 0
        for piece in self._pieces:
            made += len(piece.token_ids or ())
            thought = made if piece.reasoning else thought
        return thought


def _tokens(
    values: dict[str, Any],
    tokens: str,
    log_probs: str,
    top: str,
    top_log_probs: str,
    *,
    first: int = 0,
    top_ids: tuple[int, ...] = (),
) -> tuple[Token, ...] | None:
    """Takes the outputs of these names out of `values`; the likeliest begin with the token `first`."""
    data: tuple[bytes, ...] | None = values.pop(tokens, None)
    found: tuple[float, ...] = values.pop(log_probs, ())
    names: tuple[bytes, ...] = values.pop(top, ())
    chances: tuple[float, ...] = values.pop(top_log_probs, ())
    if data is None:
        return None
    places = len(data) - first
    each = len(names) // places if places > 0 else 0
    if len(found) != len(data) or len(names) != len(chances) or len(names) != each * places:
        counts = f"{len(data)} tokens, {len(found)} values; top tokens: {len(names)}, values: {len(chances)}"
        raise ServerError(f"the outputs per token differ in length: {counts}")
    likeliest = tuple(zip(names, chances, strict=True))
    return tuple(
        Token(
            token,
            log_prob,
            likeliest[at * each : (at + 1) * each] if at >= 0 else (),
            top_ids[at * each : (at + 1) * each] if at >= 0 else (),
        )
        for at, (token, log_prob) in enumerate(zip(data, found, strict=True), start=-first)
    )


def _outputs(response: Any) -> dict[str, Any]:
    """Output name -> its value, a tuple for a list. Raises ServerError."""
    try:
        return {name: _value(name, elements) for name, elements in outputs_of(response).items()}
    except ValueError as error:
        raise ServerError(str(error)) from None


def _value(name: str, elements: list[Any]) -> Any:
    row = TEXT_OUTPUTS.get(name)
    if row is None:  # of a newer server
        return tuple(elements)
    if row.is_list:
        return tuple(elements)
    if len(elements) != 1:
        raise ValueError(f"output {name} has {len(elements)} values, expected one")
    if row.datatype != "BYTES":
        return elements[0]
    text = elements[0].decode()
    return tuple(ToolCall(**call) for call in json.loads(text)) if row.json else text


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
            guided_decoding=values.get("guided_decoding") == "true",
            tools=values.get("tools") == "true",
            top_log_probs=int(values.get("top_log_probs", "0")),
            prompt_log_probs=values.get("prompt_log_probs") == "true",
            defaults={key: float(values[key]) for key in DEPLOYMENT_DEFAULTS},
        )
    except (KeyError, ValueError) as error:
        raise ServerError(f"model {response.config.name!r} has no readable description: {error!r}") from None
