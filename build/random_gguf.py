"""Write a GGUF of random weights in the true shape of a published model: speed and memory do not depend on
the values of weights.

`python -m build.random_gguf OUT.gguf --shape NAME [--weights q8_0|q4_0|f16]`. Unlike `random_checkpoint` it
goes the short way, straight to the engine's format: a pool of normal values is encoded once, by the `gguf`
package, and every matrix is filled from it, each row from another place. The tokenizer is the stand-in of
`random_checkpoint` in the model's true size; the answers are noise.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as GGML
from gguf import quants

from build.config import Decoder, Shape
from build.errors import BuildError
from build.gguf_writing import Encoded, Progress, TensorPlan, write_gguf
from build.mapping import describe, describe_decoder, describe_tokenizer, dimensions
from build.plain_config import LLAMA, QWEN2, GroupedShape
from build.random_checkpoint import TINY, YOUTU_2B, write_stand_in_tokenizer
from build.tokenizer import load_tokenizer_facts

FORMATS = {
    "q8_0": (GGML.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (GGML.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "f16": (GGML.F16, gguf.LlamaFileType.MOSTLY_F16),
}
POOL_ROWS = 1024
POOL_COLUMNS = 16384  # at least the widest row of any shape


@dataclass(frozen=True)
class PlainShape(Decoder):
    """A decoder with plain attention, as llama.cpp knows it by `architecture`, llama or qwen2 for one.

    Names as in the model's own config.json where it has them; `rope_dim` is the part of a head that is
    rotated (0: none, ALiBi); `fused` puts query, key and value, and gate and up, into one matrix each;
    `head_dim` is the size of a head where it is not hidden_size / num_attention_heads, `qk_norm` whether
    queries and keys are normed.
    """

    architecture: str
    num_key_value_heads: int
    rope_dim: int
    qkv_bias: bool
    fused: bool
    head_dim: int | None = None
    qk_norm: bool = False

    @property
    def head_size(self) -> int:
        return self.head_dim or self.hidden_size // self.num_attention_heads

    def dimensions(self) -> dict[str, tuple[int, ...]]:
        """GGUF's name and shape of each tensor, in the order of the file."""
        d, ff = self.hidden_size, self.intermediate_size
        q, kv = self.head_size * self.num_attention_heads, self.head_size * self.num_key_value_heads
        projections = {"qkv": q + 2 * kv} if self.fused else {"q": q, "k": kv, "v": kv}
        found: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocab_size, d)}
        for n in range(self.num_hidden_layers):
            blk = f"blk.{n}"
            found[f"{blk}.attn_norm.weight"] = (d,)
            for name, rows in projections.items():
                found[f"{blk}.attn_{name}.weight"] = (rows, d)
                if self.qkv_bias:
                    found[f"{blk}.attn_{name}.bias"] = (rows,)
            if self.qk_norm:
                found[f"{blk}.attn_q_norm.weight"] = found[f"{blk}.attn_k_norm.weight"] = (self.head_size,)
            found[f"{blk}.attn_output.weight"] = (d, q)
            found[f"{blk}.ffn_norm.weight"] = (d,)
            if self.fused:
                found[f"{blk}.ffn_up.weight"] = (2 * ff, d)
            else:
                found[f"{blk}.ffn_gate.weight"] = found[f"{blk}.ffn_up.weight"] = (ff, d)
            found[f"{blk}.ffn_down.weight"] = (d, ff)
        found["output_norm.weight"] = (d,)
        found["output.weight"] = (self.vocab_size, d)
        return found


# config.json of Qwen/Qwen1.5-1.8B
QWEN_1_8B = PlainShape(
    151936, 2048, 5504, 24, 16, 32768, 1e-6, 1_000_000.0, "qwen2", 16, 128, qkv_bias=True, fused=False
)
# config.json of THUDM/chatglm3-6b: two groups of keys and values, half of each head rotated
CHATGLM3_6B = PlainShape(
    65024, 4096, 13696, 28, 32, 8192, 1e-5, 10_000.0, "chatglm", 2, 64, qkv_bias=True, fused=True
)
# config.json of baichuan-inc/Baichuan-13B-Chat: ALiBi, which llama.cpp gives to the Baichuan of 40 layers
BAICHUAN_13B = PlainShape(
    64000, 5120, 13696, 40, 40, 4096, 1e-6, 10_000.0, "baichuan", 40, 128, qkv_bias=False, fused=False
)
SHAPES: dict[str, Shape | PlainShape] = {
    "youtu-2b": YOUTU_2B,
    "qwen1.5-1.8b": QWEN_1_8B,
    "chatglm3-6b": CHATGLM3_6B,
    "baichuan-13b": BAICHUAN_13B,
    # the same architectures, for tests
    "tiny-youtu": TINY,
    "tiny-qwen": PlainShape(1024, 64, 128, 3, 4, 2048, 1e-6, 1e6, "qwen2", 4, 16, qkv_bias=True, fused=False),
    "tiny-chatglm": PlainShape(
        1024, 64, 128, 3, 4, 2048, 1e-5, 1e4, "chatglm", 2, 8, qkv_bias=True, fused=True
    ),
    "tiny-llama": PlainShape(
        1024, 64, 128, 3, 4, 2048, 1e-5, 1e5, "llama", 2, 16, qkv_bias=False, fused=False
    ),
    "tiny-qwen3": PlainShape(
        1024,
        64,
        128,
        3,
        4,
        2048,
        1e-6,
        1e6,
        "qwen3",
        2,
        32,
        qkv_bias=False,
        fused=False,
        head_dim=32,
        qk_norm=True,
    ),
    "tiny-baichuan": PlainShape(
        1024, 64, 128, 40, 4, 2048, 1e-6, 1e4, "baichuan", 4, 16, qkv_bias=False, fused=False
    ),
}

