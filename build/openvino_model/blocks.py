"""The parts that every decoder's graph is made of, as OpenVINO operations."""

from __future__ import annotations

import numpy as np
import openvino as ov
from openvino import PartialShape, Type
from openvino import opset15 as op


def ints(*values: int) -> ov.Node:
    """A constant of indexes, axes or sizes."""
    return op.constant(np.array(values, np.int64))


def parameter(name: str, dims: list[int], kind: Type) -> ov.Node:
    """An input of the model; -1 for sizes that change from call to call."""
    node = op.parameter(PartialShape(dims), kind, name=name)
    node.output(0).set_names({name})
    return node


def part(x: ov.Node, start: int, stop: int) -> ov.Node:
    """x [..., start:stop]."""
    return op.slice(x, ints(start), ints(stop), ints(1), ints(-1))


def rms_norm(x: ov.Node, weight: ov.Node, eps: float) -> ov.Node:
    """x / sqrt(mean(x^2) + eps) * weight along the last axis."""
    mean = op.reduce_mean(op.power(x, op.constant(np.float32(2))), ints(-1), True)
    root = op.sqrt(op.add(mean, op.constant(np.float32(eps))))
    return op.multiply(op.multiply(x, op.divide(op.constant(np.float32(1)), root)), weight)


def heads(x: ov.Node, count: int, size: int) -> ov.Node:
    """[batch, tokens, count * size] as [batch, count, tokens, size]."""
    return op.transpose(op.reshape(x, ints(0, 0, count, size), True), ints(0, 2, 1, 3))


def joined(x: ov.Node, size: int) -> ov.Node:
    """[batch, heads, tokens, n] as [batch, tokens, size]; size is heads * n."""
    return op.reshape(op.transpose(x, ints(0, 2, 1, 3)), ints(0, 0, size), True)


class Rotation:
    """Rotary embedding of vectors of `size`, whose pairs are (i, i + size / 2)."""

    def __init__(self, positions: ov.Node, size: int, theta: float) -> None:
        self._half = size // 2
        frequencies = (theta ** -(np.arange(0, size, 2, dtype=np.float64) / size)).astype(np.float32)
        angles = op.multiply(
            op.unsqueeze(op.convert(positions, np.float32), ints(2)),
            op.constant(frequencies.reshape(1, 1, -1)),
        )
        doubled = op.concat([angles, angles], -1)
        self._cos = op.unsqueeze(op.cos(doubled), ints(1))
        self._sin = op.unsqueeze(op.sin(doubled), ints(1))

    def apply(self, x: ov.Node) -> ov.Node:
        """x [batch, heads, tokens, size], each token turned to its position."""
        turned = op.concat([op.negative(part(x, self._half, 2 * self._half)), part(x, 0, self._half)], -1)
        return op.add(op.multiply(x, self._cos), op.multiply(turned, self._sin))


def sizes(x: ov.Node, *axes: int) -> list[ov.Node]:
    """The size of x along each of `axes`, as nodes of one element."""
    return [op.gather(op.shape_of(x), ints(axis), op.constant(np.int64(0))) for axis in axes]
