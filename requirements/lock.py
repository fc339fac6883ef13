"""Write the lock files from the dependency groups of pyproject.toml (`make lock`).

A lock pins every package with the hashes of all its files, for Python 3.10 to 3.12:

    serve.lock       what `make serve` runs on
    bench.lock       serve.lock and what the benchmarks need
    openvino.lock    OpenVINO, on top of serve.lock
    peers.lock       bench.lock and the libraries it is compared with, without torch
    cuda.lock        NVIDIA's compiler and its libraries, and what builds llama.cpp with them
    quality.lock     lm-eval, for published data sets, without the packages that have no wheel
    frameworks.lock  the agent frameworks of `make test-frameworks`
    frameworks-openai-2.lock  those of them that need the SDK's version 2
    test.lock        bench.lock and what the tests need, without torch
    torch-cpu.lock   PyTorch's CPU build, which PyPI does not have
    torch-cuda.lock  PyPI's torch and the CUDA libraries it does not import without

uv resolves them; its version is pinned in the Makefile. smollm2.lock is written by hand: it pins the one
wheel that holds a model (build/package.py).
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

HERE = Path(__file__).parent
ROOT = HERE.parent
OPTIONS = ["--quiet", "--no-annotate", "--no-header", "--no-emit-index-url", "--generate-hashes"]
EVERYWHERE = ["--universal", "--python-version", "3.10"]
ONE_PLATFORM = ["--python-platform", "x86_64-manylinux_2_35", "--python-version", "3.11", "--no-config"]
ENTRY = re.compile(r"^([a-z0-9-]+)==[^\n]*\\\n(?:    --hash=\S+(?: \\)?\n)+", re.MULTILINE)


# Only tasks of lm-eval that no one asks for here need these (and its cache), and they would have to be built.
NO_WHEEL = ("rouge-score", "sqlitedict", "word2number")


def uv_compile(arguments: list[str], output: Path, cwd: Path) -> None:
    command = [sys.executable, "-m", "uv", "pip", "compile", *OPTIONS, "--output-file", str(output)]
    subprocess.run([*command, *arguments], cwd=cwd, check=True)


def main() -> None:
    groups = (
        "serve",
        "bench",
        "cuda",
        "openvino",
        "peers",
        "quality",
        "frameworks",
        "frameworks-openai-2",
        "test",
    )
    for group in groups:
        left_out = [option for name in ("torch", *NO_WHEEL) for option in ("--no-emit-package", name)]
        arguments = ["pyproject.toml", "--group", group, *left_out, *EVERYWHERE]
        uv_compile([*arguments, *sys.argv[1:]], HERE / f"{group}.lock", ROOT)

    cpu = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["lock"]["torch-cpu"]
    hashes = " \\\n".join(f"    --hash={digest}" for digest in cpu["hashes"])
    (HERE / "torch-cpu.lock").write_text(f"torch=={cpu['version']} \\\n{hashes}\n")

    pinned = {match[1] for match in ENTRY.finditer((HERE / "test.lock").read_text())}
    with tempfile.TemporaryDirectory() as scratch:  # pyproject.toml leaves torch's own needs out
        source, lock = Path(scratch, "torch.in"), Path(scratch, "torch.lock")
        source.write_text(f"torch=={cpu['version'].split('+')[0]}\n")
        uv_compile([str(source), *ONE_PLATFORM], lock, Path(scratch))
        entries = [match[0] for match in ENTRY.finditer(lock.read_text()) if match[1] not in pinned]
    (HERE / "torch-cuda.lock").write_text("".join(entries))


if __name__ == "__main__":
    main()
