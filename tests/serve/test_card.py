"""How many slots of which context a card gets, by arithmetic on its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from build.engine_info import EngineInfo
from build.errors import BuildError
from build.tensorrt_llm.machine import Gpu
from serve.card import fitted
from serve.settings import Settings
from tests.serve.engines import an_engine

GIB = 1 << 30


@pytest.fixture
def engine(tmp_path: Path) -> EngineInfo:
    """The size of Youtu-LLM-2B in int8, with the file's header alone on the disk."""
    engine = an_engine(tmp_path / "engine", vocab_size=128_256, context_length=131_072)
    with engine.gguf.open("r+b") as file:
        file.truncate(2_090_000_000)
    return engine


def a_card(gib: float) -> Gpu:
    return Gpu("a card", (8, 9), int(gib * GIB), int((gib - 0.3) * GIB), "580.1")


def fit(engine: EngineInfo, gib: float, **given: Any) -> tuple[int, int]:
    settings = fitted(Settings(device="cuda", **given), engine, a_card(gib))
    return settings.slots, settings.context


def test_a_card_gets_as_many_slots_of_a_long_context_as_it_holds(engine: EngineInfo) -> None:
    assert fit(engine, 8) == (16, 8192)
    assert fit(engine, 24) == (32, 8192)
    assert fit(engine, 80) == (32, 8192)


def test_a_small_card_gets_a_shorter_context(engine: EngineInfo) -> None:
    slots, context = fit(engine, 4)
    assert (slots >= 4, context) == (True, 4096)


def test_what_was_given_stays(engine: EngineInfo) -> None:
    assert fit(engine, 8, slots=2, context=32_768) == (2, 32_768)
    assert fit(engine, 8, slots=2)[0] == 2
    assert fit(engine, 8, context=1024) == (32, 1024)
    assert fitted(Settings(device="cuda", prefill_chunk=64), engine, a_card(8)).prefill_chunk == 64


def test_a_model_that_knows_no_long_context(tmp_path: Path) -> None:
    assert fit(an_engine(tmp_path / "engine"), 8) == (32, 4096)


def test_a_card_that_is_too_small(engine: EngineInfo) -> None:
    with pytest.raises(
        BuildError, match=r"a card is too small: a-model with 1 slots of 1024 tokens needs 3\.2"
    ):
        fit(engine, 2)
    with pytest.raises(
        BuildError, match=r"with 64 slots of 8192 tokens needs 2\d\.\d GB of GPU memory, and 8\."
    ):
        fit(engine, 8, slots=64, context=8192)
