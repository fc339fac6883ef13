"""Shared by the tests of what Triton loads: a tiny model of the right architecture, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import Engine
from llama import Llama
from openvino_runtime import OpenVino
from runtime import Runtime

from build.convert import convert
from build.openvino_model.convert import convert as convert_for_openvino

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


@pytest.fixture(scope="session")
def openvino_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_for_openvino(DEMO, tmp_path_factory.mktemp("openvino")).path


@pytest.fixture(scope="session")
def compiled(openvino_model: Path) -> OpenVino:
    """Compiled once: that takes seconds."""
    return OpenVino(openvino_model, slots=SLOTS, context=CONTEXT, threads=1)


@pytest.fixture
def openvino(compiled: OpenVino, monkeypatch: pytest.MonkeyPatch) -> OpenVino:
    """As if it had just been loaded."""
    for sequence in range(compiled.sequences):
        compiled.forget(sequence, 0)
    monkeypatch.setattr(compiled, "close", lambda: None)
    return compiled


@pytest.fixture(params=["llama", "openvino"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each of the runtimes, with the demonstration's weights."""
    loaded: Runtime = request.getfixturevalue(request.param)
    return loaded


@pytest.fixture
def engine(runtime: Runtime) -> Iterator[Engine]:
    engine = Engine(runtime, slots=SLOTS, context=CONTEXT, queue=8, prefill_chunk=64)
    yield engine
    engine.close()
