"""Triton's own ports: what manages the server is closed on both protocols, what uses a model is open."""

from __future__ import annotations

import base64
import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from tritonclient.grpc import service_pb2  # type: ignore[import-untyped]

from serve.run_folder import HOME, REGIONS
from serve.triton import CLOSED
from tests.e2e import http2
from tests.e2e.running import RunningServer

SERVICE = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PACKAGE = "/inference.GRPCInferenceService"
MODEL = "youtu_llm"
# What is open to every client, as gRPC methods.
OPEN = {
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelStatistics",
    "ModelInfer",
    "ModelStreamInfer",
}
# What is closed: gRPC method -> the routes that do the same over HTTP.
MANAGEMENT = {
    "RepositoryIndex": ["/v2/repository/index", "/v2/repository/any/index"],
    "RepositoryModelLoad": [
        f"/v2/repository/models/{MODEL}/load",
        "/v2/repository/models/new/load",
        "/v2/repository/any/models/new/load",
    ],
    "RepositoryModelUnload": [
        f"/v2/repository/models/{MODEL}/unload",
        "/v2/repository/models/youtu_engine/unload",
        f"/v2/repository/any/models/{MODEL}/unload",
    ],
    "SystemSharedMemoryStatus": [
        "/v2/systemsharedmemory/status",
        "/v2/systemsharedmemory/region/any/status",
    ],
    "SystemSharedMemoryRegister": [
        "/v2/systemsharedmemory/register",
        "/v2/systemsharedmemory/region/any/register",
    ],
    "SystemSharedMemoryUnregister": [
        "/v2/systemsharedmemory/unregister",
        "/v2/systemsharedmemory/region/any/unregister",
    ],
    "CudaSharedMemoryStatus": ["/v2/cudasharedmemory/status", "/v2/cudasharedmemory/region/any/status"],
    "CudaSharedMemoryRegister": ["/v2/cudasharedmemory/register", "/v2/cudasharedmemory/region/any/register"],
    "CudaSharedMemoryUnregister": [
        "/v2/cudasharedmemory/unregister",
        "/v2/cudasharedmemory/region/any/unregister",
    ],
    "TraceSetting": ["/v2/trace/setting", f"/v2/models/{MODEL}/trace/setting"],
    "LogSettings": ["/v2/logging"],
}
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH")
FORBIDDEN, NOT_FOUND = 403, 404


@pytest.fixture
def channel(server: RunningServer) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.grpc_url) as channel:
        yield channel


