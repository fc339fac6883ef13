"""Fetching from a ModelScope on localhost: whole, resumed, checked; and the change of hubs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest

from build.catalogue import resolve
from build.downloads import fetched, folder_of
from build.engine import make_engine
from build.errors import BuildError
from build.fetch import fetch
from build.hub_calls import Retry
from tests.build.hub import ALWAYS, FakeHub
from tests.build.modelscope import FakeModelScope, _ModelScope

REPO = "shop/shop-model"
QUICK = Retry(attempts=3, first_wait=0.01)
TOKEN = "ms-0123456789secret"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def there(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """ModelScope, while the Hugging Face hub cannot be reached."""
    for name in ("HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    with FakeModelScope(checkpoint, REPO) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        yield hub


def get(data: Path, hub: str = "modelscope") -> Path:
    return fetch(REPO, data, retry=QUICK, hub=hub).path


def same(folder: Path, checkpoint: Path) -> bool:
    names = {path.name for path in folder.iterdir() if not path.name.startswith(".")} - {"fetched.json"}
    assert "README.md" not in names
    assert {"config.json", "tokenizer.json"} <= names
    return all((folder / name).read_bytes() == (checkpoint / name).read_bytes() for name in names)


def test_a_whole_download(there: FakeHub, checkpoint: Path, tmp_path: Path) -> None:
    assert same(get(tmp_path), checkpoint)
    there.asked.clear()
    get(tmp_path)
    assert there.asked == []


def test_an_engine_is_made_of_it(there: FakeHub, tmp_path: Path) -> None:
    engine = make_engine(REPO, tmp_path, hub="modelscope")
    assert make_engine(REPO, tmp_path, hub="modelscope") == engine
    assert engine.source == f"hub:{REPO}"


@pytest.mark.parametrize("at", [1, 10_000])
def test_a_break_is_resumed_where_it_was(there: FakeHub, tmp_path: Path, weights: str, at: int) -> None:
    there.faults.break_at[weights] = [at]
    assert same(get(tmp_path), there.root)
    assert [asked.range for asked in there.bodies(weights)] == [None, f"bytes={at}-"]


def test_a_later_run_goes_on_where_one_gave_up(there: FakeHub, tmp_path: Path, weights: str) -> None:
    there.faults.break_at[weights] = [5000, 5000, 5000]
    with pytest.raises(BuildError, match="the part received is kept"):
        get(tmp_path)
    assert fetched(REPO, tmp_path) is None
    assert same(get(tmp_path), there.root)
    assert there.bodies(weights)[-1].range == "bytes=5000-"


def test_a_server_without_ranges_begins_anew(there: FakeHub, tmp_path: Path, weights: str) -> None:
    there.faults.break_at[weights] = [5000]
    there.faults.ignore_range = True
    assert same(get(tmp_path), there.root)


@pytest.mark.parametrize("name", ["config.json", "weights"])
def test_a_file_with_another_hash_is_fetched_again_and_then_refused(
    there: FakeHub, tmp_path: Path, weights: str, name: str
) -> None:
    name = weights if name == "weights" else name
    there.faults.corrupt[name] = 1
    assert same(get(tmp_path), there.root)
    there.faults.corrupt[name] = ALWAYS
    with pytest.raises(BuildError, match=f"{name} of {REPO} arrived corrupted twice: its sha256"):
        get(tmp_path / "other")
    assert not (folder_of(REPO, tmp_path / "other") / name).exists()


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_fault_is_waited_out(there: FakeHub, tmp_path: Path, status: int) -> None:
    there.faults.statuses = [status, status]
    assert same(get(tmp_path), there.root)


def test_a_lasting_fault_is_reported(there: FakeHub, tmp_path: Path) -> None:
    there.faults.statuses = [503] * 3
    with pytest.raises(BuildError, match=f"{there.url} returned status 503: try again later"):
        get(tmp_path)


def test_an_unknown_model_is_reported(there: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"has no shop/other.* \(status 404\): check the name"):
        fetch("shop/other", tmp_path, retry=QUICK, hub="modelscope")


def test_a_failure_with_status_200_is_reported(
    there: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"Code": 10010205001, "Message": "record not found", "Success": False}
    monkeypatch.setattr("tests.build.modelscope._ModelScope._json", _saying(said))
    with pytest.raises(BuildError, match=f"has no model {REPO}: record not found"):
        get(tmp_path)


@pytest.mark.parametrize("said", ["<html>", [], {"Data": None}, {"Data": {"Files": [{"Sha256": "0"}]}}])
def test_what_is_no_modelscope_is_reported(
    there: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: object
) -> None:
    monkeypatch.setattr("tests.build.modelscope._ModelScope._json", _saying(said))
    with pytest.raises(BuildError, match=r"does not respond like ModelScope .*MODELSCOPE_ENDPOINT"):
        get(tmp_path)


def _saying(said: object) -> object:
    real = _ModelScope._json
    return lambda self, value, asked: real(self, said, asked)


def test_the_token_goes_to_modelscope_and_nowhere_else(
    there: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    there.faults.token = TOKEN
    with pytest.raises(BuildError, match="set MODELSCOPE_API_TOKEN if it is private"):
        get(tmp_path)
    there.asked.clear()
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    assert same(get(tmp_path), there.root)
    asked = {f":{each.port}" in there.url: each.token for each in there.asked}
    assert asked == {True: f"Bearer {TOKEN}", False: None}
    there.faults.token = "another"
    with pytest.raises(BuildError, match="rejects the MODELSCOPE_API_TOKEN") as caught:
        get(tmp_path / "other")
    assert TOKEN not in caplog.text + str(caught.value)


def test_it_is_asked_by_itself_when_the_hub_does_not_answer(
    there: FakeHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert same(get(tmp_path, "auto"), there.root)
    assert f"{NOBODY} does not respond: continuing with {there.url}" in caplog.text


def test_it_is_not_asked_where_another_was_chosen(there: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"{NOBODY} cannot be reached"):
        get(tmp_path, "huggingface")
    assert there.asked == []
    with pytest.raises(BuildError, match="YOUTU_HUB must be one of auto, huggingface, modelscope"):
        get(tmp_path, "github")


def test_it_is_not_asked_when_the_hub_knows_no_such_model(
    there: FakeHub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeHub(checkpoint, "someone/else") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        with pytest.raises(BuildError, match=f"{hub.url} has no model {REPO}"):
            get(tmp_path, "auto")
    assert there.asked == []


def test_both_out_of_reach_are_both_named(
    there: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:10")
    with pytest.raises(BuildError) as caught:
        get(tmp_path, "auto")
    assert f"{NOBODY} cannot be reached" in str(caught.value)
    assert "http://127.0.0.1:10 failed too: " in str(caught.value)
    assert "http://127.0.0.1:10 cannot be reached" in str(caught.value)


def test_what_one_hub_began_the_other_finishes(
    there: FakeHub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    with FakeHub(checkpoint, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.break_at[weights] = [5000, 5000, 5000]
        with pytest.raises(BuildError, match="the part received is kept"):
            get(tmp_path, "huggingface")
    monkeypatch.setenv("HF_ENDPOINT", NOBODY)
    assert same(get(tmp_path, "auto"), checkpoint)
    assert [asked.range for asked in there.bodies(weights)] == ["bytes=5000-"]
    assert there.bodies("config.json") == []


def test_a_hub_that_lists_and_does_not_send_is_left_for_the_other(
    there: FakeHub, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    with FakeHub(checkpoint, REPO) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        hub.faults.break_at[weights] = [5000, 5000, 5000]
        assert same(get(tmp_path, "auto"), checkpoint)
    assert [asked.range for asked in there.bodies(weights)] == ["bytes=5000-"]


def test_the_2b_model_is_found_under_its_name_there(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = resolve("tencent/Youtu-LLM-2B").entry
    assert entry is not None
    with FakeModelScope(checkpoint, str(entry.modelscope)) as hub:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.url)
        assert make_engine("tencent/Youtu-LLM-2B", tmp_path, hub="modelscope").model_id == "Youtu-LLM-2B"
