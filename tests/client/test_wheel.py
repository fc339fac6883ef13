"""The client as others get it: built into a wheel, installed from it, used away from this repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from youtu_client import __version__

CLIENT = Path(__file__).resolve().parents[2] / "client"
PACKAGES = ("youtu_cli", "youtu_client", "youtu_contract")


def run(*arguments: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd="/",
        env=os.environ | environment,
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", str(folder)]
    run("-m", "pip", "wheel", *options, str(CLIENT))
    (made,) = folder.glob("*.whl")
    return made


def test_its_metadata_are_complete(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (place,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        told = Parser().parsestr(archive.read(place).decode())
    assert told["Name"] == "youtu-client"
    assert told["Version"] == __version__
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.10"
    assert told.get_payload(), "the README is the description"
    assert {"Author", "Summary", "Keywords", "Classifier"} <= set(told.keys())
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == set(PACKAGES)


def test_it_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    run("-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(tmp_path), str(wheel))
    code = "import youtu_client, youtu_contract; print(youtu_client.__file__, youtu_contract.__file__)"
    for place in run("-c", code, PYTHONPATH=str(tmp_path)).split():
        assert Path(place).is_relative_to(tmp_path)
    told = run("-m", "youtu_cli", "--version", PYTHONPATH=str(tmp_path))
    assert __version__ in told
