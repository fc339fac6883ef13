"""The machine an engine is built or served on: its GPU, its driver, and NVIDIA's container around us.

Everything is asked through programs on the PATH: nvidia-smi, trtllm-build, tritonserver. Each fault is one
line that says what to do. Minima: specification of CUDA 13's compatibility (driver), of TensorRT-LLM's
attention plugin (bfloat16 from compute capability 8.0; its fused kernels), of the container's contents
(versions).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from build.errors import BuildError

IMAGE = "nvcr.io/nvidia/tritonserver:26.06-trtllm-python-py3"
IMAGES = "26.04 to 26.07"  # the tags whose TensorRT-LLM is the same
TENSORRT_LLM = "1.2.1"
OLD_DRIVER_IMAGE = "nvcr.io/nvidia/tritonserver:25.10-trtllm-python-py3"
MIN_DRIVER = 580  # CUDA 13
MIN_CAPABILITY = (8, 0)
# Those with fused attention for 16-bit heads of 192 over a paged cache. Where that is missing TensorRT-LLM
# clears the flag without a word, and the other path attends to the current chunk only: wrong answers with KV
# reuse or chunked context. 10.0 and 10.3 are known to lack it.
FUSED_ATTENTION = ((8, 0), (8, 6), (8, 9), (9, 0), (12, 0))
APP = Path("/app")  # where the container has NVIDIA's examples and model repository
# Before make can run there: make itself, and what makes virtual environments, where the image lacks them.
PREPARE = (
    "command -v make >/dev/null && python3 -m ensurepip --version >/dev/null "
    "|| (apt-get -qq update && apt-get -qq install -y make python3-venv)"
)
EXAMPLES = ("examples", "tensorrt_llm/examples")  # below it, one or the other
QUERY = ("name", "compute_cap", "memory.total", "memory.free", "driver_version")
# Not every package of the container must have been installed by pip.
_VERSIONS = """
import importlib, importlib.metadata, json
def version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return importlib.import_module(name).__version__
print(json.dumps({name: version(name) for name in ("tensorrt_llm", "tensorrt", "torch")}))
"""


@dataclass(frozen=True)
class Gpu:
    """`memory` and `free` in bytes; `capability` is what decides which engines it runs."""

    name: str
    capability: tuple[int, int]
    memory: int
    free: int
    driver: str

    @property
    def compute_capability(self) -> str:
        return f"{self.capability[0]}.{self.capability[1]}"

    @property
    def driver_major(self) -> int:
        return int(self.driver.partition(".")[0])


@dataclass(frozen=True)
class Container:
    """What NVIDIA's container brings: `python` is the interpreter that has TensorRT-LLM."""

    trtllm_build: Path
    python: Path
    versions: dict[str, str]


