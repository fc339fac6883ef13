"""Read config.json of a Qwen2 or Llama checkpoint: decoders with plain attention, which OpenVINO runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from build.config import ConfigFile, Decoder, decoder_tensors
from build.errors import BuildError

QWEN2, LLAMA = "Qwen2ForCausalLM", "LlamaForCausalLM"


@dataclass(frozen=True)
class GroupedShape(Decoder):
    """The numbers that decide what is computed; each head of keys and values serves a group of query heads.

    `qkv_bias`: queries, keys and values have biases.
    """

    architecture: str
    num_key_value_heads: int
    head_dim: int
    qkv_bias: bool
    tie_word_embeddings: bool

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each tensor such a checkpoint must have, in the order of the model."""
        return decoder_tensors(self, self._attention, tied=self.tie_word_embeddings)

    def _attention(self, attn: str) -> dict[str, tuple[int, ...]]:
        d, q = self.hidden_size, self.num_attention_heads * self.head_dim
        kv = self.num_key_value_heads * self.head_dim
        expected: dict[str, tuple[int, ...]] = {}
        for part, rows in (("q", q), ("k", kv), ("v", kv)):
            expected[f"{attn}.{part}_proj.weight"] = (rows, d)
            if self.qkv_bias:
                expected[f"{attn}.{part}_proj.bias"] = (rows,)
        expected[f"{attn}.o_proj.weight"] = (d, q)
        return expected


def read_grouped_shape(folder: Path) -> GroupedShape:
    """Read and check config.json; BuildError names the key, what is supported and what was found."""
    file = ConfigFile(folder)
    architecture = file.architecture([QWEN2, LLAMA])
    if architecture == QWEN2:
        file.fixed("use_sliding_window", False, False, "the engine attends to the whole context")
    else:
        file.fixed("attention_bias", False, False, "the engine does not support biases in this attention")
        file.fixed("mlp_bias", False, False, "the engine does not support biases in the feed-forward")
    decoder = file.decoder()
    heads, hidden = decoder["num_attention_heads"], decoder["hidden_size"]
    shape = GroupedShape(
        **decoder,
        architecture=architecture,
        num_key_value_heads=file.count("num_key_value_heads"),
        head_dim=hidden // heads if file.values.get("head_dim") is None else file.count("head_dim"),
        qkv_bias=architecture == QWEN2,
        tie_word_embeddings=file.flag("tie_word_embeddings", False),  # as transformers.Qwen2Config
    )
    if heads % shape.num_key_value_heads:
        raise BuildError(
            f"{file.path}: num_key_value_heads must divide num_attention_heads {heads}, found "
            f"{shape.num_key_value_heads}"
        )
    if shape.head_dim % 2:
        raise BuildError(f"{file.path}: the size of a head must be even, found {shape.head_dim}")
    return shape
