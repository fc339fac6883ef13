"""The weights of an OpenVINO model: the graph's nodes for them, and the file their bytes are written to.

The graph is made over empty constants, so that no weight is in memory while there is a graph; `write` puts
the weights into the file afterwards, a few megabytes at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Literal, Protocol

import numpy as np
import numpy.typing as npt
import openvino as ov
from openvino import opset15 as op

from build.checkpoint import F32

WeightFormat = Literal["int8", "f32"]

ALIGNMENT = 64  # bytes; oneDNN reads aligned weights in place
LARGEST = 127  # of an int8 weight: the same range for both signs


class Source(Protocol):
    """Where weights come from: a checkpoint, or a generator of random ones."""

    def rows(self, name: str, start: int, stop: int) -> F32:
        """Rows of a matrix, or elements of a vector as one column, [rows, columns]."""

    def chunks(self, name: str) -> Iterator[F32]:
        """All rows, a few megabytes at a time."""


@dataclass(frozen=True)
class Place:
    """Where the bytes of one constant lie in model.bin."""

    offset: int
    nbytes: int


@dataclass(frozen=True)
class Matrix:
    """The constants of a matrix [rows, columns]; int8 values come with the scale of each group of a row."""

    dims: tuple[int, ...]
    values: ov.Node
    scales: ov.Node | None = None

    def apply(self, x: ov.Node) -> ov.Node:
        """x [..., columns] times the transposed matrix: [..., rows]."""
        return op.matmul(x, self._whole(), False, True)

    def look_up(self, ids: ov.Node) -> ov.Node:
        """The rows `ids` [a, b] as f32 [a, b, columns]."""
        return op.gather(self._whole(), ids, op.constant(np.int64(0)))

    def _whole(self) -> ov.Node:
        if self.scales is None:
            return self.values
        # OpenVINO recognises this form and computes with the int8 values. NNCF's scales, f16, would be
        # copied to f32 at load; f32 ones stay pages of the file, which can be given back.
        whole = op.multiply(op.convert(self.values, np.float32), self.scales)
        if len(self.values.shape) != len(self.dims):
            whole = op.reshape(whole, op.constant(np.array(self.dims)), False)
        return whole


class Constants:
    """The constants of one model. `group`: int8 weights of a row that share a scale, 0 for the whole row.

    `dims`: name -> shape of each tensor of `source`. Every constant that was asked for has a node of its name
    in the graph, and one of `places` in the file, `size` bytes long.
    """

    def __init__(
        self, dims: dict[str, tuple[int, ...]], source: Source, weights: WeightFormat, group: int
    ) -> None:
        self._dims, self._source, self._weights, self._group = dims, source, weights, group
        self._writers: list[Callable[[BinaryIO], Iterator[int]]] = []
        self.places: dict[str, Place] = {}
        self.ungrouped: list[str] = []  # matrices whose rows are not whole groups: one scale per row
        self.size = 0

    def vector(self, name: str) -> ov.Node:
        """Norm weights or biases, which stay f32."""
        (length,) = self._dims[name]

        def chunks(name: str) -> Iterator[F32]:
            yield self._source.rows(name, 0, length).reshape(-1)

        self._writers.append(partial(_write_f32, self._place(name, 4 * length), partial(chunks, name)))
        return _empty(name, (length,), np.float32)

    def matrix(self, name: str, rows: Callable[[str], Iterator[F32]] | None = None) -> Matrix:
        """The matrix `name`; `rows` yields its rows in order where that is not the order of the source."""
        dims = self._dims[name]
        chunks = partial(rows or self._source.chunks, name)
        if self._weights == "f32":
            self._writers.append(partial(_write_f32, self._place(name, 4 * math.prod(dims)), chunks))
            return Matrix(dims, _empty(name, dims, np.float32))
        height, width = dims
        group = self._group or width
        if width % group:
            self.ungrouped.append(name)
            group = width
        split = (height, width) if group == width else (height, width // group, group)
        scale = f"{name}.scale"
        values, scales = self._place(name, height * width), self._place(scale, 4 * height * width // group)
        self._writers.append(partial(_write_int8, values, scales, group, chunks))
        return Matrix(dims, _empty(name, split, np.int8), _empty(scale, (*split[:-1], 1), np.float32))

    def write(self, file: BinaryIO) -> Iterator[int]:
        """Put all weights into `file`; yields how many bytes each step wrote."""
        for writer in self._writers:
            yield from writer(file)

    def _place(self, name: str, nbytes: int) -> Place:
        self.places[name] = place = Place(self.size, nbytes)
        self.size += nbytes + -nbytes % ALIGNMENT
        return place


def quantized(rows: F32, group: int) -> tuple[npt.NDArray[np.int8], F32]:
    """int8 values [rows, columns] and f32 scales [rows, columns / group] of `rows` [rows, columns]."""
    grouped = rows.reshape(len(rows), -1, group)
    scales = (np.abs(grouped).max(axis=2) / LARGEST).astype(np.float32)
    divisors = np.where(scales == 0, 1, scales)
    values = np.clip(np.rint(grouped / divisors[:, :, None]), -LARGEST, LARGEST)
    return values.astype(np.int8).reshape(rows.shape), scales


def _empty(name: str, dims: tuple[int, ...], dtype: type[np.generic]) -> ov.Node:
    # zeros that nobody has written to take no memory
    node = ov.op.Constant(np.zeros(dims, dtype), shared_memory=True)
    node.set_friendly_name(name)
    return node


def _write_f32(place: Place, chunks: Callable[[], Iterator[F32]], file: BinaryIO) -> Iterator[int]:
    file.seek(place.offset)
    for chunk in chunks():
        np.ascontiguousarray(chunk, np.float32).tofile(file)
        yield chunk.nbytes


def _write_int8(
    values: Place, scales: Place, group: int, chunks: Callable[[], Iterator[F32]], file: BinaryIO
) -> Iterator[int]:
    at_values, at_scales = values.offset, scales.offset
    for chunk in chunks():
        whole, factors = quantized(chunk, group)
        for array, offset in ((whole, at_values), (factors, at_scales)):
            file.seek(offset)
            array.tofile(file)
        at_values, at_scales = at_values + whole.nbytes, at_scales + factors.nbytes
        yield whole.nbytes + factors.nbytes
