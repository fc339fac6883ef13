"""Make the engine folder that OpenVINO runs, beside the one with a .gguf file for the same model."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from build.catalogue import Source, resolve
from build.engine import converted, file_sha256, fingerprint, origin, weights_folder, whole_engine
from build.errors import BuildError
from build.openvino_model.info import MODEL_BIN, OpenVinoEngineInfo
from build.progress import Report, silent

if TYPE_CHECKING:
    from build.openvino_model.constants import WeightFormat

WEIGHTS = ("int8", "f32")


def make_openvino_engine(
    model: str, root: Path, *, weights: str | None = None, hub: str = "auto", progress: Report = silent
) -> OpenVinoEngineInfo:
    """The engine of `model` in `root`/engines, made if it is not there or its source has changed since.

    `model`: what `build.engine.make_engine` takes, except a .gguf file. `weights`: int8, the default, or f32.
    BuildError says what to fix; where an engine must be made, also when openvino is not installed.
    """
    source = resolve(model)
    if source.kind in ("gguf", "package"):
        raise BuildError(f"{source} is a .gguf file, which only the runtime llama_cpp can serve")
    chosen = weights or "int8"
    if chosen not in WEIGHTS:
        raise BuildError(f"weights must be one of {', '.join(WEIGHTS)}, found {chosen!r}")

    def build(building: Path) -> None:
        _build(source, chosen, root, building, hub, progress)

    return whole_engine(source, f"openvino {chosen}", root, OpenVinoEngineInfo, build)


def _build(source: Source, weights: str, root: Path, building: Path, hub: str, progress: Report) -> None:
    if importlib.util.find_spec("openvino") is None:
        raise BuildError("openvino is not installed: pip install --no-deps -r requirements/openvino.lock")
    from build.openvino_model.convert import convert, read_any_shape

    checkpoint = weights_folder(source, root, hub, progress, read_any_shape)
    state = fingerprint(source, root)
    step = f"Converting {source.model_id} to {weights} for OpenVINO"
    facts = converted(
        checkpoint,
        building,
        partial(
            convert,
            folder=building,
            weights=cast("WeightFormat", weights),
            progress=partial(progress, step),
        ),
    )
    name = source.entry.display_name if source.entry else source.model_id
    demo = source.entry is not None and source.entry.demo
    OpenVinoEngineInfo(
        **asdict(facts),
        **origin(source, str(state), building, ("numpy", "openvino", "tokenizers")),
        description=source.entry.description if source.entry and demo else f"{name}, {weights} (OpenVINO)",
        runtime="openvino",
        model_bytes=(building / MODEL_BIN).stat().st_size,
        model_sha256=file_sha256(building / MODEL_BIN, progress),
    ).save()
