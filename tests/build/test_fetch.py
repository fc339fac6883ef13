"""Fetching from a hub on localhost that breaks off, corrupts and refuses; no test leaves this machine."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest

from build.catalogue import REPOSITORY
from build.downloads import fetched, folder_of
from build.errors import BuildError
from build.fetch import fetch
from build.hub_calls import Retry
from tests.build.hub import ALWAYS, FakeHub
from tests.limits import START_S, WAIT_S

REPO = "tencent/Youtu-LLM-2B"
QUICK = Retry(attempts=3, first_wait=0.01)
TOKEN = "hf_0123456789secret"


@pytest.fixture
def hub(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    with FakeHub(checkpoint, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def same(one: Path, other: Path, name: str) -> bool:
    return (one / name).read_bytes() == (other / name).read_bytes()


def nothing_half(data: Path) -> bool:
    return fetched(REPO, data) is None and not list(folder_of(REPO, data).glob("*.safetensors"))


def test_a_whole_download_brings_what_serving_needs_and_nothing_else(
    hub: FakeHub, tmp_path: Path, weights: str
) -> None:
    seen: list[tuple[str, int, int]] = []
    got = fetch(REPO, tmp_path, lambda *step: seen.append(step), retry=QUICK)
    names = {path.name for path in got.path.iterdir()}
    assert names == {
        *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "model.safetensors.index.json", weights, "fetched.json"),
    }
    assert all(same(got.path, hub.root, name) for name in names - {"fetched.json"})
    assert got.revision == hub.commit
    assert seen[-1][1] == seen[-1][2]
    assert all(done <= total for _, done, total in seen)


def test_the_fake_is_a_hub_for_huggingface_hub_itself(
    hub: FakeHub, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_TELEMETRY", True)
    folder = huggingface_hub.snapshot_download(
        REPO, endpoint=hub.url, local_dir=tmp_path / "copy", cache_dir=tmp_path / "cache", token=False
    )
    assert same(Path(folder), hub.root, weights)
    assert same(Path(folder), hub.root, "tokenizer.json")


def test_a_second_call_makes_no_request(hub: FakeHub, tmp_path: Path) -> None:
    first = fetch(REPO, tmp_path, retry=QUICK)
    asked = len(hub.asked)
    assert asked > 0
    assert fetch(REPO, tmp_path, retry=QUICK) == first
    assert len(hub.asked) == asked


def test_a_file_deleted_afterwards_is_fetched_again(hub: FakeHub, tmp_path: Path, weights: str) -> None:
    got = fetch(REPO, tmp_path, retry=QUICK)
    (got.path / weights).unlink()
    assert fetched(REPO, tmp_path) is None
    fetch(REPO, tmp_path, retry=QUICK)
    assert same(got.path, hub.root, weights)
    assert len(hub.bodies("tokenizer.json")) == 1


def test_a_break_is_resumed_where_it_was(hub: FakeHub, tmp_path: Path, weights: str) -> None:
    size = (hub.root / weights).stat().st_size
    hub.faults.break_at[weights] = [size // 3, size // 2]
    got = fetch(REPO, tmp_path, retry=QUICK)
    bodies = hub.bodies(weights)
    assert [body.range for body in bodies] == [None, f"bytes={size // 3}-", f"bytes={size // 2}-"]
    assert sum(body.sent for body in bodies) == size
    assert same(got.path, hub.root, weights)


def test_a_break_of_the_process_is_resumed_by_the_next(hub: FakeHub, tmp_path: Path, weights: str) -> None:
    """huggingface_hub 2.4 deletes what it has when its process fails: a 4 GB download would begin anew."""
    size = (hub.root / weights).stat().st_size
    hub.faults.break_at[weights] = [size // 2]
    with pytest.raises(BuildError, match="the part received is kept"):
        fetch(REPO, tmp_path, retry=Retry(attempts=1))
    assert nothing_half(tmp_path)
    fetch(REPO, tmp_path, retry=QUICK)
    assert [body.range for body in hub.bodies(weights)] == [None, f"bytes={size // 2}-"]
    assert len(hub.bodies("tokenizer.json")) == 1
    assert not list(folder_of(REPO, tmp_path).glob(".*.part"))


def test_a_server_that_knows_no_ranges_is_asked_for_the_whole(
    hub: FakeHub, tmp_path: Path, weights: str, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.break_at[weights] = [1000]
    hub.faults.ignore_range = True
    got = fetch(REPO, tmp_path, retry=QUICK)
    assert same(got.path, hub.root, weights)
    assert len(hub.bodies(weights)) == 2
    assert "damaged" not in caplog.text


def test_breaks_that_bring_something_may_be_many(
    hub: FakeHub, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bad line breaks off ten times in 4 GB: tries are counted from the last progress on."""
    monkeypatch.setattr("build.hub_calls.PROGRESS_BYTES", 1000)
    hub.faults.break_at[weights] = [1000 * n for n in range(1, 11)]
    got = fetch(REPO, tmp_path, retry=QUICK)
    assert same(got.path, hub.root, weights)
    assert len(hub.bodies(weights)) == 11


