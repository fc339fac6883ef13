"""Which runtime computes which model on which processor, and what happens when it cannot."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from build import runtimes
from build.engine_info import EngineInfo
from build.errors import BuildError
from build.openvino_model.info import OpenVinoEngineInfo
from build.runtimes import choose, make_chosen_engine
from serve.preflight import openvino_cache_bytes
from serve.repository import suited
from serve.settings import Settings
from tests.serve.engines import an_engine

DEMO = Path(__file__).parents[2] / "build" / "demo" / "checkpoint"


@pytest.fixture
def processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this machine's processor one with the given flags."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(runtimes, "CPU_INFO", path)

    def has(flags: str) -> None:
        path.write_text(f"processor\t: 0\nflags\t\t: fpu avx2 {flags}\n")

    return has


@pytest.mark.parametrize(
    ("flags", "name", "reason"),
    [
        ("avx512f", "llama_cpp", "this processor has no VNNI instructions"),
        ("avx512f avx512_vnni", "openvino", "this processor has AVX-512 VNNI"),
        ("avx_vnni", "openvino", "this processor has AVX-VNNI"),
        ("amx_int8 avx512_vnni", "openvino", "this processor has AVX-512 VNNI, AMX"),
    ],
)
def test_the_processor_decides_for_a_checkpoint(
    processor: Callable[[str], None], flags: str, name: str, reason: str
) -> None:
    processor(flags)
    choice = choose("tencent/Youtu-LLM-2B")
    assert (choice.name, choice.reason) == (name, reason)


def test_a_machine_that_says_nothing_of_its_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(runtimes, "CPU_INFO", tmp_path / "missing")
    assert choose("a/b").name == "llama_cpp"
    monkeypatch.setattr(runtimes, "CPU_INFO", arm := tmp_path / "arm")
    arm.write_text("processor\t: 0\nFeatures\t: asimddp i8mm\n")
    assert choose("a/b").name == "llama_cpp"


@pytest.mark.parametrize("model", ["demo", "smollm2", "FILE"])
def test_tiny_models_and_gguf_files_take_llama_cpp(
    processor: Callable[[str], None], tmp_path: Path, model: str
) -> None:
    processor("avx512_vnni")
    if model == "FILE":
        model = str(tmp_path / "model.gguf")
        Path(model).write_bytes(b"GGUF")
    assert choose(model).name == "llama_cpp"


def test_what_is_asked_for_is_taken(processor: Callable[[str], None]) -> None:
    processor("avx_vnni")
    assert choose("a/b", "llama_cpp").name == "llama_cpp"
    processor("")
    assert choose("demo", "openvino").name == "openvino"


@pytest.mark.parametrize(
    ("other", "words"),
    [({"device": "cuda"}, "runs on the CPU"), ({"engine": "tensorrt_llm"}, "applies to youtu_engine")],
)
def test_a_runtime_that_contradicts_another_setting(other: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(runtime="openvino", **other)


@pytest.fixture
def checkpoint(processor: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demonstration's weights under another name, on a processor with VNNI, as if they were large."""
    monkeypatch.setattr(runtimes, "TINY_BYTES", 0)
    processor("avx_vnni")
    return Path(shutil.copytree(DEMO, tmp_path / "checkpoint"))


def test_the_engine_says_what_computes_and_why(checkpoint: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    engine = make_chosen_engine(str(checkpoint), tmp_path / "var", say=lines.append)
    assert isinstance(engine, OpenVinoEngineInfo)
    assert lines == ["Runtime: OpenVINO (this processor has AVX-VNNI)"]
    settings = suited(Settings(), engine)
    assert (settings.prefill_chunk, settings.kv_type) == (128, "q8_0")
    given = Settings(prefill_chunk=32, kv_type="f16")
    assert suited(given, engine) == given


def test_llama_cpp_computes_where_openvino_cannot_be_had(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_say: object) -> None:
        raise BuildError("cannot install openvino: no network")

    lines: list[str] = []
    monkeypatch.setattr(runtimes, "install_openvino", missing)
    engine = make_chosen_engine(str(checkpoint), tmp_path / "var", say=lines.append)
    assert isinstance(engine, EngineInfo)
    assert lines == ["Runtime: llama.cpp (OpenVINO cannot run it: cannot install openvino: no network)"]
    assert suited(Settings(), engine) == Settings()
    with pytest.raises(BuildError, match="no network"):
        make_chosen_engine(str(checkpoint), tmp_path / "var", runtime="openvino")


def test_a_failed_install_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: x\nERROR: a\nERROR: No matching distribution\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_kwargs: failed)
    with pytest.raises(BuildError, match=r"^cannot install openvino: No matching distribution$"):
        runtimes.install_openvino(lines.append)
    assert lines == ["installing OpenVINO (once, 60 MB)"]


def test_the_cache_is_counted_as_openvino_keeps_it() -> None:
    """Youtu-LLM-2B: 16 heads of 192 and 128 numbers in 32 layers, each with a scale and a zero of 4 bytes."""
    sizes = [(16, 192), (16, 128)] * 32
    settings = Settings(slots=1, context=32)
    assert openvino_cache_bytes(settings.model_copy(update={"kv_type": "q8_0"}), sizes) == 32 * 172_032
    assert openvino_cache_bytes(settings, sizes) == 32 * 327_680


def test_an_engine_of_llama_cpp_names_its_file(tmp_path: Path) -> None:
    engine = an_engine(tmp_path)
    assert (engine.runtime, engine.model) == ("llama_cpp", tmp_path / "model.gguf")
