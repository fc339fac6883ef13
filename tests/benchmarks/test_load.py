"""The load generator, real Locust, against a real server; and against a fake one for what that does not
show.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import drawing, samples
from tests.benchmarks.conftest import ENVIRONMENT, ran
from tests.benchmarks.fake_frontend import PIECES, STALL, fake_frontend
from tests.e2e.running import ROOT, RunningServer
from tests.limits import START_S, WAIT_S

Load = Callable[..., tuple[int, dict[str, Any], str]]
pytestmark = pytest.mark.load


def endpoint_arguments(server: RunningServer, endpoint: str) -> tuple[str, ...]:
    return ("--endpoint", endpoint, "--url", server.http_url, "--grpc", server.grpc_url)


@pytest.mark.parametrize("endpoint", ["chat", "v1", "grpc", "tokens"])
def test_a_closed_ladder(server: RunningServer, load: Load, tmp_path: Path, endpoint: str) -> None:
    status, summary, said = load(
        *endpoint_arguments(server, endpoint), "--users", "1,3", "--requests", "6", "--requests-each", "3",
        "--input-tokens", "40", "--output-tokens", "12",
    )  # fmt: skip
    assert status == 0, said
    assert summary["model"] == "youtu-demo"
    assert [step["name"] for step in summary["steps"]] == ["1 user", "3 users"]
    assert [step["done"] for step in summary["steps"]] == [6, 9]
    for step in summary["steps"]:
        assert abs(step["input_tokens_each"]["mean"] - 40) <= 8
        assert step["output_tokens_each"]["max"] == 12
        if endpoint != "chat":  # which has no min_tokens
            assert step["output_tokens_each"]["mean"] == 12
        assert 0 < step["ttft"]["p50"] < step["e2e"]["p50"]
        assert step["cached_share"] < 0.3
    run = tmp_path / "run"
    read = samples.read(run / "samples.jsonl")
    assert len(read) == 15
    assert all(s.intended <= s.sent <= s.chunks[0] <= s.chunks[-1] <= s.end for s in read)
    # at least two were under way at once
    second = [s for s in read if s.step == "3 users"]
    assert any(a is not b and a.sent < b.sent < a.end for a in second for b in second)
    assert "3 users ttft" in (run / "locust.html").read_text()
    assert "1 user e2e" in (run / "locust.html").read_text()
    # drawn again from the samples alone
    kept = {name: (run / name).read_bytes() for name in ("report.md", "load.svg", "summary.json")}
    for name in kept:
        (run / name).unlink()
    drawing.draw(run)
    assert {name: (run / name).read_bytes() for name in kept} == kept
    assert json.loads(kept["summary.json"]) == summary


def test_an_open_loop_sends_when_due(server: RunningServer, load: Load) -> None:
    status, summary, said = load(
        *endpoint_arguments(server, "grpc"), "--rates", "25", "--requests", "50", "--max-lateness", "60"
    )
    assert status == 0, said
    (step,) = summary["steps"]
    assert step["done"] == 50
    assert step["lateness"]["n"] == 50
    assert step["seconds"] > 1.3  # 50 arrivals at 25 per second; it takes longer on a busy machine


def test_a_stall_is_seen_by_everyone_who_should_have_been_served_meanwhile(
    load: Load, tmp_path: Path
) -> None:
    """Coordinated omission: a closed loop sends nothing while it waits, and one answer alone looks slow."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "please stall"}\n')
    with fake_frontend() as url:
        status, summary, said = load(
            "--url", url, "--name", "fake", "--workload", str(questions), "--warm-up", "0",
            "--rates", "10", "--requests", "30", "--max-lateness", "60",
        )  # fmt: skip
    assert status == 0, said
    (step,) = summary["steps"]
    assert step["done"] == 30
    assert step["e2e"]["max"] > STALL
    # half of them are due during the stall and wait for half of it on average; of a closed loop's one waits
    assert step["e2e"]["mean"] > STALL / 6
    assert step["e2e"]["p90"] > STALL / 2


def test_a_late_generator_refuses_its_own_figures(load: Load, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "ok"}\n')
    with fake_frontend() as url:
        status, summary, said = load(
            "--url", url, "--name", "fake", "--workload", str(questions), "--rates", "50", "--requests", "20",
            "--max-lateness", "0.0000001",
        )  # fmt: skip
    assert status == 3, said
    assert "the generator was late" in summary["steps"][0]["faults"][0]
    assert "not to be used" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize("endpoint", ["chat", "v1"])
