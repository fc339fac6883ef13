"""Youtu-LLM as a network of TensorRT-LLM, for trtllm-build's --model_cls_file (class YoutuForCausalLM).

TensorRT-LLM 1.2 executes this file, so it stands alone. It registers its class in MODEL_MAP when imported,
where the checkpoint's config.json is looked up. The attention plugin of TensorRT-LLM no longer takes latent
attention (MLA), so keys and values are expanded to plain multi-head attention, with heads of
qk_nope_head_dim + qk_rope_head_dim (192): in every head the rotated elements come first, and values are
padded with zeros. Weights come by name and shape, as build.tensorrt_llm.tensors lays them out.

For one GPU, without LoRA, prompt tuning, speculative decoding or cross attention.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tensorrt_llm.functional import Tensor, concat, constant, expand, gpt_attention, shape, slice, split
from tensorrt_llm.layers import (
    Attention,
    AttentionMaskType,
    AttentionParams,
    ColumnLinear,
    Embedding,
    GatedMLP,
    KeyValueCacheParams,
    RmsNorm,
    RowLinear,
)
from tensorrt_llm.models import MODEL_MAP
from tensorrt_llm.models.modeling_utils import DecoderLayerList, DecoderModelForCausalLM, PretrainedConfig
from tensorrt_llm.module import Module

# The default of transformers' YoutuRMSNorm, which its q_a and kv_a norms keep whatever rms_norm_eps says.
LATENT_NORM_EPS = 1e-6


class YoutuAttention(Attention):
    """Latent attention computed as multi-head attention.

    A subclass of Attention because TensorRT-LLM gives the scales of an int8 KV cache to instances of it.
    """

    def __init__(self, config: PretrainedConfig, layer_idx: int) -> None:
        rope = config.qk_rope_head_dim
        head = config.qk_nope_head_dim + rope
        super().__init__(
            local_layer_idx=layer_idx,
            hidden_size=config.hidden_size,
            num_attention_heads=config.num_attention_heads,
            num_kv_heads=config.num_attention_heads,
            attention_head_size=head,
            max_position_embeddings=config.max_position_embeddings,
            attention_mask_type=AttentionMaskType.causal,
            bias=False,
            dtype=config.dtype,
            position_embedding_type=config.position_embedding_type,
            rotary_embedding_base=config.rotary_base,
            rotary_embedding_percentage=rope / head,
            quant_mode=config.quant_mode,
            enable_qkv=False,
        )
        self.rotary_embedding_dim = rope  # the base class rounds head * (rope / head) down
        self.q_lora_rank = config.q_lora_rank
        self.kv_lora_rank = config.kv_lora_rank
        self.qk_nope_head_dim = config.qk_nope_head_dim
        self.qk_rope_head_dim = rope
        self.v_head_dim = config.v_head_dim

        heads, dtype = config.num_attention_heads, config.dtype
        latent = config.q_lora_rank + config.kv_lora_rank + rope
        self.fused_a_proj = ColumnLinear(config.hidden_size, latent, bias=False, dtype=dtype)
        self.q_a_layernorm = RmsNorm(config.q_lora_rank, eps=LATENT_NORM_EPS, dtype=dtype)
        self.kv_a_layernorm = RmsNorm(config.kv_lora_rank, eps=LATENT_NORM_EPS, dtype=dtype)
        self.q_b_proj = ColumnLinear(config.q_lora_rank, heads * head, bias=False, dtype=dtype)
        keys_and_values = heads * (config.qk_nope_head_dim + config.v_head_dim)
        self.kv_b_proj = ColumnLinear(config.kv_lora_rank, keys_and_values, bias=False, dtype=dtype)
        # takes the values without their padding, unlike the one of the base class
        self.dense = RowLinear(heads * config.v_head_dim, config.hidden_size, bias=False, dtype=dtype)

    def forward(
        self,
        hidden_states: Tensor,
        *,
        use_cache: bool = False,
        kv_cache_params: KeyValueCacheParams,
        attention_params: AttentionParams,
    ) -> Any:
        """[tokens, hidden] to [tokens, hidden], and the cache with use_cache; tokens are packed."""
        if hidden_states.ndim() != 2:
            raise ValueError("Youtu needs --remove_input_padding enable")
        query, key, value = self.heads(hidden_states)
        size = self.num_attention_heads * self.attention_head_size
        packed = concat([part.view([-1, size]) for part in (query, key, value)], dim=1)

        quantised = self.kv_cache_scaling_factor is not None
        context, present = gpt_attention(
            qkv=packed,
            past_key_value=kv_cache_params.get_first_past_key_value(),
            sequence_length=attention_params.sequence_length,
            host_past_key_value_lengths=kv_cache_params.host_past_key_value_lengths,
            host_max_attention_window_sizes=kv_cache_params.host_max_attention_window_sizes,
            host_sink_token_length=kv_cache_params.host_sink_token_length,
            context_lengths=attention_params.context_lengths,
            cache_indirection=kv_cache_params.cache_indirection,
            host_request_types=attention_params.host_request_types,
            layer_idx=self.local_layer_idx,
            num_heads=self.num_attention_heads,
            num_kv_heads=self.num_attention_kv_heads,
            num_kv_heads_origin=self.num_kv_heads,
            hidden_size_per_head=self.attention_head_size,
            q_scaling=self.q_scaling,
            rotary_embedding_dim=self.rotary_embedding_dim,
            rotary_embedding_base=self.rotary_embedding_base,
            rotary_embedding_scale_type=self.rotary_embedding_scale_type,
            rotary_embedding_scale=self.rotary_embedding_scale,
            rotary_embedding_max_positions=self.max_position_embeddings,
            position_embedding_type=self.position_embedding_type,
            rotary_inv_freq=attention_params.rotary_inv_freq,
            rotary_cos_sin=attention_params.embed_positions_for_gpt_attention,
            kv_orig_quant_scale=self.kv_cache_rcp_scaling_factor.value if quantised else None,
            kv_quant_orig_scale=self.kv_cache_scaling_factor.value if quantised else None,
            kv_cache_quant_mode=self.quant_mode,
            max_context_length=attention_params.max_context_length,
            mask_type=self.attention_mask_type,
            tp_size=self.tp_size,
            tp_rank=self.tp_rank,
            kv_cache_block_offsets=kv_cache_params.kv_cache_block_offsets,
            host_kv_cache_block_offsets=kv_cache_params.host_kv_cache_block_offsets,
            host_kv_cache_pool_pointers=kv_cache_params.host_kv_cache_pool_pointers,
            host_kv_cache_pool_mapping=kv_cache_params.host_kv_cache_pool_mapping,
            host_context_lengths=attention_params.host_context_lengths,
            use_cache=use_cache,
            spec_decoding_max_generation_length=1,  # what the base class passes without speculation
            host_runtime_perf_knobs=attention_params.host_runtime_perf_knobs,
            host_context_progress=attention_params.host_context_progress,
        )

        padded = context.view([-1, self.num_attention_heads, self.attention_head_size])
        kept = concat([shape(padded, 0), self.num_attention_heads, self.v_head_dim])
        values = slice(padded, [0, 0, 0], kept)
        output = self.dense(values.view([-1, self.num_attention_heads * self.v_head_dim]))
        return (output, present) if use_cache else output

    def heads(self, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each [tokens, heads, head]: [rope, nope], [rope, nope] and [value, zeros]."""
        heads, head, nope = self.num_attention_heads, self.attention_head_size, self.qk_nope_head_dim
        rope, v = self.qk_rope_head_dim, self.v_head_dim
        latent = split(self.fused_a_proj(hidden_states), [self.q_lora_rank, self.kv_lora_rank, rope], dim=1)
        query = self.q_b_proj(self.q_a_layernorm(latent[0])).view([-1, heads, head])
        up = split(self.kv_b_proj(self.kv_a_layernorm(latent[1])), [heads * nope, heads * v], dim=1)
        key_nope, value = up[0].view([-1, heads, nope]), up[1].view([-1, heads, v])

        tokens = shape(hidden_states, 0)
        # one rotated key serves all heads
        key_rope = expand(latent[2].view([-1, 1, rope]), concat([tokens, heads, rope]))
        key = concat([key_rope, key_nope], dim=2)
        if head > v:
            zeros = constant(np.zeros((1, 1, head - v), np.float32)).cast(self.dtype)
            value = concat([value, expand(zeros, concat([tokens, heads, head - v]))], dim=2)
        return query, key, value