_ARCHITECTURES = {"qwen2": QWEN2, "llama": LLAMA}


def _grouped(shape: PlainShape) -> GroupedShape:
    numbers = {name: value for name, value in asdict(shape).items() if name in Decoder.__dataclass_fields__}
    return GroupedShape(
        **numbers,
        architecture=_ARCHITECTURES[shape.architecture],
        num_key_value_heads=shape.num_key_value_heads,
        head_dim=shape.head_size,
        qkv_bias=shape.qkv_bias,
        tie_word_embeddings=False,
    )


# those of them whose checkpoints this project reads
CHECKPOINT_SHAPES: dict[str, Shape | GroupedShape] = {
    name: shape if isinstance(shape, Shape) else _grouped(shape)
    for name, shape in SHAPES.items()
    if isinstance(shape, Shape) or (shape.architecture in _ARCHITECTURES and not shape.qk_norm)
}


def parameters(shape: Shape | PlainShape) -> int:
    """How many weights a model of this shape has."""
    tensors = shape.tensors() if isinstance(shape, Shape) else shape.dimensions()
    return sum(math.prod(dims) for dims in tensors.values())


def write_random_gguf(
    path: Path,
    shape: Shape | PlainShape,
    name: str,
    *,
    weights: str = "q8_0",
    seed: int = 0,
    progress: Progress | None = None,
) -> None:
    """Write `path`, whole or not at all; the same seed gives the same bytes.

    Matrices become `weights`, norms and biases stay f32. BuildError when there is no such format, the disk is
    too full, another process writes the same file, or the rows are not whole blocks of 32.
    """
    if weights not in FORMATS:
        raise BuildError(f"weights must be one of {', '.join(FORMATS)}, found {weights!r}")
    kind, file_type = FORMATS[weights]
    tensors = dimensions(shape) if isinstance(shape, Shape) else shape.dimensions()
    for tensor, dims in tensors.items():
        if len(dims) > 1 and dims[-1] % 32 and kind != GGML.F16:
            raise BuildError(f"{tensor} has rows of {dims[-1]}, but {weights} packs 32 values at a time")
    with tempfile.TemporaryDirectory() as folder:
        write_stand_in_tokenizer(Path(folder), shape.vocab_size)
        tokenizer = load_tokenizer_facts(Path(folder), shape.vocab_size)
    writer = gguf.GGUFWriter(None, "deepseek2" if isinstance(shape, Shape) else shape.architecture)
    if isinstance(shape, Shape):
        describe(writer, shape, name, file_type, tokenizer)
    else:
        describe_decoder(writer, shape, name, file_type)
        writer.add_head_count_kv(shape.num_key_value_heads)
        writer.add_rope_dimension_count(shape.rope_dim)
        if shape.head_dim is not None:
            writer.add_key_length(shape.head_dim)
            writer.add_value_length(shape.head_dim)
        describe_tokenizer(writer, tokenizer)

    pool = _Pool(kind, shape.hidden_size, seed)
    plans = [
        TensorPlan(tensor, dims, GGML.F32 if len(dims) == 1 else kind) for tensor, dims in tensors.items()
    ]
    write_gguf(writer, [(plan, partial(pool.values, plan)) for plan in plans], path, progress)


class _Pool:
    """Encoded rows of normal values with the deviation that keeps a random model's logits usual ones."""

    def __init__(self, kind: GGML, hidden_size: int, seed: int) -> None:
        self._size, self._random = gguf.GGML_QUANT_SIZES[kind][1], np.random.default_rng(seed)
        values = self._random.standard_normal((POOL_ROWS, POOL_COLUMNS), np.float32)
        values *= np.float32(2 / math.sqrt(5 * hidden_size))
        self._bytes = quants.quantize(values, kind).reshape(-1).view(np.uint8)

    def values(self, plan: TensorPlan) -> Iterator[Encoded]:
        """A matrix a piece at a time, each piece from a place of its own; norms are 1, biases 0."""
        if len(plan.shape) == 1:
            yield np.full(plan.shape, 0.0 if plan.name.endswith(".bias") else 1.0, np.float32)
            return
        left = plan.nbytes
        while left:
            start = int(self._random.integers(0, len(self._bytes) // 2 // self._size)) * self._size
            piece = self._bytes[start : start + min(left, len(self._bytes) // 2)]
            left -= len(piece)
            yield piece


def main() -> None:
    """The command line; exit status 1 and one line on stderr when the file cannot be written."""
    parser = argparse.ArgumentParser(prog="python -m build.random_gguf", description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, metavar="OUT.gguf")
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--weights", choices=FORMATS, default="q8_0")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        write_random_gguf(
            arguments.path,
            SHAPES[arguments.shape],
            arguments.shape,
            weights=arguments.weights,
            seed=arguments.seed,
        )
    except BuildError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{arguments.path}\n")


if __name__ == "__main__":
    main()
