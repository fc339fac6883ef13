"""Tiny checkpoints for the tests of build/, and ways to spoil them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from build.config import Shape
from build.random_checkpoint import TINY, write_random_checkpoint

SMALL = replace(TINY, vocab_size=640, num_hidden_layers=2)

Tensors = dict[str, torch.Tensor]


def write(folder: Path, shape: Shape = SMALL, *, seed: int = 0) -> Path:
    """A random bf16 checkpoint with a byte tokenizer."""
    write_random_checkpoint(folder, shape, seed=seed)
    return folder


def load(folder: Path) -> Tensors:
    """Every tensor of the folder, read by the safetensors library."""
    tensors: Tensors = {}
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return tensors


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Apply `change` to the object in a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_tensors(folder: Path, change: Callable[[Tensors], object]) -> None:
    """Apply `change` to the tensors, and store them as one model.safetensors."""
    tensors = load(folder)
    change(tensors)
    for old in (*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"):
        old.unlink(missing_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
