"""Peers: llama.cpp's own server, real, under the same load; and the machine's limits for a model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks import comparison, limits, peers, runs, shared_load, stepped_peer
from benchmarks.measuring import NotApplicable
from benchmarks.peers import Peer
from benchmarks.samples import Sample
from benchmarks.shared_load import Rung
from build.random_checkpoint import write_random_checkpoint
from build.random_gguf import CHECKPOINT_SHAPES, SHAPES, parameters, write_random_gguf
from tests.benchmarks.conftest import ENVIRONMENT, ran
from tests.e2e.running import ROOT
from tests.limits import START_S

Load = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.mark.load
def test_llama_cpp_s_own_server_answers_the_same_load(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    gguf = tmp_path / "tiny.gguf"
    write_random_gguf(gguf, SHAPES["tiny-youtu"], "tiny")
    with peers.llama_server(gguf, tmp_path, slots=2, context=256) as server:
        status, summary, said = load(
            "--endpoint", "llama-server", "--url", server.url, "--name", "tiny", "--users", "2",
            "--requests", "6", "--input-tokens", "40", "--output-tokens", "12",
        )  # fmt: skip
        assert 2e7 < server.memory() < 1e9
        process = server._process
    assert process.poll() is not None
    assert status == 0, said
    (step,) = summary["steps"]
    assert step["done"] == 8
    assert step["output_tokens_each"]["mean"] == 12
    assert abs(step["input_tokens_each"]["mean"] - 40) <= 8


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random") / "tiny-qwen"
    write_random_checkpoint(folder, CHECKPOINT_SHAPES["tiny-qwen"])
    return folder


# one thread each: two threads of a tiny model wait for each other
ALONE = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}
LOAD = ("--requests", "3", "--output-tokens", "5", "--sampling", "served", "--prompt-tokens", "96")


@pytest.mark.slow
def test_transformers_is_one_batch(checkpoint: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.batch_peer", "--model", str(checkpoint), "--users", "3"]
    command += [*LOAD, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, env=ALONE, capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 0, done.stderr
    assert 1e8 < int(done.stdout.splitlines()[-1]) < 4e9  # its peak memory
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| 3 users | 3 | 3 |" in report
    assert "| prompt of 96 | 1 | 1 |" in report


class Echo:
    """A library that makes a token a step for each request, and two in every third step."""

    package = "echo"

    def __init__(self) -> None:
        self.left: dict[int, int] = {}
        self.prompts: list[int] = []
        self.most = self.steps = 0

    def add(self, number: int, prompt: list[int], tokens: int) -> None:
        self.prompts.append(len(prompt))
        self.left[number] = tokens
        self.most = max(self.most, len(self.left))

    def step(self) -> dict[int, int]:
        self.steps += 1
        made = {number: min(left, 1 + (self.steps % 3 == 0)) for number, left in self.left.items()}
        self.left = {number: left - made[number] for number, left in self.left.items() if left > made[number]}
        return made


def test_callers_of_a_library_come_and_go() -> None:
    echo, rung = Echo(), Rung("3 users", 3, 10, 40, 12, 0.5)
    found: list[Sample] = []
    stepped_peer.come_and_go(echo, rung, 1, found.append)
    lengths = list(islice(rung.lengths(1), 10))
    assert echo.most == 3
    assert echo.left == {}
    assert echo.prompts == [tokens for tokens, _ in lengths]
    assert sorted((s.input_tokens, s.output_tokens) for s in found) == sorted(lengths)
    assert all(s.outcome == "done" and s.chunks[-1] == s.end for s in found)
    assert all(len(s.chunks) < s.output_tokens for s in found)


@pytest.mark.load
@pytest.mark.slow
def test_the_engine_alone_bears_the_same_load_on_both_runtimes(checkpoint: Path, tmp_path: Path) -> None:
    from build.openvino_model.convert import convert

    convert(checkpoint, tmp_path / "openvino")
    write_random_gguf(tmp_path / "llama_cpp.gguf", SHAPES["tiny-qwen"], "tiny")
    for engine, runtime in (("openvino", "openvino"), ("llama_cpp.gguf", "llama_cpp")):
        out = tmp_path / "runs" / runtime
        command = ["--engine", str(tmp_path / engine), "--users", "2", "--spread", "0.5", *LOAD]
        done = ran("benchmarks.alone", *command, "--context", "128", "--out", str(out))
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout.splitlines()[-1])
        assert summary["model"] == f"{engine} ({runtime})"
        users, prompts = summary["steps"]
        assert (users["done"], prompts["done"], prompts["input_tokens_each"]["mean"]) == (4, 1, 96)


def test_what_a_library_cannot_do_is_reported_in_its_own_words(tmp_path: Path) -> None:
    peer = Peer(["benchmarks.stepped_peer", "genai", "--model", tmp_path / "nothing"])
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        with pytest.raises(NotApplicable, match=r"^genai: "):
            peer(tmp_path / "run", 0)
    finally:
        os.environ.clear()
        os.environ.update(before)


def test_how_fast_prompts_are_read_is_told_of_single_callers_only(tmp_path: Path) -> None:
    run = shared_load.begin(tmp_path / "a", "m", model="x", endpoint="e", machine={})
    for rung in (Rung("1 user", 1, 1, 40, 5, 0), Rung("2 users", 2, 1, 40, 5, 0), Rung("p", 1, 1, 96, 2, 0)):
        run.add(Sample(rung.name, 0, 0, [2.0, 3.0], 3.0, "done", rung.input_tokens, rung.output_tokens))
        shared_load.end_step(run, rung)
    run.close()
    steps = runs.summary(tmp_path / "a")["steps"]
    assert [comparison._prompt_rate(step) for step in steps] == [20, None, 48]


def test_the_limits_of_a_model() -> None:
    """Tied: every weight is read for a token. Untied: the embedding is looked up, the output matrix read."""
    rates = {"read_bandwidth": 20e9, "int8_rate": 100e9, "f32_rate": None}

    class File:
        def __init__(self, size: int) -> None:
            self.st_size = size

        def stat(self) -> File:
            return self

    tied, untied = SHAPES["youtu-2b"], SHAPES["qwen1.5-1.8b"]
    decode, prefill = peers.notes(rates, tied, File(2_000_000_000))  # type: ignore[arg-type]
    assert decode.endswith("/ 2.00 GB per token = 10.0 tokens/s.")
    assert prefill.endswith(f"= {100e9 / 2 / (parameters(tied) - 128256 * 2048):.0f} tokens/s.")
    decode, _ = peers.notes(rates, untied, File(parameters(untied)))  # type: ignore[arg-type]
    assert f"/ {(parameters(untied) - 151936 * 2048) / 1e9:.2f} GB per token" in decode


def test_limits_are_positive_and_the_best_of_several(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    assert limits.best(lambda: taken.append(1)) >= 0
    assert len(taken) == limits.TRIES
    monkeypatch.setattr(limits, "SLICE", 1 << 16)
    monkeypatch.setattr(limits, "SIDE", 64)
    monkeypatch.setattr(limits, "int8_rate", lambda: None)  # the same with torch, which takes seconds to load
    assert all(value is None or value > 1e6 for value in limits.measured().values())
