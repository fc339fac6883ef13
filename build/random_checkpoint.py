"""Write a Youtu checkpoint of random weights, for benchmarks: speed does not depend on the values of weights.

`python -m build.random_checkpoint OUT [--shape youtu-2b|tiny] [--seed N]`. Weights are drawn and written in
chunks, shard after shard. The tokenizer is a stand-in of the true size: it encodes any text byte by byte, and
each id above the bytes decodes to printable text. The answers of such a model are noise.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from build.config import Shape
from build.errors import BuildError
from build.plain_config import GroupedShape
from build.tokenizer import YOUTU_PATTERNS

SHARD_BYTES = 1 << 30
CHUNK_ITEMS = 4 << 20  # weights drawn at once
SPECIALS = 256  # ids at the end of the vocabulary, as in the published model: 128000 to 128255
NAMED = ("<|begin_of_text|>", "<|end_of_text|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end_of_turn|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end_of_turn|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# transformers.YoutuConfig(), with the rope base of the published model
YOUTU_2B = Shape(
    vocab_size=128256,
    hidden_size=2048,
    intermediate_size=6144,
    num_hidden_layers=32,
    num_attention_heads=16,
    q_lora_rank=1536,
    kv_lora_rank=512,
    qk_nope_head_dim=128,
    qk_rope_head_dim=64,
    v_head_dim=128,
    max_position_embeddings=131072,
    rms_norm_eps=1e-6,
    rope_theta=1_600_000.0,
    rope_interleave=True,
    tie_word_embeddings=True,
)
TINY = Shape(
    vocab_size=1024,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=4,
    num_attention_heads=4,
    q_lora_rank=64,
    kv_lora_rank=64,
    qk_nope_head_dim=32,
    qk_rope_head_dim=16,
    v_head_dim=32,
    max_position_embeddings=2048,
    rms_norm_eps=1e-6,
    rope_theta=10_000.0,
    rope_interleave=True,
    tie_word_embeddings=True,
)
SHAPES = {"youtu-2b": YOUTU_2B, "tiny": TINY}


def write_random_checkpoint(
    folder: Path,
    shape: Shape | GroupedShape,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write config, bf16 shards and tokenizer into `folder`; the same seed gives the same bytes.

    config.json comes last: a folder left by an interrupted run is refused by the conversion. BuildError when
    the folder already holds a checkpoint or the disk is too full.
    """
    if (folder / "config.json").exists():
        raise BuildError(f"{folder} already contains a checkpoint: choose another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    tensors = shape.tensors()
    total = sum(2 * math.prod(dims) for dims in tensors.values())
    free = shutil.disk_usage(folder).free
    if free < total:
        raise BuildError(f"{folder} has {free / 1e9:.2f} GB free, the checkpoint needs {total / 1e9:.2f} GB")

    shards = _shards(tensors)
    weight_map: dict[str, str] = {}
    done = 0
    for number, names in enumerate(shards, 1):
        file_name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        with (folder / file_name).open("wb") as file:
            _write_header(file, {name: tensors[name] for name in names})
            for name in names:
                weight_map[name] = file_name
                for chunk in _draw(name, tensors[name], shape, seed):
                    chunk.tofile(file)
                    done += chunk.nbytes
                    if progress is not None:
                        progress(done, total)
    _write_json(
        folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map}
    )
    write_stand_in_tokenizer(folder, shape.vocab_size)
    _write_json(folder / "config.json", _config(shape))


def _shards(tensors: dict[str, tuple[int, ...]]) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    size = 0
    for name, dims in tensors.items():
        nbytes = 2 * math.prod(dims)
        if shards[-1] and size + nbytes > SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += nbytes
    return shards


def _write_header(file: BinaryIO, tensors: dict[str, tuple[int, ...]]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, dims in tensors.items():
        end = offset + 2 * math.prod(dims)
        header[name] = {"dtype": "BF16", "shape": dims, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)


def _draw(
    name: str, dims: tuple[int, ...], shape: Shape | GroupedShape, seed: int
) -> Iterator[npt.NDArray[np.uint16]]:
    """The values as bf16 bits: ones for norms, no biases, else normal with the deviations of transformers."""
    count = math.prod(dims)
    if len(dims) == 1:
        yield np.full(count, 0 if name.endswith(".bias") else 0x3F80, np.uint16)  # 1.0
        return
    deviation = 2 / math.sqrt(5 * shape.hidden_size) * (2 if "embed" in name else 1)
    random = np.random.Generator(np.random.SFC64([seed, *name.encode()]))
    for first in range(0, count, CHUNK_ITEMS):
        values = random.standard_normal(min(CHUNK_ITEMS, count - first), dtype=np.float32)
        values *= np.float32(deviation)
        bits = values.view(np.uint32)
        bits += np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))  # round to nearest, ties to even
        yield (bits >> 16).astype(np.uint16)


def _config(shape: Shape | GroupedShape) -> dict[str, Any]:
    config = asdict(shape)
    first = shape.vocab_size - SPECIALS
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    if isinstance(shape, Shape):
        config["num_key_value_heads"] = shape.num_attention_heads
    for ours in ("architecture", "qkv_bias"):  # which transformers derives from the class
        config.pop(ours, None)
    return {
        "architectures": [shape.architecture],
        "model_type": shape.architecture.removesuffix("ForCausalLM").lower(),
        "dtype": "bfloat16",
        **config,
        "attention_bias": False,
        "hidden_act": "silu",
        "bos_token_id": first,
        "eos_token_id": first + 1,
    }


def byte_alphabet() -> list[str]:
    """The printable character that byte-level BPE writes for each of the 256 bytes (as GPT-2 defined it)."""
    printable = {
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    }
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def write_stand_in_tokenizer(folder: Path, vocab_size: int) -> None:
    """Write tokenizer files and chat template of the stand-in, `vocab_size` tokens, into `folder`."""
    first = vocab_size - SPECIALS
    specials = [*NAMED, *(f"<|reserved_{n}|>" for n in range(SPECIALS - len(NAMED)))]
    vocab = {token: i for i, token in enumerate(byte_alphabet())}
    # the pre-tokenizer splits <, digits and >, so that no text is ever encoded as one of these
    vocab |= {f"<{i}>": i for i in range(256, first)}
    splits = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False}
        for p in YOUTU_PATTERNS
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    _write_json(
        folder / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {"id": first + i, "content": token, **plain} for i, token in enumerate(specials)
            ],
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, byte_level]},
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": True,
                "vocab": vocab,
                "merges": [],
            },
        },
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": NAMED[0],
            "eos_token": NAMED[1],
            "clean_up_tokenization_spaces": False,
        },
    )
    _write_json(
        folder / "generation_config.json",
        {"bos_token_id": first, "eos_token_id": [first + 1, first + NAMED.index("<|end_of_turn|>")]},
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """The command line; exit status 1 and one line on stderr when the folder cannot be written."""
    parser = argparse.ArgumentParser(
        prog="python -m build.random_checkpoint", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--shape", choices=SHAPES, default="youtu-2b")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    def show(done: int, total: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\rwriting {done / total:4.0%} of {total / 1e9:.2f} GB")

    try:
        write_random_checkpoint(arguments.folder, SHAPES[arguments.shape], seed=arguments.seed, progress=show)
    except BuildError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{arguments.folder}\n")


if __name__ == "__main__":
    main()
