"""From a fetched model to the checkpoint that trtllm-build reads: our own converter, or one of NVIDIA's.

Also what engine.json says of the model itself.
"""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from build.catalogue import Converter, profiles
from build.checkpoint import ITEM_BYTES, read_header
from build.config import ARCHITECTURE, read_json, read_shape
from build.engine import file_sha256, fingerprint
from build.engine_info import TOKENIZER, ModelFacts
from build.errors import BuildError
from build.progress import Report
from build.tensorrt_llm import machine
from build.tensorrt_llm.commands import run
from build.tensorrt_llm.convert import CONFIG, RECORD, WEIGHTS, convert, read_scales
from build.tensorrt_llm.xgrammar_info import write_xgrammar_info
from build.tokenizer import has_tokenizer, load_tokenizer_facts

if TYPE_CHECKING:
    from build.tensorrt_llm.engine import Plan

ROOT = Path(__file__).resolve().parent.parent.parent
# Names of the longest sequence in other models' config.json.
CONTEXT_KEYS = ("max_position_embeddings", "model_max_length", "seq_length")


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint; the sum is of rank0.safetensors."""

    path: Path
    weights_sha256: str


def make_checkpoint(made: Plan, source: Path, progress: Report) -> Checkpoint:
    """The checkpoint of `made`, written unless it is there and of this state of its source."""
    if made.converter is not None:
        return _by_nvidia(made, made.converter, source, progress)
    if not has_tokenizer(source):
        raise BuildError(f"{source} has no tokenizer.json: an engine without one cannot be served")
    longest = max(profile.max_seq_len for profile in profiles().values())
    context = read_shape(source).max_position_embeddings
    if made.profile.max_seq_len > context:
        raise BuildError(
            f"the profile {made.profile.name} is for {made.profile.max_seq_len} tokens, but "
            f"{made.source.model_id} was trained for {context}"
        )
    info = convert(
        source,
        made.checkpoint,
        max_positions=min(longest, context),
        kv_scales=_kv_scales(made, source) if made.profile.kv_cache == "int8" else None,
        progress=progress,
    )
    return Checkpoint(made.checkpoint, info.weights_sha256)


def _kv_scales(made: Plan, source: Path) -> list[float]:
    """One scale per layer, measured with the container's torch; known ones of this source are found again."""
    file = made.checkpoint.with_name(f"{made.checkpoint.name}.kv-scales.json").absolute()
    run(
        f"Calibrating the int8 KV cache of {made.source.model_id}",
        [made.container.python, "-m", "build.tensorrt_llm.kv_scales", source.absolute(), file],
        made.root.absolute() / "log" / "kv-scales.log",
        machine.with_our_modules(ROOT),
    )
    return read_scales(file)


def _by_nvidia(made: Plan, converter: Converter, source: Path, progress: Report) -> Checkpoint:
    target, state = made.checkpoint, str(fingerprint(made.source, made.root))
    try:
        mark = read_json(target / RECORD)
        if mark.get("fingerprint") == state and (target / WEIGHTS).stat().st_size == mark.get(
            "weights_bytes"
        ):
            return Checkpoint(target, mark["weights_sha256"])
    except (BuildError, OSError):
        pass  # not there, or not whole
    building = target.with_name(f".{target.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.parent.mkdir(parents=True, exist_ok=True)
    script = machine.examples() / converter.converter
    step = f"Converting {made.source.model_id} with NVIDIA's {script.parent.name}/{script.name}"
    paths: list[str | Path] = ["--model_dir", source.absolute(), "--output_dir", building.absolute()]
    run(
        step,
        [made.container.python, script, *paths, *converter.options],
        made.root.absolute() / "log" / "convert-checkpoint.log",
    )
    for name in (CONFIG, WEIGHTS):
        if not (building / name).is_file():
            raise BuildError(f"{step}: it succeeded, but {building / name} is missing")
    mark = {
        "fingerprint": state,
        "weights_bytes": (building / WEIGHTS).stat().st_size,
        "weights_sha256": file_sha256(building / WEIGHTS, progress),
    }
    (building / RECORD).write_text(json.dumps(mark), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    building.rename(target)
    return Checkpoint(target, mark["weights_sha256"])


def describe(made: Plan, source: Path, folder: Path) -> ModelFacts:
    """What is known of the model. Its tokenizer's two files and chat template, if any, come into `folder`."""
    weights = made.source.entry.weights.upper() if made.source.entry and made.converter else "W8A16"
    config = read_json(source / CONFIG)
    if not (source / TOKENIZER).is_file():  # SentencePiece: nothing here reads it
        ends = config.get("eos_token_id")
        return ModelFacts(
            architecture=str(made.source.entry.architecture if made.source.entry else ARCHITECTURE),
            vocab_size=int(config.get("vocab_size") or config.get("padded_vocab_size") or 0),
            context_length=_context(config),
            special_tokens={},
            bos_token_id=config.get("bos_token_id"),
            eos_token_ids=[ends] if isinstance(ends, int) else list(ends or []),
            add_bos=False,
            weights=weights,
            parameters=_parameters(source),
        )
    tokenizer = load_tokenizer_facts(source)
    shutil.copyfile(source / TOKENIZER, folder / TOKENIZER)
    tokenizer.templates.write(folder)
    write_xgrammar_info(folder, tokenizer)
    return ModelFacts(
        architecture=str(config["architectures"][0]),
        vocab_size=len(tokenizer.tokens),
        context_length=_context(config),
        special_tokens=tokenizer.special_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_ids=tokenizer.eos_token_ids,
        add_bos=tokenizer.add_bos,
        weights=weights,
        parameters=_parameters(source),
    )


def _context(config: dict[str, Any]) -> int:
    return int(next((config[key] for key in CONTEXT_KEYS if key in config), 0))


def _parameters(source: Path) -> int:
    """Weights in the safetensors files; for pickled ones a count from their size, 16 bits each."""
    shapes = [
        tensor.shape
        for file in source.glob("*.safetensors")
        for tensor in read_header(file).values()
        if tensor.dtype in ITEM_BYTES
    ]
    return sum(map(math.prod, shapes)) or sum(file.stat().st_size for file in source.glob("*.bin")) // 2
