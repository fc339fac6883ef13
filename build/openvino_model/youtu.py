"""Youtu's latent attention as OpenVINO operations.

In its expanded form: the cache holds keys and values of every head, not the latent vectors they are made of.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import openvino as ov
from openvino import opset15 as op

from build.checkpoint import F32
from build.config import LATENT_NORM_EPS, Shape
from build.openvino_model.blocks import Rotation, heads, ints, joined, part, rms_norm, sizes
from build.openvino_model.constants import Constants, Source
from build.openvino_model.decoder import Cache, attend


class LatentAttention:
    """The attention of every layer of a Youtu model."""

    def __init__(self, shape: Shape, source: Source, constants: Constants) -> None:
        self._shape, self._source, self._constants = shape, source, constants
        # the graph turns the pairs (i, i + half); with rope_interleave the checkpoint has (2i, 2i + 1)
        order = np.arange(shape.qk_rope_head_dim)
        self._order = order.reshape(-1, 2).T.reshape(-1) if shape.rope_interleave else order

    def rotation(self, positions: ov.Node) -> Rotation:
        return Rotation(positions, self._shape.qk_rope_head_dim, self._shape.rope_theta)

    def apply(self, layer: int, x: ov.Node, rotation: Rotation, cache: Cache) -> ov.Node:
        shape, name = self._shape, f"model.layers.{layer}.self_attn"
        count, rank, value_size = shape.num_attention_heads, shape.kv_lora_rank, shape.v_head_dim
        nope, rope, key_size = shape.qk_nope_head_dim, shape.qk_rope_head_dim, shape.qk_head_dim

        query = heads(self._query(name, x), count, key_size)
        query = op.concat([part(query, 0, nope), rotation.apply(part(query, nope, key_size))], -1)

        both = self._constants.matrix(f"{name}.kv_a_proj_with_mqa.weight", self._key_value_rows).apply(x)
        latent = self._norm(f"{name}.kv_a_layernorm.weight", part(both, 0, rank))
        rotated = rotation.apply(heads(part(both, rank, rank + rope), 1, rope))
        own = heads(
            self._constants.matrix(f"{name}.kv_b_proj.weight").apply(latent), count, nope + value_size
        )
        batch, tokens = sizes(x, 0, 1)
        shared = op.broadcast(rotated, op.concat([batch, ints(count), tokens, ints(rope)], 0))

        past = f"past_key_values.{layer}"
        key = cache.extended(f"{past}.key", op.concat([part(own, 0, nope), shared], -1), count, key_size)
        value = cache.extended(f"{past}.value", part(own, nope, nope + value_size), count, value_size)
        found = joined(attend(query, key, value, key_size), count * value_size)
        return self._constants.matrix(f"{name}.o_proj.weight").apply(found)

    def _query(self, name: str, x: ov.Node) -> ov.Node:
        if self._shape.q_lora_rank is None:
            return self._constants.matrix(f"{name}.q_proj.weight", self._query_rows).apply(x)
        small = self._constants.matrix(f"{name}.q_a_proj.weight").apply(x)
        small = self._norm(f"{name}.q_a_layernorm.weight", small)
        return self._constants.matrix(f"{name}.q_b_proj.weight", self._query_rows).apply(small)

    def _norm(self, name: str, x: ov.Node) -> ov.Node:
        return rms_norm(x, self._constants.vector(name), LATENT_NORM_EPS)

    def _query_rows(self, name: str) -> Iterator[F32]:
        nope, size = self._shape.qk_nope_head_dim, self._shape.qk_head_dim
        order = np.concatenate([np.arange(nope), nope + self._order])
        for head in range(self._shape.num_attention_heads):
            yield self._source.rows(name, head * size, (head + 1) * size)[order]

    def _key_value_rows(self, name: str) -> Iterator[F32]:
        rank, rope = self._shape.kv_lora_rank, self._shape.qk_rope_head_dim
        yield self._source.rows(name, 0, rank)
        yield self._source.rows(name, rank, rank + rope)[self._order]
