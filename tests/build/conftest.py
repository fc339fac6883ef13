"""What tests of the build share: one thread for torch, no hub out there, and what a hub publishes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from build.random_checkpoint import TINY, write_random_checkpoint


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small matrices: more threads only wait for each other, minutes of it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_modelscope(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test leaves this machine: what turns to ModelScope because its hub does not answer finds nobody."""
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    write_random_checkpoint(folder, replace(TINY, vocab_size=640, num_hidden_layers=2), seed=0)
    (folder / "README.md").write_text("not wanted")
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    return folder


@pytest.fixture
def weights(checkpoint: Path) -> str:
    (path,) = checkpoint.glob("*.safetensors")
    return path.name
