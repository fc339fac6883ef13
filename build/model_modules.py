"""Makes the modules of a model of model_repository importable here.

In Triton they import one another by bare names, with the model's folder on the path; outside it, the build,
the checks and the benchmarks that run a model's code put the folder there.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def make_importable(*models: str) -> None:
    """`models`: names of folders of model_repository. Modules that are installed go before theirs."""
    for folder in (ROOT / "client", *(ROOT / "model_repository" / model / "1" for model in models)):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
