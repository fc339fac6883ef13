"""lm-eval on a task of our own, without a hub: the score is the one that benchmarks/README.md states."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from tests.e2e.running import ROOT, RunningServer
from tests.limits import START_S

PYTHON = ROOT / ".venv-quality" / "bin" / "python"
TASK = ROOT / "benchmarks" / "quality" / "items" / "everyday.yaml"
SCORE, EITHER_WAY = 0.85, 0.08  # 41 of 48; another processor may round a few sentences otherwise


def test_the_score_of_a_small_local_task(server: RunningServer, tmp_path: Path) -> None:
    assert PYTHON.exists(), f"{PYTHON} is missing: make test-smollm2 installs it"
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (engine,) = (server.data_dir / "engines").glob("SmolLM2*")
    shutil.copy(engine / "tokenizer.json", tokenizer)
    facts = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(facts))
    command = [
        *(str(PYTHON), "-m", "benchmarks.quality.published", "--offline", "--url", server.http_url),
        *("--tasks", str(TASK), "--log-probs", str(tokenizer), "--out", str(tmp_path / "out")),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out" / "published.json").read_text(encoding="utf-8"))
    figures = result["results"]["youtu_everyday"]
    assert figures["n"] == len(TASK.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()) == 48
    assert abs(figures["acc,none"] - SCORE) <= EITHER_WAY
