"""The page's modules that need no element and no network, in the Node that Playwright's wheel brings."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import playwright
import pytest

from tests.limits import START_S

TESTS = sorted((Path(__file__).parent / "js").glob("*.test.mjs"))
NODE = Path(playwright.__file__).parent / "driver" / "node"


@pytest.mark.parametrize("tests", TESTS, ids=[path.name.split(".")[0] for path in TESTS])
def test_modules_of_the_page(tests: Path) -> None:
    quiet = ["--disable-warning=ExperimentalWarning", "--disable-warning=MODULE_TYPELESS_PACKAGE_JSON"]
    environment = {**os.environ, "NO_COLOR": "1", "LANG": "C.UTF-8"}
    done = subprocess.run(
        [NODE, *quiet, "--test", "--test-reporter=tap", tests],
        capture_output=True,
        text=True,
        env=environment,
        timeout=START_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"^# pass (\d+)$", done.stdout, re.MULTILINE)
    assert passed, done.stdout
    assert int(passed[1]) > 0, done.stdout
