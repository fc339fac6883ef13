"""A fake Triton: KServe v2 gRPC in front of a make-believe `youtu_llm`, for tests of what sits above it.

It speaks the text contract, from the rows of `youtu_contract`, over real gRPC on loopback. It knows no model,
no tokens and no client library.

    with FakeTriton() as fake:
        client = Client(fake.address)

What a request does is written in the request itself: in the last message (or in `text_input`), after the
marker `fake:`, a JSON object. Without the marker the answer is "You said: <the last message>", word by word.

    fake:{"pieces": ["a", "b"], "delay": 0.02}

    pieces       the pieces of the answer, one token each (default: the echo)
    tokens       make N pieces "t0 ", "t1 ", ... instead
    unending     true: pieces without end, until the client leaves or its deadline passes; those of `pieces`
                 over and over, where they are given
    stepped      true: each piece waits until the test calls `call.step()`
    delay        seconds before every piece but the first (default 0)
    prefill      seconds of silence before the first piece (default 0)
    fail_at      end the stream with an error in place of piece k (0: before anything is sent)
    fail_code    a code of the contract (default engine_error), or a gRPC status name;  fail_message its text
    fail_param   the input at fault;  fail_details numbers about it
    fail_times   fail only the first N requests with this very text, then answer (default: always)
    queue_full   true: as the engine says it when its queue is full
    not_ready    true: refused as Triton does it while a model loads
    no_end       true: the stream ends without the last response, as if cut off
    finish       finish_reason (default "stop", or "length" when max_tokens was reached)
    cached       num_cached_tokens (default 0)
    thinking     true: the answer starts in the midst of the thinking (starts_in_thinking)
    stopped_by   a text or a token id: what of stop or stop_token_ids ended the answer

With return_log_probs each piece is one token of log-probability -0.5, the last response brings none but the
whole answer's. With top_log_probs k its likeliest are itself at -0.5, then "<other 1>" at -1.5, and so on.
Token ids as a prompt are read as code points, and to tokenize each character of the last text is one. With
return_prompt_log_probs each character of the prompt is such a token too. With return_token_ids the id of a
piece is the code point of its first character, and those of the prompt are of its characters.

State of the whole server: `fake.live`, `fake.ready`, `fake.queue_full`, `fake.stalled` (booleans),
`fake.fail_message` (for requests that name none), `fake.stop()` and `fake.start()` (the same port again).
`fake.calls` holds one `Call` per stream, in order of arrival; a probe is not one. Those from number
`fake.silent_from` on send nothing until it is None again.

With `slots=N` no more than N answers are made at once; the others wait for theirs, silently, as in an engine.
`python -m tests.client.fake_triton [--port PORT] [--slots N]` runs it alone and prints its address.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc  # type: ignore[import-untyped]
from tritonclient.grpc import service_pb2, service_pb2_grpc  # type: ignore[import-untyped]
from youtu_contract.errors import CODES, Error, Refused, invalid
from youtu_contract.parts import Content, PartsParser, Reasoning, ToolCall
from youtu_contract.rows import PROMPTS, TEXT_INPUTS, TEXT_OUTPUTS
from youtu_contract.values import array_of, packed, unpacked, value_of

from tests.limits import WAIT_S

MODEL = "youtu_llm"
PARAMETERS = {
    "model_id": "youtu-demo",
    "demo": "true",
    "description": "A fake that repeats what it was told.",
    "context": "2048",
    "slots": "4",
    "queue": "64",
    "temperature": "0.7",
    "top_p": "0.9",
    "repetition_penalty": "1.1",
    "engine_dir": "/nowhere",
    "engine_model": "youtu_engine",
    "guided_decoding": "true",
    "tools": "true",
    "top_log_probs": "20",
    "prompt_log_probs": "true",
}
VOCAB_SIZE = 0xD800  # code points up to the surrogates
LIMITS = {"context": 2**31 - 1, "vocab_size": VOCAB_SIZE, "last_token": VOCAB_SIZE - 1, "top_log_probs": 20}
NOT_READY = f"Request for unknown model: '{MODEL}' version 1 is not at ready state"


@dataclass
class Call:
    """What the server saw of one stream. Times are `time.monotonic()`; `time_left`: seconds until the
    client's deadline when the call arrived."""

    id: str
    inputs: dict[str, Any]
    metadata: dict[str, str]
    started: float
    number: int = 0
    time_left: float | None = None
    cancelled: float | None = None
    ended: float | None = None
    sent: int = 0
    over: threading.Event = field(default_factory=threading.Event, repr=False)
    _steps: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0), repr=False)

    def step(self, pieces: int = 1) -> None:
        """Let the call send its next pieces, if its script is `stepped`."""
        self._steps.release(pieces)

    def wait_step(self, gone: threading.Event) -> bool:
        """Wait for `step()`; False when the client has left."""
        while not self._steps.acquire(timeout=0.02):
            if gone.is_set():
                return False
        return True

    def wait_cancelled(self, timeout: float = WAIT_S) -> float:
        """The moment the server learnt that the client left; fails the test when it never does."""
        assert self.over.wait(timeout), f"call {self.id} still runs after {timeout} s"
        assert self.cancelled is not None, f"call {self.id} ran to its end"
        return self.cancelled


