"""Stand-ins of tensorrt_llm/models/modeling_utils.py: config, list of layers, base of a model."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import torch

from tests.build.tensorrt_llm.stand_in.functional import PositionEmbeddingType, Tensor
from tests.build.tensorrt_llm.stand_in.layers import Attention, Module, Parameter


class QuantConfig:
    """models/modeling_utils.py, QuantConfig.from_dict: a key it does not know is an error."""

    def __init__(
        self,
        quant_algo: str | None = None,
        kv_cache_quant_algo: str | None = None,
        exclude_modules: list[str] | None = None,
    ) -> None:
        self.quant_algo, self.exclude_modules = quant_algo, exclude_modules
        self.int8_kv = kv_cache_quant_algo == "INT8"


class PretrainedConfig:
    """models/modeling_utils.py, PretrainedConfig: named arguments, any others become attributes too.

    from_dict looks the class up in MODEL_MAP by `architecture`. `rotary_dim` gives rotary_embedding_dim.
    """

    def __init__(
        self,
        *,
        architecture: str,
        dtype: str,
        position_embedding_type: str,
        mapping: dict[str, int],
        quantization: dict[str, Any],
        **others: Any,
    ) -> None:
        self.architecture, self.dtype = architecture, dtype
        self.position_embedding_type = PositionEmbeddingType(position_embedding_type)
        self.mapping = types.SimpleNamespace(**mapping)
        self.quantization = self.quant_mode = QuantConfig(**quantization)
        self.__dict__.update(others)
        self.rotary_embedding_dim = others["rotary_dim"]


class DecoderLayerList(Module):
    """models/modeling_utils.py, DecoderLayerList: the layers in order, each given its own past_key_value.

    With use_cache a layer returns (hidden, present), and the list (hidden, presents).
    """

    def __init__(self, cls: type[Module], config: PretrainedConfig) -> None:
        super().__init__()
        for index in range(config.num_hidden_layers):  # type: ignore[attr-defined]
            self._modules[str(index)] = cls(config, index)  # type: ignore[call-arg]

    def forward(
        self,
        hidden_states: Any,
        use_cache: bool = False,
        attention_mask: Any = None,
        kv_cache_params: Any = None,
        attention_params: Any = None,
    ) -> Any:
        presents = []
        for layer in self._modules.values():
            hidden_states = layer(
                hidden_states,
                use_cache=use_cache,
                attention_mask=attention_mask,
                kv_cache_params=kv_cache_params,
                attention_params=attention_params,
            )
            if use_cache:
                hidden_states, present = hidden_states
                presents.append(present)
        return (hidden_states, presents) if use_cache else hidden_states


class DecoderModelForCausalLM(Module):
    """models/modeling_utils.py, DecoderModelForCausalLM and PretrainedModel.

    Makes the rotary tables from config.rotary_base and rotary_dim (layers/attention.py,
    create_attention_const_params) and hands them to the layers; keeps the hidden states at last_token_ids
    (counted from 1) and applies lm_head. After the constructor quantization/quantize.py gives each Attention
    the f32 [1] scales of an int8 cache.
    """

    def __init__(self, config: PretrainedConfig, transformer: Module, lm_head: Module) -> None:
        super().__init__()
        self.config, self.transformer, self.lm_head = config, transformer, lm_head
        given: Any = config
        inverse = given.rotary_base ** (-np.arange(0, given.rotary_dim, 2) / given.rotary_dim)
        angle = np.outer(np.arange(given.max_position_embeddings), inverse)
        self.rotary_inv_freq = Tensor(torch.tensor(inverse, dtype=torch.float32))
        table = np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(1, -1)
        self.embed_positions_for_gpt_attention = Tensor(torch.tensor(table, dtype=torch.float32))
        if config.quantization.int8_kv:
            for _, module in list(self.named_modules()):
                if isinstance(module, Attention):
                    for name in ("kv_cache_scaling_factor", "kv_cache_rcp_scaling_factor"):
                        module.register_parameter(name, Parameter(shape=(1,), dtype="float32"))

    def forward(
        self, input_ids: Tensor, last_token_ids: list[int], kv_cache_params: Any, attention_params: Any
    ) -> Tensor:
        attention_params.rotary_inv_freq = self.rotary_inv_freq
        attention_params.embed_positions_for_gpt_attention = self.embed_positions_for_gpt_attention
        hidden, _ = self.transformer.forward(
            input_ids=input_ids,
            position_ids=None,
            use_cache=True,
            attention_mask=None,
            kv_cache_params=kv_cache_params,
            attention_params=attention_params,
        )
        last = Tensor(hidden.data[[i - 1 for i in last_token_ids]], hidden.dims)
        logits: Tensor = self.lm_head(last)
        return logits

    def load(self, weights: dict[str, torch.Tensor]) -> None:
        """PretrainedModel.load, but stricter: every name must be wanted and given.

        The reciprocal of a cache scale is derived (preprocess_weights). A missing lm_head.weight is allowed:
        share_embedding then takes the embedding's table.
        """
        weights = dict(weights)
        for name in list(weights):
            if name.endswith("kv_cache_scaling_factor"):
                reciprocal = name.replace("kv_cache_scaling_factor", "kv_cache_rcp_scaling_factor")
                weights[reciprocal] = weights[name].reciprocal()
        parameters = dict(self.named_parameters())
        if "lm_head.weight" not in weights:
            weights["lm_head.weight"] = weights["transformer.vocab_embedding.weight"]
        assert set(weights) == set(parameters), set(weights) ^ set(parameters)
        for name, value in weights.items():
            try:
                parameters[name].value = value
            except AssertionError as error:
                raise AssertionError(f"{name}: {error}") from None
