"""Have llama.cpp load a GGUF file, in a process of its own: some faults crash the process.

`trial` starts that process, which runs this module; it loads the engine's own binding of llama.cpp.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from build.errors import BuildError
from build.model_modules import make_importable

CONTEXT = 32


def trial(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """The ids that llama.cpp gives for each text. BuildError says why it cannot load or compute the file."""
    # without the first variable it calls a debugger when it ends the process
    environment = os.environ | {"GGML_NO_BACKTRACE": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-m", "build.gguf_trial", str(path)],
        input=json.dumps(list(texts)), capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    try:
        answer = json.loads(ended.stdout)
    except ValueError:
        said = [line for line in ended.stderr.splitlines() if line.strip()]
        why = next((line for line in said if "GGML_ASSERT" in line), said[-1] if said else "no message")
        raise BuildError(f"{path}: llama.cpp crashes on it (status {ended.returncode}): {why}") from None
    if isinstance(answer, str):
        raise BuildError(f"{path}: llama.cpp cannot load it: {answer}")
    ids: list[list[int]] = answer
    return ids


def _try(path: Path, texts: list[str]) -> str | list[list[int]]:
    import numpy as np

    make_importable("youtu_engine")
    from llama import Llama, LlamaError

    try:
        model = Llama(path, context=CONTEXT, sequences=1, batch=CONTEXT, threads=1)
        ids = [model.tokenize(text) for text in texts]
        first, place = np.array([0], np.int32), np.array([0], np.int32)
        if not np.isfinite(model.decode(first, place, [0], [0])[0]).all():
            return "it computes values that are not numbers: its weights are damaged"
    except LlamaError as error:
        return str(error).removeprefix(f"{path}: ")
    return ids


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_try(Path(sys.argv[1]), json.load(sys.stdin))))
