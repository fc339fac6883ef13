"""A torch-backed stand-in of exactly those parts of TensorRT-LLM 1.2 that youtu_trtllm.py uses.

Each docstring says what the original is documented to do and where (paths in github.com/NVIDIA/TensorRT-
LLM). Everything is computed at once, in f32, whatever the declared dtype; dimensions that are unknown when
an engine is built (-1 in `dims`) are followed, so that an operation which needs a known one fails here too.
NVIDIA's kernels, the paging of the cache and the quantiser are not modelled.
"""

from __future__ import annotations

import enum
import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
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


MODEL_MAP: dict[str, Any] = {}
PARTS: dict[str, list[Any]] = {
    "functional": [Tensor, concat, constant, expand, gpt_attention, shape, slice, split],
    "layers": [
        *(Attention, AttentionMaskType, AttentionParams, ColumnLinear),
        *(Embedding, GatedMLP, KeyValueCacheParams, RmsNorm, RowLinear),
    ],
    "models": [],
    "models.modeling_utils": [DecoderLayerList, DecoderModelForCausalLM, PretrainedConfig],
    "module": [Module],
}


@contextmanager
def _installed() -> Iterator[None]:
    made = {"tensorrt_llm": types.ModuleType("tensorrt_llm")}
    for name, parts in PARTS.items():
        module = made[f"tensorrt_llm.{name}"] = types.ModuleType(f"tensorrt_llm.{name}")
        for part in parts:
            setattr(module, part.__name__, part)
    made["tensorrt_llm.models"].MODEL_MAP = MODEL_MAP  # type: ignore[attr-defined]
    assert not made.keys() & sys.modules.keys()
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def load_class_file(path: Path) -> types.ModuleType:
    """commands/build.py of trtllm-build: --model_cls_file is executed as a module named `models`."""
    MODEL_MAP.clear()
    with _installed():
        loader = SourceFileLoader("models", str(path))
        module = types.ModuleType(loader.name)
        loader.exec_module(module)
        return module


class Engine:
    """What the runtime makes of a model: packed steps of requests over one cache."""

    def __init__(self, model: Any) -> None:
        self._model, self._cache, self._lengths = model, Cache(), dict[int, int]()

    @torch.no_grad()
    def step(self, requests: Sequence[tuple[int, list[int]]]) -> list[torch.Tensor]:
        """Logits [tokens, vocabulary] of each (id, tokens); contexts come first, then single tokens."""
        past = [self._lengths.get(request, 0) for request, _ in requests]
        counts = [len(tokens) for _, tokens in requests]
        kinds = [int(before > 0) for before in past]
        assert kinds == sorted(kinds)
        for (request, _), count in zip(requests, counts, strict=True):
            self._lengths[request] = self._lengths.get(request, 0) + count
        packed = torch.tensor([token for _, tokens in requests for token in tokens])
        logits = self._model.forward(
            input_ids=Tensor(packed, (-1,)),
            last_token_ids=list(range(1, len(packed) + 1)),
            kv_cache_params=KeyValueCacheParams(
                host_past_key_value_lengths=past,
                host_max_attention_window_sizes=[4096],
                host_sink_token_length=[0],
                cache_indirection=None,
                kv_cache_block_offsets=[request for request, _ in requests],
                host_kv_cache_block_offsets=[request for request, _ in requests],
                host_kv_cache_pool_pointers=self._cache,
                host_kv_cache_pool_mapping=None,
            ),
            attention_params=AttentionParams(
                sequence_length=[before + count for before, count in zip(past, counts, strict=True)],
                context_lengths=counts,
                host_context_lengths=counts,
                max_context_length=4096,
                host_request_types=kinds,
                host_runtime_perf_knobs=None,
                host_context_progress=None,
            ),
        )
        return list(torch.split(logits.data, counts))
