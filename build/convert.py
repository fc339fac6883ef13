"""Turn a Youtu checkpoint into the GGUF file that llama.cpp runs.

`python -m build.convert CHECKPOINT OUTPUT.gguf [--weights q8_0]`. Weights pass through a few megabytes at a
time, and the file gets its name only when it is complete. Nothing here downloads or serves.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import gguf
import numpy as np
from gguf import GGMLQuantizationType as GGML
from gguf import quants

from build.checkpoint import Weights
from build.config import LATENT_NORM_EPS, Shape, read_shape
from build.errors import BuildError
from build.gguf_writing import Encoded, Progress, write_gguf
from build.mapping import (
    FILE_TYPES,
    GgufTensor,
    WeightType,
    describe,
    latent_scale,
    plan,
    refuse_misread,
)
from build.plain_config import GroupedShape
from build.tokenizer import TokenizerFacts, has_tokenizer, load_tokenizer_facts

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ConvertedModel:
    """What was written. `notes` are sentences a person should read: fallbacks, guesses, folded factors."""

    path: Path
    shape: Shape | GroupedShape
    weights: str
    parameters: int
    file_bytes: int
    tokenizer: TokenizerFacts | None
    notes: tuple[str, ...]


def convert(
    checkpoint: Path, output: Path, *, weights: WeightType = "q8_0", progress: Progress | None = None
) -> ConvertedModel:
    """Write `output` from the Hugging Face folder `checkpoint`, whole or not at all.

    A partial file `.NAME.part` stands beside it meanwhile; what an interrupted run left there is overwritten.
    BuildError when the checkpoint is not one that llama.cpp runs rightly, when the disk is too full, or when
    another process is writing the same file.
    """
    if weights not in FILE_TYPES:
        raise BuildError(f"weights must be one of {', '.join(FILE_TYPES)}, found {weights!r}")
    shape = read_shape(checkpoint)
    refuse_misread(shape)
    tokenizer = load_tokenizer_facts(checkpoint, shape.vocab_size) if has_tokenizer(checkpoint) else None
    with Weights(checkpoint, shape) as source:
        tensors = plan(shape, source, FILE_TYPES[weights][0])
        notes = tuple(_notes(shape, tokenizer, tensors, weights))
        for note in notes:
            log.warning("%s", note)
        writer = gguf.GGUFWriter(None, "deepseek2")
        describe(writer, shape, checkpoint.resolve().name, FILE_TYPES[weights][1], tokenizer)
        write_gguf(writer, [(tensor, partial(_encoded, tensor)) for tensor in tensors], output, progress)
    parameters = sum(math.prod(dims) for dims in shape.tensors().values())
    return ConvertedModel(output, shape, weights.upper(), parameters, output.stat().st_size, tokenizer, notes)


def _notes(
    shape: Shape, tokenizer: TokenizerFacts | None, tensors: list[GgufTensor], weights: WeightType
) -> Iterator[str]:
    if shape.rms_norm_eps != LATENT_NORM_EPS:
        yield (
            f"rms_norm_eps is {shape.rms_norm_eps:g}, the latent norms have {LATENT_NORM_EPS:g}: "
            f"their projections are scaled by {latent_scale(shape):g}"
        )
    if not shape.rope_interleave:
        yield "rope_interleave is false: the rotary rows are reordered into pairs"
    wide = [tensor for tensor in tensors if weights == "q8_0" and tensor.kind == GGML.F16]
    if wide:
        yield (
            f"{len(wide)} tensors are f16, not q8_0, because their rows are not whole blocks of 32: "
            f"{wide[0].name} has rows of {wide[0].shape[-1]}"
        )
    if tokenizer is None:
        yield "the checkpoint has no tokenizer: the GGUF works with token ids only"
    elif not tokenizer.known_pre:
        yield "tokenizer.json uses an unknown split: the GGUF says 'youtu', only tokenizer.json is exact"
    elif tokenizer.pre in ("youtu", "llama-bpe") and not tokenizer.ignore_merges:
        yield (
            f"tokenizer.json does not ignore merges, llama.cpp's '{tokenizer.pre}' does: a whole word of the "
            "vocabulary that merges never reach becomes another token there"
        )


def _encoded(tensor: GgufTensor) -> Iterator[Encoded]:
    for chunk in tensor.chunks():
        if tensor.kind == GGML.F16 and np.abs(chunk).max(initial=0) > np.finfo(np.float16).max:
            raise BuildError(
                f"tensor {tensor.name} contains {np.abs(chunk).max():g}, which exceeds f16: use bf16 or f32"
            )
        yield quants.quantize(chunk, tensor.kind)


def main() -> None:
    """The command line; exit status 1 and one line on stderr when the checkpoint is refused."""
    parser = argparse.ArgumentParser(prog="python -m build.convert", description="Youtu checkpoint to GGUF")
    parser.add_argument("checkpoint", type=Path, help="folder with config.json and safetensors")
    parser.add_argument("output", type=Path, help="the .gguf file to write")
    parser.add_argument("--weights", choices=get_args(WeightType), default="q8_0")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\rconverting {done / total:4.0%} of {total / 1e9:.2f} GB")

    try:
        model = convert(arguments.checkpoint, arguments.output, weights=arguments.weights, progress=show)
    except BuildError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(
        f"{model.path}: {model.weights}, {model.parameters:,} parameters, {model.file_bytes / 1e9:.2f} GB\n"
    )


if __name__ == "__main__":
    main()
