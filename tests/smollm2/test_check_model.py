"""make check-model tells a sound conversion from broken ones."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from build.check_model import Model, again_check, text_checks
from build.engine import make_engine
from build.engine_info import EngineInfo
from tests.e2e.running import PYTHON, ROOT, RunningServer
from tests.limits import START_S
from tests.smollm2.broken import BROKEN, BROKEN_KEYS, write


@pytest.fixture
def sound(server: RunningServer) -> Path:
    (engine,) = (server.data_dir / "engines").glob("SmolLM2*")
    return EngineInfo.load(engine).gguf.resolve()


def check(model: str, data_dir: Path) -> subprocess.CompletedProcess[str]:
    command = [str(PYTHON), "-m", "build.check_model", model, "--data-dir", str(data_dir)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=START_S, check=False)


def test_the_sound_model_passes_and_reports_itself(server: RunningServer) -> None:
    done = check("smollm2", server.data_dir)
    assert done.returncode == 0, done.stdout + done.stderr
    *table, last = done.stdout.splitlines()
    line = json.loads(last)
    assert (line["kind"], line["model"], line["sound"]) == ("check-model", "SmolLM2-135M-Instruct", True)
    assert len(table) == len(line["checks"])
    names = {each["name"] for each in line["checks"] if each["passed"]}
    assert names >= {
        "tokenizer, llama.cpp",
        "text, en",
        "text, code",
        "words read again",
        "questions, en",
        "chat ends",
    }


@pytest.mark.parametrize("fault", [*BROKEN, *BROKEN_KEYS])
def test_a_broken_conversion_is_told(sound: Path, tmp_path: Path, fault: str) -> None:
    model = Model(make_engine(str(write(sound, tmp_path / "broken.gguf", fault)), tmp_path))
    failed = [
        each.name for each in (*text_checks(model, ["en", "code"]), again_check(model)) if not each.passed
    ]
    model.close()
    assert {"text, en", "text, code"} & set(failed)


def test_a_broken_model_fails_with_what_was_found(sound: Path, tmp_path: Path) -> None:
    path = write(sound, tmp_path / "broken.gguf", "keys and values swapped")
    done = check(str(path), tmp_path)
    assert done.returncode == 1
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["sound"] is False
    assert {"text, en", "text, code", "words read again", "questions, en"} <= set(line["failed"])
    assert "FAILED  text, en" in done.stdout
