"""Random weights of one shape for all contenders: a checkpoint, and what each runtime reads of it.

Made once, in the benchmark's data folder; a few gigabytes a shape.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import say
from build.config import Shape
from build.engine import make_engine
from build.openvino_model.engine import make_openvino_engine
from build.random_checkpoint import write_random_checkpoint
from build.random_gguf import CHECKPOINT_SHAPES, SHAPES, write_random_gguf


@dataclass(frozen=True)
class RandomWeights:
    """`checkpoint`: a folder as a model hub has it, bf16. `gguf`: Q8_0, of the same weights where this
    project converts them to GGUF (Youtu), else of the same shape. `for_llama_cpp`: MODEL of `make serve`.
    """

    checkpoint: Path
    gguf: Path
    for_llama_cpp: Path

    def openvino(self, data_dir: Path) -> Path:
        """The engine folder that OpenVINO runs, as a server with this data folder makes it."""
        return make_openvino_engine(str(self.checkpoint), data_dir).path


def made(shape: str, data_dir: Path) -> RandomWeights:
    """Those of `data_dir`, made if they are not there. Servers' data folders are below it, named as their
    runtimes.
    """
    checkpoint = data_dir / "models" / shape
    if not (checkpoint / "config.json").exists():
        say(f"writing {checkpoint}")
        shutil.rmtree(checkpoint, ignore_errors=True)
        write_random_checkpoint(checkpoint, CHECKPOINT_SHAPES[shape])
    if isinstance(SHAPES[shape], Shape):
        say("converting it for llama.cpp")
        engine = make_engine(str(checkpoint), data_dir / "llama_cpp")
        return RandomWeights(checkpoint, engine.gguf, checkpoint)
    gguf = data_dir / "models" / f"{shape}.gguf"
    if not gguf.exists():
        say(f"writing {gguf}")
        write_random_gguf(gguf, SHAPES[shape], shape)
    return RandomWeights(checkpoint, gguf, gguf)
