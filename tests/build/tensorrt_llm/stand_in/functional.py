"""Stand-ins of tensorrt_llm/functional.py: tensors, what rearranges them, and the attention plugin."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Tensor:
    """functional.py, Tensor: operators and methods are those of `functional`.

    `dims` is the shape as the builder knows it, -1 for the dynamic dimensions. `known` are the values of a
    shape tensor as the builder knows them.
    """

    def __init__(
        self, data: torch.Tensor, dims: Sequence[int] | None = None, known: Sequence[int] | None = None
    ) -> None:
        self.data, self.dims = data, tuple(data.shape if dims is None else dims)
        self.known = None if known is None else tuple(known)
        assert len(self.dims) == data.dim()
        assert all(d in (-1, n) for d, n in zip(self.dims, data.shape, strict=True)), (self.dims, data.shape)

    def ndim(self) -> int:
        return len(self.dims)

    def __add__(self, other: Tensor) -> Tensor:
        """functional.py, elementwise_binary: shapes are equal here, no broadcasting is used."""
        assert self.dims == other.dims
        return Tensor(self.data + other.data, self.dims)

    def cast(self, dtype: str) -> Tensor:
        """functional.py, cast: to a type named by a string; all floating types are f32 here."""
        assert dtype in TYPES
        return Tensor(self.data, self.dims, self.known)

    def view(self, shape: Sequence[int]) -> Tensor:
        """functional.py, view: a reshape; at most one dimension may be inferred (-1); 0 would copy one."""
        assert list(shape).count(-1) <= 1
        assert 0 not in shape
        return Tensor(self.data.reshape(tuple(shape)), shape)


def shape(input: Tensor, dim: int) -> Tensor:
    """functional.py, shape: with `dim`, a scalar tensor that holds the size of that dimension."""
    return Tensor(torch.tensor(input.data.shape[dim]), (), [input.dims[dim]])


def concat(inputs: Sequence[Tensor | int], dim: int = 0) -> Tensor:
    """functional.py, concat: along `dim`; integers and scalars count as tensors of one element."""
    parts = [Tensor(torch.tensor([i]), None, [i]) if isinstance(i, int) else i for i in inputs]
    parts = [Tensor(p.data.reshape(1), None, p.known) if p.ndim() == 0 else p for p in parts]
    for other in range(parts[0].ndim()):
        assert other == dim or len({part.dims[other] for part in parts}) == 1
    dims = list(parts[0].dims)
    dims[dim] = -1 if any(part.dims[dim] == -1 for part in parts) else sum(part.dims[dim] for part in parts)
    known = None
    if all(part.known is not None for part in parts):
        known = [value for part in parts for value in part.known or ()]
    return Tensor(torch.cat([part.data for part in parts], dim), dims, known)


def split(tensor: Tensor, split_size_or_sections: Sequence[int], dim: int = 0) -> list[Tensor]:
    """functional.py, split: sections along a dimension that is not dynamic, and which they must fill."""
    assert tensor.dims[dim] == sum(split_size_or_sections)
    dims = list(tensor.dims)
    parts = []
    for part, size in zip(
        torch.split(tensor.data, list(split_size_or_sections), dim), split_size_or_sections, strict=True
    ):
        dims[dim] = size
        parts.append(Tensor(part, dims))
    return parts


def slice(input: Tensor, starts: Sequence[int], sizes: Tensor) -> Tensor:
    """functional.py, slice: `sizes` (not ends) elements from `starts` on, in each dimension."""
    assert sizes.known is not None
    data = input.data
    for dim, (start, size) in enumerate(zip(starts, sizes.data.tolist(), strict=True)):
        data = data.narrow(dim, start, size)
    return Tensor(data, sizes.known)


def expand(input: Tensor, expand_shape: Tensor) -> Tensor:
    """functional.py, expand: dimensions of size 1 are repeated; `expand_shape` must be a tensor."""
    assert isinstance(expand_shape, Tensor)
    assert expand_shape.known is not None
    return Tensor(input.data.expand(expand_shape.data.tolist()), expand_shape.known)


def constant(ndarray: np.ndarray[Any, np.dtype[Any]]) -> Tensor:
    """functional.py, constant: a tensor of the array's values and type; NumPy has no bfloat16."""
    return Tensor(torch.from_numpy(ndarray))


class PositionEmbeddingType(enum.Enum):
    """functional.py, PositionEmbeddingType: config.json names it as a string."""

    rope_gptj = "rope_gptj"
    rope_gpt_neox = "rope_gpt_neox"


class RotaryScalingType(enum.Enum):
    """functional.py, RotaryScalingType."""

    none = 0


class AttentionMaskType(enum.Enum):
    """functional.py, AttentionMaskType, exported by layers."""

    causal = 1


class Cache:
    """The paged KV pool, unpaged: keys and values [tokens, heads, head] by layer and request, as stored."""

    def __init__(self) -> None:
        self.stored: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}


