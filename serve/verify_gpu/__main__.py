"""`python -m serve.verify_gpu`, which `make verify-gpu` runs: a table as it goes, one JSON line at the end.

Exit status 0 when all is as assumed. MODEL and PROFILE as for serving; without MODEL, random weights of the
true 2B shape are made once and used. Takes the time of four small builds and one large.
"""

from __future__ import annotations

import json
import shutil
import sys

from build.tensorrt_llm.machine import docker_run
from serve.settings import Settings, SettingsError
from serve.verify_gpu import container, engines, server
from serve.verify_gpu.steps import Row, Verification, verify

STEPS = [*container.STEPS, *engines.STEPS, *server.STEPS]


def main() -> int:
    try:
        settings = Settings.load().model_copy(update={"engine": "tensorrt_llm"})
    except SettingsError as error:
        sys.exit(f"error: {error}")
    return check(Verification(settings, settings.data_dir.absolute() / "verify-gpu"))


def check(verification: Verification) -> int:
    """Run all steps, print the table and the JSON line; 0 when all is as assumed."""
    rows = verify(STEPS, verification, _show)
    ended = [row for row in rows if row.change]
    for row in ended:
        sys.stdout.write(f"\nNot as assumed at {row.name!r}: {row.found}.\nTo change: {row.change}\n")
    if shutil.which("trtllm-build") is None:
        given = {"MODEL": verification.settings.model, "PROFILE": verification.settings.profile}
        sys.stdout.write(f"It runs in NVIDIA's container: {docker_run(['make', 'verify-gpu'], given)}\n")
    gpu, inside = verification.gpu, verification.container
    result = {
        "verify_gpu": "failed" if ended else "ok",
        "stopped_at": ended[0].name if ended else None,
        "change": ended[0].change if ended else None,
        "gpu": gpu.name if gpu else None,
        "compute_capability": gpu.compute_capability if gpu else None,
        "versions": inside.versions if inside else None,
        "steps": {row.name: {"found": row.found, "seconds": row.seconds} for row in rows},
        "not_run": [step.name for step in STEPS[len(rows) :]],
    }
    sys.stdout.write(f"{json.dumps(result, ensure_ascii=False)}\n")
    return 1 if ended else 0


def _show(row: Row) -> None:
    mark = "NOT SO" if row.change else "ok"
    sys.stdout.write(f"{mark:7}{row.seconds:7.1f} s  {row.name:36}  {row.found}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
