"""The endpoints of a deployment, each asked one streamed question at a time, timed as its reader sees it.

    chat     POST /chat, server-sent events
    v1       POST /v1/chat/completions, as OpenAI's SDK reads it; other servers than ours have it too
    grpc     youtu_llm over Triton's gRPC, with the project's own client
    tokens   the engine's model over Triton's gRPC, token ids in and out: for what the layers above it cost

An endpoint fills a Sample and raises only what interrupts it from outside; `sample.outcome` says how it went.
They work under gevent, which must have patched the interpreter before (`users.prepare`).
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from typing import Any, Protocol
from urllib.parse import urlsplit

import gevent
import grpc  # type: ignore[import-untyped]
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPConnectionClosed
from tritonclient.grpc import service_pb2  # type: ignore[import-untyped]
from youtu_client import Busy, Client, NotReady, YoutuError, wire

from benchmarks.samples import Sample
from benchmarks.shared_load import SAMPLING
from benchmarks.workloads import Messages, Question

BUSY = (429, 503)
CONNECT_TIMEOUT = 10.0
Clock = Callable[[], float]


class Endpoint(Protocol):
    """One caller's connection to an endpoint; used by one greenlet at a time."""

    name: str

    def ask(self, question: Question, sample: Sample) -> None:
        """Ask, and read the answer to its end, at most the endpoint's timeout."""

    def close(self) -> None: ...


class StreamCut(Exception):
    """The stream ended without its last event, or is not what this endpoint's contract says."""


class HttpEndpoint:
    """What `chat` and `v1` share: one kept connection, one POST, its events."""

    name: str
    path: str

    def __init__(self, url: str, clock: Clock, *, timeout: float, api_key: str = "", model: str = "") -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no http:// address")
        self._parts = parts
        self._client = self._connect(timeout)
        self._clock, self._timeout, self._model = clock, timeout, model
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def _connect(self, timeout: float) -> HTTPClient:
        self._kept = False  # a new client's first request opens its connection
        secure = self._parts.scheme == "https"
        return HTTPClient(
            str(self._parts.hostname),
            self._parts.port or (443 if secure else 80),
            ssl=secure,
            connection_timeout=CONNECT_TIMEOUT,
            network_timeout=timeout,
        )

    def _post(self, body: bytes) -> Any:
        """Send it; once more when the kept connection turns out to be shut, as every HTTP client does."""
        try:
            return self._client.request("POST", self.path, body, self._headers)
        except HTTPConnectionClosed:
            if not self._kept:
                raise
            self._client.close()
            self._client = self._connect(self._timeout)
            return self._client.request("POST", self.path, body, self._headers)
        finally:
            self._kept = True

    def body(self, question: Question) -> dict[str, Any]:
        raise NotImplementedError

    def read(self, events: Iterator[tuple[str, str]], sample: Sample) -> None:
        """Note the pieces and the counts of the events (name, data); StreamCut when the end is missing."""
        raise NotImplementedError

    def ask(self, question: Question, sample: Sample) -> None:
        response = None
        sample.sent = self._clock()
        try:
            with gevent.Timeout(self._timeout):
                body = json.dumps(self.body(question), ensure_ascii=False).encode()
                response = self._post(body)
                if response.status_code == 200:
                    self.read(_events(response), sample)
                    response.read()  # the end of the body, so that the connection can be used again
                    sample.outcome = "done"
                else:
                    sample.outcome = "refused" if response.status_code in BUSY else "failed"
                    sample.error = _refusal(response.status_code, bytes(response.read()))
        except gevent.Timeout:
            sample.outcome, sample.error = "failed", f"no end within {self._timeout:g} s"
        except (StreamCut, HTTPException, OSError, ValueError, KeyError, TypeError) as error:
            sample.outcome, sample.error = "failed", f"{type(error).__name__}: {error}"
        finally:
            sample.end = self._clock()
            # a stream that was not read to its end leaves a connection that nobody may use again
            if sample.outcome != "done" and response is not None:
                response.release()
                self._client.close()
                self._client = self._connect(self._timeout)

    def close(self) -> None:
        self._client.close()


