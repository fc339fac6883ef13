"""The Makefile and the lock files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


def make(*arguments: str) -> str:
    made = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return made.stdout


def test_help_is_the_default_and_names_every_target() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE)) - {
        "chromium",
        "chinese-fonts",
        "test-programs",
    }
    listed = set(re.findall(r"^  make (\S+)", make("help"), re.MULTILINE))
    assert listed == targets
    assert make() == make("help")


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["MODEL=/some/folder"], {"YOUTU_MODEL": "/some/folder"}),
        (["YOUTU_PORT=9000", "YOUTU_SLOTS=2"], {"YOUTU_PORT": "9000", "YOUTU_SLOTS": "2"}),
        (["ENGINE=tensorrt_llm", "PROFILE=24gb"], {"YOUTU_ENGINE": "tensorrt_llm", "YOUTU_PROFILE": "24gb"}),
    ],
)
def test_settings_on_makes_command_line_reach_the_server(
    arguments: list[str], variables: dict[str, str]
) -> None:
    printing = "include Makefile\nprint-environment: ; @env\n"
    command = ["make", "-s", "-f", "-", "print-environment", *arguments]
    made = subprocess.run(command, cwd=ROOT, input=printing, capture_output=True, text=True, check=True)
    environment = dict(line.split("=", 1) for line in made.stdout.splitlines() if "=" in line)
    assert variables.items() <= environment.items()


def test_make_engine_puts_it_where_serving_looks_and_refuses_a_profile_of_the_other_engine(
    tmp_path: Path,
) -> None:
    """It went to var whatever YOUTU_DATA_DIR said, and PROFILE was passed over in silence."""
    command = ["make", "-s", "engine", f"YOUTU_DATA_DIR={tmp_path}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert Path(made.stdout.strip()).parent == tmp_path / "engines"
    refused = subprocess.run([*command, "PROFILE=8gb"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "PROFILE=8gb is for the GPU engine: give ENGINE=tensorrt_llm too" in refused.stderr


def test_no_usable_python_is_reported_in_one_line(tmp_path: Path) -> None:
    for name in ("Makefile", "requirements"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = ["make", "install", "PYTHON="]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "No usable Python found: install Python 3.11" in made.stderr
    assert not (tmp_path / ".venv").exists()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_a_lock_pins_everything_with_hashes_and_names_no_place(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    assert "://" not in text
    assert not re.search(r"^\s*--(?!hash)", text, re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.strip())
    assert entries
    for entry in entries:
        assert re.match(r"[a-z0-9-]+==[\w.+]+( ;.*)? \\\n    --hash=sha256:[0-9a-f]{64}", entry), entry


def test_serving_installs_neither_torch_nor_transformers() -> None:
    text = (ROOT / "requirements" / "serve.lock").read_text(encoding="utf-8")
    assert not re.search(r"^(torch|transformers|nvidia-c\w+)==", text, re.MULTILINE)


def test_the_locks_hold_what_pyproject_names() -> None:
    if sys.version_info < (3, 11):
        pytest.skip("reads TOML")
    import tomllib

    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    pins = {"torch==2.13.0"}
    for lock in LOCKS:
        pins |= set(re.findall(r"^(\S+==\S+)", lock.read_text(encoding="utf-8"), re.MULTILINE))
    locked = {pin.split("==")[0] for pin in pins}
    for wanted in (entry for group in groups.values() for entry in group if isinstance(entry, str)):
        name = re.split(r"[\[<>=;]", wanted)[0].strip().replace("_", "-")
        assert name in locked
        assert "==" not in wanted or wanted in pins