def test_refused_failed_and_done_are_counted_separately(load: Load, tmp_path: Path, endpoint: str) -> None:
    orders = ["ok", "busy", "cut", "torn", "broken", "ok"]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(f'{{"prompt": "{order}"}}\n' for order in orders))
    with fake_frontend() as url:
        status, summary, said = load(
            "--endpoint", endpoint, "--url", url, "--name", "fake", "--workload", str(questions),
            "--warm-up", "0", "--users", "1", "--requests", "11",
        )  # fmt: skip
    assert status == 0, said
    (step,) = summary["steps"]
    counts = {name: step[name] for name in ("offered", "done", "refused", "failed", "cancelled")}
    # the first question was taken out to see whether there are any
    assert counts == {"offered": 11, "done": 3, "refused": 2, "failed": 6, "cancelled": 0}
    assert step["output_tokens"] == 3 * PIECES
    assert step["cached_share"] == pytest.approx(2 / 7, abs=1e-6)
    errors = " ".join(step["errors"])
    assert "429: the queue is full" in errors
    assert "the engine fell over" in errors
    assert "ended without" in errors


def test_a_kept_connection_that_is_shut_is_no_failure(load: Load, tmp_path: Path) -> None:
    """llama.cpp's server shuts idle ones after a while; that is not the model's fault."""
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "shut"}\n')
    with fake_frontend() as url:
        status, summary, said = load(
            "--url", url, "--name", "fake", "--workload", str(questions), "--users", "1", "--requests", "5"
        )  # fmt: skip
    assert status == 0, said
    assert (summary["steps"][0]["done"], summary["steps"][0]["errors"]) == (5, {})


def test_nobody_there(load: Load, tmp_path: Path) -> None:
    status, summary, said = load("--url", "http://127.0.0.1:9", "--name", "none", "--users", "1")
    assert (status, summary) == (1, {})
    assert "a first question was failed" in said
    assert not (tmp_path / "run").exists()


def test_ctrl_c_keeps_what_was_measured(server: RunningServer, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", *endpoint_arguments(server, "chat"), "--users", "2",
         "--requests", "100000", "--out", str(run)],
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    path = run / "samples.jsonl"
    deadline = time.monotonic() + WAIT_S
    while not path.exists() or path.read_text().count("\n") < 10:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130, said
    (step,) = json.loads(out.splitlines()[-1])["steps"]
    assert step["done"] >= 10
    assert step["cancelled"] <= 2
    assert step["faults"][-1] == "broken off before its end"
    assert (run / "report.md").is_file()


def test_its_own_server_does_not_outlive_it(tmp_path: Path) -> None:
    """Also when it is killed: the server is in a session of its own, and would hold ports and memory."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.load", "--model", "demo", "--data-dir", str(tmp_path / "server"),
         "--requests", "100000", "--users", "1", "--out", str(tmp_path / "run")],
        cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + START_S
    while not (tmp_path / "run" / "samples.jsonl").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) > 4  # the guards, Triton and its models, the frontend
    process.kill()
    process.wait()
    assert psutil.wait_procs(family, timeout=WAIT_S)[1] == []


def test_locust_finds_one_user_for_each_endpoint() -> None:
    """Without a PYTHONPATH, as somebody types it; a user class too many would take part unasked."""
    done = subprocess.run(
        [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py", "--list"],
        cwd=ROOT, capture_output=True, text=True, timeout=START_S,
    )  # fmt: skip
    assert done.stdout.split()[-3:] == ["ChatUser", "OpenAIUser", "TritonUser"]
    assert "Caller" not in done.stdout


def test_locust_s_own_command_line_and_report(server: RunningServer, tmp_path: Path) -> None:
    """All endpoints at once, under the unchanged `locust`, and nobody names the model."""
    done = ran(
        "locust", "-f", "benchmarks/locustfile.py",
        "--headless", "-u", "6", "-r", "4", "-t", "3s", "--stop-timeout", str(int(WAIT_S)),
        "--host", server.http_url,
        "--grpc", server.grpc_url, "--html", str(tmp_path / "report.html"),
        "--samples", str(tmp_path / "samples.jsonl"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read = samples.read(tmp_path / "samples.jsonl")
    assert len(read) >= 2
    assert all(sample.outcome == "done" for sample in read)
    page = (tmp_path / "report.html").read_text()
    assert "answers ttft" in page
    assert '"grpc"' in page
    assert '"chat"' in page
    assert '"v1"' in page