def first_gpu(advice: str) -> Gpu:
    """The first GPU that the driver shows, whatever it can do. BuildError, which ends with `advice`: none."""
    command = ["nvidia-smi", f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        raise BuildError(f"no GPU: nvidia-smi is not installed; {advice}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"no GPU: nvidia-smi failed ({error}); {advice}") from None
    lines = asked.stdout.strip().splitlines()
    if asked.returncode or not lines:
        reason = (asked.stderr or asked.stdout).strip().splitlines()
        raise BuildError(f"no GPU: nvidia-smi says {(reason or ['nothing'])[0]!r}; {advice}")
    try:
        name, capability, memory, free, driver = (part.strip() for part in lines[0].rsplit(",", 4))
        major, _, minor = capability.partition(".")
        found = Gpu(name, (int(major), int(minor)), int(memory) << 20, int(free) << 20, driver)
        int(driver.partition(".")[0])
    except ValueError:
        raise BuildError(f"nvidia-smi returned {lines[0]!r}; expected {', '.join(QUERY)}") from None
    return found


def gpu() -> Gpu:
    """The first GPU, fit for TensorRT-LLM. BuildError: none, driver too old, compute capability unfit."""
    found = first_gpu("start the container with --gpus all on a machine with an NVIDIA GPU")
    if found.driver_major < MIN_DRIVER:
        raise BuildError(
            f"driver {found.driver} is too old: {IMAGE} needs {MIN_DRIVER} or newer; update it, or see "
            f"docs/tensorrt_llm.md for {OLD_DRIVER_IMAGE}"
        )
    if found.capability < MIN_CAPABILITY:
        raise BuildError(
            f"{found.name} has compute capability {found.compute_capability}: bfloat16 needs "
            f"{MIN_CAPABILITY[0]}.{MIN_CAPABILITY[1]} or higher (from the RTX 30 and A100 on); serve with "
            "the CPU engine"
        )
    if found.capability not in FUSED_ATTENTION:
        known = ", ".join(f"{major}.{minor}" for major, minor in FUSED_ATTENTION)
        raise BuildError(
            f"{found.name} has compute capability {found.compute_capability}: TensorRT-LLM has fused "
            f"attention for heads of 192 on {known} only, and without it reused and chunked prompts get "
            "wrong answers; serve with make serve DEVICE=cuda"
        )
    return found


def container() -> Container:
    """The parts of NVIDIA's container. BuildError when we are not in it, or in another release of it."""
    found = _trtllm_build()
    python = interpreter()
    try:
        asked = subprocess.run(
            [python, "-c", _VERSIONS], capture_output=True, text=True, check=True, timeout=120
        )
        versions = json.loads(asked.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1]
        raise BuildError(f"{python}, which runs {found}, has no complete TensorRT-LLM: {reason}") from None
    if versions["tensorrt_llm"] != TENSORRT_LLM:
        raise BuildError(
            f"wrong container: its TensorRT-LLM is {versions['tensorrt_llm']}, but this project is for "
            f"{TENSORRT_LLM}: use {IMAGE} ({IMAGES} have it)"
        )
    return Container(found, python, versions)


class NotInContainer(BuildError):
    """Not a fault of the machine: the same command is to be given inside the container."""


def docker_run(command: Sequence[str], variables: Mapping[str, str]) -> str:
    """The line that runs `command` in the container with this folder in it, on one line for a shell.

    The environments of host and container differ, so the container's gets a volume of its own.
    """
    here = Path.cwd()
    options = [
        *("docker", "run", "--rm", "-it", "--gpus", "all", "--shm-size", "2g"),
        *("--ulimit", "memlock=-1", "--ulimit", "stack=67108864", "--network", "host"),
        *("-v", f"{here}:{here}", "-v", f"youtu-venv:{here}/.venv", "-w", str(here)),
    ]
    if data := os.environ.get("YOUTU_DATA_DIR"):
        place = Path(data).absolute()
        options += ["-v", f"{place}:{place}", "-e", f"YOUTU_DATA_DIR={place}"]
    for name in ("HF_ENDPOINT", "HF_TOKEN"):
        options += ["-e", name] if os.environ.get(name) else []  # its value stays out of the line
    given = [f"{name}={value}" for name, value in variables.items() if value]
    return shlex.join([*options, IMAGE, "bash", "-c", f"{PREPARE}; {shlex.join([*command, *given])}"])


def _trtllm_build() -> Path:
    found = shutil.which("trtllm-build")
    if found is None:
        raise NotInContainer(f"trtllm-build not found: this runs in {IMAGE}")
    return Path(found)


def interpreter() -> Path:
    """The container's Python, which has TensorRT-LLM and xgrammar. BuildError when we are not in it."""
    return _interpreter(_trtllm_build())


def _interpreter(script: Path) -> Path:
    """The Python that runs a console script, out of its first line."""
    try:
        with script.open("rb") as file:
            first = file.readline(512).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{script} cannot be read: {error}") from None
    program = first.removeprefix("#!").split()
    if not first.startswith("#!") or not program:
        raise BuildError(f"{script} is not a Python script: its first line is {first!r}")
    if Path(program[0]).name == "env":
        return Path(shutil.which(program[-1]) or program[-1])
    return Path(program[0])


def examples() -> Path:
    """The folder of NVIDIA's converters. BuildError when the container has none."""
    for name in EXAMPLES:
        if (APP / name).is_dir():
            return APP / name
    places = " nor ".join(str(APP / name) for name in EXAMPLES)
    raise BuildError(f"NVIDIA's converters are in neither {places}: use {IMAGE}")


def with_our_modules(root: Path) -> dict[str, str]:
    """Environment in which the container's Python finds ours too, after its own."""
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join(([path] if path else []) + [str(root)])}
