"""Shared by the tests of what Triton loads: a tiny model of the right architecture, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Engine
from llama import Llama

from build.convert import convert

DEMO = Path(__file__).parents[2] / "build" / "demo" / "checkpoint"
CONTEXT = 512
SLOTS = 4
BATCH = 68


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "demo.gguf"
    convert(DEMO, path)
    return path


@pytest.fixture
def llama(gguf: Path) -> Iterator[Llama]:
    model = Llama(gguf, context=CONTEXT, sequences=SLOTS, batch=BATCH, threads=1)
    yield model
    model.close()


@pytest.fixture
def engine(llama: Llama) -> Iterator[Engine]:
    engine = Engine(llama, slots=SLOTS, context=CONTEXT, queue=8, prefill_chunk=64)
    yield engine
    engine.close()
