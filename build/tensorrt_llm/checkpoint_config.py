"""config.json of a TensorRT-LLM checkpoint of Youtu; the source of each key is in checkpoint_sources.toml."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from build.config import ARCHITECTURE, Shape

# What TensorRT-LLM leaves in 16 bits when config.json names nothing (quantization/quantize.py).
NEVER_INT8 = (
    *("*lm_head", "*router", "*vocab_embedding", "*position_embedding"),
    *("*block_embedding", "*shared_expert_gate"),
)


def checkpoint_config(
    shape: Shape,
    *,
    dtype: str,
    max_positions: int,
    int8_weights: bool,
    int8_kv: bool,
    in_16_bits: Sequence[str] = (),
) -> dict[str, Any]:
    """The numbers that trtllm-build and the model class need.

    `in_16_bits`: names of linear modules that int8 leaves out in every layer.
    """
    # QuantConfig.from_dict refuses a key it does not know
    quantization: dict[str, Any] = {
        "quant_algo": "W8A16" if int8_weights else None,
        "kv_cache_quant_algo": "INT8" if int8_kv else None,
    }
    if int8_weights and in_16_bits:
        # matched against names of modules in one place of TensorRT-LLM, of their tensors in another
        named = [pattern for name in in_16_bits for pattern in (f"*{name}", f"*{name}.weight")]
        quantization["exclude_modules"] = [*NEVER_INT8, *named]
    return {
        "architecture": ARCHITECTURE,
        "dtype": dtype,
        "logits_dtype": "float32",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_attention_heads,
        "head_size": shape.qk_head_dim,
        "hidden_act": "silu",
        "norm_epsilon": shape.rms_norm_eps,
        "position_embedding_type": "rope_gptj",
        "max_position_embeddings": max_positions,
        "rotary_base": shape.rope_theta,
        "rotary_dim": shape.qk_rope_head_dim,
        "qk_layernorm": False,
        "q_lora_rank": shape.q_lora_rank,
        "kv_lora_rank": shape.kv_lora_rank,
        "qk_nope_head_dim": shape.qk_nope_head_dim,
        "qk_rope_head_dim": shape.qk_rope_head_dim,
        "v_head_dim": shape.v_head_dim,
        "use_parallel_embedding": False,
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1},
        "quantization": quantization,
    }
