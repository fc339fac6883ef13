"""The settings for Triton's ports, on servers of their own: a name, IPv6, shared memory, no HTTP."""

from __future__ import annotations

import json
import os
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pytest
import tritonclient.grpc as grpcclient  # type: ignore[import-untyped]
from tritonclient.utils import InferenceServerException  # type: ignore[import-untyped]

from serve.addresses import authority
from tests.e2e.running import RunningServer
from tests.e2e.test_triton_ports import MANAGEMENT, PACKAGE


def started(folder: Path, **settings: Any) -> Iterator[RunningServer]:
    running = RunningServer(folder, **settings)
    try:
        yield running.wait_until_up()
        assert running.end() == 0, running.log
    finally:
        running.kill()


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Triton on `localhost` (it listened on 255.255.255.255), without HTTP, with shared memory."""
    folder = tmp_path_factory.mktemp("by_name")
    yield from started(
        folder, host="localhost", triton_host="localhost", triton_http="off", triton_shared_memory="on"
    )


@pytest.fixture(scope="module")
def on_ipv6(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    yield from started(tmp_path_factory.mktemp("on_ipv6"), host="::1", triton_host="::1")


def chat(host: str, port: int) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{authority(host, port)}/chat",
        b'{"prompt": "a", "max_tokens": 1}',
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return dict(json.loads(response.read()))


def test_everything_listens_where_the_name_points(by_name: RunningServer) -> None:
    settings = by_name.settings
    assert settings.triton_host == "127.0.0.1"
    for port in (settings.port, settings.grpc_port, settings.metrics_port):
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    assert chat("localhost", settings.port)["token_count"] == 1


def test_http_can_be_turned_off(by_name: RunningServer) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", by_name.settings.http_port), timeout=60)
    (line,) = (line for line in by_name.log.splitlines() if line.startswith("  Triton  "))
    assert "HTTP" not in line
    assert f"gRPC {by_name.grpc_url}" in line


@pytest.fixture
def region() -> Iterator[Path]:
    """A prompt in shared memory, as a client puts it there."""
    path = Path(f"/dev/shm/test-{os.getpid()}")
    path.write_bytes(b"\x01\0\0\0a")
    yield path
    path.unlink()


def test_shared_memory_can_be_opened(by_name: RunningServer, region: Path) -> None:
    size = region.stat().st_size
    with grpcclient.InferenceServerClient(by_name.grpc_url) as client:
        client.register_system_shared_memory("prompt", f"/{region.name}", size)
        prompt = grpcclient.InferInput("text_input", [1, 1], "BYTES")
        prompt.set_shared_memory("prompt", size)
        limit = grpcclient.InferInput("max_tokens", [1, 1], "INT32")
        limit.set_data_from_numpy(np.array([[1]], dtype=np.int32))
        answers: list[tuple[Any, Any]] = []
        client.start_stream(lambda result, error: answers.append((result, error)))
        client.async_stream_infer("youtu_llm", [prompt, limit])
        client.stop_stream()
        assert [error for _, error in answers] == [None]
        assert answers[0][0].as_numpy("num_output_tokens").item() == 1
        client.unregister_system_shared_memory("prompt")


def test_the_rest_stays_closed(by_name: RunningServer) -> None:
    with grpc.insecure_channel(by_name.grpc_url) as channel:
        for method in MANAGEMENT:
            if "SharedMemory" not in method:
                with pytest.raises(grpc.RpcError, match="This protocol is restricted"):
                    channel.unary_unary(f"{PACKAGE}/{method}")(b"", timeout=60)


def test_shared_memory_is_closed_by_default(server: RunningServer, region: Path) -> None:
    with (
        grpcclient.InferenceServerClient(server.grpc_url) as client,
        pytest.raises(InferenceServerException, match="restricted"),
    ):
        client.register_system_shared_memory("prompt", f"/{region.name}", 1)


def test_all_ports_can_be_on_ipv6(on_ipv6: RunningServer) -> None:
    """`::1` was reported as in use."""
    settings = on_ipv6.settings
    assert chat("::1", settings.port)["token_count"] == 1
    for port, path in ((settings.http_port, "/v2/health/ready"), (settings.metrics_port, "/metrics")):
        with urllib.request.urlopen(f"http://[::1]:{port}{path}", timeout=60) as response:
            assert response.status == 200
    with grpcclient.InferenceServerClient(f"[::1]:{settings.grpc_port}") as client:
        assert client.is_server_ready()
    assert f"http://[::1]:{settings.port}/" in on_ipv6.log
