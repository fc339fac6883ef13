"""Vercel's AI SDK, in Node; skipped where there is no Node with npm."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import Served

HERE = Path(__file__).parent / "ai_sdk"


@pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")),
    reason="needs Node 18 or newer with npm: the AI SDK is not tested here",
)
def test_required_tools_and_an_object(served: Served) -> None:
    install = ["npm", "ci", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(install, cwd=HERE, check=True, timeout=600)
    made = subprocess.run(
        ["node", "run.mjs", served.v1, served.model],
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    for calls in (told["whole"], told["streamed"]):
        assert calls
        assert all(call == ["weather", ["city"]] for call in calls)
    assert (told["reason"], told["object"]) == ("tool-calls", ["yes"])
