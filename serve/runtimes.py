"""Which runtime of the CPU engine computes a model, and why; OpenVINO is installed when it is first wanted.

Measured on the 2B shape: on a processor with VNNI instructions OpenVINO reads prompts and writes answers
several times as fast as llama.cpp, without them llama.cpp is as fast or faster, and a tiny model is faster
with llama.cpp anywhere (docs/runtimes.md).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from build.catalogue import REPOSITORY, resolve
from build.engine import make_engine
from build.engine_info import EngineInfo
from build.errors import BuildError
from build.openvino_model.engine import make_openvino_engine
from build.openvino_model.info import OpenVinoEngineInfo
from build.progress import Report
from serve.messages import say
from serve.settings import Settings

LOCK = REPOSITORY / "requirements" / "openvino.lock"
CPU_INFO = Path("/proc/cpuinfo")
# As Linux names them: dot products of 8-bit numbers, in 512 and in 256 bits, and in tiles.
VNNI = {"avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}
# What suits OpenVINO where the settings say nothing.
PREFILL_CHUNK, KV_TYPE = 128, "q8_0"
TINY_BYTES = 64 << 20


@dataclass(frozen=True)
class Choice:
    """`name` is llama_cpp or openvino; `reason` completes "NAME computes: "."""

    name: str
    reason: str


def choose(settings: Settings, cpu_info: Path = CPU_INFO) -> Choice:
    """The runtime that the settings ask for, or that suits the model and this processor."""
    if settings.runtime != "auto":
        return Choice(settings.runtime, "YOUTU_RUNTIME says so")
    if settings.device == "cuda":
        return Choice("llama_cpp", "it is the one for an NVIDIA card")
    source = resolve(settings.model)
    if source.kind in ("gguf", "package"):
        return Choice("llama_cpp", "the model is a .gguf file")
    if source.path is not None and _weights_bytes(source.path) < TINY_BYTES:
        return Choice("llama_cpp", "the model is tiny")
    found = _flags(cpu_info) & set(VNNI)
    if not found:
        return Choice("llama_cpp", "this processor has no VNNI instructions")
    return Choice("openvino", f"this processor has {', '.join(VNNI[flag] for flag in VNNI if flag in found)}")


def engine_to_serve(settings: Settings, progress: Report) -> EngineInfo | OpenVinoEngineInfo:
    """The engine of the chosen runtime, made if need be; says which it is, and why. Raises BuildError.

    Where nobody asked for OpenVINO and it cannot be had, or cannot run the model, llama.cpp computes.
    """
    choice = choose(settings)
    if choice.name == "openvino":
        try:
            install_openvino()
            engine = make_openvino_engine(
                settings.model, settings.data_dir, hub=settings.hub, progress=progress
            )
        except BuildError as error:
            if settings.runtime == "openvino":
                raise
            choice = Choice("llama_cpp", f"OpenVINO cannot: {error}")
        else:
            say(f"OpenVINO computes: {choice.reason}")
            return engine
    llama = make_engine(settings.model, settings.data_dir, hub=settings.hub, progress=progress)
    say(f"llama.cpp computes: {choice.reason}")
    return llama


def fitted(settings: Settings, engine: EngineInfo | OpenVinoEngineInfo) -> Settings:
    """`settings` with what suits the engine's runtime where nothing was given."""
    if not isinstance(engine, OpenVinoEngineInfo):
        return settings
    suits = {"prefill_chunk": PREFILL_CHUNK, "kv_type": KV_TYPE}
    return settings.model_copy(
        update={name: value for name, value in suits.items() if name not in settings.model_fields_set}
    )


def install_openvino() -> None:
    """Install the pinned OpenVINO beside what serves, if it is not there. BuildError says why it failed."""
    if importlib.util.find_spec("openvino") is not None:
        return
    say("installing OpenVINO (once, 60 MB)")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    options = [
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--retries",
        "2",
        "--timeout",
        "30",
        "-r",
        str(LOCK),
    ]
    try:
        done = subprocess.run([*pip, *options], capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"pip cannot be run: {error}") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise BuildError(f"openvino cannot be installed: {lines[-1].removeprefix('ERROR: ')}")
    importlib.invalidate_caches()


def _flags(cpu_info: Path) -> set[str]:
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split(":", 1)[1].split()}


def _weights_bytes(checkpoint: Path) -> int:
    return sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
