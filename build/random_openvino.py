"""Write an OpenVINO model of random weights in the true shape of a published model, for benchmarks.

`python -m build.random_openvino FOLDER --shape youtu-2b|qwen1.5-1.8b|... [--weights int8|f32]`. As
`random_gguf`, it needs no checkpoint: rows are taken from a pool of normal values. The answers are noise.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np

from build.checkpoint import CHUNK_BYTES, F32
from build.config import Shape
from build.errors import BuildError
from build.openvino_model.constants import WeightFormat
from build.openvino_model.convert import GROUP, write_decoder
from build.plain_config import GroupedShape
from build.random_gguf import CHECKPOINT_SHAPES as SHAPES

POOL_ITEMS = 16 << 20


class RandomSource:
    """Weights of a model of `shape`: norms are 1, biases 0, matrices normal values; no two rows alike."""

    def __init__(self, shape: Shape | GroupedShape, seed: int) -> None:
        self._dims, self._random = shape.tensors(), np.random.default_rng(seed)
        self._pool = self._random.standard_normal(POOL_ITEMS, np.float32)
        self._pool *= np.float32(2 / math.sqrt(5 * shape.hidden_size))

    def rows(self, name: str, start: int, stop: int) -> F32:
        dims = self._dims[name]
        count = (stop - start) * math.prod(dims[1:])
        if len(dims) == 1:
            return np.full((count, 1), 0 if name.endswith(".bias") else 1, np.float32)
        first = int(self._random.integers(0, POOL_ITEMS - count))
        return self._pool[first : first + count].reshape(stop - start, -1)

    def chunks(self, name: str) -> Iterator[F32]:
        height, width = self._dims[name]
        step = max(1, CHUNK_BYTES // (4 * width))
        for start in range(0, height, step):
            yield self.rows(name, start, min(height, start + step))


def write_random_model(
    folder: Path,
    shape: Shape | GroupedShape,
    *,
    weights: WeightFormat = "int8",
    group: int = GROUP,
    seed: int = 0,
) -> None:
    """Write model.xml and model.bin into `folder`; the same seed gives the same bytes."""
    write_decoder(shape, RandomSource(shape, seed), folder, weights=weights, group=group)


def main() -> None:
    """The command line; exit status 1 and one line on stderr when the files cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m build.random_openvino", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--weights", choices=get_args(WeightFormat), default="int8")
    parser.add_argument("--group", type=int, default=GROUP)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        write_random_model(
            options.folder,
            SHAPES[options.shape],
            weights=options.weights,
            group=options.group,
            seed=options.seed,
        )
    except BuildError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{options.folder}\n")


if __name__ == "__main__":
    main()
