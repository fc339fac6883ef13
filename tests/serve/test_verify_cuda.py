"""The check of a card, on a CPU and with a tiny shape: what it compares, what passes and what does not."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from llama import Device, Llama, LlamaLibrary

from serve.verify_cuda import __main__ as command
from serve.verify_cuda import bundle, steps


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle for the demonstration and a tiny model in place of the 2B shape."""
    folder = tmp_path_factory.mktemp("verify-cuda")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        (folder / "var").mkdir()
        patch.setattr(bundle, "SHAPE", "tiny-youtu")
        patch.setattr(bundle, "LENGTHS", {"demo": (24,), "2b": (24,)})
        patch.setattr(sys, "argv", ["bundle", str(folder / "bundle")])
        bundle.main()
    return folder / "bundle"


@pytest.fixture
def check(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> steps.Check:
    monkeypatch.setattr(bundle, "SHAPE", "tiny-youtu")
    monkeypatch.setattr(bundle, "LENGTHS", {"demo": (24,), "2b": (24,)})
    for name, value in {
        "CONTEXT": 2304,
        "PROMPT": 64,
        "DECODED": 4,
        "REPEATS": 1,
        "SEQUENCES": (1, 2),
    }.items():
        monkeypatch.setattr(steps, name, value)
    return steps.Check(LlamaLibrary(), made, tmp_path)


def test_without_a_card_it_says_so(check: steps.Check) -> None:
    with pytest.raises(steps.NotAsAssumed, match=r"llama\.cpp sees no card"):
        steps.card(check)


def test_what_was_made_here_is_as_assumed(check: steps.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps.demonstration(check)["right"]["corpus"] >= 0.99
    assert steps.logits_of_demo(check)["texts"][24]["rms"] < 0.01
    assert steps.big_file(check)["same_bytes"]
    assert steps.logits_of_2b(check)["texts"][24]["rms"] < 0.01
    assert steps.reuse_and_cancel(check)["cached"][1] == 1999
    made = steps.engine_speed(check)
    assert {way: set(rates) for way, rates in made.items()} == {
        way: {1, 2} for way in ("greedy", "few likely tokens", "served defaults")
    }
    monkeypatch.setattr(check.library, "devices", lambda: [Device("CPU", "no card", 10, 20)])
    monkeypatch.setattr(Llama, "_check_placement", lambda *_: None)
    assert steps.speed(check)["sequences"][2]["decode_tokens_per_s"]["median"] > 0


def test_other_logits_are_told(check: steps.Check, tmp_path: Path) -> None:
    with np.load(check.bundle / bundle.REFERENCE) as reference:
        changed = {name: reference[name] for name in reference.files}
    noise = np.random.default_rng(1).standard_normal(changed["demo/24/all"].shape).astype(np.float32)
    changed["demo/24/all"] = changed["demo/24/all"] + noise
    other = tmp_path / "other"
    other.mkdir()
    for path in check.bundle.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    np.savez(other / bundle.REFERENCE, **changed)
    with pytest.raises(steps.NotAsAssumed, match=r"logits of 24 tokens are not the CPU's within 0\.15"):
        steps.logits_of_demo(steps.Check(check.library, other, tmp_path))


def test_a_folder_without_a_library_ends_the_command(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = [
        "verify_cuda",
        "--library",
        str(tmp_path),
        "--bundle",
        str(made),
        "--out",
        str(tmp_path / "x.json"),
    ]
    monkeypatch.setattr(sys, "argv", given)
    with pytest.raises(SystemExit, match="contains no compiled llama"):
        command.main()
