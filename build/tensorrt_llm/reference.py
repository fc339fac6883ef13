"""What the engine should compute, in torch, on the tensors of a TensorRT-LLM checkpoint.

One sequence at a time, its attention as the plugin is configured to do it: multi-head, rotated pairs first in
every head. It serves to prove a conversion, to calibrate an int8 KV cache and to judge an engine. int8
weights and cache are simulated: rounded as TensorRT-LLM rounds, then computed in f32.
Independent of transformers and TensorRT-LLM, and not fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.nn import functional as F

from build.config import LATENT_NORM_EPS, read_json

# TensorRT-LLM quantises tensors whose names contain one of these (convert_utils.weight_only_quantize_dict).
INT8_NAMES = ("qkv.weight", "dense.weight", "fc.weight", "proj.weight", "gate.weight")

Weights = Callable[[str], torch.Tensor]
Past = tuple[torch.Tensor, torch.Tensor]  # keys and values so far, each [tokens, heads, head]


@dataclass(frozen=True)
class Sizes:
    """The numbers of the checkpoint's config.json that the computation needs, under its names."""

    num_hidden_layers: int
    num_attention_heads: int
    head_size: int
    rotary_dim: int
    rotary_base: float
    norm_epsilon: float
    q_lora_rank: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    v_head_dim: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> Sizes:
        return cls(**{name: config[name] for name in cls.__dataclass_fields__})


