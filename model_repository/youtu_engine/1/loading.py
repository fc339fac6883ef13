"""The runtime that this deployment's parameters name, with its model loaded."""

from __future__ import annotations

import os
from pathlib import Path

from llama import Llama, LlamaLibrary
from runtime import ComputeError, Runtime

# A step of a model this small is over before a second thread is awake.
_ONE_THREAD_BYTES = 64 << 20


def load(parameters: dict[str, str]) -> Runtime:
    """Load the model of Triton's parameters (config.pbtxt). Raises ComputeError."""
    path = Path(parameters["model"])
    if not path.is_file():
        raise ComputeError(f"parameter model: no such file: {str(path)!r}")
    slots, context = int(parameters["slots"]), int(parameters["context"])
    threads = int(parameters["threads"]) or _threads(path)
    if parameters["runtime"] == "openvino":
        from openvino_runtime import OpenVino

        return OpenVino(
            path,
            slots=slots,
            context=context,
            threads=threads,
            kv_type=parameters["kv_type"],
        )
    if parameters["runtime"] != "llama_cpp":
        raise ComputeError(f"parameter runtime must be llama_cpp or openvino, not {parameters['runtime']!r}")
    library = LlamaLibrary(Path(parameters["library"]) if parameters["library"] else None)
    if parameters["library"]:
        library.require_card()
    return Llama(
        path,
        library=library,
        context=context,
        sequences=slots,
        batch=int(parameters["prefill_chunk"]) + slots,
        threads=threads,
        kv_type=parameters["kv_type"],
    )


def _threads(path: Path) -> int:
    """All processors that this process may use, or one for a tiny model."""
    weights = path.with_suffix(".bin") if path.suffix == ".xml" else path
    return 1 if weights.stat().st_size < _ONE_THREAD_BYTES else len(os.sched_getaffinity(0))
