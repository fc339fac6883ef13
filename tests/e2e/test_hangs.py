"""Processes that hang or starve instead of dying: they are found, replaced, and their callers are told."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import tritonclient.grpc as grpcclient  # type: ignore[import-untyped]
from youtu_client import Client

from tests.e2e.running import RunningServer
from tests.limits import WAIT_S

STUB = "triton_python_backend_stub"
ENGINE, TEXT_MODEL = (STUB, "youtu_engine/1"), (STUB, "youtu_llm/1")
TRITON, FRONTEND = ("bin/tritonserver",), ("-m frontend",)
HANG_TIMEOUT = 4.0  # s
WITHIN = WAIT_S
LONG = {
    "model": "any",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 1900,
    "min_tokens": 1900,
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One for all tests: none of them may leave it in a state in which it does not answer."""
    started = RunningServer(tmp_path_factory.mktemp("hangs"), hang_timeout=str(HANG_TIMEOUT))
    try:
        yield started.wait_until_up()
        assert started.end() == 0, started.log
        assert started.left_behind() == []
    finally:
        started.kill()


def send(server: RunningServer, body: dict[str, object], path: str = "/chat") -> http.client.HTTPConnection:
    address = urlsplit(server.http_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=WITHIN)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    return connection


def status_of(server: RunningServer, path: str) -> int:
    address = urlsplit(server.http_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=WITHIN)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], what: str, server: RunningServer) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, f"not {what} in {WITHIN} s:\n{server.log}"
        time.sleep(0.05)


def wait_until_ready(server: RunningServer) -> None:
    wait_for(lambda: status_of(server, "/health/ready") == 200, "ready", server)


class Reader(threading.Thread):
    """A caller whose long answer comes in pieces. `end`: the last thing that was said to it."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(daemon=True)
        self.begun = threading.Event()
        self.end: str | None = None
        self._connection = send(server, LONG | {"stream": True}, "/v1/chat/completions")
        self.start()

    def run(self) -> None:
        received = b""
        try:
            response = self._connection.getresponse()
            while piece := response.read1(65536):
                received += piece
                self.begun.set()
        except (OSError, http.client.HTTPException):
            received += b""
        self.end = received.decode(errors="replace").rstrip().rpartition("\n\n")[2]
        self.begun.set()


@pytest.mark.parametrize("texts", [ENGINE, TEXT_MODEL, TRITON, FRONTEND], ids=lambda texts: texts[-1])
def test_a_stopped_process_is_replaced_and_its_callers_get_an_error(
    running: RunningServer, texts: tuple[str, ...]
) -> None:
    """The fault: live and ready said 200 for 40 s, callers waited, and nothing was started again."""
    wait_until_ready(running)
    name = "frontend" if texts is FRONTEND else "triton"
    restarts = running.log.count(f"{name} exited; restarting it")
    readers = [Reader(running) for _ in range(2)]
    for reader in readers:
        assert reader.begun.wait(WITHIN)
    stopped = running.pid_of(*texts)
    os.kill(stopped, signal.SIGSTOP)
    try:
        if texts is not FRONTEND:  # which cannot say anything any more
            wait_for(lambda: status_of(running, "/health/ready") == 503, "unready", running)
            assert status_of(running, "/health/live") == 200
        running.wait_for_line(f"{name} hangs:", times=restarts + 1)
        running.wait_for_line(f"{name} exited; restarting it", times=restarts + 1)
        for reader in readers:
            reader.join(WITHIN)
            assert reader.end is not None, "a caller still waits"
            assert '"error"' in reader.end or texts is FRONTEND, reader.end
        wait_until_ready(running)
        with send(running, {"prompt": "你好"}).getresponse() as response:
            assert response.status == 200
        assert stopped not in running.processes()
    finally:
        if stopped in running.processes():
            os.kill(stopped, signal.SIGCONT)


def test_a_start_that_hangs_is_started_again(running: RunningServer) -> None:
    wait_until_ready(running)
    before = running.log.count("triton exited; restarting it")
    os.kill(running.pid_of(*TRITON), signal.SIGKILL)
    running.wait_for_line("triton exited; restarting it", times=before + 1)
    wait_for(
        lambda: any(ENGINE[1] in command for command in running.processes().values()), "loading", running
    )
    hung = running.pid_of(*TRITON)
    os.kill(hung, signal.SIGSTOP)
    wait_for(lambda: hung not in running.processes(), "replaced", running)
    wait_until_ready(running)


def test_the_signal_can_be_read_over_tritons_own_api(running: RunningServer) -> None:
    """For deployments whose processes live in different containers."""
    wait_until_ready(running)
    address = urlsplit(running.triton_http_url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=WITHIN)
    connection.request("POST", "/v2/models/youtu_llm/generate", '{"probe": true}')
    response = connection.getresponse()
    assert (response.status, json.load(response)["stalled_ms"]) == (200, 0)
    with Client(running.grpc_url) as client:
        client.probe(WITHIN)
        assert client.ready(WITHIN)


def test_probes_need_no_slot_and_no_place(running: RunningServer) -> None:
    wait_until_ready(running)
    readers = [Reader(running) for _ in range(12)]
    assert readers[0].begun.wait(WITHIN)
    with Client(running.grpc_url) as client:
        for _ in range(5):
            client.probe(WITHIN)
    assert status_of(running, "/health/ready") == 200
    for reader in readers:
        reader._connection.close()


@pytest.mark.parametrize("texts", [TEXT_MODEL, ENGINE, FRONTEND], ids=lambda texts: texts[-1])
def test_a_process_without_memory_answers_or_is_replaced(
    running: RunningServer, texts: tuple[str, ...]
) -> None:
    """The fault: no thread could be started, the request's place was lost, and its caller waited for ever."""
    wait_until_ready(running)
    pid = running.pid_of(*texts)
    status = Path(f"/proc/{pid}/status").read_text()
    size = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmSize:")) * 1024
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    resource.prlimit(pid, resource.RLIMIT_AS, (size, before[1]))
    statuses = []
    for _ in range(4 if texts is FRONTEND else 24):  # it notices a lost thread after some seconds
        with contextlib.suppress(OSError, http.client.HTTPException):  # the frontend, while it is replaced
            connection = send(running, {"prompt": "你好" * 200, "max_tokens": 4})
            statuses.append(connection.getresponse().status)
            connection.close()
    # What answers is a matter of luck; that each caller is answered is not.
    assert set(statuses) <= {200, 500, 502, 503}, statuses
    if pid in running.processes():
        resource.prlimit(pid, resource.RLIMIT_AS, before)
    wait_until_ready(running)
    with send(running, {"prompt": "你好"}).getresponse() as response:
        assert response.status == 200


def test_a_plain_triton_client_gets_the_error_as_well(running: RunningServer) -> None:
    wait_until_ready(running)
    before = running.log.count("triton exited; restarting it")
    errors: list[object] = []
    ended = threading.Event()

    def callback(result: object, error: object) -> None:
        if error is not None:
            errors.append(error)
            ended.set()

    client = grpcclient.InferenceServerClient(running.grpc_url)
    prompt = grpcclient.InferInput("text_input", [1, 1], "BYTES")
    prompt.set_data_from_numpy(np.array([[b"hi"]], dtype=object))
    client.start_stream(callback)
    os.kill(running.pid_of(*ENGINE), signal.SIGSTOP)
    client.async_stream_infer("youtu_llm", [prompt])
    running.wait_for_line("triton exited; restarting it", times=before + 1)
    assert ended.wait(WITHIN)
    client.close()
    wait_until_ready(running)
