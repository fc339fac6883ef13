"""Read config.json of a Youtu checkpoint: the shape of the model and the tensors it must have.

What llama.cpp cannot compute correctly is refused here, by the key's name, before a weight is read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build.errors import BuildError
from build.pointer import refuse_pointer

ARCHITECTURE = "YoutuForCausalLM"
# The default of transformers' YoutuRMSNorm, which its q_a and kv_a norms keep whatever rms_norm_eps says.
LATENT_NORM_EPS = 1e-6


@dataclass(frozen=True)
class Decoder:
    """The numbers of a config.json that every decoder has."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int
    rms_norm_eps: float
    rope_theta: float


def decoder_tensors(
    decoder: Decoder, attention: Callable[[str], dict[str, tuple[int, ...]]], *, tied: bool
) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a checkpoint, in the order of the model.

    attention: those of one layer's attention, whose names begin with the given text. tied: the embedding is
    the head, too.
    """
    d, inner = decoder.hidden_size, decoder.intermediate_size
    expected: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (decoder.vocab_size, d)}
    for n in range(decoder.num_hidden_layers):
        layer = f"model.layers.{n}"
        expected[f"{layer}.input_layernorm.weight"] = (d,)
        expected |= attention(f"{layer}.self_attn")
        expected[f"{layer}.post_attention_layernorm.weight"] = (d,)
        expected[f"{layer}.mlp.gate_proj.weight"] = (inner, d)
        expected[f"{layer}.mlp.up_proj.weight"] = (inner, d)
        expected[f"{layer}.mlp.down_proj.weight"] = (d, inner)
    expected["model.norm.weight"] = (d,)
    if not tied:
        expected["lm_head.weight"] = (decoder.vocab_size, d)
    return expected


@dataclass(frozen=True)
class Shape(Decoder):
    """The numbers of config.json that decide what is computed; names as in `transformers.YoutuConfig`."""

    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    rope_interleave: bool
    tie_word_embeddings: bool

    @property
    def architecture(self) -> str:
        return ARCHITECTURE

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each tensor such a checkpoint must have, in the order of the model."""
        return decoder_tensors(self, self._attention, tied=self.tie_word_embeddings)

    def _attention(self, attn: str) -> dict[str, tuple[int, ...]]:
        d, h, r = self.hidden_size, self.num_attention_heads, self.kv_lora_rank
        expected: dict[str, tuple[int, ...]] = {}
        if self.q_lora_rank is None:
            expected[f"{attn}.q_proj.weight"] = (h * self.qk_head_dim, d)
        else:
            expected[f"{attn}.q_a_proj.weight"] = (self.q_lora_rank, d)
            expected[f"{attn}.q_a_layernorm.weight"] = (self.q_lora_rank,)
            expected[f"{attn}.q_b_proj.weight"] = (h * self.qk_head_dim, self.q_lora_rank)
        expected[f"{attn}.kv_a_proj_with_mqa.weight"] = (r + self.qk_rope_head_dim, d)
        expected[f"{attn}.kv_a_layernorm.weight"] = (r,)
        expected[f"{attn}.kv_b_proj.weight"] = (h * (self.qk_nope_head_dim + self.v_head_dim), r)
        expected[f"{attn}.o_proj.weight"] = (d, h * self.v_head_dim)
        return expected


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; BuildError names the file when it is missing, not JSON or not an object."""
    try:
        refuse_pointer(path)
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BuildError(f"{path} is missing") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BuildError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise BuildError(f"{path} must hold a JSON object, found a {type(value).__name__}")
    return value


class ConfigFile:
    """config.json of a checkpoint folder, read key by key; a BuildError names the key, what it must be and
    what was found.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "config.json"
        self.values = read_json(self.path)

    def architecture(self, known: Sequence[str]) -> str:
        """The one of `known` that the file names."""
        found = self.values.get("architectures")
        if found not in [[name] for name in known]:
            wanted = str([known[0]]) if len(known) == 1 else f"one of {', '.join(known)}, in a list"
            raise BuildError(f"{self.path}: architectures must be {wanted}, found {found!r}")
        return str(self.values["architectures"][0])

    def count(self, key: str) -> int:
        """A whole number above 0."""
        if key not in self.values:
            raise BuildError(f"{self.path}: key {key} is missing")
        value = self.values[key]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BuildError(f"{self.path}: {key} must be a whole number above 0, found {value!r}")
        return value

    def fixed(self, key: str, default: object, needed: object, why: str) -> None:
        """Refuse any value but `needed`; `default` is what a file without the key means."""
        found = self.values.get(key, default)
        if found != needed:
            raise BuildError(
                f"{self.path}: {key} must be {json.dumps(needed)}, found {json.dumps(found)}: {why}"
            )

    def flag(self, key: str, default: bool) -> bool:
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise BuildError(f"{self.path}: {key} must be true or false, found {value!r}")
        return value

    def decoder(self) -> dict[str, Any]:
        """The fields of Decoder. Quantised weights, and what scales the rotary embedding, are refused."""
        self.fixed("hidden_act", "silu", "silu", "the engine's feed-forward is SiLU-gated")
        self.fixed("quantization_config", None, None, "convert the unquantised checkpoint")
        eps = self.values.get("rms_norm_eps", 1e-6)
        if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
            raise BuildError(f"{self.path}: rms_norm_eps must be a number between 0 and 1, found {eps!r}")
        counts = (
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "max_position_embeddings",
        )
        return {
            **{key: self.count(key) for key in counts},
            "rms_norm_eps": float(eps),
            "rope_theta": _rope_theta(self.path, self.values),
        }


