"""Stand-ins of tensorrt_llm's module.py, parameter.py and layers/."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from tests.build.tensorrt_llm.stand_in.functional import (
    TYPES,
    AttentionMaskType,
    PositionEmbeddingType,
    RotaryScalingType,
    Tensor,
)


class Parameter:
    """parameter.py, Parameter: a weight of fixed shape and type; assigning another shape is an error."""

    def __init__(
        self,
        value: np.ndarray[Any, np.dtype[Any]] | None = None,
        shape: Sequence[int] | None = None,
        dtype: str | None = None,
    ) -> None:
        assert dtype is not None
        self.dtype = TYPES[dtype]
        self._raw = None if value is None else torch.from_numpy(value)
        self.shape = tuple(shape if shape is not None else np.shape(value))  # type: ignore[arg-type]

    def is_inited(self) -> bool:
        return self._raw is not None

    @property
    def value(self) -> Tensor:
        assert self._raw is not None, "read before it was loaded"
        return Tensor(self._raw.float())

    @value.setter
    def value(self, value: torch.Tensor) -> None:
        assert tuple(value.shape) == self.shape, f"{tuple(value.shape)} given, {self.shape} declared"
        assert value.dtype == self.dtype, f"{value.dtype} given, {self.dtype} declared"
        self._raw = value

    def replace(self, dequantised: torch.Tensor) -> None:
        """quantization/layers.py, WeightOnlyQuantLinear: it multiplies by int8 * scale, given here."""
        assert tuple(dequantised.shape) == self.shape
        self._raw = dequantised


class Module:
    """module.py, Module: parameters and submodules are attributes, named by their path from the top."""

    def __init__(self) -> None:
        self._modules: dict[str, Module] = {}
        self._parameters: dict[str, Parameter | None] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        for kind in ("_parameters", "_modules"):
            if name in self.__dict__.get(kind, {}):
                return self.__dict__[kind][name]
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self._parameters[name] = value
        elif isinstance(value, Module):
            self._modules[name] = value
        else:
            super().__setattr__(name, value)

    def register_parameter(self, name: str, value: Parameter | None) -> None:
        self._parameters[name] = value

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        yield prefix, self
        for name, module in self._modules.items():
            yield from module.named_modules(f"{prefix}.{name}" if prefix else name)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        for prefix, module in self.named_modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    yield f"{prefix}.{name}" if prefix else name, parameter


class ColumnLinear(Module):
    """layers/linear.py, Linear (named ColumnLinear): x @ weight.T, weight [out_features, in_features]."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: str | None = None
    ) -> None:
        super().__init__()
        assert not bias
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(shape=(out_features, in_features), dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.value
        assert x.dims[-1] == self.in_features
        return Tensor(x.data @ weight.data.T, (*x.dims[:-1], self.out_features))


class RowLinear(ColumnLinear):
    """layers/linear.py, RowLinear: on one GPU the same as ColumnLinear."""


class Embedding(Module):
    """layers/embedding.py, Embedding: rows of weight [num_embeddings, embedding_dim]."""

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: str | None = None) -> None:
        super().__init__()
        self.weight = Parameter(shape=(num_embeddings, embedding_dim), dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.value.data[x.data]
        return Tensor(rows, (*x.dims, rows.shape[-1]))


class RmsNorm(Module):
    """layers/normalization.py, RmsNorm, and functional.py, rms_norm: x / sqrt(mean(x^2) + eps) * weight."""

    def __init__(self, normalized_shape: int, eps: float = 1e-6, dtype: str | None = None) -> None:
        super().__init__()
        self.eps = eps
        self.weight = Parameter(shape=(normalized_shape,), dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(x.data.square().mean(-1, keepdim=True) + self.eps)
        return Tensor(x.data * scale * self.weight.value.data, x.dims)


class GatedMLP(Module):
    """layers/mlp.py, GatedMLP: proj(act(fc(x)) * gate(x))."""

    def __init__(
        self,
        hidden_size: int,
        ffn_hidden_size: int,
        hidden_act: str,
        bias: bool = True,
        dtype: str | None = None,
        quant_mode: Any = None,
    ) -> None:
        super().__init__()
        assert hidden_act == "silu"
        assert not bias
        self.fc = ColumnLinear(hidden_size, ffn_hidden_size, bias=bias, dtype=dtype)
        self.proj = RowLinear(ffn_hidden_size, hidden_size, bias=bias, dtype=dtype)
        self.gate = ColumnLinear(hidden_size, ffn_hidden_size, bias=bias, dtype=dtype)

    def forward(self, hidden_states: Tensor) -> Tensor:
        inner, gate = self.fc(hidden_states), self.gate(hidden_states)
        result: Tensor = self.proj(Tensor(torch.nn.functional.silu(inner.data) * gate.data, inner.dims))
        return result


class AttentionParams:
    """layers/attention.py, AttentionParams: what the runtime says of the requests in a step."""

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)


class KeyValueCacheParams:
    """layers/attention.py, KeyValueCacheParams: where the caches are; with paging past_key_value is None."""

    def __init__(self, **given: Any) -> None:
        self.past_key_value: Any = None
        self.__dict__.update(given)

    def get_first_past_key_value(self) -> Any:
        return None if self.past_key_value is None else self.past_key_value[0]


class Attention(Module):
    """layers/attention.py, Attention: keeps its arguments as attributes of these names.

    Declares `dense` for heads of `attention_head_size`, `qkv` only with enable_qkv, and a
    kv_cache_scaling_factor of None, which quantization/quantize.py, kv_cache_quantize, replaces.
    rotary_embedding_dim is the head size times the percentage, rounded down.
    """

    def __init__(
        self,
        *,
        local_layer_idx: int,
        hidden_size: int,
        num_attention_heads: int,
        num_kv_heads: int | None = None,
        max_position_embeddings: int = 1024,
        attention_head_size: int | None = None,
        attention_mask_type: AttentionMaskType | None = None,
        bias: bool = True,
        dtype: str | None = None,
        position_embedding_type: PositionEmbeddingType | None = None,
        rotary_embedding_base: float = 10000.0,
        rotary_embedding_percentage: float = 1.0,
        quant_mode: Any = None,
        enable_qkv: bool = True,
    ) -> None:
        super().__init__()
        assert not enable_qkv
        assert attention_head_size is not None
        self.local_layer_idx = local_layer_idx
        self.attention_mask_type = attention_mask_type
        self.attention_head_size = attention_head_size
        self.num_attention_heads = num_attention_heads
        self.num_attention_kv_heads = self.num_kv_heads = num_kv_heads or num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.dtype, self.quant_mode, self.q_scaling = dtype, quant_mode, 1.0
        self.tp_size, self.tp_rank = 1, 0
        self.position_embedding_type = position_embedding_type
        self.rotary_embedding_base = rotary_embedding_base
        self.rotary_embedding_scale_type, self.rotary_embedding_scale = RotaryScalingType.none, 1.0
        self.rotary_embedding_dim = int(attention_head_size * rotary_embedding_percentage)
        self.register_parameter("kv_cache_scaling_factor", None)
        self.dense = RowLinear(num_attention_heads * attention_head_size, hidden_size, bias=bias, dtype=dtype)
