"""Makes the engine's modules importable: they import one another by bare names, as in Triton's stub."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def make_importable() -> None:
    for folder in (ROOT / "client", ROOT / "model_repository" / "youtu_engine" / "1"):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
