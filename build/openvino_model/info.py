"""engine.json of an engine for OpenVINO. Needs nothing but the standard library, as build.engine_info."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from build.engine_info import ServedModel
from build.errors import BuildError

MODEL_XML, MODEL_BIN = "model.xml", "model.bin"
# [batch, heads, tokens, size] of what the model keeps from call to call.
_CACHE = re.compile(r'variable_shape="\?,(\d+),\?,(\d+)"')


@dataclass(frozen=True)
class OpenVinoEngineInfo(ServedModel):
    """`model_bytes` and `model_sha256` belong to model.bin; `runtime` is "openvino"."""

    runtime: str
    model_bytes: int
    model_sha256: str

    @property
    def model(self) -> Path:
        """The graph, which OpenVINO reads; the weights lie beside it."""
        return self.path / MODEL_XML

    def cache_sizes(self) -> list[tuple[int, int]]:
        """Heads, and numbers per token and head, of each layer's keys and each layer's values."""
        found = _CACHE.findall(self.model.read_text(encoding="utf-8"))
        return [(int(heads), int(size)) for heads, size in found]

    def _check_files(self) -> None:
        super()._check_files()
        for name in (MODEL_XML, MODEL_BIN):
            if not (self.path / name).is_file():
                raise BuildError(f"{self.path / name} is missing; build the engine again")
        size = (self.path / MODEL_BIN).stat().st_size
        if size != self.model_bytes:
            raise BuildError(
                f"{self.path / MODEL_BIN} has {size} bytes, not {self.model_bytes}; build the engine again"
            )
