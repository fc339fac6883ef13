"""Turn a checkpoint of Youtu, Qwen2 or Llama into the model.xml and model.bin that OpenVINO runs.

Weights pass through a few megabytes at a time. What the conversion to GGUF refuses is refused here too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from build.checkpoint import Weights
from build.config import ARCHITECTURE, ConfigFile, Shape, read_shape
from build.convert import ConvertedModel
from build.errors import BuildError
from build.mapping import refuse_misread
from build.openvino_model.constants import Constants, Source, WeightFormat
from build.openvino_model.decoder import decoder
from build.openvino_model.info import MODEL_BIN, MODEL_XML
from build.openvino_model.plain import GroupedAttention
from build.openvino_model.writing import Progress, write_model
from build.openvino_model.youtu import LatentAttention
from build.plain_config import LLAMA, QWEN2, GroupedShape, read_grouped_shape
from build.tokenizer import TokenizerFacts, has_tokenizer, load_tokenizer_facts

log = logging.getLogger(__name__)

ARCHITECTURES = (ARCHITECTURE, QWEN2, LLAMA)
GROUP = 32  # int8 weights of a row that share a scale, as in Q8_0; 0: all


def read_any_shape(checkpoint: Path) -> Shape | GroupedShape:
    """The shape of a checkpoint of any of ARCHITECTURES; BuildError as `read_shape`."""
    if ConfigFile(checkpoint).architecture(ARCHITECTURES) == ARCHITECTURE:
        shape = read_shape(checkpoint)
        refuse_misread(shape)
        return shape
    return read_grouped_shape(checkpoint)


def convert(
    checkpoint: Path,
    folder: Path,
    *,
    weights: WeightFormat = "int8",
    group: int = GROUP,
    progress: Progress | None = None,
) -> ConvertedModel:
    """Write model.xml and model.bin into `folder` from the Hugging Face folder `checkpoint`.

    BuildError when the checkpoint is not one that the engine runs rightly, when the disk is too full, or when
    another process is writing the same files.
    """
    if weights not in get_args(WeightFormat):
        raise BuildError(f"weights must be one of {', '.join(get_args(WeightFormat))}, found {weights!r}")
    shape = read_any_shape(checkpoint)
    tokenizer = load_tokenizer_facts(checkpoint, shape.vocab_size) if has_tokenizer(checkpoint) else None
    with Weights(checkpoint, shape) as source:
        constants = write_decoder(shape, source, folder, weights=weights, group=group, progress=progress)
    notes = tuple(_notes(constants, tokenizer))
    for note in notes:
        log.warning("%s", note)
    return ConvertedModel(
        path=folder / MODEL_XML,
        shape=shape,
        weights=weights.upper(),
        parameters=sum(math.prod(dims) for dims in shape.tensors().values()),
        file_bytes=(folder / MODEL_BIN).stat().st_size,
        tokenizer=tokenizer,
        notes=notes,
    )


def write_decoder(
    shape: Shape | GroupedShape,
    source: Source,
    folder: Path,
    *,
    weights: WeightFormat,
    group: int = GROUP,
    progress: Progress | None = None,
) -> Constants:
    """Write the model of `shape` with the weights of `source` into `folder`, and return its constants."""
    constants = Constants(shape.tensors(), source, weights, group)
    if isinstance(shape, Shape):
        model = decoder(shape, constants, LatentAttention(shape, source, constants))
    else:
        model = decoder(shape, constants, GroupedAttention(shape, constants))
    folder.mkdir(parents=True, exist_ok=True)
    write_model(model, constants, folder, progress)
    return constants


def _notes(constants: Constants, tokenizer: TokenizerFacts | None) -> Iterator[str]:
    if constants.ungrouped:
        yield (
            f"{len(constants.ungrouped)} matrices have one scale per row, because their rows are not whole "
            f"groups: {constants.ungrouped[0]} for one"
        )
    if tokenizer is None:
        yield "the checkpoint has no tokenizer: the model works with token ids only"
