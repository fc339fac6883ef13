"""What of make check-model needs no real model: tokenizer, numbers, template. tests/smollm2 has the rest."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from build.catalogue import REPOSITORY
from build.check_model import CONTEXT, Model, number_checks, template_checks, tokenizer_checks
from build.engine import make_engine
from build.errors import BuildError
from tests.limits import START_S

DEMO = REPOSITORY / "build" / "demo" / "checkpoint"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    model = Model(make_engine("demo", tmp_path_factory.mktemp("demo")))
    yield model
    model.close()


def test_the_tokenizer_is_compared_with_transformers(model: Model, tmp_path: Path) -> None:
    own, theirs = tokenizer_checks(model, DEMO)
    assert (own.passed, theirs.passed) == (None, True)
    other = shutil.copytree(DEMO, tmp_path / "other")
    spec = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    spec["model"]["merges"] = spec["model"]["merges"][:100]
    (other / "tokenizer.json").write_text(json.dumps(spec))
    *_, theirs = tokenizer_checks(model, other)
    assert theirs.passed is False
    assert theirs.found.startswith("1 of 9 texts, not ")


def test_the_numbers_are_those_of_the_config(model: Model, tmp_path: Path) -> None:
    (check,) = number_checks(model, DEMO)
    assert check.passed
    config = json.loads((DEMO / "config.json").read_text())
    config |= {"rope_theta": 12345.0}
    config.pop("rope_parameters", None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (check,) = number_checks(model, tmp_path)
    assert check.passed is False
    assert "rope_theta " in check.found
    (check,) = number_checks(model, None)
    assert check.passed is None


def test_the_template_ends_and_thinks_as_it_is_told(model: Model) -> None:
    found = {check.name: check.passed for check in template_checks(model)}
    assert found
    assert found.pop("thinks, thinking on") is None
    assert all(found.values()), found


def test_a_text_that_is_too_long_is_refused(model: Model) -> None:
    with pytest.raises(BuildError, match=f"is longer than {CONTEXT}"):
        model.nats([1] * (CONTEXT + 1))


def test_the_command_prints_a_table_and_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "build.check_model", "demo", "--data-dir", str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=START_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert (line["model"], line["sound"], line["failed"]) == ("youtu-demo", True, [])
    wrong = subprocess.run(
        [*command, "--languages", "fr"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert wrong.returncode == 1
    assert wrong.stderr == "error: --languages must be some of zh, en, code, found 'fr'\n"
