"""Engines on the GPU: two layers of the true shape against the torch reference, then the whole one's size."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

from build.catalogue import profiles, resolve
from build.config import Shape, read_shape
from build.random_checkpoint import YOUTU_2B, write_random_checkpoint
from build.tensorrt_llm import sizes
from build.tensorrt_llm.commands import run, say
from build.tensorrt_llm.convert import convert
from build.tensorrt_llm.engine import MODEL_CLASS, MODEL_CLASS_FILE, YOUTU_DTYPE, make_engine
from build.tensorrt_llm.flags import build_flags, on_command_line
from serve.verify_gpu.container import probe
from serve.verify_gpu.steps import NotAsAssumed, Step, Verification

SHAPE = replace(YOUTU_2B, num_hidden_layers=2)
PROMPT, TOKENS = 200, 64
# Of rms logits. bfloat16 keeps 8 bits; int8 is judged against a reference that rounds as TensorRT-LLM does.
TOLERANCE = {"bf16": 0.03, "W8A16": 0.03, "W8A16, int8 KV": 0.06}
CLASS = str(MODEL_CLASS_FILE.relative_to(MODEL_CLASS_FILE.parent.parent.parent))
SIZE_TOLERANCE = 0.04  # of the engine's weights: TensorRT's own parts, alignment
KV_SCALE = 0.06  # for a random model: its keys and values stay below 127 times this


def shape_of(verification: Verification) -> Shape:
    shape: Shape = verification.facts.get("shape", SHAPE)
    return shape


def dry_run(verification: Verification) -> str:
    _two_layers(verification, "bf16", "--dry_run")
    return f"trtllm-build goes through {MODEL_CLASS} without building"


def against_reference(kind: str, verification: Verification) -> str:
    engine, checkpoint = _two_layers(verification, kind)
    found = probe(verification, "probe_engine.py", engine, checkpoint, PROMPT, TOKENS)
    numbers = (
        f"distance of logits {found['distance']:.4f}, {found['same']} of {found['tokens']} greedy tokens "
        f"the reference's own, largest gap {found['gap']:.4f}"
    )
    if found["tokens"] != TOKENS:
        raise NotAsAssumed(
            f"{found['tokens']} tokens came of {TOKENS}", "look for an end token that was not given"
        )
    if not found["distance"] <= TOLERANCE[kind]:  # true for NaN too
        raise NotAsAssumed(numbers, _prefill_advice(kind))
    if not found["gap"] <= 2 * TOLERANCE[kind]:
        raise NotAsAssumed(
            numbers,
            f"prompts are right and decoding is not: the generation kernel or the cache; see {CLASS}",
        )
    return numbers


def _prefill_advice(kind: str) -> str:
    if kind == "bf16":
        return (
            f"the prompt's logits are wrong: see {CLASS}: order of q, k, v, rope_gptj, padding of v; the "
            "fallback is rope_gpt_neox with rows in even, odd order (docs/tensorrt_llm.md)"
        )
    if kind == "W8A16":
        return (
            "bf16 is right and int8 is not: this GPU's layout of int8 weights (known for capability 12); "
            "serve 16-bit weights: int8_weights=False in build/tensorrt_llm/checkpoint.py"
        )
    return "16-bit KV is right and int8 KV is not: do not use the profile int8-kv on this GPU"


def _two_layers(verification: Verification, kind: str, *options: str) -> tuple[Path, Path]:
    """Engine and checkpoint of random weights; the engine returns the prompt's logits."""
    _, container = verification.machine()
    shape, name = shape_of(verification), kind.replace(", ", "-").replace(" ", "-")
    source = verification.folder / "random"
    if not (source / "config.json").is_file():
        shutil.rmtree(source, ignore_errors=True)
        write_random_checkpoint(source, shape, seed=0)
    checkpoint = verification.folder / f"checkpoint-{name}"
    int8_kv = "int8 KV" in kind
    convert(
        source,
        checkpoint,
        int8_weights="W8A16" in kind,
        max_positions=min(4096, shape.max_position_embeddings),
        kv_scales=[KV_SCALE] * shape.num_hidden_layers if int8_kv else None,
    )
    engine = verification.folder / f"engine-{name}"
    shutil.rmtree(engine, ignore_errors=True)
    flags = build_flags(profiles()["int8-kv" if int8_kv else "8gb"], dtype=YOUTU_DTYPE)
    command = [
        *(container.trtllm_build, "--checkpoint_dir", checkpoint, "--output_dir", engine),
        *("--model_cls_file", MODEL_CLASS_FILE, "--model_cls_name", MODEL_CLASS),
        *on_command_line(flags),
        *(options or ["--gather_context_logits"]),
    ]
    run(f"Building two layers, {kind}", command, verification.folder / "log" / f"{name}.log")
    return engine, checkpoint


def whole_engine(verification: Verification) -> str:
    """Builds the engine that is served; its size shows whether head and embedding share one table."""
    if verification.settings.model == "demo":  # nobody named one
        verification.settings = verification.settings.model_copy(
            update={"model": str(_random_2b(verification))}
        )
    settings = verification.settings
    source = resolve(settings.model)
    engine = make_engine(settings.model, settings.data_dir, settings.profile)
    verification.facts["engine"] = engine
    if source.path is None:
        from build.downloads import folder_of

        path = folder_of(str(source.repo), settings.data_dir)
    else:
        path = source.path
    shape = read_shape(path)
    expected = sizes.weight_bytes(shape)
    kv_cache = engine.run_profile().kv_cache
    verification.facts |= {"weights": expected, "kv_per_token": sizes.kv_bytes_per_token(shape, kv_cache)}
    table = 2 * shape.vocab_size * shape.hidden_size
    found = f"rank0.engine has {engine.engine_bytes / 1e9:.3f} GB, weights by arithmetic {expected / 1e9:.3f}"
    if abs(engine.engine_bytes - expected) <= SIZE_TOLERANCE * expected:
        return found
    if abs(engine.engine_bytes - expected - table) <= SIZE_TOLERANCE * expected:
        raise NotAsAssumed(
            f"{found}: the embedding table is there twice",
            "the head does not share it: keep --gemm_plugin and write no lm_head.weight, or add the table to "
            "weight_bytes in build/tensorrt_llm/sizes.py",
        )
    raise NotAsAssumed(found, "a layer has another width than assumed: compare with weight_bytes in sizes.py")


def _random_2b(verification: Verification) -> Path:
    folder = verification.settings.data_dir.absolute() / "random-2b"
    if not (folder / "config.json").is_file():
        say(f"writing random weights of the 2B shape to {folder} (4 GB)")
        shutil.rmtree(folder, ignore_errors=True)
        write_random_checkpoint(folder, YOUTU_2B, seed=0)
    return folder


def memory_used() -> int:
    """Bytes of the first GPU that are in use, by nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return int(asked.stdout.split()[0]) << 20


STEPS = [
    Step("trtllm-build --dry_run", dry_run),
    *(Step(f"two layers, {kind}", partial(against_reference, kind)) for kind in TOLERANCE),
    Step("size of the whole engine", whole_engine),
]
