"""Which tensors a TensorRT-LLM checkpoint of Youtu has, and from which rows of the original each is made.

The rows of the rotary embedding come first in every head, as plain pairs: the attention plugin rotates the
first elements of a head in pairs (rope_gptj). Names end in what trtllm-build's int8 quantiser looks for. This
module decides; build.checkpoint reads, build.tensorrt_llm.convert writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from build.checkpoint import F32, ITEM_BYTES, Weights
from build.config import Shape
from build.errors import BuildError

Dtype = Literal["bfloat16", "float16"]
Chunks = Callable[[], Iterator[F32]]

STORED = {"bfloat16": "BF16", "float16": "F16"}  # TensorRT-LLM's name: safetensors' name
# Head sizes of the plugin's generation kernels (MMHA_SUPPORTED_HEAD_SIZES of TensorRT-LLM 1.2).
HEAD_SIZES = (32, 48, 64, 80, 96, 104, 112, 128, 144, 160, 192, 224, 256)


@dataclass(frozen=True)
class Tensor:
    """One tensor to write: `chunks` yields its values in order as f32; `stored` is their type in the file."""

    name: str
    shape: tuple[int, ...]
    stored: str
    chunks: Chunks

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.stored]


def refuse_unsupported(shape: Shape) -> None:
    """BuildError for what the CPU engine can run and this model class cannot."""
    if shape.q_lora_rank is None:
        raise BuildError("q_lora_rank must be a number for TensorRT-LLM, found null (a full-rank query)")
    if shape.qk_head_dim not in HEAD_SIZES:
        raise BuildError(
            f"qk_nope_head_dim + qk_rope_head_dim is {shape.qk_head_dim}: TensorRT-LLM's attention takes "
            f"heads of {', '.join(map(str, HEAD_SIZES))}"
        )
    if shape.v_head_dim > shape.qk_head_dim:
        raise BuildError(
            f"v_head_dim {shape.v_head_dim} must be at most {shape.qk_head_dim}, the size of a key head"
        )


def plan(
    shape: Shape, source: Weights, dtype: Dtype, kv_scales: Sequence[float] | None = None
) -> list[Tensor]:
    """Every tensor of the checkpoint; weights as `dtype`, the scales of an int8 KV cache, if any, as f32 [1].

    The scales come first, so that the file keeps each of them on a multiple of its size.
    """
    rows, d, heads = _Rows(shape, source), shape.hidden_size, shape.num_attention_heads
    rank, q_rank = shape.kv_lora_rank, shape.q_lora_rank or 0
    tensors: list[Tensor] = []

    def add(name: str, dims: tuple[int, ...], chunks: Chunks) -> None:
        tensors.append(Tensor(name, dims, STORED[dtype], chunks))

    def same(name: str, hf_name: str) -> None:
        add(name, source.tensors[hf_name].shape, lambda: source.chunks(hf_name))

    for n, scale in enumerate(kv_scales or ()):
        one = partial(_single, scale)
        tensors.append(Tensor(f"transformer.layers.{n}.attention.kv_cache_scaling_factor", (1,), "F32", one))

    same("transformer.vocab_embedding.weight", "model.embed_tokens.weight")
    for n in range(shape.num_hidden_layers):
        to, layer = f"transformer.layers.{n}", f"model.layers.{n}"
        attention, attn = f"{to}.attention", f"{layer}.self_attn"
        same(f"{to}.input_layernorm.weight", f"{layer}.input_layernorm.weight")
        fused = (q_rank + rank + shape.qk_rope_head_dim, d)
        add(f"{attention}.fused_a_proj.weight", fused, partial(rows.fused_a, attn))
        same(f"{attention}.q_a_layernorm.weight", f"{attn}.q_a_layernorm.weight")
        same(f"{attention}.kv_a_layernorm.weight", f"{attn}.kv_a_layernorm.weight")
        add(f"{attention}.q_b_proj.weight", (heads * shape.qk_head_dim, q_rank), partial(rows.q_b, attn))
        up = (heads * (shape.qk_nope_head_dim + shape.v_head_dim), rank)
        add(f"{attention}.kv_b_proj.weight", up, partial(rows.kv_b, attn))
        same(f"{attention}.dense.weight", f"{attn}.o_proj.weight")
        same(f"{to}.post_layernorm.weight", f"{layer}.post_attention_layernorm.weight")
        # GatedMLP is proj(act(fc x) * gate x): its fc is the projection that others call the gate
        for name, hf_name in (("fc", "gate_proj"), ("gate", "up_proj"), ("proj", "down_proj")):
            same(f"{to}.mlp.{name}.weight", f"{layer}.mlp.{hf_name}.weight")
    same("transformer.ln_f.weight", "model.norm.weight")
    if not shape.tie_word_embeddings:  # left out when tied: the engine then shares the table
        same("lm_head.weight", "lm_head.weight")
    return tensors


def odd_modules(tensors: list[Tensor]) -> list[str]:
    """Names of the linear modules of a layer that int8 cannot take, none in the published model.

    TensorRT-LLM pads an int8 matrix to multiples of 64 and then refuses the weights, which are not padded.
    """
    layer = "transformer.layers.0."
    return [
        tensor.name.removeprefix(layer).removesuffix(".weight")
        for tensor in tensors
        if tensor.name.startswith(layer) and len(tensor.shape) == 2 and any(n % 64 for n in tensor.shape)
    ]


def encode(chunk: F32, tensor: Tensor) -> npt.NDArray[np.generic]:
    """The values as stored, rounded to nearest, ties to even; BuildError when f16 cannot hold it."""
    if tensor.stored == "F32":
        return chunk.astype("<f4")
    if tensor.stored == "F16":
        largest = np.abs(chunk).max(initial=0)
        if largest > np.finfo(np.float16).max:
            raise BuildError(
                f"tensor {tensor.name} holds {largest:g}, which does not fit float16: use bfloat16"
            )
        return chunk.astype("<f2")
    bits = np.ascontiguousarray(chunk).view(np.uint32)
    return ((bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> 16).astype("<u2")


def _single(value: float) -> Iterator[F32]:
    yield np.array([value], np.float32)


class _Rows:
    """The rows of each tensor as the model class wants them, a chunk at a time."""

    def __init__(self, shape: Shape, source: Weights) -> None:
        self._shape, self._source = shape, source
        # The plugin rotates the pairs (2i, 2i + 1); without rope_interleave it is (i, i + half).
        order = np.arange(shape.qk_rope_head_dim)
        self._pairs = order if shape.rope_interleave else order.reshape(2, -1).T.reshape(-1)

    def fused_a(self, attn: str) -> Iterator[F32]:
        """What the hidden state feeds, in one matrix: query latent, key and value latent, rotated key."""
        rank, name = self._shape.kv_lora_rank, f"{attn}.kv_a_proj_with_mqa.weight"
        yield from self._source.chunks(f"{attn}.q_a_proj.weight")
        yield from self._source.chunks(name, stop=rank)
        yield self._source.rows(name, rank, rank + self._shape.qk_rope_head_dim)[self._pairs]

    def q_b(self, attn: str) -> Iterator[F32]:
        nope, size = self._shape.qk_nope_head_dim, self._shape.qk_head_dim
        order = np.concatenate([nope + self._pairs, np.arange(nope)])
        for start in range(0, self._shape.num_attention_heads * size, size):
            yield self._source.rows(f"{attn}.q_b_proj.weight", start, start + size)[order]

    def kv_b(self, attn: str) -> Iterator[F32]:
        """The keys of all heads, then the values of all heads; the original has them head by head."""
        nope, v = self._shape.qk_nope_head_dim, self._shape.v_head_dim
        for offset, length in ((0, nope), (nope, v)):
            for head in range(self._shape.num_attention_heads):
                start = head * (nope + v) + offset
                yield self._source.rows(f"{attn}.kv_b_proj.weight", start, start + length)
