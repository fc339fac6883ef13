"""A tiny checkpoint whose shape TensorRT-LLM's attention takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from build.random_checkpoint import TINY, write_random_checkpoint

SHAPE = replace(TINY, vocab_size=640, num_hidden_layers=2, max_position_embeddings=4096)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "shop-model"
    write_random_checkpoint(folder, SHAPE, seed=0)
    return folder
