"""Requests that crash Triton 2.51: fewer do with a larger stack, and after the others it is started again."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc  # type: ignore[import-untyped]
import pytest
from tritonclient.grpc import service_pb2  # type: ignore[import-untyped]
from youtu_client import Client
from youtu_client.errors import YoutuError

from tests.e2e.running import RunningServer
from tests.limits import START_S

GENERATE = "/v2/models/{}/generate"
CHUNKS = 600_000
DEEP, TOO_DEEP = 1_000_000, 16_000_000  # levels of JSON; 150,000 were enough for a stack of 8 MiB


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    running = RunningServer(tmp_path_factory.mktemp("crashes"))
    try:
        yield running.wait_until_up()
        assert running.end() == 0, running.log
    finally:
        running.kill()


def send(server: RunningServer, path: str, head: str, body: bytes) -> bytes:
    """The answer's first line; empty when the connection is broken off."""
    with socket.create_connection(("127.0.0.1", server.settings.http_port), timeout=60) as connection:
        try:
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{head}\r\n\r\n".encode()
                + body
            )
            with connection.makefile("rb") as answer:
                return answer.readline()
        except ConnectionError:
            return b""


def answers_again(server: RunningServer) -> bool:
    """Wait until a chat is answered; whatever is refused until then is refused with an error."""
    request = urllib.request.Request(
        f"{server.http_url}/chat", b'{"prompt": "a", "max_tokens": 1}', {"Content-Type": "application/json"}
    )
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError as error:
            if error.code not in (502, 503) or not json.loads(error.read())["error"]["message"]:
                raise
            time.sleep(0.2)
    return False


@pytest.mark.parametrize("model", ["youtu_llm", "youtu_engine"])
@pytest.mark.parametrize("route", [GENERATE, GENERATE + "_stream"])
def test_many_chunks_are_refused(own: RunningServer, route: str, model: str) -> None:
    """CVE-2025-23310 and 23311: 16 bytes of stack for each chunk, which ended Triton with a SIGSEGV."""
    before = own.pid_of("tritonserver")
    body = b"1\r\nx\r\n" * CHUNKS + b"0\r\n\r\n"
    line = send(own, route.format(model), "Transfer-Encoding: chunked", body)
    assert line.startswith((b"HTTP/1.1 400", b"HTTP/1.1 500")), line
    assert own.pid_of("tritonserver") == before


def test_deeply_nested_json_is_refused(own: RunningServer) -> None:
    """150 kB of opening brackets ended Triton with a SIGSEGV."""
    before = own.pid_of("tritonserver")
    line = send(own, GENERATE.format("youtu_llm"), f"Content-Length: {DEEP}", b"[" * DEEP)
    assert line.startswith((b"HTTP/1.1 400", b"HTTP/1.1 500")), line
    assert own.pid_of("tritonserver") == before


def test_after_a_crash_of_triton_it_is_started_again_and_callers_get_errors(own: RunningServer) -> None:
    before = own.pid_of("tritonserver")
    with Client(own.grpc_url) as client, client.stream("你好", min_tokens=1900, max_tokens=1900) as running:
        next(running)
        line = send(own, GENERATE.format("youtu_llm"), f"Content-Length: {TOO_DEEP}", b"[" * TOO_DEEP)
        if line:  # a Triton that refuses this needs no more of the test
            assert line.startswith((b"HTTP/1.1 400", b"HTTP/1.1 500")), line
            return
        with pytest.raises(YoutuError):
            for _ in running:
                pass
    assert answers_again(own)
    assert own.pid_of("tritonserver") != before


def test_after_a_crash_of_the_engine_all_is_started_again_and_callers_get_errors(own: RunningServer) -> None:
    """A shape of 2**62 numbers has 2**64 bytes, which Triton 2.51 takes for none."""
    before = own.pid_of("tritonserver")
    request = service_pb2.ModelInferRequest(model_name="youtu_engine")
    for name, shape, content in (
        ("input_ids", [1, 2**62], b""),
        ("input_lengths", [1, 1], b"\x01\0\0\0"),
        ("request_output_len", [1, 1], b"\x01\0\0\0"),
    ):
        request.inputs.add(name=name, datatype="INT32", shape=shape)
        request.raw_input_contents.append(content)
    with grpc.insecure_channel(own.grpc_url) as channel:
        stream = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        try:
            errors = [answer.error_message for answer in stream(iter([request]), timeout=START_S)]
        except grpc.RpcError as error:
            errors = [error.details()]
    assert errors
    assert all(errors)
    if "not healthy" in errors[0]:
        deadline = time.monotonic() + START_S
        while before in own.processes():
            assert time.monotonic() < deadline, own.log
            time.sleep(0.2)
    assert answers_again(own)