class ChatEndpoint(HttpEndpoint):
    name, path = "chat", "/chat"

    def body(self, question: Question) -> dict[str, Any]:
        limits = {"max_tokens": question.max_tokens, "stream": True}
        return {
            "messages": question.messages,
            **limits,
            **(SAMPLING[question.sampling] if question.exact else {}),
        }

    def read(self, events: Iterator[tuple[str, str]], sample: Sample) -> None:
        for name, data in events:
            if name == "message":
                sample.chunks.append(self._clock())
            elif name == "done":
                facts = json.loads(data)
                usage = facts["usage"]
                _count(sample, usage, usage.get("cached_tokens", 0), facts["finish_reason"])
                return
            else:
                raise StreamCut(f"event {name}: {data}")
        raise StreamCut("the stream ended without its last event")


class OpenAIEndpoint(HttpEndpoint):
    name, path = "v1", "/v1/chat/completions"

    def body(self, question: Question) -> dict[str, Any]:
        return {
            **({"model": self._model} if self._model else {}),
            "messages": question.messages,
            "max_tokens": question.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            # min_tokens is our word (and vLLM's) for an answer that may not end, ignore_eos llama.cpp's
            **({**self.sampling(question), **self.exactly(question.max_tokens)} if question.exact else {}),
        }

    def sampling(self, question: Question) -> dict[str, Any]:
        return dict(SAMPLING[question.sampling])

    def exactly(self, tokens: int) -> dict[str, Any]:
        return {"min_tokens": tokens}

    def read(self, events: Iterator[tuple[str, str]], sample: Sample) -> None:
        usage, reason = None, ""
        for _, data in events:
            if data == "[DONE]":
                if usage is None:
                    raise StreamCut("the stream ended without its usage")
                details = usage.get("prompt_tokens_details") or {}
                _count(sample, usage, details.get("cached_tokens") or 0, reason)
                return
            chunk = json.loads(data)
            if "error" in chunk:
                raise StreamCut(f"error event: {data}")
            usage = chunk.get("usage") or usage
            for choice in chunk["choices"]:
                delta = choice.get("delta") or {}
                reason = choice.get("finish_reason") or reason
                if delta.get("content") or delta.get("reasoning_content"):
                    sample.chunks.append(self._clock())
        raise StreamCut("the stream ended without [DONE]")


class LlamaServerEndpoint(OpenAIEndpoint):
    """The same route of llama.cpp's own server, which has words of its own for an answer of a fixed length
    and for the penalty. What is not given is its default: top_k 40 and min_p 0.05 make its choice cheaper.
    """

    name = "llama-server"

    def sampling(self, question: Question) -> dict[str, Any]:
        own = super().sampling(question)
        return {**own, "repeat_penalty": own.pop("repetition_penalty"), "repeat_last_n": 8192}  # all

    def exactly(self, tokens: int) -> dict[str, Any]:
        return {"ignore_eos": True, "cache_prompt": True}


class TritonEndpoint:
    """`client` is shared by all callers of the process: one channel, one call for each request."""

    name = "grpc"

    def __init__(self, client: Client, clock: Clock, *, timeout: float) -> None:
        self._client, self._clock, self._timeout = client, clock, timeout

    def ask(self, question: Question, sample: Sample) -> None:
        options: dict[str, Any] = {"max_tokens": question.max_tokens, "timeout": self._timeout}
        if question.exact:
            options |= {"min_tokens": question.max_tokens, **SAMPLING[question.sampling]}
        sample.sent = self._clock()
        try:
            with self._client.stream(question.messages, **options) as stream:
                for piece in stream:
                    if piece.text:
                        sample.chunks.append(self._clock())
                answer = stream.answer
            usage = {
                "prompt_tokens": answer.usage.prompt_tokens,
                "completion_tokens": answer.usage.completion_tokens,
            }
            _count(sample, usage, answer.usage.cached_tokens, answer.finish_reason)
            sample.outcome = "done"
        except (Busy, NotReady) as error:
            sample.outcome, sample.error = "refused", f"{type(error).__name__}: {error}"
        except YoutuError as error:
            sample.outcome, sample.error = "failed", f"{type(error).__name__}: {error}"
        finally:
            sample.end = self._clock()

    def close(self) -> None:
        """The client belongs to its creator."""


