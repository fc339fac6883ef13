"""What a model's code may not do. Each of these would do harm outside the sandbox."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks.quality import sandbox
from benchmarks.quality.sandbox import SandboxError, passes
from tests.limits import NEVER_S, WAIT_S


def refused(code: str) -> str:
    verdict = passes(code, "")
    assert not verdict.passed
    return verdict.why


def test_right_and_wrong() -> None:
    assert passes("def f(x):\n    return x + 1", "assert f(1) == 2").passed
    assert (
        passes("def f(x):\n    return x", "assert f(1) == 2, 'too small'").why == "AssertionError: too small"
    )
    assert refused("def f(").startswith("SyntaxError")
    assert passes(
        "from collections import Counter\nimport math, re, itertools", "assert Counter('aa')['a'] == 2"
    ).passed


def test_no_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        why = refused(f"import socket\nsocket.create_connection(('127.0.0.1', {port}))")
        listening.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listening.accept()
    assert "not permitted" in why


def test_no_writing_renaming_or_removing(tmp_path: Path) -> None:
    file = tmp_path / "precious"
    file.write_text("kept")
    for code in (
        f"open({str(tmp_path / 'new')!r}, 'w')",
        f"open({str(file)!r}, 'a')",
        f"open({str(file)!r}, 'r+')",
        f"import os\nos.remove({str(file)!r})",
        f"import os\nos.rename({str(file)!r}, {str(tmp_path / 'other')!r})",
        f"import os\nos.truncate({str(file)!r}, 0)",
        f"import os\nos.chmod({str(file)!r}, 0)",
        f"import os\nos.mkdir({str(tmp_path / 'folder')!r})",
        f"import os\nos.symlink('/', {str(tmp_path / 'link')!r})",
        f"import shutil\nshutil.rmtree({str(tmp_path)!r})",
    ):
        assert "not permitted" in refused(code), code
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    assert file.read_text() == "kept"
    assert file.stat().st_mode & 0o400


def test_no_other_programs_processes_or_signals(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", str(int(NEVER_S))])
    try:
        for code in (
            "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
            "import os\nos.fork()",
            "import os\nos.execv('/bin/true', ['true'])",
            f"import os\nos.kill({other.pid}, 9)",
            f"import os\nos.kill({os.getpid()}, 9)",
        ):
            assert "not permitted" in refused(code), code
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_limits_of_time_memory_and_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 1.0)
    begun = time.monotonic()
    assert refused("while True:\n    pass") == "not done within 1 s"
    assert refused(f"import time\ntime.sleep({NEVER_S})") == "not done within 1 s"
    assert time.monotonic() - begun < WAIT_S
    monkeypatch.undo()
    assert refused("x = bytearray(2 << 30)").startswith("MemoryError")
    assert refused("print('x' * 1_000_000, flush=True)") == "wrote more than 64 kB"


def test_ending_early_is_not_passing() -> None:
    tests = "assert False"
    for code in (
        "import os\nos._exit(0)",
        "raise SystemExit(0)",
        "import sys\nsys.exit()",
        "print('passed')",
    ):
        assert not passes(code, tests).passed, code


def test_nothing_of_the_environment_or_of_installed_packages_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    assert passes("import os", "assert 'SECRET' not in os.environ").passed
    assert refused("import numpy").startswith("ModuleNotFoundError")


def test_where_it_cannot_be_held_in_nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(SandboxError, match="no sandbox for linux on riscv64"):
        passes("", "")
