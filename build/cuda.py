"""`python -m build.cuda`: compile the pinned llama.cpp for this machine's NVIDIA GPU, once.

The sources are those of the pinned `xllamacpp` on PyPI, the compiler is NVIDIA's from PyPI (in .venv-cuda,
pinned by requirements/cuda.lock): CUDA itself need not be installed, a driver is enough. A C++ compiler is
required. The result is in `DATA/cuda/sm_NN`: shared libraries and library.json, which is written
last. An interrupted compilation resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections import deque
from pathlib import Path

from build.errors import BuildError
from build.locked import locked
from build.tensorrt_llm import machine

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "serve.lock"
TOOLS = ROOT / ".venv-cuda"
LIBRARY_JSON = "library.json"
CURRENT = "current"
BUILD_DISK = 1 << 30  # sources, objects and libraries of one architecture
LEAST_CAPABILITY = (7, 5)  # CUDA 13's
# What of llama.cpp is compiled; the rest of the package (tools, tests, the Python module) stays packed.
PARTS = ("CMakeLists.txt", "LICENSE", "cmake", "ggml", "include", "licenses", "src", "vendor")
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_BUILD_RPATH_USE_ORIGIN": "ON",
    "BUILD_SHARED_LIBS": "ON",
    "GGML_CUDA": "ON",
    "GGML_CUDA_NO_VMM": "ON",  # else it is linked to libcuda, which only a driver brings
    "GGML_CUDA_NCCL": "OFF",
    "GGML_NATIVE": "OFF",  # the card computes; the library also runs on another machine with such a card
    "GGML_OPENMP": "OFF",
    "GGML_CCACHE": "OFF",
    **{f"LLAMA_BUILD_{part}": "OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP")},
}


def current(data_dir: Path) -> Path:
    """The folder of the library that make_library() made or found last."""
    return (data_dir / "cuda" / CURRENT).resolve()


def make_library(data_dir: Path, architecture: str = "") -> Path:
    """Compile for `architecture` ("8.9"), or for the card that is there; at once when it was done before.

    Returns the library's folder. BuildError: no driver, a driver or a card too old, no C++ compiler, no
    .venv-cuda, too little disk, the package cannot be fetched, or the compiler fails.
    """
    capability = _capability(architecture)
    folder = data_dir / "cuda" / f"sm_{capability[0]}{capability[1]}"
    with locked(data_dir / "cuda" / ".lock", "compiling llama.cpp for CUDA"):
        if not _is_made(folder):
            _make(data_dir, folder, capability)
        link = data_dir / "cuda" / f".{CURRENT}.part"
        link.unlink(missing_ok=True)
        link.symlink_to(folder.name)
        link.replace(data_dir / "cuda" / CURRENT)
    return folder


def _make(data_dir: Path, folder: Path, capability: tuple[int, int]) -> None:
    compiler = _cxx_compiler()
    cuda = _toolkit()
    if (free := shutil.disk_usage(data_dir).free) < BUILD_DISK:
        raise BuildError(
            f"too little disk: compiling needs {BUILD_DISK / 1e9:.1f} GB in {data_dir}, and "
            f"{free / 1e9:.1f} GB are free"
        )
    source = _source(data_dir / "cuda")
    built = data_dir / "cuda" / "build" / folder.name
    _configure(source, built, cuda, compiler, f"{capability[0]}{capability[1]}-real")
    _compile(built)
    _put_together(built / "bin", folder, cuda, f"{capability[0]}.{capability[1]}")


def card() -> machine.Gpu:
    """The first card. BuildError: there is none, or its driver is too old for CUDA 13."""
    found = machine.first_gpu(f"install NVIDIA's driver, {machine.MIN_DRIVER} or newer, or serve on the CPU")
    if found.driver_major < machine.MIN_DRIVER:
        raise BuildError(
            f"driver {found.driver} is too old: CUDA 13 needs {machine.MIN_DRIVER} or newer; update it "
            "(Ubuntu: sudo ubuntu-drivers install), or serve on the CPU"
        )
    return found


def _capability(architecture: str) -> tuple[int, int]:
    if architecture:
        named = re.fullmatch(r"(\d+)\.(\d)", architecture)
        if named is None:
            raise BuildError(
                f"the architecture must be a compute capability such as 8.9; found {architecture!r}"
            )
        capability, name = (int(named[1]), int(named[2])), "the architecture"
    else:
        found = card()
        capability, name = found.capability, found.name
    if capability < LEAST_CAPABILITY:
        raise BuildError(
            f"{name} has compute capability {capability[0]}.{capability[1]}, but CUDA 13 needs "
            f"{LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]} or higher (GTX 16, RTX 20 and later): serve on "
            "the CPU"
        )
    return capability


def _is_made(folder: Path) -> bool:
    try:
        about = json.loads((folder / LIBRARY_JSON).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(about.get("xllamacpp") == _pinned()[0] and Path(about.get("cuda", "")).is_dir())


def _pinned() -> tuple[str, str]:
    """Version of xllamacpp in the lock, and the lock's lines for it."""
    text = LOCK.read_text(encoding="utf-8")
    entry = re.search(r"^xllamacpp==(\S+)[^\n]*\\\n(?:    --hash=\S+(?: \\)?\n)+", text, re.MULTILINE)
    if entry is None:
        raise BuildError(f"{LOCK} does not pin xllamacpp")
    return entry[1], entry[0]


