"""Write a GGUF file, which gets its name only when complete. Independent of architecture and source."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as GGML

from build.whole_file import whole_file

Progress = Callable[[int, int], None]  # bytes written, bytes in all
Encoded = np.ndarray[tuple[int, ...], np.dtype[np.generic]]
Data = Callable[[], Iterator[Encoded]]  # a tensor's bytes as the file has them, a piece at a time

HEADER_RESERVE = 64 << 20  # bytes; vocabulary and metadata stay far below


@dataclass(frozen=True)
class TensorPlan:
    """One tensor to write."""

    name: str
    shape: tuple[int, ...]
    kind: GGML

    @property
    def nbytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return math.prod(self.shape) // block * size


def write_gguf(
    writer: gguf.GGUFWriter,
    tensors: Sequence[tuple[TensorPlan, Data]],
    output: Path,
    progress: Progress | None,
) -> None:
    """Write `output` with the metadata that `writer` was given and these tensors, in this order.

    A partial file `.NAME.part` stands beside it meanwhile; what an interrupted run left there is overwritten.
    BuildError when the disk is too full, or when another process is writing the same file.
    """
    total = sum(plan.nbytes for plan, _ in tensors)
    with whole_file(output, total + HEADER_RESERVE) as part:
        _write_part(writer, tensors, part, total, progress)


def _write_part(
    writer: gguf.GGUFWriter,
    tensors: Sequence[tuple[TensorPlan, Data]],
    part: Path,
    total: int,
    progress: Progress | None,
) -> None:
    for plan, _ in tensors:
        writer.add_tensor_info(plan.name, plan.shape, np.dtype(np.float32), plan.nbytes, raw_dtype=plan.kind)
    writer.open_output_file(part)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        file = (writer.fout or [])[0]
        writer.write_padding(file, file.tell())
        done = 0
        for plan, data in tensors:
            begin = file.tell()
            for piece in data():
                piece.tofile(file)
                done += piece.nbytes
                if progress is not None:
                    progress(done, total)
            if file.tell() - begin != plan.nbytes:
                raise AssertionError(
                    f"{plan.name}: {file.tell() - begin} bytes written, {plan.nbytes} planned"
                )
            writer.write_padding(file, plan.nbytes)
    finally:
        writer.close()
