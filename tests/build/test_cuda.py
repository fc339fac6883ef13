"""Compiling llama.cpp for a card: what is refused at once, and what is made of the parts."""

from __future__ import annotations

import io
import json
import stat
import tarfile
from pathlib import Path

import pytest

from build import cuda
from build.errors import BuildError


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of our own: no driver, no compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    return folder


def program(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def card(folder: Path, *, capability: str = "8.9", driver: str = "580.95.05") -> None:
    program(folder / "nvidia-smi", f'echo "NVIDIA GeForce RTX 4060, {capability}, 8188, 7900, {driver}"')


def test_no_driver(bin_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"no GPU: nvidia-smi is not installed; install NVIDIA's driver, 580"
    ):
        cuda.make_library(tmp_path / "var")


def test_old_driver(bin_folder: Path, tmp_path: Path) -> None:
    card(bin_folder, driver="535.183.01")
    with pytest.raises(BuildError, match=r"driver 535\.183\.01 is too old: CUDA 13 needs 580"):
        cuda.make_library(tmp_path / "var")


def test_old_card(bin_folder: Path, tmp_path: Path) -> None:
    card(bin_folder, capability="6.1")
    with pytest.raises(BuildError, match=r"RTX 4060 has compute capability 6\.1, but CUDA 13 needs 7\.5"):
        cuda.make_library(tmp_path / "var")


def test_no_compiler(bin_folder: Path, tmp_path: Path) -> None:
    card(bin_folder)
    with pytest.raises(BuildError, match=r"no C\+\+ compiler: install g\+\+"):
        cuda.make_library(tmp_path / "var")


@pytest.mark.parametrize("named", ["89", "sm_89", "8.9a", "8.", "x"])
def test_an_architecture_that_is_none(named: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=rf"must be a compute capability such as 8\.9; found '{named}'"):
        cuda.make_library(tmp_path / "var", named)


class Tools:
    """Stands in for pip, cmake and ninja, which take half an hour; they write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        bin_folder = folder / "bin"
        site = folder / "lib" / "python3.11" / "site-packages" / "nvidia" / "cu13"
        for each in (bin_folder, site / "bin", site / "lib"):
            each.mkdir(parents=True)
        program(site / "bin" / "nvcc", "true")
        for name in ("cudart", "cublas", "cublasLt"):
            (site / "lib" / f"lib{name}.so.13").write_bytes(b"")
        self.archive = folder / "archive.tar.gz"
        with tarfile.open(self.archive, "w:gz") as archive:
            version = cuda._pinned()[0]
            for name in ("CMakeLists.txt", "src/llama.cpp", "tools/server/server.cpp"):
                member = tarfile.TarInfo(f"xllamacpp-{version}/thirdparty/llama.cpp/{name}")
                member.size = 2
                archive.addfile(member, io.BytesIO(b"//"))
        # pip: the folder is the argument after --dest
        program(
            bin_folder / "python",
            f'echo "pip $*" >>{self.calls}\n'
            f'while [ "$1" != --dest ]; do shift; done; cp {self.archive} "$2"/xllamacpp-1.tar.gz',
        )
        program(bin_folder / "cmake", f'echo "cmake $*" >>{self.calls}; mkdir -p "$6"; echo configured')
        self.ninja(
            'mkdir -p "$2"/bin; cd "$2"/bin; echo code >libllama.so.0.6.0; '
            "ln -sf libllama.so.0.6.0 libllama.so.0; ln -sf libllama.so.0 libllama.so; "
            "echo '[1/2] a.o'; echo '[2/2] libllama.so'"
        )

    def ninja(self, text: str) -> None:
        program(self.folder / "bin" / "ninja", f'echo "ninja $*" >>{self.calls}\n{text}')


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    made = Tools(tmp_path / "venv-cuda")
    monkeypatch.setattr(cuda, "TOOLS", made.folder)
    return made


def test_it_is_compiled_once_for_the_card(
    tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "cards"
    folder.mkdir()
    card(folder)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.setenv("CUDA_PATH", "/usr/local/cuda-9")
    made = cuda.make_library(tmp_path / "var")
    assert made == tmp_path / "var" / "cuda" / "sm_89"
    assert cuda.current(tmp_path / "var") == made
    assert sorted(path.name for path in made.iterdir()) == ["libllama.so", "libllama.so.0", "library.json"]
    about = json.loads((made / "library.json").read_text())
    assert (about["xllamacpp"], about["architecture"]) == (cuda._pinned()[0], "8.9")
    assert (Path(about["cuda"]) / "libcudart.so").exists()
    calls = tools.calls.read_text().splitlines()
    assert [call.split()[0] for call in calls] == ["pip", "cmake", "ninja"]
    assert "--require-hashes" in calls[0]
    assert "-DCMAKE_CUDA_ARCHITECTURES=89-real" in calls[1]
    assert "100% (2 of 2 files)" in capsys.readouterr().err
    source = tmp_path / "var" / "cuda" / f"source-{cuda._pinned()[0]}"
    assert sorted(path.name for path in source.iterdir()) == ["CMakeLists.txt", "src"]

    cuda.make_library(tmp_path / "var")
    assert tools.calls.read_text().splitlines() == calls


def test_a_compile_that_fails_says_why_and_goes_on_later(tools: Tools, tmp_path: Path) -> None:
    tools.ninja("echo '[7/9] mmq.cu'; echo 'nvcc fatal: Unsupported gpu architecture'; exit 1")
    with pytest.raises(BuildError, match=r"ninja failed:\n(.*\n)*.*Unsupported gpu architecture"):
        cuda.make_library(tmp_path / "var", "8.9")
    assert not (tmp_path / "var" / "cuda" / "sm_89").exists()
    Tools.ninja(
        tools, 'mkdir -p "$2"/bin; cd "$2"/bin; echo 1 >libllama.so.0; ln -s libllama.so.0 libllama.so'
    )
    assert (cuda.make_library(tmp_path / "var", "8.9") / "libllama.so").read_text() == "1\n"
    assert [call.split()[0] for call in tools.calls.read_text().splitlines()].count("pip") == 1


def test_sources_that_cannot_be_fetched(tools: Tools, tmp_path: Path) -> None:
    program(tools.folder / "bin" / "python", "echo 'ERROR: No matching distribution found' >&2; exit 1")
    with pytest.raises(BuildError, match="cannot be fetched: ERROR: No matching distribution found"):
        cuda.make_library(tmp_path / "var", "8.9")


def test_without_the_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "TOOLS", tmp_path / "none")
    with pytest.raises(BuildError, match="none has no CUDA compiler: run make cuda"):
        cuda.make_library(tmp_path / "var", "8.9")
