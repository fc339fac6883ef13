"""What MODEL= may be: a name of catalogue.toml, a folder, a .gguf file, or the id of a model on a hub.

This module only decides which, and reads the GPU engine's profiles out of the same file; it opens no
checkpoint and no connection.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal

from build.errors import BuildError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parent.parent
CATALOGUE = Path(__file__).with_name("catalogue.toml")
HUBS = ("auto", "huggingface", "modelscope")
# A model in a cache of the Hugging Face hub, whose folder is called after a commit.
_SNAPSHOT = re.compile(r"/models--(?:[^/]*--)?([^/]+)/snapshots/[0-9a-f]+$")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Converter:
    """How NVIDIA's own converter makes a TensorRT-LLM checkpoint of a model; the file explains the fields."""

    converter: str
    options: list[str]
    dtype: str
    files: list[str]
    engine_bytes: int
    kv_bytes_per_token: int
    pickled: bool = False


@dataclass(frozen=True)
class Profile:
    """How a TensorRT-LLM engine is built and run; the file explains the fields."""

    name: str
    card_gib: int
    max_batch_size: int
    max_seq_len: int
    max_num_tokens: int
    kv_cache: Literal["bf16", "int8"]
    kv_cache_free_gpu_mem_fraction: float
    enable_kv_cache_reuse: bool
    enable_chunked_context: bool


@dataclass(frozen=True)
class Entry:
    """One model of catalogue.toml; the file explains the fields."""

    name: str
    aliases: tuple[str, ...]
    architecture: str
    display_name: str
    description: str
    weights: str
    download_bytes: int
    repo: str | None = None
    modelscope: str | None = None
    checkpoint: str | None = None
    package: str | None = None
    gguf: str | None = None
    languages: tuple[str, ...] = ("zh", "en", "code")
    demo: bool = False
    tensorrt_llm: Converter | None = None


@dataclass(frozen=True)
class Source:
    """Where a model comes from: `path` of a folder or .gguf file, or `repo` on the hub; `entry` if any.

    A package is the wheel of the entry, which holds a .gguf file.
    """

    kind: Literal["folder", "gguf", "hub", "package"]
    model_id: str
    path: Path | None = None
    repo: str | None = None
    entry: Entry | None = None

    def __str__(self) -> str:
        if self.kind == "package" and self.entry is not None:
            return f"package:{self.entry.package}"
        return f"hub:{self.repo}" if self.kind == "hub" else str(self.path)


@cache
def catalogue() -> tuple[Entry, ...]:
    """The entries of catalogue.toml; ValueError names one with a wrong key, or with another's name."""
    known = {field.name: field for field in fields(Entry)}
    entries, names = [], set()
    for number, table in enumerate(_tables("model")):
        where = f"{CATALOGUE.name}: model {table.get('name', number)}"
        if unknown := sorted(set(table) - set(known)):
            raise ValueError(f"{where}: unknown key {unknown[0]}")
        if len(table.keys() & {"repo", "checkpoint", "package"}) != 1:
            raise ValueError(f"{where} needs exactly one of repo, checkpoint and package")
        if ("package" in table) != ("gguf" in table):
            raise ValueError(f"{where}: package and gguf require each other")
        try:
            converter = Converter(**table["tensorrt_llm"]) if "tensorrt_llm" in table else None
            lists: dict[str, Any] = {
                name: tuple(table[name]) for name in ("aliases", "languages") if name in table
            }
            given: dict[str, Any] = {"aliases": (), **table, **lists, "tensorrt_llm": converter}
            entry = Entry(**given)
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from None
        for name in {entry.name, *entry.aliases}:
            if name in names:
                raise ValueError(f"{where}: {name} is also the name of another model")
            names.add(name)
        entries.append(entry)
    return tuple(entries)


@cache
def profiles() -> dict[str, Profile]:
    """Name -> profile, as catalogue.toml has them; ValueError names a wrong one."""
    found = {}
    for number, table in enumerate(_tables("profile")):
        where = f"{CATALOGUE.name}: profile {table.get('name', number)}"
        try:
            profile = Profile(**table)
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from None
        if profile.kv_cache not in ("bf16", "int8"):
            raise ValueError(f"{where}: kv_cache must be bf16 or int8, found {profile.kv_cache!r}")
        if profile.kv_cache == "int8" and (profile.enable_kv_cache_reuse or profile.enable_chunked_context):
            raise ValueError(
                f"{where}: an int8 KV cache allows neither reuse nor chunked context (both need paged "
                "context attention, which TensorRT-LLM supports for 16-bit caches only)"
            )
        found[profile.name] = profile
    return found


def _tables(name: str) -> list[dict[str, Any]]:
    tables: list[dict[str, Any]] = tomllib.loads(CATALOGUE.read_text(encoding="utf-8")).get(name, [])
    return tables


def resolve(model: str) -> Source:
    """Say what `model` means: first the catalogue, then this disk, then the hub.

    BuildError with one sentence when it means nothing, or a catalogued hub id is also a folder here.
    """
    if not model.strip():
        raise BuildError(
            "MODEL is empty: name a model, a checkpoint folder, a .gguf file or a model on the hub"
        )
    path = Path(model).expanduser()
    for entry in catalogue():
        if model in (entry.name, *entry.aliases):
            if "/" in model and path.is_dir():
                raise BuildError(
                    f"MODEL={model} is both a model on the hub and a folder here: "
                    f"write MODEL={entry.name} for the hub, "
                    f"MODEL=./{model} for the folder"
                )
            return _from_entry(entry)
    if path.exists():
        return _on_disk(model, path)
    if model.startswith((".", "/", "~")) or model.endswith(".gguf") or model.count("/") > 1:
        raise BuildError(f"MODEL={model}: no such file or folder ({path.absolute()})")
    if HUB_ID.fullmatch(model):
        return Source("hub", model.split("/")[1], repo=model)
    known = ", ".join(name for entry in catalogue() for name in (*entry.aliases, entry.name))
    raise BuildError(
        f"unknown MODEL={model}: expected one of {known}, a folder or .gguf file here, or an id on the "
        "hub "
        "(organisation/name)"
    )


def _from_entry(entry: Entry) -> Source:
    if entry.repo is not None:
        return Source("hub", entry.name, repo=entry.repo, entry=entry)
    if entry.package is not None:
        return Source("package", entry.name, entry=entry)
    path = REPOSITORY / str(entry.checkpoint)
    if not (path / "config.json").is_file():
        raise BuildError(f"{path / 'config.json'} is missing: this copy of the repository is incomplete")
    return Source("folder", entry.name, path=path, entry=entry)


def _on_disk(model: str, path: Path) -> Source:
    named, path = path.absolute(), path.resolve()  # The hub's caches keep files under other names.
    if path.is_file():
        if named.suffix != ".gguf":
            hint = ": give its folder instead" if named.suffix == ".safetensors" else ""
            raise BuildError(f"MODEL={model} is neither a folder nor a .gguf file{hint}")
        return Source("gguf", named.stem, path=path)
    if (path / "config.json").is_file():
        for entry in catalogue():
            if entry.checkpoint is not None and path == REPOSITORY / entry.checkpoint:
                return _from_entry(entry)
        snapshot = _SNAPSHOT.search(str(path))
        return Source("folder", snapshot[1] if snapshot else path.name or "model", path=path)
    inside = sorted(path.glob("*.gguf")) if path.is_dir() else []
    hint = f"; for its .gguf file write MODEL={Path(model) / inside[0].name}" if inside else ""
    raise BuildError(f"MODEL={model} is a folder without config.json, so it is not a checkpoint{hint}")
