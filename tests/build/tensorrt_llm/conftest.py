"""A tiny checkpoint whose shape TensorRT-LLM's attention takes; and one thread for torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from build.random_checkpoint import TINY, write_random_checkpoint

SHAPE = replace(TINY, vocab_size=640, num_hidden_layers=2, max_position_embeddings=4096)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "shop-model"
    write_random_checkpoint(folder, SHAPE, seed=0)
    return folder


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small matrices: more threads only wait for each other, minutes of it on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
