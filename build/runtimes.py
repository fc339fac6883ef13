"""Which runtime of the CPU engine a model uses, and why; OpenVINO is installed when it is first needed.

On a processor with VNNI instructions OpenVINO is faster, most of all for prompts and for several requests at
once; without them llama.cpp is as fast or faster. A tiny model is faster with llama.cpp on any processor
(docs/runtimes.md has the figures).
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from build.catalogue import REPOSITORY, resolve
from build.engine import make_engine
from build.engine_info import EngineInfo
from build.errors import BuildError
from build.openvino_model.engine import make_openvino_engine
from build.openvino_model.info import OpenVinoEngineInfo
from build.progress import Report, silent

LOCK = REPOSITORY / "requirements" / "openvino.lock"
CPU_INFO = Path("/proc/cpuinfo")
# As Linux names them: dot products of 8-bit numbers, in 512 and in 256 bits, and in tiles.
VNNI = {"avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}
RUNTIMES = ("auto", "llama_cpp", "openvino")
TINY_BYTES = 64 << 20
CpuEngine = EngineInfo | OpenVinoEngineInfo


@dataclass(frozen=True)
class Choice:
    """`name` is llama_cpp or openvino; `reason` says why."""

    name: str
    reason: str


def choose(model: str, wanted: str = "auto") -> Choice:
    """The runtime that is `wanted` (one of RUNTIMES), or that suits the model and this processor."""
    if wanted != "auto":
        return Choice(wanted, "it was requested")
    source = resolve(model)
    if source.kind in ("gguf", "package"):
        return Choice("llama_cpp", "the model is a .gguf file")
    if source.path is not None and _weights_bytes(source.path) < TINY_BYTES:
        return Choice("llama_cpp", "the model is tiny")
    found = _flags(CPU_INFO) & set(VNNI)
    if not found:
        return Choice("llama_cpp", "this processor has no VNNI instructions")
    return Choice("openvino", f"this processor has {', '.join(VNNI[flag] for flag in VNNI if flag in found)}")


def make_chosen_engine(
    model: str,
    root: Path,
    *,
    runtime: str = "auto",
    hub: str = "auto",
    progress: Report = silent,
    say: Callable[[str], None] = lambda _line: None,
) -> CpuEngine:
    """The engine of `model` for the chosen runtime, built if needed; reports which runtime that is, and why.

    If OpenVINO was not requested and cannot be installed or cannot run the model, llama.cpp is used. Raises
    BuildError.
    """
    choice = choose(model, runtime)
    if choice.name == "openvino":
        try:
            install_openvino(say)
            engine = make_openvino_engine(model, root, hub=hub, progress=progress)
        except BuildError as error:
            if runtime == "openvino":
                raise
            choice = Choice("llama_cpp", f"OpenVINO cannot run it: {error}")
        else:
            say(f"Runtime: OpenVINO ({choice.reason})")
            return engine
    llama = make_engine(model, root, hub=hub, progress=progress)
    say(f"Runtime: llama.cpp ({choice.reason})")
    return llama


def install_openvino(say: Callable[[str], None]) -> None:
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
        raise BuildError(f"cannot run pip: {error}") from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise BuildError(f"cannot install openvino: {lines[-1].removeprefix('ERROR: ')}")
    importlib.invalidate_caches()


def _flags(cpu_info: Path) -> set[str]:
    try:
        lines = cpu_info.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith("flags") for flag in line.split(":", 1)[1].split()}


def _weights_bytes(checkpoint: Path) -> int:
    return sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