def test_breaks_that_bring_nothing_come_to_an_end(hub: FakeHub, tmp_path: Path, weights: str) -> None:
    hub.faults.break_at[weights] = [0] * 50
    with pytest.raises(BuildError, match=f"fetching {weights} of {REPO}: .* cannot be reached"):
        fetch(REPO, tmp_path, retry=QUICK)
    assert len(hub.faults.break_at[weights]) == 50 - QUICK.attempts
    assert nothing_half(tmp_path)


@pytest.mark.parametrize("name", ["weights", "tokenizer.json"])
def test_a_corrupt_file_is_fetched_again(
    hub: FakeHub, tmp_path: Path, weights: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Same length, one bit changed: a client that compares lengths only takes it."""
    name = weights if name == "weights" else name
    hub.faults.corrupt[name] = 1
    got = fetch(REPO, tmp_path, retry=QUICK)
    assert same(got.path, hub.root, name)
    assert len(hub.bodies(name)) == 2
    assert f"{name} of {REPO} arrived corrupted" in caplog.text


@pytest.mark.parametrize("name", ["weights", "config.json"])
def test_a_file_that_stays_corrupt_is_an_error_and_leaves_nothing(
    hub: FakeHub, tmp_path: Path, weights: str, name: str
) -> None:
    name = weights if name == "weights" else name
    hub.faults.corrupt[name] = ALWAYS
    with pytest.raises(BuildError, match=rf"^{name} of {REPO} arrived corrupted twice"):
        fetch(REPO, tmp_path, retry=QUICK)
    assert len(hub.bodies(name)) == 2
    assert not (folder_of(REPO, tmp_path) / name).exists()
    assert not list(folder_of(REPO, tmp_path).glob(f".{name}.*"))
    assert fetched(REPO, tmp_path) is None


def test_a_part_that_is_damaged_on_the_disk_is_healed(hub: FakeHub, tmp_path: Path, weights: str) -> None:
    size = (hub.root / weights).stat().st_size
    hub.faults.break_at[weights] = [size // 2]
    with pytest.raises(BuildError):
        fetch(REPO, tmp_path, retry=Retry(attempts=1))
    (part,) = folder_of(REPO, tmp_path).glob(".*.part")
    part.write_bytes(b"\0" * (size // 2))
    got = fetch(REPO, tmp_path, retry=QUICK)
    assert same(got.path, hub.root, weights)


def test_a_new_revision_between_two_tries_does_not_mix_with_the_old(
    checkpoint: Path, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = shutil.copytree(checkpoint, tmp_path / "published")
    with FakeHub(published, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.break_at[weights] = [5000]
        with pytest.raises(BuildError):
            fetch(REPO, tmp_path, retry=Retry(attempts=1))
        changed = bytearray((published / weights).read_bytes())
        changed[-1] ^= 1
        (published / weights).write_bytes(changed)
        (published / "chat_template.jinja").write_text("{{ messages }}")
        got = fetch(REPO, tmp_path, retry=QUICK)
        assert hub.bodies(weights)[-1].range is None
        assert same(got.path, published, weights)
        assert same(got.path, published, "chat_template.jinja")
        assert got.revision == hub.commit
    assert not list(got.path.glob(".*.part"))


def test_only_the_shards_of_the_index_are_fetched(
    checkpoint: Path, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = shutil.copytree(checkpoint, tmp_path / "published")
    (published / "consolidated.safetensors").write_bytes(b"another layout of the same weights")
    with FakeHub(published, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        got = fetch(REPO, tmp_path, retry=QUICK)
    assert [path.name for path in got.path.glob("*.safetensors")] == [weights]


@pytest.mark.parametrize("name", ["../x", "sub/x.safetensors", "gone.safetensors", 7])
def test_an_index_cannot_name_files_elsewhere(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: object
) -> None:
    published = shutil.copytree(checkpoint, tmp_path / "published")
    (published / "sub").mkdir()
    (published / "sub" / "x.safetensors").write_bytes(b"there, but in a folder")
    (published / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with FakeHub(published, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(
            BuildError, match=re.escape(f"has no file {name!r}, which should contain weights")
        ):
            fetch(REPO, tmp_path, retry=QUICK)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda root: (root / "config.json").unlink(), "has no config.json, so it is not a checkpoint"),
        (
            lambda root: [path.unlink() for path in root.glob("*.safetensors")],
            "has no .safetensors file, the only supported weight format",
        ),
    ],
)
def test_a_repository_that_is_no_checkpoint_is_refused_before_a_download(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: object, sentence: str
) -> None:
    published = shutil.copytree(checkpoint, tmp_path / "published")
    assert callable(change)
    change(published)
    with FakeHub(published, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(BuildError, match=sentence):
            fetch(REPO, tmp_path, retry=QUICK)
        assert len(hub.asked) == 1


def test_the_check_comes_before_the_weights(hub: FakeHub, tmp_path: Path, weights: str) -> None:
    """A checkpoint of another architecture must not cost its 4 GB first."""

    def refuse(folder: Path) -> None:
        assert (folder / "config.json").is_file()
        raise BuildError("another architecture")

    with pytest.raises(BuildError, match="another architecture"):
        fetch(REPO, tmp_path, check=refuse, retry=QUICK)
    assert hub.bodies(weights) == []


def test_errors_that_pass_are_waited_for(
    hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults.statuses = [503, 429, 200, 502]
    fetch(REPO, tmp_path, retry=QUICK)
    assert [word in caplog.text for word in ("status 503", "status 429", "status 502")] == [True] * 3


def test_errors_that_stay_end_the_tries(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.statuses = [503] * 50
    with pytest.raises(BuildError, match=r"returned status 503: try again later, or .*MODEL=/path"):
        fetch(REPO, tmp_path, retry=QUICK)
    assert len(hub.asked) == QUICK.attempts


def test_retry_after_is_honoured(hub: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hub.faults.statuses, hub.faults.retry_after = [429], "7"
    fetch(REPO, tmp_path, retry=replace(QUICK, longest_wait=0.02))
    assert "trying again in 0.02 s" in caplog.text
    assert "trying again in 0.01 s" not in caplog.text


def test_an_unknown_name_is_refused_at_once(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="has no model nobody/nothing, or only its members can see it"):
        fetch("nobody/nothing", tmp_path, retry=QUICK)
    assert len(hub.asked) == 1
    assert not folder_of("nobody/nothing", tmp_path).exists()


def test_a_file_that_is_listed_and_missing(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.missing.add("tokenizer.json")
    with pytest.raises(BuildError, match=f"{hub.url} lists tokenizer.json of {REPO} but does not have it"):
        fetch(REPO, tmp_path, retry=QUICK)


def test_a_gated_model_names_the_page(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.gated = True
    with pytest.raises(
        BuildError, match=f"is gated: accept its terms on {hub.url}/{REPO}, then set HF_TOKEN"
    ):
        fetch(REPO, tmp_path, retry=QUICK)


def test_without_a_token_a_private_model_asks_for_one(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults.token = TOKEN
    with pytest.raises(BuildError, match=r"\(status 401\): check the name, set HF_TOKEN if it is private"):
        fetch(REPO, tmp_path, retry=QUICK)


def test_a_refused_token_is_named_but_not_shown(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.faults.token = "another"
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(BuildError, match=r"rejects the HF_TOKEN for .* \(status 401\)") as caught:
        fetch(REPO, tmp_path, retry=QUICK)
    assert TOKEN not in str(caught.value) + caplog.text


def test_the_token_goes_to_the_hub_and_nowhere_else(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Weights come from another host by redirect: the token must not follow."""
    caplog.set_level(logging.DEBUG)
    hub.faults.token = TOKEN
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fetch(REPO, tmp_path, retry=QUICK)
    there = {asked.token for asked in hub.asked if f":{asked.port}" in hub.url}
    elsewhere = {asked.token for asked in hub.asked if f":{asked.port}" in hub.cdn}
    assert (there, elsewhere) == ({f"Bearer {TOKEN}"}, {None})
    assert TOKEN not in caplog.text


def test_no_network_says_how_to_do_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(BuildError, match=r"http://127\.0\.0\.1:9 cannot be reached .* MODEL=/path$"):
        fetch(REPO, tmp_path, retry=QUICK)


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9", "ftp://127.0.0.1", "http://127.0.0.1:port"])
def test_an_endpoint_that_is_no_address_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(BuildError, match="HF_ENDPOINT"):
        fetch(REPO, tmp_path, retry=QUICK)


def test_an_endpoint_that_is_no_hub_is_reported(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.build.hub._Handler._info", lambda self: "<html>log in</html>")
    with pytest.raises(BuildError, match=f"{hub.url} does not respond like a hub"):
        fetch(REPO, tmp_path, retry=QUICK)


def test_offline_mode_is_reported(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BuildError, match=f"{REPO} is not on this machine and HF_HUB_OFFLINE is set"):
        fetch(REPO, tmp_path, retry=QUICK)
    assert hub.asked == []


def test_a_full_disk_is_reported_before_the_weights(
    hub: FakeHub, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = (hub.root / weights).stat().st_size + (65 << 20)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=free))
    with pytest.raises(BuildError, match=rf"GB free; {REPO} needs .* Free some space"):
        fetch(REPO, tmp_path, headroom=100.0, retry=QUICK)
    assert hub.bodies(weights) == []
    fetch(REPO, tmp_path, headroom=0.0, retry=QUICK)


def test_two_at_once_fetch_once(hub: FakeHub, tmp_path: Path, weights: str) -> None:
    """Two processes of their own, as a lock of one process proves nothing."""
    code = (
        f"from pathlib import Path; from build.fetch import fetch; fetch({REPO!r}, Path({str(tmp_path)!r}))"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1"}
    both = [subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, env=environment) for _ in range(2)]
    assert [process.wait(timeout=START_S) for process in both] == [0, 0]
    assert len(hub.bodies(weights)) == 1


def test_two_threads_at_once_fetch_once(hub: FakeHub, tmp_path: Path, weights: str) -> None:
    threads = [threading.Thread(target=fetch, args=(REPO, tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(hub.bodies(weights)) == 1
    assert fetched(REPO, tmp_path) is not None


def test_a_disk_that_fills_up_keeps_what_came(
    hub: FakeHub, tmp_path: Path, weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The space was there before the download and is gone in its middle."""

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("build.hub_calls.os.fsync", full)
        with pytest.raises(BuildError, match=r"fetching config\.json .* failed: .*No space left on device"):
            fetch(REPO, tmp_path, retry=QUICK)
    assert same(fetch(REPO, tmp_path, retry=QUICK).path, hub.root, weights)