def read_shape(folder: Path) -> Shape:
    """Read and check config.json; BuildError names the key, what is supported and what was found."""
    file = ConfigFile(folder)
    file.architecture([ARCHITECTURE])
    heads = file.count("num_attention_heads")
    file.fixed(
        "num_key_value_heads", heads, heads, "the latent attention has as many key heads as query heads"
    )
    file.fixed("attention_bias", False, False, "llama.cpp does not support biases in this attention")
    decoder = file.decoder()
    if "q_lora_rank" not in file.values:
        raise BuildError(f"{file.path}: key q_lora_rank is missing (null stands for a full-rank query)")
    shape = Shape(
        **decoder,
        q_lora_rank=None if file.values["q_lora_rank"] is None else file.count("q_lora_rank"),
        kv_lora_rank=file.count("kv_lora_rank"),
        qk_nope_head_dim=file.count("qk_nope_head_dim"),
        qk_rope_head_dim=file.count("qk_rope_head_dim"),
        v_head_dim=file.count("v_head_dim"),
        rope_interleave=file.flag("rope_interleave", True),  # as transformers.YoutuConfig
        tie_word_embeddings=file.flag("tie_word_embeddings", True),
    )
    if shape.qk_rope_head_dim % 2:
        raise BuildError(f"{file.path}: qk_rope_head_dim must be even, found {shape.qk_rope_head_dim}")
    return shape


def _rope_theta(path: Path, config: dict[str, Any]) -> float:
    """The base of the rotary embedding; any scaling that is not neutral is refused by name."""
    blocks = {key: config[key] for key in ("rope_parameters", "rope_scaling") if config.get(key) is not None}
    for key, block in blocks.items():
        if not isinstance(block, dict):
            raise BuildError(f"{path}: {key} must be an object or null, found {block!r}")
        kind = block.get("rope_type", block.get("type", "default"))
        neutral_yarn = (
            kind == "yarn" and block.get("factor") == 1 and block.get("attention_factor") in (None, 1)
        )
        if kind != "default" and not neutral_yarn:
            raise BuildError(
                f"{path}: {key} asks for rope type {kind!r} with factor {block.get('factor')!r}; "
                "only 'default' and a 'yarn' of factor 1 are supported"
            )
        if block.get("partial_rotary_factor", 1) != 1:
            raise BuildError(
                f"{path}: {key}.partial_rotary_factor must be 1, found {block['partial_rotary_factor']!r}"
            )
    for place in (*blocks.values(), config):
        theta = place.get("rope_theta")
        if theta is not None:
            if isinstance(theta, bool) or not isinstance(theta, int | float) or not 0 < theta < math.inf:
                raise BuildError(f"{path}: rope_theta must be a number above 0, found {theta!r}")
            return float(theta)
    raise BuildError(f"{path}: rope_theta is missing (neither rope_parameters.rope_theta nor rope_theta)")
