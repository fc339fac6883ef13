"""Turn a Youtu checkpoint of Hugging Face into the 16-bit checkpoint that trtllm-build reads.

`python -m build.tensorrt_llm.convert SOURCE TARGET [--dtype] [--max-positions] [--kv-scales FILE]`. TARGET
gets config.json, rank0.safetensors, a clean tokenizer/ and checkpoint.json, which says what made it. Weights
pass through a few megabytes at a time, and the folder appears when it is whole. int8 comes later, in
trtllm-build, which does what config.json asks for: so this checkpoint suits any GPU. Neither torch nor
transformers is needed, and nothing here knows the GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

from build.checkpoint import Weights
from build.config import Shape, read_shape
from build.errors import BuildError
from build.locked import locked
from build.progress import Report, TerminalProgress, silent
from build.source_state import source_state
from build.tensorrt_llm.checkpoint_config import checkpoint_config
from build.tensorrt_llm.tensors import Dtype, Tensor, encode, odd_modules, plan, refuse_unsupported
from build.tensorrt_llm.tokenizer_folder import write_tokenizer

log = logging.getLogger(__name__)

FORMAT = 1  # raise it when checkpoints made before must be made again
CONFIG, WEIGHTS, TOKENIZER, RECORD = "config.json", "rank0.safetensors", "tokenizer", "checkpoint.json"
# Of the cos/sin table inside the engine; a longer sequence only takes a slower kernel.
MAX_POSITIONS = 4096
RESERVE = 64 << 20  # bytes of disk; headers and tokenizer stay far below


@dataclass(frozen=True)
class CheckpointInfo:
    """The contents of checkpoint.json, and the folder it is in.

    `source` is the state of the original (sizes and times of its files); `weights_bytes` and `weights_sha256`
    belong to rank0.safetensors. `max_positions` counts tokens.
    """

    source: str
    dtype: str
    max_positions: int
    int8_weights: bool
    kv_scales: list[float] | None
    parameters: int
    weights_bytes: int
    weights_sha256: str
    path: Path


def convert(
    source: Path,
    target: Path,
    *,
    dtype: Dtype = "bfloat16",
    max_positions: int | None = None,
    int8_weights: bool = True,
    kv_scales: Sequence[float] | None = None,
    progress: Report = silent,
) -> CheckpointInfo:
    """The checkpoint of the Hugging Face folder `source` in `target`, made unless it is there already.

    `max_positions`: tokens of the longest sequence (default: 4096, or what the model was trained for if that
    is less). `int8_weights`: trtllm-build shall make W8A16 of it. `kv_scales`: one positive number per layer,
    from build.tensorrt_llm.kv_scales, asks for an int8 KV cache. `target` is whole or not there; what an
    interrupted run left beside it is removed. Two calls at once: the second waits. BuildError names what
    TensorRT-LLM would compute wrongly, the disk that is too full, or a `target` that is something else.
    """
    if dtype not in get_args(Dtype):
        raise BuildError(f"dtype must be one of {', '.join(get_args(Dtype))}, found {dtype!r}")
    shape = read_shape(source)
    refuse_unsupported(shape)
    if max_positions is None:
        max_positions = min(MAX_POSITIONS, shape.max_position_embeddings)
    if not 1 <= max_positions <= shape.max_position_embeddings:
        raise BuildError(
            f"max_positions must be between 1 and {shape.max_position_embeddings}, found {max_positions}"
        )
    if kv_scales is not None:
        _check_scales(kv_scales, shape)
    options: dict[str, Any] = {
        "source": source_state(source),
        "dtype": dtype,
        "max_positions": max_positions,
        "int8_weights": int8_weights,
        "kv_scales": None if kv_scales is None else list(kv_scales),
    }
    with locked(target.with_name(f".{target.name}.lock"), f"writing {target}"):
        ready = complete(target)
        if ready is not None and options.items() <= asdict(ready).items():
            return ready
        if target.exists() and not (target / RECORD).is_file():
            raise BuildError(
                f"{target} exists and was not created by this command: choose another folder, or remove it"
            )
        building, old = (target.with_name(f".{target.name}.{what}") for what in ("building", "old"))
        for leftover in (building, old):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            building.mkdir(parents=True)
            with Weights(source, shape) as weights:
                tensors = plan(shape, weights, dtype, kv_scales)
                _check_disk(building, sum(tensor.nbytes for tensor in tensors))
                digest = _write_weights(building / WEIGHTS, tensors, f"Converting to {dtype}", progress)
            write_tokenizer(source, building / TOKENIZER, shape.vocab_size)
            config = checkpoint_config(
                shape,
                dtype=dtype,
                max_positions=max_positions,
                int8_weights=int8_weights,
                int8_kv=kv_scales is not None,
                in_16_bits=odd_modules(tensors),
            )
            _write_json(building / CONFIG, config)
            facts = options | {
                "parameters": sum(math.prod(dims) for dims in shape.tensors().values()),
                "weights_bytes": (building / WEIGHTS).stat().st_size,
                "weights_sha256": digest,
            }
            _write_json(building / RECORD, {"format": FORMAT, **facts})
            if target.exists():
                log.warning("replacing %s: it was made from something else or is incomplete", target)
                target.rename(old)
            building.rename(target)
        except OSError as error:
            raise BuildError(f"writing {target} failed: {error}") from error
        finally:
            for leftover in (building, old):
                shutil.rmtree(leftover, ignore_errors=True)
    return CheckpointInfo(**facts, path=target)


def complete(target: Path) -> CheckpointInfo | None:
    """What `target` holds, when it is a whole checkpoint that `convert` made; None for anything else.

    The weights' size is compared, their checksum is not.
    """
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
        if record.pop("format") != FORMAT:
            return None
        info = CheckpointInfo(**record, path=target)
        whole = (target / WEIGHTS).stat().st_size == info.weights_bytes
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return info if whole and (target / CONFIG).is_file() and (target / TOKENIZER).is_dir() else None


def read_scales(path: Path) -> list[float]:
    """The scales in a file that build.tensorrt_llm.kv_scales wrote; BuildError when it is none."""
    try:
        scales = json.loads(path.read_text(encoding="utf-8"))["scales"]
        return [float(scale) for scale in scales]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(f"{path} contains no scales of a KV cache: {error!r}") from None


def _check_scales(scales: Sequence[float], shape: Shape) -> None:
    if len(scales) != shape.num_hidden_layers:
        raise BuildError(
            f"kv_scales must be {shape.num_hidden_layers} numbers, one per layer, found {len(scales)}"
        )
    for layer, scale in enumerate(scales):
        if not 0 < scale < math.inf:
            raise BuildError(f"kv_scales must be numbers above 0, found {scale!r} for layer {layer}")


def _check_disk(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + RESERVE:
        raise BuildError(
            f"{folder.parent} has {free / 1e9:.2f} GB free, "
            f"the checkpoint needs {(needed + RESERVE) / 1e9:.2f} GB"
        )


def _write_weights(path: Path, tensors: list[Tensor], step: str, progress: Report) -> str:
    """Write a safetensors file, and return its SHA-256 in hex."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.nbytes
        header[tensor.name] = {
            "dtype": tensor.stored,
            "shape": tensor.shape,
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()

    def pieces() -> Iterator[bytes]:
        yield len(text).to_bytes(8, "little") + text
        for tensor in tensors:
            left = tensor.nbytes
            for chunk in tensor.chunks():
                piece = encode(chunk, tensor).tobytes()
                left -= len(piece)
                yield piece
            if left:
                raise AssertionError(f"{tensor.name}: {left} bytes fewer than planned")

    done = 0
    with path.open("wb") as file:
        for piece in pieces():
            file.write(piece)
            digest.update(piece)
            done += len(piece)
            progress(step, done, 8 + len(text) + offset)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())


