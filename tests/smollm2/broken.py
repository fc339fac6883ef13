"""Conversions of SmolLM2 with one fault each, as a converter may have it: a sound file, rearranged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

from tests.build.gguf_files import rewrite

HEADS, KV_HEADS = 9, 3
Data = npt.NDArray[Any]
Tensors = dict[str, Data]


def _each_layer(change: Callable[[Tensors, str], None]) -> Callable[[Tensors], None]:
    def all_layers(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.endswith(".attn_q.weight")]:
            change(tensors, name.removesuffix("attn_q.weight"))

    return all_layers


def _swap(one: str, other: str) -> Callable[[Tensors], None]:
    def swap(tensors: Tensors, layer: str) -> None:
        one_name, other_name = f"{layer}{one}.weight", f"{layer}{other}.weight"
        tensors[one_name], tensors[other_name] = tensors[other_name], tensors[one_name]

    return _each_layer(swap)


def _pairs_of_halves(rows: Data, heads: int) -> Data:
    """Rows of each head in the other pairing of RoPE: permuted once too often, or not at all."""
    each = rows.reshape(heads, 2, -1, rows.shape[-1])
    return np.ascontiguousarray(each.swapaxes(1, 2)).reshape(rows.shape)


def _unpermuted(tensors: Tensors, layer: str) -> None:
    for name, heads in (("attn_q", HEADS), ("attn_k", KV_HEADS)):
        tensors[f"{layer}{name}.weight"] = _pairs_of_halves(tensors[f"{layer}{name}.weight"], heads)


def _norm(value: float, *names: str) -> Callable[[Tensors], None]:
    def change(tensors: Tensors) -> None:
        for name in names:
            tensors[name] = np.full_like(tensors[name], value)

    return change


def _shuffled(tensors: Tensors) -> None:
    table = tensors["token_embd.weight"]
    tensors["token_embd.weight"] = table[np.random.default_rng(0).permutation(len(table))]


def _shifted(tensors: Tensors) -> None:
    tensors["token_embd.weight"] = np.roll(tensors["token_embd.weight"], 1, axis=0)


def _one_layer_for_all(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith("blk.1.")]:
        tensors[name] = tensors[name.replace("blk.1.", "blk.2.")]


def _heads_in_another_order(tensors: Tensors, layer: str) -> None:
    rows = tensors[f"{layer}attn_q.weight"]
    each = rows.reshape(KV_HEADS, HEADS // KV_HEADS, -1, rows.shape[-1])
    tensors[f"{layer}attn_q.weight"] = np.ascontiguousarray(each.swapaxes(0, 1)).reshape(rows.shape)


BROKEN: dict[str, Callable[[Tensors], None]] = {
    "keys and values swapped": _swap("attn_k", "attn_v"),
    "gate and up swapped": _swap("ffn_gate", "ffn_up"),
    "norms swapped": _swap("attn_norm", "ffn_norm"),
    "rope not permuted": _each_layer(_unpermuted),
    "query heads in another order": _each_layer(_heads_in_another_order),
    "a norm of zeros": _norm(0.0, "blk.0.attn_norm.weight"),
    "the last norm left at one": _norm(1.0, "output_norm.weight"),
    "embedding shuffled": _shuffled,
    "embedding shifted by one": _shifted,
    "a layer twice": _one_layer_for_all,
}
BROKEN_KEYS: dict[str, dict[str, float]] = {
    "another epsilon": {"llama.attention.layer_norm_rms_epsilon": 1.0},
}


def write(source: Path, target: Path, fault: str | None) -> Path:
    """A copy of the file `source` with the fault of that name; None: without any."""
    reader = gguf.GGUFReader(source)
    tensors: Tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    if fault in BROKEN:
        BROKEN[fault](tensors)
    changed = BROKEN_KEYS.get(str(fault), {})
    return rewrite(source, target, lambda keys: keys.update(changed), weights=tensors)
