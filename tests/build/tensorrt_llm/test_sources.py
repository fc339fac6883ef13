"""Every key of the checkpoint's config.json has its source in checkpoint_sources.toml, and no other has."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from build.tensorrt_llm.convert import convert

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPOSITORY = Path(__file__).parents[3]
SOURCES = REPOSITORY / "build" / "tensorrt_llm" / "checkpoint_sources.toml"
KINDS = ("PretrainedConfig", "QuantConfig", "Attention.", "Ours, read by youtu_trtllm.py", "as world_size")


def paths(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def test_what_is_written_is_what_has_a_source(checkpoint: Path, tmp_path: Path) -> None:
    """The tiny checkpoint has every key there is, exclude_modules and int8 KV cache among them."""
    made = convert(checkpoint, tmp_path / "ckpt", max_positions=64, kv_scales=[1.0] * 2)
    written = made.path / "config.json"
    sources = tomllib.loads(SOURCES.read_text(encoding="utf-8"))["checkpoint_config"]
    assert sorted(paths(json.loads(written.read_text()))) == sorted(paths(sources))


def test_each_source_says_who_reads_the_key() -> None:
    sources = tomllib.loads(SOURCES.read_text(encoding="utf-8"))["checkpoint_config"]
    for path in paths(sources):
        said: Any = sources
        for part in path.split("."):
            said = said[part]
        assert said.startswith(KINDS), f"{path}: {said}"
