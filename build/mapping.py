"""Where each weight and each number of a Youtu checkpoint goes in a GGUF file of llama.cpp's "deepseek2".

The latent attention is written absorbed: kv_b_proj is split into attn_k_b and attn_v_b, so that llama.cpp's
cache holds latent vectors only. This module decides; build.checkpoint reads, build.convert writes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import gguf
import numpy as np
from gguf import GGMLQuantizationType as GGML

from build.checkpoint import F32, Weights
from build.config import LATENT_NORM_EPS, Decoder, Shape
from build.errors import BuildError
from build.gguf_writing import TensorPlan
from build.tokenizer import TokenizerFacts

WeightType = Literal["q8_0", "f16", "bf16", "f32"]
Chunks = Callable[[], Iterator[F32]]

FILE_TYPES = {
    "q8_0": (GGML.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "f16": (GGML.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (GGML.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "f32": (GGML.F32, gguf.LlamaFileType.ALL_F32),
}


@dataclass(frozen=True)
class GgufTensor(TensorPlan):
    """`chunks` yields its rows in order as f32 [any, shape[-1]]."""

    chunks: Chunks


def refuse_misread(shape: Shape) -> None:
    """llama.cpp knows DeepSeek's "lite" models, which have a full-rank query, by their layer count alone."""
    layers, vocab = shape.num_hidden_layers, shape.vocab_size
    if shape.q_lora_rank is not None and (layers in (26, 27) or (layers == 48 and vocab == 128256)):
        raise BuildError(
            f"num_hidden_layers {layers} with q_lora_rank {shape.q_lora_rank} and vocab_size {vocab} fail: "
            "llama.cpp takes models with 26, 27 (with 128256 tokens also 48) layers as having no q_lora_rank"
        )


def plan(shape: Shape, source: Weights, kind: GGML) -> list[GgufTensor]:
    """Every tensor of the GGUF in the order of the file; matrices as `kind`, norms as f32.

    Q8_0 packs 32 values of a row: a matrix whose rows are not whole blocks is planned as f16.
    """
    rows, stored = _Rows(shape, source), shape.tensors()
    tensors: list[GgufTensor] = []

    def add(name: str, dims: tuple[int, ...], chunks: Chunks) -> None:
        chosen = GGML.F32 if len(dims) == 1 else kind
        if chosen == GGML.Q8_0 and dims[-1] % 32:
            chosen = GGML.F16
        tensors.append(GgufTensor(name, dims, chosen, chunks))

    def same(name: str, hf_name: str) -> None:
        add(name, stored[hf_name], partial(rows.plain, hf_name))

    def changed(name: str, hf_name: str, how: Callable[[str], Iterator[F32]]) -> None:
        add(name, stored[hf_name], partial(how, hf_name))

    heads, rank = shape.num_attention_heads, shape.kv_lora_rank
    same("token_embd.weight", "model.embed_tokens.weight")
    for n in range(shape.num_hidden_layers):
        blk, layer, attn = f"blk.{n}", f"model.layers.{n}", f"model.layers.{n}.self_attn"
        same(f"{blk}.attn_norm.weight", f"{layer}.input_layernorm.weight")
        if shape.q_lora_rank is None:
            changed(f"{blk}.attn_q.weight", f"{attn}.q_proj.weight", rows.query)
        else:
            changed(f"{blk}.attn_q_a.weight", f"{attn}.q_a_proj.weight", rows.query_latent)
            same(f"{blk}.attn_q_a_norm.weight", f"{attn}.q_a_layernorm.weight")
            changed(f"{blk}.attn_q_b.weight", f"{attn}.q_b_proj.weight", rows.query)
        changed(f"{blk}.attn_kv_a_mqa.weight", f"{attn}.kv_a_proj_with_mqa.weight", rows.key_value_latent)
        same(f"{blk}.attn_kv_a_norm.weight", f"{attn}.kv_a_layernorm.weight")
        kv_b = f"{attn}.kv_b_proj.weight"
        add(f"{blk}.attn_k_b.weight", (heads, rank, shape.qk_nope_head_dim), partial(rows.key_up, kv_b))
        add(f"{blk}.attn_v_b.weight", (heads, shape.v_head_dim, rank), partial(rows.value_up, kv_b))
        same(f"{blk}.attn_output.weight", f"{attn}.o_proj.weight")
        same(f"{blk}.ffn_norm.weight", f"{layer}.post_attention_layernorm.weight")
        for part in ("gate", "up", "down"):
            same(f"{blk}.ffn_{part}.weight", f"{layer}.mlp.{part}_proj.weight")
    same("output_norm.weight", "model.norm.weight")
    if not shape.tie_word_embeddings:
        same("output.weight", "lm_head.weight")
    return tensors


