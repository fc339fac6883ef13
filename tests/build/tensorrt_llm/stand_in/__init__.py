"""A torch-backed stand-in of exactly those parts of TensorRT-LLM 1.2 that youtu_trtllm.py uses.

Each docstring says what the original is documented to do, and in which file (github.com/NVIDIA/TensorRT-LLM).
Everything is computed at once, in f32, whatever the declared dtype. Dimensions that are unknown when an
engine is built (-1 in `dims`) are followed, so that an operation which needs a known one fails here too.
NVIDIA's kernels, the paging of the cache and the quantiser are not modelled.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import torch

from tests.build.tensorrt_llm.stand_in.functional import (
    AttentionMaskType,
    Cache,
    Tensor,
    concat,
    constant,
    expand,
    gpt_attention,
    shape,
    slice,
    split,
)
from tests.build.tensorrt_llm.stand_in.layers import (
    Attention,
    AttentionParams,
    ColumnLinear,
    Embedding,
    GatedMLP,
    KeyValueCacheParams,
    Module,
    RmsNorm,
    RowLinear,
)
from tests.build.tensorrt_llm.stand_in.modeling import (
    DecoderLayerList,
    DecoderModelForCausalLM,
    PretrainedConfig,
)

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