def gpt_attention(
    *,
    qkv: Tensor,
    past_key_value: Any,
    sequence_length: Any,
    host_past_key_value_lengths: Any,
    host_max_attention_window_sizes: Any,
    host_sink_token_length: Any,
    context_lengths: Any,
    cache_indirection: Any,
    host_request_types: Any,
    layer_idx: int,
    num_heads: int,
    num_kv_heads: int,
    hidden_size_per_head: int,
    q_scaling: float,
    rotary_embedding_dim: int = 0,
    rotary_embedding_base: float = 10000.0,
    rotary_embedding_scale_type: RotaryScalingType = RotaryScalingType.none,
    rotary_embedding_scale: float = 1.0,
    rotary_embedding_max_positions: int = 1024,
    position_embedding_type: PositionEmbeddingType | None = None,
    rotary_inv_freq: Tensor | None = None,
    rotary_cos_sin: Tensor | None = None,
    kv_orig_quant_scale: Tensor | None = None,
    kv_quant_orig_scale: Tensor | None = None,
    kv_cache_quant_mode: Any = None,
    max_context_length: int | None = None,
    mask_type: AttentionMaskType = AttentionMaskType.causal,
    tp_size: int = 1,
    tp_rank: int = 0,
    kv_cache_block_offsets: Any = None,
    host_kv_cache_block_offsets: Any = None,
    host_kv_cache_pool_pointers: Any = None,
    host_kv_cache_pool_mapping: Any = None,
    host_context_lengths: Any = None,
    use_cache: bool = True,
    spec_decoding_max_generation_length: int = 0,
    host_runtime_perf_knobs: Any = None,
    host_context_progress: Any = None,
    num_kv_heads_origin: int = -1,
) -> tuple[Tensor, Any]:
    """functional.py, gpt_attention, and docs/source/advanced/gpt-attention.md.

    `qkv` [tokens, (heads + 2 * kv_heads) * head] packs the tokens of all requests, those in their context
    phase first; each row is all query heads, all key heads, all value heads. Positions are counted from
    the requests' cached lengths; the first `rotary_embedding_dim` elements of query and key heads are
    rotated in adjacent pairs (rope_gptj) by the table `rotary_cos_sin`, float2 (cos, sin) [position,
    pair]. Scores are scaled by 1 / (q_scaling * sqrt(head)) and masked causally. Keys (rotated) and
    values go to the cache, with an int8 cache as round(x * kv_orig_quant_scale) in -128..127, and come
    back times kv_quant_orig_scale; the tokens of the step itself are attended unrounded. Returns
    [tokens, heads * head] in packed mode, and the cache.
    """
    assert position_embedding_type is PositionEmbeddingType.rope_gptj
    assert rotary_embedding_scale_type is RotaryScalingType.none
    assert rotary_embedding_scale == 1.0
    assert rotary_embedding_dim > 0
    assert mask_type is AttentionMaskType.causal
    assert (tp_size, tp_rank) == (1, 0)
    assert num_kv_heads == num_kv_heads_origin == num_heads
    assert isinstance(max_context_length, int)
    assert rotary_inv_freq is not None
    assert rotary_cos_sin is not None
    for given in (host_max_attention_window_sizes, host_sink_token_length, host_context_lengths):
        assert given is not None
    head, tokens = hidden_size_per_head, len(qkv.data)
    assert qkv.dims == (-1, 3 * num_heads * head)
    frequencies = rotary_embedding_base ** (-torch.arange(0, rotary_embedding_dim, 2) / rotary_embedding_dim)
    assert torch.allclose(rotary_inv_freq.data, frequencies)
    table = rotary_cos_sin.data.reshape(rotary_embedding_max_positions, rotary_embedding_dim // 2, 2)
    assert (kv_orig_quant_scale is None) == (kv_quant_orig_scale is None) == (not kv_cache_quant_mode.int8_kv)

    query, key, value = qkv.data.reshape(tokens, 3, num_heads, head).unbind(1)
    output, first = [], 0
    for request, (kind, cached) in enumerate(
        zip(host_request_types, host_past_key_value_lengths, strict=True)
    ):
        count = host_context_lengths[request] if kind == 0 else 1
        rows = range(first, first + count)
        first += count
        place = (layer_idx, kv_cache_block_offsets[request])
        past = host_kv_cache_pool_pointers.stored.get(place)
        start = 0 if past is None else len(past[0])
        assert cached == start
        assert sequence_length[request] == start + count
        turned = [_rotated(x[list(rows)], table[start : start + count]) for x in (query, key)]
        fresh = (turned[1], value[list(rows)])
        keys, values = fresh
        stored = tuple(_quantised(x, kv_orig_quant_scale) for x in fresh)
        if past is not None:
            read = [x if kv_quant_orig_scale is None else x * kv_quant_orig_scale.data for x in past]
            keys, values = torch.cat([read[0], keys]), torch.cat([read[1], values])
            stored = tuple(torch.cat(pair) for pair in zip(past, stored, strict=True))
        if use_cache:
            host_kv_cache_pool_pointers.stored[place] = stored
        scores = torch.einsum("qhd,khd->hqk", turned[0], keys) / (q_scaling * head**0.5)
        later = torch.arange(len(keys)) > torch.arange(start, len(keys))[:, None]
        probabilities = scores.masked_fill(later, -torch.inf).softmax(-1)
        output.append(torch.einsum("hqk,khd->qhd", probabilities, values).flatten(1))
    assert first == tokens
    return Tensor(torch.cat(output), (-1, num_heads * head)), past_key_value


def _rotated(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """cpp/tensorrt_llm/kernels, rotary_embedding_transform of GPT-J style: pairs (2i, 2i + 1)."""
    pairs = x.clone()
    dim = 2 * table.shape[1]
    cos, sin = table[:, None, :, 0], table[:, None, :, 1]
    pairs[..., 0:dim:2] = x[..., 0:dim:2] * cos - x[..., 1:dim:2] * sin
    pairs[..., 1:dim:2] = x[..., 1:dim:2] * cos + x[..., 0:dim:2] * sin
    return pairs


def _quantised(x: torch.Tensor, scale: Tensor | None) -> torch.Tensor:
    return x if scale is None else (x * scale.data).round().clamp(-128, 127)