def dimensions(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of the GGUF, in the order of the file, for callers without weights to
    map.
    """
    unread = cast("Weights", None)
    return {tensor.name: tensor.shape for tensor in plan(shape, unread, GGML.F32)}


class _Rows:
    """The rows of each tensor as llama.cpp wants them, a chunk at a time."""

    def __init__(self, shape: Shape, source: Weights) -> None:
        self._shape, self._source = shape, source
        # llama.cpp has one epsilon for all norms. x / sqrt(mean(x^2) + e) stays the same when x is scaled by
        # s and e by s^2: so s goes into the rows that feed the latent norms, and the result is exact.
        self._fold = np.float32(latent_scale(shape))
        # llama.cpp rotates the pairs (2i, 2i + 1); without rope_interleave it is (i, i + half).
        half = shape.qk_rope_head_dim // 2
        order = np.arange(shape.qk_rope_head_dim)
        self._pairs = order if shape.rope_interleave else order.reshape(2, half).T.reshape(-1)

    def plain(self, name: str) -> Iterator[F32]:
        dims = self._source.tensors[name].shape
        if len(dims) == 1:
            yield self._source.rows(name, 0, dims[0]).reshape(1, -1)
        else:
            yield from self._source.chunks(name)

    def query(self, name: str) -> Iterator[F32]:
        nope, size = self._shape.qk_nope_head_dim, self._shape.qk_head_dim
        order = np.concatenate([np.arange(nope), nope + self._pairs])
        for head in range(self._shape.num_attention_heads):
            yield self._source.rows(name, head * size, (head + 1) * size)[order]

    def query_latent(self, name: str) -> Iterator[F32]:
        for chunk in self._source.chunks(name):
            yield chunk * self._fold

    def key_value_latent(self, name: str) -> Iterator[F32]:
        rank = self._shape.kv_lora_rank
        for chunk in self._source.chunks(name, stop=rank):
            yield chunk * self._fold
        yield self._source.rows(name, rank, rank + self._shape.qk_rope_head_dim)[self._pairs]

    def key_up(self, name: str) -> Iterator[F32]:
        for start in self._kv_heads():
            yield np.ascontiguousarray(self._source.rows(name, start, start + self._shape.qk_nope_head_dim).T)

    def value_up(self, name: str) -> Iterator[F32]:
        for start in self._kv_heads():
            first = start + self._shape.qk_nope_head_dim
            yield self._source.rows(name, first, first + self._shape.v_head_dim)

    def _kv_heads(self) -> range:
        size = self._shape.qk_nope_head_dim + self._shape.v_head_dim
        return range(0, self._shape.num_attention_heads * size, size)


def latent_scale(shape: Shape) -> float:
    """The factor on the latent projections that makes up for their norms' epsilon; 1 for the usual 1e-6."""
    return math.sqrt(shape.rms_norm_eps / LATENT_NORM_EPS)


def describe(
    writer: gguf.GGUFWriter,
    shape: Shape,
    name: str,
    file_type: gguf.LlamaFileType,
    tokenizer: TokenizerFacts | None,
) -> None:
    """Put the metadata of model and tokenizer into `writer`; without a tokenizer the vocabulary is "none"."""
    describe_decoder(writer, shape, name, file_type)
    writer.add_leading_dense_block_count(shape.num_hidden_layers)
    # must be there, although no layer has experts
    writer.add_expert_feed_forward_length(shape.intermediate_size)
    writer.add_expert_shared_count(0)
    writer.add_head_count_kv(1)
    writer.add_q_lora_rank(shape.q_lora_rank or 0)
    writer.add_kv_lora_rank(shape.kv_lora_rank)
    writer.add_key_length(shape.kv_lora_rank + shape.qk_rope_head_dim)
    writer.add_value_length(shape.kv_lora_rank)
    writer.add_key_length_mla(shape.qk_head_dim)
    writer.add_value_length_mla(shape.v_head_dim)
    writer.add_rope_dimension_count(shape.qk_rope_head_dim)
    describe_tokenizer(writer, tokenizer)


def describe_decoder(
    writer: gguf.GGUFWriter, shape: Decoder, name: str, file_type: gguf.LlamaFileType
) -> None:
    """Put what every architecture has into `writer`."""
    writer.add_name(name)
    writer.add_type("model")
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_block_count(shape.num_hidden_layers)
    writer.add_context_length(shape.max_position_embeddings)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_vocab_size(shape.vocab_size)
    writer.add_head_count(shape.num_attention_heads)
    writer.add_layer_norm_rms_eps(shape.rms_norm_eps)
    writer.add_rope_freq_base(shape.rope_theta)


def describe_tokenizer(writer: gguf.GGUFWriter, tokenizer: TokenizerFacts | None) -> None:
    """Put the vocabulary into `writer`; without a tokenizer it is "none"."""
    if tokenizer is None:
        writer.add_tokenizer_model("none")
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.pre)
    writer.add_token_list(tokenizer.tokens)
    writer.add_token_types(tokenizer.types)
    # llama.cpp wants the key; a vocabulary without merges gets one that can never apply
    writer.add_token_merges(tokenizer.merges or ["\n \n"])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.eos_token_id is not None:
        writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(tokenizer.add_bos)
    writer.add_add_eos_token(tokenizer.add_eos)
    templates = tokenizer.templates
    if templates.default is not None:
        writer.add_chat_template(templates.default)
    if templates.tool_use is not None:
        writer.add_string("tokenizer.chat_template.tool_use", templates.tool_use)