class YoutuDecoderLayer(Module):
    """Attention and a SiLU-gated MLP, each behind a norm and added to what came in."""

    def __init__(self, config: PretrainedConfig, layer_idx: int) -> None:
        super().__init__()
        norm = {"normalized_shape": config.hidden_size, "eps": config.norm_epsilon, "dtype": config.dtype}
        self.input_layernorm = RmsNorm(**norm)
        self.attention = YoutuAttention(config, layer_idx)
        self.post_layernorm = RmsNorm(**norm)
        self.mlp = GatedMLP(
            hidden_size=config.hidden_size,
            ffn_hidden_size=config.intermediate_size,
            hidden_act=config.hidden_act,
            bias=False,
            dtype=config.dtype,
            quant_mode=config.quant_mode,
        )

    def forward(
        self,
        hidden_states: Tensor,
        *,
        use_cache: bool = False,
        attention_mask: Tensor | None = None,
        kv_cache_params: KeyValueCacheParams,
        attention_params: AttentionParams,
    ) -> Any:
        if attention_mask is not None:
            raise ValueError("Youtu takes no attention mask: its attention is causal")
        attended = self.attention(
            self.input_layernorm(hidden_states),
            use_cache=use_cache,
            kv_cache_params=kv_cache_params,
            attention_params=attention_params,
        )
        present = None
        if use_cache:
            attended, present = attended
        hidden_states = hidden_states + attended
        hidden_states = hidden_states + self.mlp(self.post_layernorm(hidden_states))
        return (hidden_states, present) if use_cache else hidden_states


