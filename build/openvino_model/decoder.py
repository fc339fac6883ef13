"""A decoder's network as an OpenVINO graph: embedding, layers and head, around the attention of its family.

The graph is stateful, with one ScaledDotProductAttention per layer: the form from which OpenVINO's own
transformation makes paged attention. Inputs: `input_ids`, `position_ids`, `attention_mask` [batch, tokens],
`beam_idx` [batch], and `rows`, the places along the first axis whose logits are wanted. Output: `logits`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import openvino as ov
from openvino import PartialShape, Type, opset6
from openvino import opset15 as op

from build.config import Shape
from build.openvino_model.blocks import Rotation, ints, parameter, rms_norm, sizes
from build.openvino_model.constants import Constants
from build.plain_config import GroupedShape


class Cache:
    """The past keys and values of each layer, which stay inside the model from call to call."""

    def __init__(self, beam_idx: ov.Node) -> None:
        self._beam_idx = beam_idx
        self.kept: list[ov.Node] = []

    def extended(self, name: str, new: ov.Node, heads: int, size: int) -> ov.Node:
        """What is kept under `name`, and behind it `new`, both [batch, heads, tokens, size]."""
        info = ov.op.util.VariableInfo()
        info.data_shape, info.data_type = PartialShape([-1, heads, -1, size]), Type.f32
        info.variable_id = name
        variable = ov.op.util.Variable(info)
        (batch,) = sizes(new, 0)
        nothing = op.broadcast(op.constant(np.float32(0)), op.concat([batch, ints(heads, 0, size)], 0))
        past = op.gather(opset6.read_value(nothing, variable), self._beam_idx, op.constant(np.int64(0)))
        whole = op.concat([past, new], 2)
        self.kept.append(opset6.assign(whole, variable))
        return whole


class Attention(Protocol):
    """The attention of a family: what stands between a layer's first norm and its first sum."""

    def rotation(self, positions: ov.Node) -> Rotation:
        """The rotary embedding of all layers for `positions` [batch, tokens]."""

    def apply(self, layer: int, x: ov.Node, rotation: Rotation, cache: Cache) -> ov.Node:
        """Output of the projection [batch, tokens, hidden] for the normed x [batch, tokens, hidden]."""


def decoder(shape: Shape | GroupedShape, constants: Constants, attention: Attention) -> ov.Model:
    """The graph; `constants` has a place for each of its weights afterwards."""
    ids, positions = (parameter(name, [-1, -1], Type.i64) for name in ("input_ids", "position_ids"))
    mask = parameter("attention_mask", [-1, -1], Type.i64)
    beam_idx, rows = parameter("beam_idx", [-1], Type.i32), parameter("rows", [-1], Type.i64)
    cache, rotation = Cache(beam_idx), attention.rotation(positions)

    def norm(name: str, x: ov.Node) -> ov.Node:
        return rms_norm(x, constants.vector(f"{name}.weight"), shape.rms_norm_eps)

    table = constants.matrix("model.embed_tokens.weight")
    hidden = table.look_up(ids)
    for n in range(shape.num_hidden_layers):
        layer = f"model.layers.{n}"
        x = norm(f"{layer}.input_layernorm", hidden)
        hidden = op.add(hidden, attention.apply(n, x, rotation, cache))
        x = norm(f"{layer}.post_attention_layernorm", hidden)
        gate, up, down = (
            constants.matrix(f"{layer}.mlp.{part}_proj.weight") for part in ("gate", "up", "down")
        )
        hidden = op.add(hidden, down.apply(op.multiply(op.swish(gate.apply(x)), up.apply(x))))
    wanted = norm("model.norm", op.gather(hidden, rows, op.constant(np.int64(0))))
    head = table if shape.tie_word_embeddings else constants.matrix("lm_head.weight")
    result = op.result(head.apply(wanted))
    result.output(0).set_names({"logits"})
    return ov.Model([result], cache.kept, [ids, mask, positions, beam_idx, rows], "decoder")


def attend(query: ov.Node, key: ov.Node, value: ov.Node, size: int) -> ov.Node:
    """Causal attention with queries of `size`; key and value as `Cache.extended` gives them."""
    # without mask and scale OpenVINO does not recognise what it can make paged attention of
    mask, scale = op.constant(np.float32(0)), op.constant(np.float32(size**-0.5))
    return op.scaled_dot_product_attention(query, key, value, mask, scale, causal=True)
