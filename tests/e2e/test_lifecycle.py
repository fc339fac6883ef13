"""Start and end of the whole server, and its processes killed one by one."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from youtu_client import Client, InvalidRequest

from serve.run_folder import HOME, REGIONS
from tests.e2e.running import RunningServer

TRITON = "bin/tritonserver"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for this module, so that its engine is built once."""
    return tmp_path_factory.mktemp("lifecycle")


@pytest.fixture
def running(data_dir: Path) -> Iterator[RunningServer]:
    started = RunningServer(data_dir)
    try:
        yield started.wait_until_up()
    finally:
        started.kill()


def ask(server: RunningServer, **body: object) -> dict[str, object]:
    content = json.dumps({"prompt": "hi", "max_tokens": 8, **body}).encode()
    request = urllib.request.Request(f"{server.http_url}/chat", content, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return dict(json.load(answer))


def wait_for_answer(server: RunningServer, within: float = 120) -> None:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            ask(server)
        except (OSError, http.client.HTTPException):  # an HTTP status other than 200 is one, too
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"no answer in {within} s:\n{server.log}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_everything_with_status_0(running: RunningServer, number: signal.Signals) -> None:
    assert ask(running)["finish_reason"] in ("stop", "length")
    assert running.end(number) == 0, running.log
    assert running.left_behind() == []
    assert not running.run_folder.exists()


def test_an_answer_that_runs_is_finished_before_the_end(running: RunningServer) -> None:
    answers: list[dict[str, object]] = []
    # Long enough to run when the signal comes: hot sampling keeps a demonstration from stopping early.
    body = {"max_tokens": 1500, "temperature": 2.0, "top_p": 1.0, "repetition_penalty": 1.9, "seed": 3}
    calls = [threading.Thread(target=lambda: answers.append(ask(running, **body))) for _ in range(4)]
    for call in calls:
        call.start()
    time.sleep(0.1)
    assert running.end() == 0, running.log
    for call in calls:
        call.join()
    assert len(answers) == len(calls)


def test_refused_requests_do_not_hold_up_the_end(running: RunningServer) -> None:
    """The fault: the client cancelled refused calls, and Triton waited for some of these at its end."""
    with Client(running.grpc_url) as client:
        for _ in range(20):
            client.chat("hi", max_tokens=4)
            with pytest.raises(InvalidRequest):
                client.chat("hi", top_k=10**6)
    assert running.end() == 0, running.log
    assert "Exit timeout expired" not in running.log


def test_killed_programs_come_back(running: RunningServer) -> None:
    stub = "triton_python_backend_stub"
    for number, texts in enumerate([(TRITON,), (stub, "youtu_engine/1"), (stub, "youtu_llm/1")], start=1):
        os.kill(running.pid_of(*texts), signal.SIGKILL)
        running.wait_for_line("triton exited; restarting it", times=number)
        wait_for_answer(running)
    assert "a model has died" in running.log
    os.kill(running.pid_of("-m frontend"), signal.SIGKILL)
    running.wait_for_line("frontend exited; restarting it")
    wait_for_answer(running)
    assert running.end() == 0, running.log
    assert running.left_behind() == []


def test_a_killed_guard_takes_its_program_along_and_comes_back(running: RunningServer) -> None:
    os.kill(running.pid_of("serve.guard", "tritonserver", without="-m serve "), signal.SIGKILL)
    running.wait_for_line("triton exited; restarting it")
    wait_for_answer(running)
    # Once the stubs of a Triton whose end nobody had asked for lived on, and had to be killed.
    assert running.end() == 0, running.log
    assert running.left_behind() == []


def test_nothing_is_left_of_a_killed_launcher(running: RunningServer) -> None:
    os.kill(running.pid, signal.SIGKILL)
    assert running.left_behind(within=120) == []


def test_the_second_start_converts_nothing(running: RunningServer) -> None:
    running.end()
    again = RunningServer(running.data_dir)
    try:
        again.wait_until_up()
        assert "Converting" not in again.log
    finally:
        again.end()
        again.kill()


def test_two_servers_on_one_machine(running: RunningServer, tmp_path: Path) -> None:
    other = RunningServer(tmp_path, slots="2")
    try:
        other.wait_until_up()
        assert other.end() == 0
        assert ask(running)["model"] == "youtu-demo"
    finally:
        other.kill()


def test_two_servers_from_one_data_folder(running: RunningServer) -> None:
    """They share the engine; each has run-time files of its own."""
    second = RunningServer(running.data_dir)
    try:
        second.wait_until_up()
        assert ask(second)["model"] == ask(running)["model"] == "youtu-demo"
        assert second.end() == 0
        assert ask(running)["model"] == "youtu-demo"
    finally:
        second.kill()


def test_a_start_ends_what_a_dead_launcher_left(running: RunningServer) -> None:
    """The fault: after a kill during a hang the next start was refused for 40 s, because of the ports."""
    hung = [running.pid_of(TRITON), running.pid_of("-m frontend")]
    for pid in hung:
        os.kill(pid, signal.SIGSTOP)
    os.kill(running.pid, signal.SIGKILL)
    running.process.wait()
    names = ("port", "http_port", "grpc_port", "metrics_port")
    ports: Any = {name: str(getattr(running.settings, name)) for name in names}
    again = RunningServer(running.data_dir, **ports)
    try:
        again.wait_until_up()
        assert "of an earlier run whose launcher is gone" in again.log
        assert not set(hung) & set(running.processes())
        assert ask(again)["model"] == "youtu-demo"
        assert again.end() == 0
    finally:
        again.kill()


def test_a_start_touches_no_running_server(running: RunningServer, tmp_path: Path) -> None:
    before = set(running.processes())
    other = RunningServer(tmp_path, port=str(running.settings.port))
    assert other.wait() == 1
    assert set(running.processes()) == before
    assert ask(running)["model"] == "youtu-demo"


def test_secrets_reach_only_the_frontend_and_files_only_their_owner(data_dir: Path) -> None:
    """The fault: Triton and its models had the frontend's API key in their environment."""
    running = RunningServer(data_dir, api_key="sesame-open")
    try:
        running.wait_until_up()
        for pid, command in running.processes().items():
            assert pid == running.pid or "sesame-open" not in Path(f"/proc/{pid}/environ").read_text(), (
                command
            )
            assert "sesame-open" not in command
        files = [*running.run_folder.rglob("*"), *(running.data_dir / "log").resolve().rglob("*")]
        assert len(files) > 10
        closed = [running.run_folder, running.data_dir / "log"]
        open_files = [path for path in closed if path.stat().st_mode & 0o077]
        name = running.run_folder.name.removeprefix("youtu-run-")
        regions = list(HOME.glob(f"{REGIONS}{name}-*"))
        assert regions
        logs = [path for path in (data_dir / "log" / name).iterdir()]
        open_files += [path for path in [*regions, *logs] if path.stat().st_mode & 0o077]
        assert open_files == []
        assert running.end() == 0
        assert "sesame-open" not in "".join(path.read_text() for path in logs)
    finally:
        running.kill()


def test_taken_ports_are_named_all_at_once_with_their_owner(running: RunningServer, tmp_path: Path) -> None:
    taken = running.settings
    second = RunningServer(tmp_path, port=str(taken.port), grpc_port=str(taken.grpc_port))
    assert second.wait() == 1
    assert f"port {taken.port} is in use by python (process {running.pid_of('-m frontend')})" in second.log
    assert (
        f"port {taken.grpc_port} is in use by tritonserver (process {running.pid_of(TRITON)})" in second.log
    )
    assert "YOUTU_GRPC_PORT=" in second.log


def test_a_model_that_cannot_load_ends_it_with_the_reason(running: RunningServer, tmp_path: Path) -> None:
    running.end()
    engines = shutil.copytree(running.data_dir / "engines", tmp_path / "engines")
    (gguf,) = engines.glob("*/model.gguf")
    with gguf.open("r+b") as file:  # the header's first keys stay as they were, the size too
        file.seek(4096)
        file.write(b"\xff" * (gguf.stat().st_size - 4096))
    broken = RunningServer(tmp_path)
    try:
        assert broken.wait() == 1
        assert "triton does not start" in broken.log
        assert "youtu_engine" in broken.log.partition("the end of its log")[2]
        assert broken.left_behind() == []
    finally:
        broken.kill()


def test_ctrl_c_at_the_terminal_of_make_serve_ends_well(data_dir: Path) -> None:
    """Once: make died of the same Ctrl-C and reported a failure for an orderly end."""
    running = RunningServer(data_dir, command=["make", "serve"], terminal=True)
    try:
        running.wait_until_up()
        running.press(b"\x03")
        assert running.wait() == 0, running.log
        assert "everything has stopped" in running.log
        assert running.left_behind() == []
    finally:
        running.kill()