@pytest.fixture
def unharmed(server: RunningServer) -> Iterator[None]:
    """Triton and its models are the same processes afterwards, and answer."""
    before = {name: server.pid_of(name) for name in ("tritonserver", "youtu_engine", "youtu_llm")}
    yield
    assert {name: server.pid_of(name) for name in before} == before
    request = urllib.request.Request(
        f"{server.http_url}/chat", b'{"prompt": "a", "max_tokens": 1}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status == 200


def http_status(server: RunningServer, method: str, path: str, body: bytes = b"", head: str = "") -> int:
    """The status of a request whose path and headers are sent as they are."""
    with socket.create_connection(("127.0.0.1", server.settings.http_port), timeout=60) as connection:
        connection.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"{head}Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        with connection.makefile("rb") as answer:
            line = answer.readline()
    return int(line.split()[1]) if line else 0


def unary(channel: grpc.Channel, method: str, request: Any) -> bytes:
    call = channel.unary_unary(f"{PACKAGE}/{method}")
    return bytes(call(request.SerializeToString(), timeout=60))


def a_model_of_the_senders(marker: Path) -> dict[str, Any]:
    """What loaded a model over the API, and with it ran code: its file is written when that still works."""
    code = f"open({str(marker)!r}, 'w')\n".encode()
    return {
        "config": json.dumps({"backend": "python", "max_batch_size": 0, "input": [], "output": []}),
        "file:1/model.py": base64.b64encode(code).decode(),
    }


def bodies(server: RunningServer, marker: Path) -> dict[str, Any]:
    """gRPC method -> a request that did something before it was closed."""
    region = next(HOME.glob(f"{REGIONS}*"), Path("/dev/shm/none")).name
    load = service_pb2.RepositoryModelLoadRequest(model_name="new")
    for name, text in a_model_of_the_senders(marker).items():
        if name == "config":
            load.parameters[name].string_param = text
        else:
            load.parameters[name].bytes_param = base64.b64decode(text)
    trace = service_pb2.TraceSettingRequest(model_name=MODEL)
    trace.settings["trace_level"].value.append("TENSORS")
    log = service_pb2.LogSettingsRequest()
    log.settings["log_verbose_level"].uint32_param = 5
    return {
        "RepositoryModelLoad": load,
        "RepositoryModelUnload": service_pb2.RepositoryModelUnloadRequest(model_name="youtu_engine"),
        "SystemSharedMemoryRegister": service_pb2.SystemSharedMemoryRegisterRequest(
            name="any", key=f"/{region}", byte_size=64
        ),
        "TraceSetting": trace,
        "LogSettings": log,
    }


def http_body(method: str, marker: Path) -> bytes:
    """The same over HTTP."""
    bodies: dict[str, Any] = {
        "RepositoryModelLoad": {"parameters": a_model_of_the_senders(marker)},
        "RepositoryModelUnload": {"parameters": {"unload_dependents": True}},
        "SystemSharedMemoryRegister": {"key": "/any", "offset": 0, "byte_size": 64},
        "CudaSharedMemoryRegister": {"raw_handle": {"b64": ""}, "device_id": 0, "byte_size": 64},
        "TraceSetting": {"trace_level": ["TENSORS"], "trace_rate": "1"},
        "LogSettings": {"log_verbose_level": 5},
    }
    return json.dumps(bodies.get(method, {})).encode()


def other_spellings(path: str) -> Iterator[str]:
    """Ways to write a path that some servers take for the same."""
    last = path.rpartition("/")[2]
    encoded = f"%{ord(last[0]):02x}{last[1:]}"
    yield f"{path}/"
    yield f"/{path}"
    yield path.replace("/v2/", "/v2//")
    yield path.replace("/v2/", "/v2/./")
    yield path.replace("/v2/", "/v2/models/../")
    yield path.replace("/v2/", "/V2/")
    yield path.upper()
    yield path.replace(last, last.capitalize())
    yield path.replace(last, encoded)
    yield path.replace("/v2/", "/v2%2F")
    yield path.replace(f"/models/{MODEL}/", f"/models/{MODEL}/versions/1/")
    yield f"{path}?a=b"
    yield f"{path}#a"
    yield f"{path};a"
    yield f"http://localhost{path}"


def test_every_method_of_the_service_is_classified() -> None:
    """Fails when a newer Triton brings a method: decide whether it is open, and close it if not."""
    assert set(SERVICE.methods_by_name) == OPEN | set(MANAGEMENT)


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("method", MANAGEMENT)
def test_management_is_closed_on_both_protocols(
    server: RunningServer, channel: grpc.Channel, tmp_path: Path, method: str
) -> None:
    marker = tmp_path / "ran"
    empty = getattr(service_pb2, SERVICE.methods_by_name[method].input_type.name)()
    for request in (empty, bodies(server, marker).get(method, empty)):
        with pytest.raises(grpc.RpcError, match="This protocol is restricted"):
            unary(channel, method, request)
    body = http_body(method, marker)
    for route in MANAGEMENT[method]:
        for verb in METHODS:
            assert http_status(server, verb, route, body) == FORBIDDEN, (verb, route)
        plain = (
            "Content-Type: text/plain\r\nOrigin: http://elsewhere.example\r\n"  # as a page of another origin
        )
        assert http_status(server, "POST", route, body, plain) == FORBIDDEN
        for spelling in other_spellings(route):
            for verb in ("GET", "POST"):
                assert http_status(server, verb, spelling, body) in (FORBIDDEN, NOT_FOUND), (verb, spelling)
    assert not marker.exists()


@pytest.mark.parametrize(
    "path",
    [
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.channelz.v1.Channelz/GetServers",
        f"/{PACKAGE}/RepositoryIndex",
        f"{PACKAGE}//RepositoryIndex",
        f"{PACKAGE}/RepositoryIndex/",
        f"{PACKAGE.lower()}/repositoryindex",
        f"{PACKAGE}/%52epositoryIndex",
    ],
)
def test_other_services_and_spellings_do_not_exist(channel: grpc.Channel, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(b"", timeout=60)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.usefixtures("unharmed")
def test_the_key_that_ps_shows_opens_nothing(server: RunningServer) -> None:
    """Every user of the machine can read it, so it belongs to a header that cannot be sent."""
    command = Path(f"/proc/{server.pid_of('tritonserver')}/cmdline").read_bytes().decode().split("\0")
    (restriction,) = (text for text in command if text.startswith("--http-restricted-api="))
    name, _, key = restriction.partition(":")[2].rpartition("=")
    assert name == CLOSED
    assert len(key) == 64
    first, _, rest = name.partition(":")
    heads = [
        f"{name}: {key}",
        f"{name}:{key}",
        f"{first}%3A{rest}: {key}",
        f"{first}\r\n :{rest}: {key}",
        f"{first}:\r\n {rest.strip()}: {key}",
        f"{first}: {key}",
        f"{rest.strip()}: {key}",
        f"{name}={key}",
    ]
    for head in heads:
        for route in ("/v2/logging", "/v2/repository/index", "/v2/systemsharedmemory/status"):
            for verb in ("GET", "POST"):
                status = http_status(server, verb, route, b"{}", f"{head}\r\n")
                assert status in (0, 400, FORBIDDEN), (head, route)
    address = ("127.0.0.1", server.settings.grpc_port)
    metadata = http2.call(address, f"{PACKAGE}/ServerMetadata", [(b"a-header", b"a")], b"")
    assert b"triton" in metadata.message, "this way of calling does not work, so the rest proves nothing"
    for method in ("RepositoryIndex", "LogSettings", "SystemSharedMemoryStatus"):
        for spelling in (name, name.lower(), name.upper(), first, rest, name.replace(":", "-")):
            for prefix in ("triton-grpc-protocol-", ""):
                header = f"{prefix}{spelling}".encode()
                answer = http2.call(address, f"{PACKAGE}/{method}", [(header, key.encode())], b"")
                assert answer.message == b"", (method, header)


@pytest.mark.parametrize(
    "path",
    [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        f"/v2/models/{MODEL}",
        f"/v2/models/{MODEL}/versions/1",
        f"/v2/models/{MODEL}/ready",
        f"/v2/models/{MODEL}/config",
        f"/v2/models/{MODEL}/stats",
        "/v2/models/stats",
    ],
)
def test_http_for_clients_is_open(server: RunningServer, path: str) -> None:
    assert http_status(server, "GET", path) == 200


@pytest.mark.parametrize("path", ["generate", "generate_stream"])
def test_inference_over_http_is_open(server: RunningServer, path: str) -> None:
    body = json.dumps({"text_input": "a", "max_tokens": 1}).encode()
    assert http_status(server, "POST", f"/v2/models/{MODEL}/{path}", body) == 200


def test_metrics_are_open(server: RunningServer) -> None:
    url = f"http://127.0.0.1:{server.settings.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=60) as response:
        assert b"nv_inference_request_success" in response.read()


@pytest.mark.parametrize("method", sorted(OPEN - {"ModelInfer", "ModelStreamInfer"}))
def test_grpc_for_clients_is_open(channel: grpc.Channel, method: str) -> None:
    request = getattr(service_pb2, SERVICE.methods_by_name[method].input_type.name)()
    if "name" in request.DESCRIPTOR.fields_by_name:
        request.name = MODEL
    unary(channel, method, request)


def a_prompt() -> Any:
    request = service_pb2.ModelInferRequest(model_name=MODEL)
    request.inputs.add(name="text_input", datatype="BYTES", shape=[1, 1])
    request.inputs.add(name="max_tokens", datatype="INT32", shape=[1, 1])
    request.raw_input_contents.extend([b"\x01\0\0\0a", b"\x01\0\0\0"])
    return request


def test_inference_over_grpc_is_open(channel: grpc.Channel) -> None:
    stream = channel.stream_stream(
        f"{PACKAGE}/ModelStreamInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )
    answers = list(stream(iter([a_prompt()]), timeout=60))
    assert [answer.error_message for answer in answers] == [""] * len(answers) != []
    with pytest.raises(grpc.RpcError) as caught:  # a decoupled model has no unary call, in any deployment
        unary(channel, "ModelInfer", a_prompt())
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert "restricted" not in str(caught.value.details())
