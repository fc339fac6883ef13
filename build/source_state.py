"""The state that a checkpoint on this disk is in, so that another one is noticed without reading it."""

from __future__ import annotations

import hashlib
from pathlib import Path

SOURCE_FILES = ("*.json", "*.jinja", "*/*.jinja", "*.safetensors")


def source_state(source: Path) -> str:
    """Sizes and times of the files of a checkpoint folder, or of a single file, as a hash."""
    files = (
        sorted(file for glob in SOURCE_FILES for file in source.glob(glob)) if source.is_dir() else [source]
    )
    facts = [f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()
