"""The engine of this deployment inside a benchmark's own process: nothing between it and what is measured.

The one place that imports the engine. It runs on threads, without gevent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.shared_load import SAMPLING
from build.model_modules import make_importable
from serve.repository import SUITS_OPENVINO
from serve.settings import Settings

BYTES = 256  # ids that every vocabulary has
make_importable("youtu_engine")


@dataclass(frozen=True)
class Loaded:
    """`runtime` is the engine's (model_repository/youtu_engine/1/runtime.py); `name` is llama_cpp or
    openvino.
    """

    runtime: Any
    name: str
    slots: int
    context: int
    prefill_chunk: int

    def engine(self, *, speculate: bool = True) -> Any:
        """An engine over the runtime, whose KV caches are dropped. One at a time."""
        from engine import Engine

        for sequence in range(self.runtime.sequences):
            self.runtime.forget(sequence, 0)
        return Engine(
            self.runtime,
            slots=self.slots,
            context=self.context,
            queue=1024,
            prefill_chunk=self.prefill_chunk,
            speculate=speculate,
        )


def load(
    model: Path,
    *,
    slots: int,
    context: int,
    prefill_chunk: int | None = None,
    ik_llama: bool = False,
) -> Loaded:
    """Load a .gguf file with llama.cpp, or with OpenVINO a model.xml or the folder that holds one.

    What is not given is what `make serve` would take. ik_llama: let ik_llama.cpp compute the .gguf file.
    """
    from loading import load as load_runtime

    path = model / "model.xml" if model.is_dir() else model
    name = "openvino" if path.suffix == ".xml" else "llama_cpp"
    suits = {key: Settings.model_fields[key].default for key in ("prefill_chunk", "kv_type")}
    if name == "openvino":
        suits |= SUITS_OPENVINO
    chunk = prefill_chunk or int(suits["prefill_chunk"])
    if ik_llama:
        from benchmarks.ik_llama import IkLlama, prepared

        path = prepared(path, path.resolve().parents[2])
        other = IkLlama(path, sequences=slots, context=context, batch=chunk + slots)
        return Loaded(other, "ik_llama", slots, context, chunk)
    parameters = {
        "model": path,
        "runtime": name,
        "slots": slots,
        "context": context,
        "threads": 0,
        "prefill_chunk": chunk,
        "kv_type": suits["kv_type"],
        "library": "",
    }
    runtime = load_runtime({key: str(value) for key, value in parameters.items()})
    return Loaded(runtime, name, slots, context, chunk)


def sampling(kind: str, seed: int) -> Any:
    """SamplingParams, greedy or as served."""
    from sampling import SamplingParams

    manner: dict[str, Any] = SAMPLING[kind]
    return SamplingParams(**manner, seed=seed)
