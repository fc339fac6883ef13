"""The attention of Qwen2 and Llama as OpenVINO operations: groups of query heads share keys and values."""

from __future__ import annotations

import openvino as ov
from openvino import opset15 as op

from build.openvino_model.blocks import Rotation, heads, ints, joined, sizes
from build.openvino_model.constants import Constants
from build.openvino_model.decoder import Cache, attend
from build.plain_config import GroupedShape


class GroupedAttention:
    """The attention of every layer of a plain decoder."""

    def __init__(self, shape: GroupedShape, constants: Constants) -> None:
        self._shape, self._constants = shape, constants

    def rotation(self, positions: ov.Node) -> Rotation:
        return Rotation(positions, self._shape.head_dim, self._shape.rope_theta)

    def apply(self, layer: int, x: ov.Node, rotation: Rotation, cache: Cache) -> ov.Node:
        shape, name = self._shape, f"model.layers.{layer}.self_attn"
        count, shared, size = shape.num_attention_heads, shape.num_key_value_heads, shape.head_dim
        query = rotation.apply(heads(self._projected(f"{name}.q_proj", x), count, size))
        key = rotation.apply(heads(self._projected(f"{name}.k_proj", x), shared, size))
        value = heads(self._projected(f"{name}.v_proj", x), shared, size)
        past = f"past_key_values.{layer}"
        key, value = (
            _repeated(cache.extended(f"{past}.{which}", new, shared, size), count // shared, size)
            for which, new in (("key", key), ("value", value))
        )
        found = joined(attend(query, key, value, size), count * size)
        return self._constants.matrix(f"{name}.o_proj.weight").apply(found)

    def _projected(self, name: str, x: ov.Node) -> ov.Node:
        found = self._constants.matrix(f"{name}.weight").apply(x)
        if not self._shape.qkv_bias:
            return found
        return op.add(found, self._constants.vector(f"{name}.bias"))


def _repeated(x: ov.Node, times: int, size: int) -> ov.Node:
    """Each head of x [batch, heads, tokens, size] `times` times over."""
    if times == 1:
        return x
    batch, count, tokens = sizes(x, 0, 1, 2)
    target = op.concat([batch, count, ints(times), tokens, ints(size)], 0)
    wide = op.broadcast(op.unsqueeze(x, ints(2)), target, "BIDIRECTIONAL")
    return op.reshape(wide, op.concat([ints(0), op.multiply(count, ints(times)), ints(-1, size)], 0), True)