def main() -> None:
    """The command line; exit status 1 and one line on stderr when the checkpoint is refused."""
    parser = argparse.ArgumentParser(
        prog="python -m build.tensorrt_llm.convert", description=__doc__.splitlines()[0]
    )
    parser.add_argument("source", type=Path, help="folder with config.json, tokenizer.json and *.safetensors")
    parser.add_argument("target", type=Path, help="the checkpoint folder to make")
    parser.add_argument("--dtype", choices=get_args(Dtype), default="bfloat16")
    parser.add_argument(
        "--max-positions", type=int, help=f"tokens of the longest sequence (default: {MAX_POSITIONS})"
    )
    parser.add_argument("--no-int8", action="store_true", help="an engine with 16-bit weights")
    parser.add_argument("--kv-scales", type=Path, help="file of build.tensorrt_llm.kv_scales")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    progress = TerminalProgress()
    try:
        info = convert(
            arguments.source,
            arguments.target,
            dtype=arguments.dtype,
            max_positions=arguments.max_positions,
            int8_weights=not arguments.no_int8,
            kv_scales=read_scales(arguments.kv_scales) if arguments.kv_scales else None,
            progress=progress,
        )
    except BuildError as error:
        progress.close()
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{info.path}: {info.parameters:,} parameters, {info.weights_bytes / 1e9:.2f} GB\n")


if __name__ == "__main__":
    main()
