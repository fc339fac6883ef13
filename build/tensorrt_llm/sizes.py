"""How much memory an engine takes on a GPU, and how many tokens of KV cache the card then has left.

`python -m build.tensorrt_llm.sizes` prints the table of docs/tensorrt_llm.md.

Weights and KV cache are exact arithmetic (the layout of a W8A16 engine: embedding table in
16 bits, linear layers in 8 with one 16-bit scale per output). What the driver, TensorRT and the activations
take is an estimate that no GPU has confirmed yet: `make verify-gpu` measures it.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace

from build.catalogue import Profile, profiles
from build.config import Shape

GIB = 1 << 30

# Estimates. A CUDA context and the driver's own part of the card; TensorRT's and cuBLAS' workspaces; the
# activations of one token: q, k, v at head size 192 and twice the feed-forward's width, in 16 bits.
DRIVER_BYTES = int(0.45 * GIB)
WORKSPACE_BYTES = int(0.75 * GIB)
ACTIVATION_BYTES_PER_TOKEN = 128 << 10

KV_ITEM_BYTES = {"bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Sizes:
    """Bytes. `cache_tokens` is how many tokens of all sequences together the KV cache can hold."""

    card: int
    weights: int
    buffers: int
    cache: int
    kv_per_token: int

    @property
    def cache_tokens(self) -> int:
        return self.cache // self.kv_per_token

    @property
    def total(self) -> int:
        return DRIVER_BYTES + self.weights + self.buffers + self.cache

    def __str__(self) -> str:
        return (
            f"weights {self.weights / GIB:.2f} GiB, buffers about {self.buffers / GIB:.2f}, "
            f"KV cache {self.cache / GIB:.2f} ({self.cache_tokens:,} tokens of "
            f"{self.kv_per_token / 1024:,.0f} KiB), driver about {DRIVER_BYTES / GIB:.2f}: "
            f"{self.total / GIB:.2f} of {self.card / GIB:.2f} GiB"
        )


def weight_bytes(shape: Shape) -> int:
    """A W8A16 engine's weights, the embedding table shared with the head: 2.07 GiB for Youtu-LLM-2B."""
    d, h, r = shape.hidden_size, shape.num_attention_heads, shape.kv_lora_rank
    q_rank = shape.q_lora_rank or 0
    linears = [
        (q_rank + r + shape.qk_rope_head_dim, d),
        (h * shape.qk_head_dim, q_rank or d),
        (h * (shape.qk_nope_head_dim + shape.v_head_dim), r),
        (d, h * shape.v_head_dim),
        (shape.intermediate_size, d),
        (shape.intermediate_size, d),
        (d, shape.intermediate_size),
    ]
    layer = sum(rows * columns + 2 * rows for rows, columns in linears) + 2 * (2 * d + q_rank + r)
    tables = 1 if shape.tie_word_embeddings else 2
    return shape.num_hidden_layers * layer + 2 * d + tables * 2 * shape.vocab_size * d


def kv_bytes_per_token(shape: Shape, kv_cache: str) -> int:
    """K and V of every head at the full head size, in every layer: 384 KiB for Youtu-LLM-2B in bf16."""
    heads, size = shape.num_attention_heads, shape.qk_head_dim
    return shape.num_hidden_layers * 2 * heads * size * KV_ITEM_BYTES[kv_cache]


def sizes(profile: Profile, card: int, *, weights: int, kv_per_token: int) -> Sizes:
    """What a profile takes of a card of `card` bytes. A cache of 0 means that not even the rest fits."""
    buffers = WORKSPACE_BYTES + profile.max_num_tokens * ACTIVATION_BYTES_PER_TOKEN
    free = max(0, card - DRIVER_BYTES - weights - buffers)
    return Sizes(
        card=card,
        weights=weights,
        buffers=buffers,
        cache=int(free * profile.kv_cache_free_gpu_mem_fraction),
        kv_per_token=kv_per_token,
    )


def does_not_fit(profile: Profile, size: Sizes) -> str | None:
    """A sentence when not even one sequence of full length would have room in the KV cache."""
    if size.cache_tokens >= profile.max_seq_len:
        return None
    needed = profile.max_seq_len * size.kv_per_token
    return (
        f"the profile {profile.name} does not fit a card of {size.card / GIB:.2f} GiB: {size}; one sequence "
        f"of {profile.max_seq_len} tokens needs {needed / GIB:.2f} GiB of KV cache"
    )


def table() -> str:
    """Tokens of KV cache for Youtu-LLM-2B on cards of the usual sizes, as Markdown."""
    from build.random_checkpoint import YOUTU_2B

    small = profiles()["8gb"]
    rows = {
        "tokens of bf16 cache, 2,048 per step": replace(small, kv_cache_free_gpu_mem_fraction=0.9),
        **{f"the profile `{name}`": profile for name, profile in profiles().items()},
    }
    cards = (8, 12, 16, 24)
    lines = [f"| card | {' | '.join(f'{card} GB' for card in cards)} |", "|---|---|---|---|---|"]
    for name, profile in rows.items():
        per_token = kv_bytes_per_token(YOUTU_2B, profile.kv_cache)
        tokens = [
            sizes(profile, card * GIB, weights=weight_bytes(YOUTU_2B), kv_per_token=per_token).cache_tokens
            for card in cards
        ]
        lines.append(f"| {name} | {' | '.join(f'{count:,}' for count in tokens)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(table())