class Layer:
    """One decoder layer; `kv_scale` simulates an int8 KV cache of that scale."""

    def __init__(self, sizes: Sizes, number: int, weights: Weights, kv_scale: float | None = None) -> None:
        self._sizes, self._prefix, self._source = sizes, f"transformer.layers.{number}.", weights
        self._kv_scale = kv_scale
        self._weights: dict[str, torch.Tensor] = {}

    def __call__(self, hidden: torch.Tensor, past: Past | None = None) -> tuple[torch.Tensor, Past]:
        """[tokens, hidden] after `past` to the same, and the cache with these tokens in it."""
        attended, present = self._attention(self._norm("input_layernorm", hidden), past)
        hidden = hidden + attended
        x = self._norm("post_layernorm", hidden)
        gated = F.silu(self._linear("mlp.fc", x)) * self._linear("mlp.gate", x)
        return hidden + self._linear("mlp.proj", gated), present

    def heads(self, x: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Query, key and value [tokens, heads, head] of normed `x`, rotated for positions from `start` on."""
        s, count = self._sizes, len(x)
        latent = self._linear("attention.fused_a_proj", x)
        q_latent, kv_latent, key_rope = torch.split(
            latent, [s.q_lora_rank, s.kv_lora_rank, s.rotary_dim], dim=-1
        )
        query = self._linear("attention.q_b_proj", self._latent_norm("q_a", q_latent))
        up = self._linear("attention.kv_b_proj", self._latent_norm("kv_a", kv_latent))
        nope = s.num_attention_heads * s.qk_nope_head_dim
        key_nope = up[:, :nope].reshape(count, s.num_attention_heads, -1)
        value = up[:, nope:].reshape(count, s.num_attention_heads, -1)
        shared = key_rope[:, None].expand(count, s.num_attention_heads, -1)
        key = torch.cat([shared, key_nope], dim=-1)
        query = query.reshape(count, s.num_attention_heads, s.head_size)
        return (
            self._rotate(query, start),
            self._rotate(key, start),
            F.pad(value, (0, s.head_size - s.v_head_dim)),
        )

    def reach(self, hidden: torch.Tensor) -> float:
        """The largest magnitude of a key or value that this layer could put in its cache for these tokens.

        A rotated pair counts with its length: whatever the position, neither of the two exceeds it.
        """
        _, key, value = self.heads(self._norm("input_layernorm", hidden), 0)
        rope, nope = key[..., : self._sizes.rotary_dim], key[..., self._sizes.rotary_dim :]
        parts = (torch.hypot(rope[..., ::2], rope[..., 1::2]), nope, value)
        return max(float(part.abs().max()) for part in parts)

    def _attention(self, x: torch.Tensor, past: Past | None) -> tuple[torch.Tensor, Past]:
        start = 0 if past is None else len(past[0])
        query, key, value = self.heads(x, start)
        stored = (self._store(key), self._store(value))
        if past is not None:
            key, value = torch.cat([past[0], key]), torch.cat([past[1], value])
            stored = (torch.cat([past[0], stored[0]]), torch.cat([past[1], stored[1]]))
        scores = torch.einsum("qhd,khd->hqk", query, key) * self._sizes.head_size**-0.5
        later = torch.arange(len(key)) > torch.arange(start, len(key))[:, None]
        scores = scores.masked_fill(later.to(scores.device), -torch.inf)
        context = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value)
        kept = context[..., : self._sizes.v_head_dim].flatten(1)
        return self._linear("attention.dense", kept), stored

    def _store(self, x: torch.Tensor) -> torch.Tensor:
        """What comes back from the cache of what is written to it; a token sees itself as it was before."""
        if self._kv_scale is None:
            return x
        return (x / self._kv_scale).round().clamp(-128, 127) * self._kv_scale

    def _rotate(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """rope_gptj: turn the pairs (2i, 2i + 1) of the first `rotary_dim`, by position / base^(2i/dim)."""
        dim = self._sizes.rotary_dim
        inverse = self._sizes.rotary_base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angle = torch.arange(start, start + len(x), dtype=torch.float64)[:, None] * inverse
        cos, sin = (t[:, None].to(x.device, torch.float32) for t in (angle.cos(), angle.sin()))
        even, odd = x[..., 0:dim:2], x[..., 1:dim:2]
        turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
        return torch.cat([turned, x[..., dim:]], dim=-1)

    def _latent_norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self._weight(f"attention.{name}_layernorm"), LATENT_NORM_EPS)

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return rms_norm(x, self._weight(name), self._sizes.norm_epsilon)

    def _linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self._weight(name).T

    def _weight(self, name: str) -> torch.Tensor:
        if name not in self._weights:
            self._weights[name] = self._source(f"{self._prefix}{name}.weight")
        return self._weights[name]


class Reference:
    """The whole model of a checkpoint folder, in f32 on the CPU.

    `int8_weights` rounds what TensorRT-LLM's W8A16 would; `kv_scales`, one per layer, round the KV cache.
    """

    def __init__(
        self, checkpoint: Path, *, int8_weights: bool = False, kv_scales: Sequence[float] | None = None
    ) -> None:
        config = read_json(checkpoint / "config.json")
        sizes = Sizes.of(config)
        excluded = config["quantization"].get("exclude_modules") or []
        stored: Any = safe_open(checkpoint / "rank0.safetensors", "pt")  # its methods are not typed
        names = set(stored.keys())

        def weights(name: str) -> torch.Tensor:
            tensor: torch.Tensor = stored.get_tensor(name)
            named = any(part in name for part in INT8_NAMES)
            if int8_weights and named and not any(fnmatchcase(name, pattern) for pattern in excluded):
                return int8(tensor)
            return tensor.float()

        scales: Sequence[float | None] = kv_scales or [None] * sizes.num_hidden_layers
        self._layers = [Layer(sizes, n, weights, scale) for n, scale in enumerate(scales)]
        self._embedding = weights("transformer.vocab_embedding.weight")
        self._norm, self._eps = weights("transformer.ln_f.weight"), sizes.norm_epsilon
        self._head = weights("lm_head.weight") if "lm_head.weight" in names else self._embedding

    @torch.no_grad()
    def logits(self, tokens: list[int], past: list[Past] | None = None) -> tuple[torch.Tensor, list[Past]]:
        """Next-token logits [tokens, vocabulary] of `tokens` after `past`, and the cache to go on with."""
        hidden, present = self._embedding[tokens], []
        for n, layer in enumerate(self._layers):
            hidden, cache = layer(hidden, None if past is None else past[n])
            present.append(cache)
        return rms_norm(hidden, self._norm, self._eps) @ self._head.T, present

    def greedy(self, prompt: list[int], count: int, stop: int | None = None) -> list[int]:
        """At most `count` greedy tokens after `prompt`, one at a time over the cache; `stop` is the last."""
        rows, past = self.logits(prompt)
        tokens: list[int] = []
        while True:
            tokens.append(int(rows[-1].argmax()))
            if len(tokens) == count or tokens[-1] == stop:
                return tokens
            rows, past = self.logits(tokens[-1:], past)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root mean square normalisation (Zhang and Sennrich, 2019, arXiv:1910.07467) over the last dimension."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def int8(weight: torch.Tensor) -> torch.Tensor:
    """A matrix [out, in] after W8A16, as f32: symmetric, one scale per row, its largest value becoming 128.

    128 is cut to 127 and the scale is kept in the matrix's own 16-bit type, both as in TensorRT-LLM's
    symmetric_quantize (cutlass_preprocessors.cpp).
    """
    scale = weight.float().abs().amax(dim=1, keepdim=True) / 128
    # a row of zeros has scale 0 and stays one
    rounded = (weight.float() / scale.clamp(min=1e-30)).round().clamp(-128, 127)
    return rounded * scale.to(weight.dtype).float()