class TokenEndpoint:
    """The token contract: the bytes of the last message stand for its tokens, and no answer ends early."""

    name = "tokens"

    def __init__(self, channel: Any, model: str, clock: Clock, *, timeout: float) -> None:
        self._infer = wire.stream_infer(channel)
        self._model, self._clock, self._timeout = model, clock, timeout

    def ask(self, question: Question, sample: Sample) -> None:
        ids = list(question.messages[-1]["content"].encode())
        request = service_pb2.ModelInferRequest(model_name=self._model)
        request.parameters["triton_enable_empty_final_response"].bool_param = True
        for name, kind, form, values in (
            ("input_ids", "INT32", "i", ids),
            ("request_output_len", "INT32", "i", [question.max_tokens]),
            ("temperature", "FP32", "f", [0.0]),
            ("streaming", "BOOL", "?", [True]),
        ):
            request.inputs.add(name=name, datatype=kind, shape=[1, len(values)])
            request.raw_input_contents.append(struct.pack(f"<{len(values)}{form}", *values))
        sample.sent = self._clock()
        try:
            for response in self._infer(request, timeout=self._timeout):
                if response.error_message:
                    raise RuntimeError(response.error_message)
                if new := _new_tokens(response.infer_response):
                    sample.chunks.append(self._clock())
                    sample.output_tokens += new
            sample.input_tokens, sample.finish_reason, sample.outcome = len(ids), "length", "done"
        except (grpc.RpcError, RuntimeError, ValueError, struct.error) as error:
            sample.outcome = "failed"
            sample.error = error.details() if isinstance(error, grpc.RpcError) else str(error)
        finally:
            sample.end = self._clock()

    def close(self) -> None:
        """The channel belongs to its creator."""


def prompt_tokens(endpoint: Endpoint, messages: Messages, clock: Clock = time.monotonic) -> int:
    """How many tokens the server makes of a conversation. RuntimeError when it does not answer."""
    sample = Sample("", clock())
    endpoint.ask(Question(messages, 1), sample)
    if sample.outcome != "done":
        raise RuntimeError(f"{endpoint.name}: a first question was {sample.outcome}: {sample.error}")
    return sample.input_tokens


def _new_tokens(response: Any) -> int:
    """How many tokens a response of the token contract brings; the empty last one brings none."""
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        if tensor.name == "sequence_length":
            return int(struct.unpack("<i", raw)[0])
    return 0


def _count(sample: Sample, usage: dict[str, Any], cached: int, reason: str) -> None:
    sample.input_tokens = int(usage["prompt_tokens"])
    sample.output_tokens = int(usage["completion_tokens"])
    sample.cached_tokens, sample.finish_reason = int(cached), str(reason)


def _refusal(status: int, body: bytes) -> str:
    try:
        return f"{status}: {json.loads(body)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{status}: {body[:200]!r}"


def _events(response: Any) -> Iterator[tuple[str, str]]:
    """The events of a text/event-stream body as (name, data); comments are left out."""
    name, data = "message", []
    while line := bytes(response.readline(b"\n")):
        text = line.decode().rstrip("\r\n")
        if text.startswith("data:"):
            data.append(text[5:].removeprefix(" "))
        elif text.startswith("event:"):
            name = text[6:].strip()
        elif not text:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
