"""`python -m serve.verify_cuda`: the compiled llama.cpp on the card that is there.

Prints a line per check and writes one JSON file.
Exit status 0 when all is as assumed. A check that fails does not stop the others. Takes 2 to 5 minutes.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from build.model_modules import make_importable
from serve.verify_cuda import steps

make_importable("youtu_engine")
from llama import LIBRARY_JSON, PINNED, LlamaError, LlamaLibrary  # noqa: E402

_QUERY = "name,compute_cap,memory.total,memory.used,driver_version,clocks.sm,power.limit"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m serve.verify_cuda", description=__doc__)
    parser.add_argument("--library", type=Path, required=True, help="folder of the compiled llama.cpp")
    parser.add_argument(
        "--cuda", type=Path, help="folder of libcudart and libcublas, if elsewhere than compiled"
    )
    parser.add_argument(
        "--bundle", type=Path, required=True, help="made by python -m serve.verify_cuda.bundle"
    )
    parser.add_argument("--out", type=Path, default=Path("verify-cuda.json"))
    options = parser.parse_args()
    result: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": "python -m serve.verify_cuda",
        "nvidia_smi": _nvidia_smi(),
        "cpu": _cpu(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "xllamacpp": PINNED,
        "checks": {},
    }
    try:
        library = LlamaLibrary(options.library, options.cuda)
        about = json.loads((options.library / LIBRARY_JSON).read_text(encoding="utf-8"))
        result["architecture"] = about["architecture"]
    except LlamaError as error:
        sys.exit(f"error: {error}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="verify-cuda-") as scratch:
        check = steps.Check(library, options.bundle, Path(scratch))
        for step in steps.STEPS:
            begun, name = time.monotonic(), step.__name__
            try:
                found: dict[str, Any] = step(check)
            except Exception as error:  # the other checks still tell something
                found = {"failed": f"{type(error).__name__}: {error}"}
                failed.append(name)
            spent = round(time.monotonic() - begun, 1)
            result["checks"][name] = found | {"seconds": spent}
            mark = "NOT SO" if name in failed else "ok"
            sys.stdout.write(f"{mark:7}{spent:7.1f} s  {name:20} {json.dumps(found)[:900]}\n")
            sys.stdout.flush()
            result["failed"] = failed
            options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _nvidia_smi() -> str:
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:
        return f"does not answer: {error}"


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


if __name__ == "__main__":
    sys.exit(main())
