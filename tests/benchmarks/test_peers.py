"""Peers: llama.cpp's own server, real, under the same load; and the machine's limits for a model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import limits, peers
from benchmarks.measuring import NotApplicable
from benchmarks.peers import BatchPeer
from build.random_gguf import SHAPES, parameters, write_random_gguf
from tests.benchmarks.conftest import ENVIRONMENT
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


@pytest.mark.slow
def test_transformers_is_one_batch(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.batch_peer", "transformers", "--shape", "tiny-youtu"]
    command += ["--users", "3", "--requests", "3", "--output-tokens", "5", "--out", str(tmp_path / "run")]
    alone = {**ENVIRONMENT, "OMP_NUM_THREADS": "1"}  # two threads of a tiny model wait for each other
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 0, done.stderr
    assert 1e8 < int(done.stdout.splitlines()[-1]) < 4e9  # its peak memory
    report = (tmp_path / "run" / "report.md").read_text()
    assert "| 3 users | 3 | 3 |" in report


def test_what_a_library_cannot_do_is_reported_in_its_own_words(tmp_path: Path) -> None:
    peer = BatchPeer(["transformers", "--shape", "tiny-baichuan", "--out", "unused"])
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        with pytest.raises(NotApplicable, match="baichuan has no class in it"):
            peer(tmp_path / "run", 0)
    finally:
        os.environ.clear()
        os.environ.update(before)


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
