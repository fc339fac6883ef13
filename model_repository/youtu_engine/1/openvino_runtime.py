"""OpenVINO as a runtime: paged attention on the CPU, any mix of sequences in one packed step.

The model (`build.openvino_model`) is stateful; at load its attention becomes paged attention, whose KV cache
consists of blocks that this module provides. Weights are int8, activations are quantised dynamically.

Independent of requests, sampling, text and Triton.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from blocks import Blocks
from numpy.typing import NDArray

# OpenVINO's own pipelines use this transformation; it has no public name (the version is pinned).
from openvino._offline_transformations import paged_attention_transformation
from runtime import ComputeError, Piece

BLOCK = 32  # tokens; fixed by OpenVINO's CPU plugin
SPARE_SEQUENCES = 32  # keep what was read for later prompts; an empty one costs nothing
KV_TYPES = {"f32": "f32", "f16": "f16", "q8_0": "u8"}
# Processors without VNNI have no kernels for activations that are rounded as they come.
_EXACT = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
_MADV_DONTNEED = 4  # madvise(2)


class NothingComputed(ComputeError):
    """A step ended without an error and without logits."""


class OpenVino:
    """One model, its KV cache for `slots` sequences of `context` tokens, and for others where there is room.

    kv_type: "f16", "q8_0" (8 bits) or "f32" (exact, slower). Raises ComputeError when the file is no model
    that can be run.
    """

    block = BLOCK
    rows = 8
    shortest_piece = 2
    neighbours = False

    def __init__(self, path: Path, *, slots: int, context: int, threads: int, kv_type: str = "q8_0") -> None:
        self.sequences = sequences = slots + SPARE_SEQUENCES
        options: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # Triton and the frontend use the same processors
            "KV_CACHE_PRECISION": KV_TYPES[kv_type],
            # By channel, the default, steps of several sequences of one token each are wrong (2026.4.1).
            "KEY_CACHE_QUANT_MODE": "BY_TOKEN",
        }
        if kv_type == "f32":  # exact: activations are not rounded either
            options |= _EXACT
        self._weights = path.with_suffix(".bin")
        blocks = slots * -(-context // BLOCK)
        self._blocks = Blocks(blocks, BLOCK, sequences)
        self._load(path, options, blocks)
        # The first step takes seconds: the weights are copied into an order of the processor's.
        if not self._computes():
            self._load(path, options | _EXACT, blocks)
            if not self._computes():
                raise ComputeError(f"{path}: OpenVINO produces no output on this processor")
        _give_back(self._weights)

    def _load(self, path: Path, options: dict[str, Any], blocks: int) -> None:
        core = ov.Core()
        try:
            model = core.read_model(path)
            paged_attention_transformation(model)
            compiled = core.compile_model(model, "CPU", options)
            self._request = compiled.create_infer_request()
        except RuntimeError as error:
            raise ComputeError(f"{path}: {_reason(error)}") from None
        self.vocab_size: int = compiled.output(0).get_partial_shape()[-1].get_length()
        self._caches = []
        for each in compiled.inputs:
            name = each.get_any_name()
            if "_cache." in name:
                shape = [blocks, *(size.get_length() for size in list(each.get_partial_shape())[1:])]
                cache = ov.Tensor(each.get_element_type(), ov.Shape(shape))
                self._request.set_tensor(name, cache)
                self._caches.append(cache.data)

    def _computes(self) -> bool:
        """Whether a step gives logits: where this processor has no kernel for it, OpenVINO says nothing."""
        try:
            self.step([Piece(0, 0, [0, 0], 0, [1])])
        except NothingComputed:
            return False
        finally:
            self.forget(0, 0)
        return True

    def __str__(self) -> str:
        return f"{len(self._caches)} caches of {len(self._caches[0])} blocks of {BLOCK} tokens"

    def step(self, pieces: list[Piece]) -> list[list[NDArray[np.float32]]]:
        """See `Runtime.step`."""
        spans: list[tuple[int, int, list[int]]] = []  # of rows: first position, count, blocks
        wanted: list[int] = []
        tokens: list[int] = []
        for piece in pieces:
            end = piece.start + len(piece.tokens)
            copy = self._blocks.write(piece.sequence, piece.start, end)
            if copy is not None:
                for cache in self._caches:
                    cache[copy[1]] = cache[copy[0]]
            table = self._blocks.tables[piece.sequence]
            wanted += [len(tokens) + place for place in piece.wanted]
            tokens += piece.tokens
            # A single row takes another kernel than several of one sequence: what is to be as if read alone
            # is a sequence of its own, over the same blocks.
            together = len(piece.tokens) - 1 - piece.guesses if piece.guesses else len(piece.tokens)
            if together:
                spans.append((piece.start, together, table))
            spans += [(position, 1, table) for position in range(piece.start + together, end)]
        if len(tokens) == 1:  # and a matrix with one row another than one with several: the same row twice
            tokens, spans = 2 * tokens, 2 * spans
        logits = self._infer(tokens, spans, wanted)
        made = iter(logits)
        return [[next(made) for _ in piece.wanted] for piece in pieces]

    def _infer(
        self, tokens: list[int], spans: list[tuple[int, int, list[int]]], wanted: list[int]
    ) -> NDArray[np.float32]:
        past = np.array([start for start, _, _ in spans], np.int32)
        counts = np.array([count for _, count, _ in spans], np.int32)
        tables = [table[: -(-(start + count) // BLOCK)] for start, count, table in spans]
        inputs = {
            "input_ids": np.array(tokens, np.int64),
            "position_ids": np.concatenate(
                [np.arange(start, start + count) for start, count, _ in spans], dtype=np.int64
            ),
            "max_context_len": np.array((past + counts).max(), np.int32),
            "past_lens": past,
            "subsequence_begins": np.concatenate([[0], counts.cumsum()], dtype=np.int32),
            "block_indices": np.array([block for table in tables for block in table], np.int32),
            "block_indices_begins": np.cumsum([0, *map(len, tables)], dtype=np.int32),
            "rows": np.array(wanted or [0], np.int64),
        }
        try:
            for name, value in inputs.items():
                self._request.set_tensor(name, ov.Tensor(value))
            self._request.infer()
        except RuntimeError as error:
            raise ComputeError(_reason(error)) from None
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data.reshape(-1, self.vocab_size)
        if len(logits) < len(wanted):
            raise NothingComputed(f"OpenVINO returned {len(logits)} of {len(wanted)} rows of logits")
        return logits

    def room(self) -> int:
        return self._blocks.free * BLOCK

    def forget(self, sequence: int, start: int) -> None:
        """Drop the KV cache of `sequence` from position `start` on."""
        self._blocks.cut(sequence, start)

    def share(self, source: int, target: int, length: int) -> None:
        """Let `target` begin with the first `length` tokens of `source`, in the same memory."""
        self._blocks.share(source, target, length)

    def device_memory(self) -> None:
        """It computes on the processor."""

    def close(self) -> None:
        del self._request
        self._caches.clear()


def _give_back(weights: Path) -> None:
    """Unmap the pages of the weights' file: OpenVINO computes on its own copy, made in the first step."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = os.path.realpath(weights)
    with Path("/proc/self/maps").open(encoding="utf-8") as maps:
        for line in maps:
            if line.rstrip("\n").endswith(path):
                start, end = (int(address, 16) for address in line.split(maxsplit=1)[0].split("-"))
                libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def _reason(error: Exception) -> str:
    """OpenVINO's messages begin with places in its source; the reason is the last line of text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