class YoutuModel(Module):
    """Embedding, layers, norm."""

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__()
        self.vocab_embedding = Embedding(config.vocab_size, config.hidden_size, dtype=config.dtype)
        self.layers = DecoderLayerList(YoutuDecoderLayer, config)
        self.ln_f = RmsNorm(normalized_shape=config.hidden_size, eps=config.norm_epsilon, dtype=config.dtype)

    def forward(
        self,
        input_ids: Tensor,
        *,
        position_ids: Tensor | None = None,
        use_cache: bool = False,
        attention_mask: Tensor | None = None,
        kv_cache_params: KeyValueCacheParams,
        attention_params: AttentionParams,
    ) -> Any:
        # the attention plugin counts positions itself
        hidden_states = self.layers.forward(
            self.vocab_embedding(input_ids),
            use_cache=use_cache,
            attention_mask=attention_mask,
            kv_cache_params=kv_cache_params,
            attention_params=attention_params,
        )
        if use_cache:
            hidden_states, presents = hidden_states
            return self.ln_f(hidden_states), tuple(presents)
        return self.ln_f(hidden_states)


class YoutuForCausalLM(DecoderModelForCausalLM):
    """The network; its head shares the embedding's table when the checkpoint has no lm_head.weight."""

    def __init__(self, config: PretrainedConfig) -> None:
        if config.mapping.world_size != 1:
            raise ValueError(f"Youtu is built for one GPU, found world_size {config.mapping.world_size}")
        head = ColumnLinear(config.hidden_size, config.vocab_size, bias=False, dtype=config.dtype)
        super().__init__(config, YoutuModel(config), head)


MODEL_MAP["YoutuForCausalLM"] = YoutuForCausalLM
