"""The keys file: who may read it, and what changing it does to a running server; wrong keys per address."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from frontend import guessing
from frontend.guessing import ATTEMPTS, WINDOW_S, Guessing, Locked
from frontend.keys import Keys, KeysError, add
from serve.settings import Settings
from tests.client.fake_triton import FakeTriton

from .conftest import ROOT, Frontend, start_in_vain
from .test_keys import client, hashed, written

ONE, TWO = f"one  {hashed('first')}\n", f"two  {hashed('second')}\n"


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def asked(app: FlaskClient, key: str, address: str = "192.0.2.1") -> Any:
    return app.get("/v1/models", headers=bearer(key), environ_base={"REMOTE_ADDR": address})


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610, 0o601, 0o666, 0o620])
def test_a_file_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = written(tmp_path / "keys", ONE, mode)
    for use in (lambda: Keys.of(Settings(keys_file=path)), lambda: add(path, "two")):
        with pytest.raises(KeysError, match=f"{path} has mode 0{mode:o}.*chmod 600 {path}"):
            use()
    assert path.read_text() == ONE


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700])
def test_a_file_of_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    assert Keys.of(Settings(keys_file=written(tmp_path / "keys", ONE, mode))).owner(b"first") == "one"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize(
    ("mode", "taken"),
    [
        (0o440, True),
        (0o640, True),
        (0o600, True),
        (0o444, False),
        (0o644, False),
        (0o660, False),
        (0o602, False),
    ],
)
def test_a_mounted_file_of_another_user(tmp_path: Path, mode: int, taken: bool) -> None:
    path = written(tmp_path / "keys", ONE, mode)
    os.chown(path, 12345, 12345)
    if taken:
        assert Keys.of(Settings(keys_file=path)).owner(b"first") == "one"
    else:
        with pytest.raises(KeysError, match=f"{path} belongs to user 12345 and has mode 0{mode:o}.*0440"):
            Keys.of(Settings(keys_file=path))


def test_a_loose_file_stops_the_start(tmp_path: Path) -> None:
    path = written(tmp_path / "keys", ONE, 0o644)
    assert f"chmod 600 {path}" in start_in_vain(Frontend(1, tmp_path / "log", keys_file=path))


def test_make_key_says_so_too_and_completes_a_line(tmp_path: Path) -> None:
    path = written(tmp_path / "keys", ONE.rstrip("\n"), 0o640)

    def made() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "frontend.keys", path, "new"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"},
            capture_output=True,
            text=True,
        )

    assert made().returncode == 1
    assert f"chmod 600 {path}" in made().stderr
    path.chmod(0o600)
    done = made()
    assert (done.returncode, done.stderr) == (0, "")
    keys = Keys.of(Settings(keys_file=path))
    assert (keys.owner(b"first"), keys.owner(done.stdout.strip().encode())) == ("one", "new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_and_upper_case_digits_are_taken(tmp_path: Path, end: str) -> None:
    digest = hashlib.sha256(b"first").hexdigest().upper()
    path = written(tmp_path / "keys", f"\ufeffone sha256:{digest}{end}\ufeff{TWO}")
    keys = Keys.of(Settings(keys_file=path))
    assert (keys.owner(b"first"), keys.owner(b"second")) == ("one", "two")


def test_what_is_no_text_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(ONE.encode("utf-16"))
    path.chmod(0o600)
    with pytest.raises(KeysError, match="is not UTF-8"):
        Keys.of(Settings(keys_file=path))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    for one, words in ((pipe, "regular file"), (tmp_path, "cannot be read: Is a directory")):
        with pytest.raises(KeysError, match=words):
            Keys.of(Settings(keys_file=one))


def rewrite(path: Path, text: str) -> None:
    path.write_text(text)


def replace(path: Path, text: str) -> None:
    written(path, text)


def behind_a_link(path: Path, text: str) -> None:
    """As Kubernetes changes a secret."""
    target = path.with_name(f"version{len(list(path.parent.iterdir()))}")
    written(target, text)
    link = path.with_name("link")
    link.symlink_to(target)
    link.rename(path)


def with_its_old_time(path: Path, text: str) -> None:
    before = path.stat()
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [rewrite, replace, behind_a_link, with_its_old_time])
def test_a_change_counts_at_once(tmp_path: Path, change: Callable[[Path, str], None]) -> None:
    """The fault: a revoked key worked until the next restart."""
    path = tmp_path / "keys"
    replace(path, ONE + TWO)
    os.utime(path, (1, 1))
    keys = Keys.of(Settings(keys_file=path))
    for _ in range(3):  # Changes that follow one another within one tick of the file system's clock.
        change(path, ONE + TWO)
        assert (keys.owner(b"first"), keys.owner(b"second")) == ("one", "two")
        change(path, ONE + "#" + TWO[1:])
        assert (keys.owner(b"first"), keys.owner(b"second")) == ("one", None)


def test_a_file_that_does_not_change_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "keys", ONE)
    monkeypatch.setattr("frontend.keys._RECENT_NS", 0)
    keys = Keys.of(Settings(keys_file=path))
    monkeypatch.setattr("frontend.keys._read", lambda _path: pytest.fail("it was read"))
    assert [keys.owner(b"first") for _ in range(5)] == ["one"] * 5


def test_an_emptied_file_lets_nobody_in(fake: FakeTriton, tmp_path: Path) -> None:
    """The fault to guard against: no key in the file, as if keys were off."""
    path = written(tmp_path / "keys", ONE)
    app = client(fake, keys_file=path)
    assert asked(app, "first").status_code == 200
    for text in ("", "# nobody\n"):
        path.write_text(text)
        assert asked(app, "first").status_code == 401
        assert app.get("/v1/models").status_code == 401
        assert app.get("/page/facts").json["needs_key"] is True  # type: ignore[index]
    path.write_text(ONE)
    assert asked(app, "first").status_code == 200


def test_a_file_that_cannot_be_used_any_more_opens_nothing(another: Any, tmp_path: Path) -> None:
    """Callers are told to come again; the log names the line, once; the key without a file goes on."""
    path = written(tmp_path / "keys", ONE)
    frontend: Frontend = another(keys_file=path, api_key="k")

    def statuses() -> list[int]:
        return [frontend.get("/v1/models", **bearer(key)).status for key in ("first", "wrong", "k")]

    assert statuses() == [200, 401, 200]
    spoilt: dict[str, Callable[[], object]] = {
        "line 3": lambda: path.write_text(ONE + "\nhidden-key\n"),
        "chmod 600": lambda: written(path, ONE, 0o644),
        "No such file": path.unlink,
    }
    for word, spoil in spoilt.items():
        spoil()
        for _ in range(3):
            assert statuses() == [503, 503, 200]
        faults = [line for line in frontend.lines() if line["level"] == "error"]
        assert len([line for line in faults if word in line["reason"]]) == 1, faults
        written(path, ONE)
        assert statuses() == [200, 401, 200]
    reply = frontend.get("/v1/models", **bearer("k"))
    assert reply.status == 200
    path.unlink()
    reply = frontend.get("/v1/models", **bearer("first"))
    assert (reply.status, reply.error["code"]) == (503, "keys_unusable")
    assert reply.headers["Retry-After"]
    assert "hidden-key" not in frontend.log.read_text()


def test_wrong_keys_are_limited_per_address(fake: FakeTriton, tmp_path: Path) -> None:
    """The fault: keys could be guessed as fast as the server answers."""
    app = client(fake, keys_file=written(tmp_path / "keys", ONE + TWO))
    assert asked(app, "first").status_code == 200
    for number in range(ATTEMPTS):
        assert asked(app, f"guess{number}").status_code == 401
    locked = asked(app, "guess")
    assert (locked.status_code, locked.json["error"]["code"]) == (429, "too_many_wrong_keys")
    assert 1 <= int(locked.headers["Retry-After"]) <= WINDOW_S
    assert asked(app, "second").status_code == 429  # Right, but an answer would tell a guesser so.
    assert asked(app, "first").status_code == 200
    assert asked(app, "second", "192.0.2.2").status_code == 200
    assert asked(app, "second").status_code == 429  # Known from another address only.
    for path in ("/", "/health", "/page/facts"):
        assert app.get(path, environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 200
    assert app.get("/v1/models", environ_base={"REMOTE_ADDR": "192.0.2.1"}).status_code == 401


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic Zmlyc3Q6eA==", "first", "Digest x=y"]
)
def test_what_is_no_key_does_not_count(fake: FakeTriton, header: str | None) -> None:
    app = client(fake, api_key="first")
    for _ in range(2 * ATTEMPTS):
        reply = app.get("/v1/models", headers={} if header is None else {"Authorization": header})
        assert reply.status_code == 401
        assert reply.json is not None
        assert "Bearer <key>" in reply.json["error"]["message"]
    assert app.get("/v1/models", headers=bearer("first")).status_code == 200


def test_the_lock_is_in_log_and_metrics_without_a_key(another: Any) -> None:
    frontend: Frontend = another(api_key="k")
    for number in range(ATTEMPTS + 5):
        frontend.get("/v1/models", **bearer(f"guess-{number}"))
    metrics = frontend.get("/metrics", **bearer("k"))
    assert metrics.status == 429  # Seen first during the lock.
    (line,) = [line for line in frontend.lines() if line["event"] == "wrong keys"]
    assert (line["address"], line["attempts"]) == ("127.0.0.1", ATTEMPTS)
    assert "guess-" not in json.dumps(frontend.lines())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def locked(wrong: Guessing, address: str, key: bytes = b"x", right: bool = False) -> bool:
    try:
        wrong.check(address, key, right)
    except Locked as lock:
        return 0 < lock.seconds <= WINDOW_S
    return False


def test_the_lock_ends_with_its_window(clock: list[float]) -> None:
    """Requests during the lock do not prolong it: a caller that tries again and again gets in at its end."""
    wrong = Guessing()
    for _ in range(ATTEMPTS):
        assert not locked(wrong, "a")
    for _ in range(10):
        clock[0] += WINDOW_S / 11
        assert locked(wrong, "a", b"right", right=True)
    clock[0] += WINDOW_S / 10
    assert not locked(wrong, "a", b"right", right=True)


def test_one_network_of_version_6_counts_as_one_caller(clock: list[float]) -> None:
    wrong = Guessing()
    for number in range(ATTEMPTS):
        assert not locked(wrong, f"2001:db8::{number}")
    assert locked(wrong, "2001:db8::ffff")
    assert not locked(wrong, "2001:db8:0:1::1")
    for number in range(ATTEMPTS + 1):  # All of version 4 stands in one such network.
        assert not locked(wrong, f"::ffff:192.0.2.{number}")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guessing, "MOST", 50)
    wrong = Guessing()
    for number in range(500):
        wrong.check(f"10.0.{number // 250}.{number % 250}", b"x", False)
        wrong.check(f"10.1.{number // 250}.{number % 250}", b"y", True)
    assert len(wrong._wrong) == len(wrong._accepted) == 50