CONTRACT_CODES = {"INVALID_ARGUMENT": "invalid_value", "INTERNAL": "engine_error"}
"""gRPC status names that stand for a code of the contract."""


class Refusal(Exception):
    """Ends a request: with an `error` of the contract or Triton's own prose in a good stream, as Triton 2.51
    sends them, or with a `status` of gRPC, as when connection or time run out."""

    def __init__(self, error: Error | str, status: str | None = None) -> None:
        super().__init__(str(error))
        self.error, self.status = error, status

    @classmethod
    def of(cls, script: dict[str, Any], default_message: str) -> Refusal:
        """What a script asks for with its `fail_` keys."""
        code = script.get("fail_code", "engine_error")
        message = script.get("fail_message", default_message)
        code = CONTRACT_CODES.get(code, code)
        if code in CODES:
            return cls(Error(code, message, script.get("fail_param"), details=script.get("fail_details", {})))
        return cls(message) if code == "UNKNOWN" or "queue" in message else cls(message, code)


class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The server. `port=0` takes a free one; `workers` bounds the streams served at once."""

    def __init__(self, port: int = 0, workers: int = 160, slots: int | None = None) -> None:
        self.port = port
        self._free = threading.Semaphore(workers if slots is None else slots)
        self.live = self.ready = True
        self.queue_full = self.stalled = False
        self.device_memory: list[int] = []
        self.probed = 0
        self._answer_probes = threading.Event()
        self._answer_probes.set()
        self.silent_from: int | None = None
        self.fail_message = "the fake fails"
        self.calls: list[Call] = []
        self._workers = workers
        self._failures: collections.Counter[str] = collections.Counter()
        self._server: Any = None
        self._stopping = threading.Event()
        self._arriving = threading.Lock()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> FakeTriton:
        self._stopping.clear()
        # so_reuseport off: two fakes must not share one port by accident.
        pool = futures.ThreadPoolExecutor(self._workers)
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(pool, options=options)
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(self.address)
        self._server.start()
        return self

    def stop(self, grace: float | None = None) -> None:
        """Stop listening; streams under way break off unless they end within `grace` seconds."""
        if grace is None:
            self._stopping.set()
        self._server.stop(grace).wait()

    def __enter__(self) -> FakeTriton:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def wait_calls(self, count: int, timeout: float = WAIT_S) -> list[Call]:
        """The first `count` calls, once that many have arrived."""
        until = time.monotonic() + timeout
        while len(self.calls) < count:
            assert time.monotonic() < until, f"{len(self.calls)} of {count} calls arrived in {timeout} s"
            time.sleep(0.002)
        return self.calls[:count]

    @contextlib.contextmanager
    def holding_probes(self) -> Iterator[None]:
        """Within, probes are not answered. `probed` counts those that came."""
        self._answer_probes.clear()
        try:
            yield
        finally:
            self._answer_probes.set()

    def wait_probes(self, count: int, timeout: float = 60.0) -> None:
        """Until that many probes have come."""
        until = time.monotonic() + timeout
        while self.probed < count:
            assert time.monotonic() < until, f"{self.probed} of {count} probes came in {timeout} s"
            time.sleep(0.002)

    # The service. Method names are gRPC's.

    def ServerLive(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=self.live)

    def ServerReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=self.ready)

    def ModelReady(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelReadyResponse(ready=self.ready and request.name == MODEL)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        self._known(request.name, context)
        response = service_pb2.ModelMetadataResponse(name=MODEL, versions=["1"], platform="python")
        for row in TEXT_INPUTS.values():
            response.inputs.add(name=row.name, datatype=row.datatype, shape=[-1, *row.shape])
        return response

    def ModelConfig(self, request: Any, context: Any) -> Any:
        self._known(request.name, context)
        response = service_pb2.ModelConfigResponse()
        response.config.name = MODEL
        response.config.max_batch_size = 1
        response.config.model_transaction_policy.decoupled = True
        for key, value in PARAMETERS.items():
            response.config.parameters[key].string_value = value
        return response

    def ModelInfer(self, request: Any, context: Any) -> Any:
        context.abort(
            grpc.StatusCode.UNIMPLEMENTED,
            "ModelInfer RPC doesn't support models with decoupled transaction policy",
        )

    def ModelStreamInfer(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        for request in requests:
            if request.inputs and request.inputs[0].name == "probe":
                yield self._probed(request.model_name)
                continue
            try:
                yield from self._answer(request, metadata, context)
            except Refusal as refusal:
                if refusal.status is not None:
                    context.abort(getattr(grpc.StatusCode, refusal.status), str(refusal))
                error = refusal.error
                text = error.to_line() if isinstance(error, Error) else error
                yield service_pb2.ModelStreamInferResponse(error_message=text)

    def _probed(self, model: str) -> Any:
        """What `youtu_llm` answers to a probe, in one response."""
        self.probed += 1
        self._answer_probes.wait(60)
        if model != MODEL:
            text = f"Request for unknown model: '{model}' is not found"
            return service_pb2.ModelStreamInferResponse(error_message=text)
        if not self.ready:
            return service_pb2.ModelStreamInferResponse(error_message=NOT_READY)
        if self.stalled:
            stalled = Error("engine_stalled", "no progress for 16.0 s, the limit is 15 s")
            return service_pb2.ModelStreamInferResponse(error_message=stalled.to_line())
        answer = service_pb2.ModelStreamInferResponse()
        answer.infer_response.model_name = MODEL
        add_output(answer.infer_response, "stalled_ms", 0)
        if self.device_memory:
            add_output(answer.infer_response, "device_memory", self.device_memory)
        answer.infer_response.parameters["triton_final_response"].bool_param = True
        return answer

    def _known(self, name: str, context: Any) -> None:
        if name != MODEL or not self.ready:
            text = f"Request for unknown model: '{name}' is not found"
            context.abort(grpc.StatusCode.NOT_FOUND, text)

    def _answer(self, request: Any, metadata: dict[str, str], context: Any) -> Iterator[Any]:
        call = Call(request.id, {}, metadata, time.monotonic(), time_left=context.time_remaining())
        gone = threading.Event()

        def leave() -> None:
            if call.ended is None and call.cancelled is None and not self._stopping.is_set():
                call.cancelled = time.monotonic()
                call.over.set()
            gone.set()

        if not context.add_callback(leave):
            leave()
        with self._arriving:
            call.number = len(self.calls)
            self.calls.append(call)
        while not self._free.acquire(timeout=0.02):
            if gone.is_set():
                return
        try:
            yield from self._pieces(request, call, gone)
        except GeneratorExit:
            leave()
            raise
        finally:
            self._free.release()
            if call.cancelled is None:
                call.ended = time.monotonic()
                call.over.set()

    def _pieces(self, request: Any, call: Call, gone: threading.Event) -> Iterator[Any]:
        if request.model_name != MODEL:
            raise Refusal(f"Request for unknown model: '{request.model_name}' is not found")
        if not self.ready:
            raise Refusal(NOT_READY)
        inputs = call.inputs
        inputs.update(read_inputs(request))
        prompt = last_text(inputs)
        script = read_script(prompt)
        if inputs.get("tokenize"):
            if script.get("fail_at") is not None:
                raise Refusal.of(script, self.fail_message)
            yield tokenized(request, prompt)
            return
        if script.get("not_ready"):
            raise Refusal(NOT_READY)
        if self.queue_full or script.get("queue_full"):
            raise Refusal(Error("queue_full", "the queue is full: 64 requests wait, limit 64"))

        arrival = time.time_ns()
        first = last = arrival
        fail_at = script.get("fail_at")
        failure = Refusal.of(script, self.fail_message)
        if fail_at is not None and "fail_times" in script:
            self._failures[prompt] += 1
            if self._failures[prompt] > script["fail_times"]:
                fail_at = None
        limit = inputs.get("max_tokens", 2048)
        if script.get("unending"):
            limit = sys.maxsize
        while self.silent_from is not None and call.number >= self.silent_from:
            if gone.wait(0.02):
                return
        if gone.wait(script.get("prefill", 0)):
            return
        made: list[str] = []
        thinking = bool(script.get("thinking"))
        tools = bool(json.loads(inputs.get("chat_template_kwargs", "{}")).get("tools"))
        parser = PartsParser(thinking=thinking, tools=tools)
        finish = script.get("finish", "stop")
        for index, piece in enumerate(script_pieces(script, prompt)):
            if index == fail_at:
                raise failure
            if index == limit:
                finish = "length"
                break
            if index and script.get("delay") and gone.wait(script["delay"]):
                return
            if script.get("stepped") and not call.wait_step(gone):
                return
            if gone.is_set():
                return
            last = time.time_ns()
            first = first if index else last
            made.append(piece)
            if inputs.get("stream", True):
                is_first = len(made) == 1
                told = prompt if is_first else ""
                yield self._response(request, inputs, parser, [piece], thinking and is_first, told)
                call.sent += 1
        if fail_at is not None and fail_at >= len(made):
            raise failure
        if script.get("no_end"):
            return
        streamed = inputs.get("stream", True)
        yield self._response(
            request,
            inputs,
            parser,
            [] if streamed else made,
            thinking,
            "" if streamed else prompt,
            finish_reason=finish,
            num_input_tokens=len(prompt.split()),
            num_output_tokens=len(made),
            num_cached_tokens=script.get("cached", 0),
            arrival_time_ns=arrival,
            first_token_time_ns=first,
            last_token_time_ns=last,
            **stopped_by(script.get("stopped_by")),
        )

    def _response(
        self,
        request: Any,
        inputs: dict[str, Any],
        parser: PartsParser,
        pieces: list[str],
        thinking: bool,
        prompt: str = "",
        **end: Any,
    ) -> Any:
        """`prompt`: of which the first response tells."""
        stream_response = service_pb2.ModelStreamInferResponse()
        response = stream_response.infer_response
        response.model_name, response.model_version, response.id = MODEL, "1", request.id
        response.parameters["triton_final_response"].bool_param = bool(end)
        values: dict[str, Any] = {"text_output": "".join(pieces), **end}
        if thinking:
            values["starts_in_thinking"] = True
        if inputs.get("return_log_probs"):
            values["output_log_probs"] = [-0.5] * len(pieces)
            values["output_tokens"] = pieces
        count = inputs.get("top_log_probs", 0)
        if count:
            values["top_tokens"], values["top_output_log_probs"] = likeliest(pieces, count)
        if inputs.get("return_prompt_log_probs") and prompt:
            values["prompt_tokens"] = list(prompt)
            values["prompt_log_probs"] = [-0.5] * (len(prompt) - 1)
            if count:
                values["top_prompt_tokens"], values["top_prompt_log_probs"] = likeliest(prompt[1:], count)
        if inputs.get("return_token_ids"):
            values["output_token_ids"] = [ord(piece[0]) if piece else 0 for piece in pieces]
            if prompt:
                values["prompt_token_ids"] = [ord(character) for character in prompt]
                if inputs.get("return_prompt_log_probs") and count:
                    others = range(1, count)
                    values["top_prompt_token_ids"] = [id_ for c in prompt[1:] for id_ in (ord(c), *others)]
        if inputs.get("return_parts"):
            parts = [*parser.feed("".join(pieces)), *(parser.end() if end else ())]
            values["reasoning_output"] = "".join(part.text for part in parts if isinstance(part, Reasoning))
            values["content_output"] = "".join(part.text for part in parts if isinstance(part, Content))
            if calls := [vars(part) for part in parts if isinstance(part, ToolCall)]:
                values["tool_calls_output"] = json.dumps(calls)
        for name, value in values.items():
            add_output(response, name, value)
        return stream_response


def tokenized(request: Any, prompt: str) -> Any:
    """The answer to `tokenize`: each character of the last text is a token, its code point the id."""
    answer = service_pb2.ModelStreamInferResponse()
    response = answer.infer_response
    response.model_name, response.id = MODEL, request.id
    add_output(response, "prompt_token_ids", [ord(character) for character in prompt])
    add_output(response, "prompt_tokens", list(prompt))
    add_output(response, "num_input_tokens", len(prompt))
    response.parameters["triton_final_response"].bool_param = True
    return answer


def add_output(response: Any, name: str, value: Any) -> None:
    """Add an output of the text contract to a ModelInferResponse."""
    row = TEXT_OUTPUTS[name]
    elements = list(value) if row.is_list else [value]
    if row.datatype == "BYTES":
        elements = [element.encode() for element in elements]
    response.outputs.add(name=name, datatype=row.datatype, shape=[1, len(elements)])
    response.raw_output_contents.append(packed(row.datatype, elements))


def stopped_by(what: str | int | None) -> dict[str, Any]:
    if what is None:
        return {}
    return {"stop_word" if isinstance(what, str) else "stop_token_id": what}


def likeliest(tokens: Sequence[str], count: int) -> tuple[list[str], list[float]]:
    others = [f"<other {at}>" for at in range(1, count)]
    names = [name for token in tokens for name in (token, *others)]
    return names, [-0.5 - at for _ in tokens for at in range(count)]


def read_inputs(request: Any) -> dict[str, Any]:
    """Option or input -> Python value, refusing what Triton itself and the rows refuse."""
    arrays = {}
    for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        name, shape = tensor.name, list(tensor.shape)
        row = TEXT_INPUTS.get(name)
        if row is None:
            raise Refusal(f"unexpected inference input '{name}' for model '{MODEL}'")
        if tensor.datatype != row.datatype:
            raise Refusal(
                f"inference input '{name}' data-type is '{tensor.datatype}', but model '{MODEL}' expects "
                f"'{row.datatype}'"
            )
        if shape[:1] != [1] or len(shape) != 2 or (shape[1] != 1 and not row.is_list):
            raise Refusal(f"unexpected shape for input '{name}' for model '{MODEL}'")
        elements = unpacked(row.datatype, raw)
        arrays[name] = array_of(row, elements if row.is_list else elements[0])
    try:
        values = {name: value_of(TEXT_INPUTS[name], array, LIMITS) for name, array in arrays.items()}
        check(values)
    except Refused as refused:
        raise Refusal(refused.error) from None
    # As the tests compare them: as they were sent.
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return values | {
        name: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        for name, value in values.items()
        if isinstance(value, dict)
    }


def check(inputs: dict[str, Any]) -> None:
    """The refusals of the text contract that the layers above must carry through. Raises Refused."""
    if len(inputs.keys() & PROMPTS.keys()) != 1:
        raise invalid(None, f"expected exactly one of {', '.join(PROMPTS)}")
    if inputs.get("top_log_probs") and not inputs.get("return_log_probs"):
        raise invalid("top_log_probs", "it requires return_log_probs true")
    if "messages" in inputs:
        messages = inputs["messages"] = json.loads(inputs["messages"])
        if not messages:
            raise invalid("messages", "must have 1 to 1000 messages; got 0")
        for at, message in enumerate(messages):
            if message.get("role") not in ("system", "user", "assistant", "tool"):
                raise invalid(f"messages[{at}].role", f"{message.get('role')!r} was sent")


def last_text(inputs: dict[str, Any]) -> str:
    if "input_ids" in inputs:
        return "".join(map(chr, inputs["input_ids"]))
    return str(inputs["text_input"] if "text_input" in inputs else inputs["messages"][-1]["content"])


def read_script(text: str) -> dict[str, Any]:
    _, marker, script = text.partition("fake:")
    if not marker:
        return {}
    value, _ = json.JSONDecoder().raw_decode(script.lstrip())
    return dict(value)


def script_pieces(script: dict[str, Any], text: str) -> Iterator[str]:
    if script.get("unending"):
        given = script.get("pieces")
        yield from itertools.cycle(given) if given else (f"t{index} " for index in itertools.count())
    elif "tokens" in script:
        yield from (f"t{index} " for index in range(script["tokens"]))
    elif "pieces" in script:
        yield from script["pieces"]
    else:
        words = f"You said: {text}".split(" ")
        yield from (word if index == 0 else " " + word for index, word in enumerate(words))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.client.fake_triton")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int)
    given = parser.parse_args()
    if given.slots is not None:
        PARAMETERS["slots"] = str(given.slots)
    fake = FakeTriton(given.port, slots=given.slots).start()
    print(fake.address, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()
    fake.stop()


if __name__ == "__main__":
    main()