def _cxx_compiler() -> Path:
    found = shutil.which(os.environ.get("CXX") or "g++") or shutil.which("c++")
    if found is None:
        raise BuildError("no C++ compiler: install g++ (Debian and Ubuntu: sudo apt-get install g++)")
    return Path(found)


def _toolkit() -> Path:
    """The folder of NVIDIA's compiler in .venv-cuda, with the names that CMake looks for."""
    found = list(TOOLS.glob("lib/python3.*/site-packages/nvidia/cu13/bin/nvcc"))
    if not found:
        raise BuildError(f"{TOOLS.name} has no CUDA compiler: run make cuda")
    toolkit = found[0].parents[1]
    for name in ("cudart", "cublas", "cublasLt"):
        link = toolkit / "lib" / f"lib{name}.so"
        if not link.exists():
            link.symlink_to(f"lib{name}.so.13")
    if not (toolkit / "lib64").exists():
        (toolkit / "lib64").symlink_to("lib")
    return toolkit


def _source(folder: Path) -> Path:
    """llama.cpp out of the package's source archive, fetched by pip, which checks it against the lock."""
    version, entry = _pinned()
    source = folder / f"source-{version}"
    if source.exists():
        return source
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        lock = Path(scratch, "xllamacpp.lock")
        lock.write_text(entry, encoding="utf-8")
        _say(f"Fetching the sources of xllamacpp {version} (38 MB)")
        command = [
            *(
                str(TOOLS / "bin" / "python"),
                "-m",
                "pip",
                "download",
                "--quiet",
                "--disable-pip-version-check",
            ),
            *("--no-deps", "--no-build-isolation", "--no-binary", "xllamacpp", "--require-hashes"),
            *("--dest", scratch, "-r", str(lock)),
        ]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(scratch).glob("xllamacpp-*.tar.gz"))
        if asked.returncode or not archives:
            lines = [line for line in asked.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
            raise BuildError(f"the sources of xllamacpp {version} cannot be fetched: {lines[0]}")
        inside = f"xllamacpp-{version}/thirdparty/llama.cpp/"
        wanted = tuple(inside + part for part in PARTS)
        draft = Path(scratch, "source")
        with tarfile.open(archives[0]) as archive:
            members = [
                member.replace(name=member.name.removeprefix(inside), deep=False)
                for member in archive
                if member.name.startswith(wanted)
            ]
            archive.extractall(draft, members, filter="data")
        draft.rename(source)
    return source


def _configure(source: Path, built: Path, cuda: Path, compiler: Path, architecture: str) -> None:
    options = OPTIONS | {
        "CMAKE_CXX_COMPILER": str(compiler),
        "CMAKE_CUDA_HOST_COMPILER": str(compiler),
        "CMAKE_CUDA_COMPILER": str(cuda / "bin" / "nvcc"),
        "CUDAToolkit_ROOT": str(cuda),
        "CMAKE_CUDA_ARCHITECTURES": architecture,
        "CMAKE_MAKE_PROGRAM": str(TOOLS.absolute() / "bin" / "ninja"),
    }
    given = [f"-D{name}={value}" for name, value in options.items()]
    _run([str(TOOLS / "bin" / "cmake"), "-G", "Ninja", "-S", str(source), "-B", str(built), *given])


def _compile(built: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    _say(f"Compiling llama.cpp with CUDA on {cores} cores: about {55 / cores:.0f} minutes, once")
    _run([str(TOOLS / "bin" / "ninja"), "-C", str(built), "-j", str(cores), "llama"], progress=True)


def _run(command: list[str], *, progress: bool = False) -> None:
    """Run a tool without the machine's own CUDA on its PATH; its last lines are the error's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CUDA")}
    last: deque[str] = deque(maxlen=12)
    shown = -1
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as tool:
        for line in tool.stdout or ():
            last.append(line.rstrip())
            step = re.match(r"\[(\d+)/(\d+)\]", line)
            if progress and step and (percent := int(step[1]) * 100 // int(step[2])) // 5 > shown // 5:
                shown = percent
                _say(f"Compiling llama.cpp with CUDA: {percent}% ({step[1]} of {step[2]} files)")
    if tool.returncode:
        raise BuildError(f"{Path(command[0]).name} failed:\n" + "\n".join(last))


def _put_together(built: Path, folder: Path, cuda: Path, architecture: str) -> None:
    """Copy the libraries under the names by which they find one another; library.json comes last."""
    draft = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for library in built.glob("lib*.so.*"):
        if re.fullmatch(r"[^.]+\.so\.\d+", library.name):
            shutil.copyfile(library, draft / library.name)
            if library.name.startswith("libllama."):
                (draft / "libllama.so").symlink_to(library.name)
    about = {"xllamacpp": _pinned()[0], "architecture": architecture, "cuda": str(cuda / "lib")}
    (draft / LIBRARY_JSON).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> None:
    """The command line; exit status 1 and one line on stderr for a BuildError, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m build.cuda", description="compile llama.cpp for a GPU")
    parser.add_argument("--data-dir", type=Path, default=Path("var"))
    parser.add_argument(
        "--architecture", default="", help="compute capability such as 8.9 (default: this GPU's)"
    )
    arguments = parser.parse_args()
    try:
        folder = make_library(arguments.data_dir, arguments.architecture)
    except BuildError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the next start continues with what was compiled\n")
        sys.exit(130)
    sys.stdout.write(f"{folder}\n")


if __name__ == "__main__":
    main()
