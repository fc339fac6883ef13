"""ik_llama.cpp as a runtime of the engine, to be measured beside the two that serve (docs/runtimes.md).

ik_llama.cpp is a fork of llama.cpp with matrix kernels of its own; its wheel (ik-llama-cpp-python) is no
dependency of this project. `prepared` writes the GGUF that it reads: it lacks the tied embedding of Youtu's
architecture, and asks for a scale of experts.

Implements what the engine asks of a runtime (model_repository/youtu_engine/1/runtime.py).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

PACKAGE = "ik-llama-cpp-python"
F16 = 1  # enum ggml_type


class IkLlama:
    """A .gguf file with a KV cache of `context` tokens for each of `sequences`. RuntimeError if it fails."""

    block = 1
    rows = 1
    shortest_piece = 1
    neighbours = True

    def __init__(self, path: Path, *, sequences: int, context: int, batch: int) -> None:
        from ik_llama_cpp import _ctypes_api as api

        self._api, self._batch_size = api, batch
        self.sequences, self._context_size = sequences, context
        api.llama_backend_init()
        model = api.llama_model_default_params()
        model.repack_tensors = True
        model.mla, model.flash_attn = 3, True
        model.n_seq_max, model.max_ctx_size = sequences, sequences * context
        self._model = api.llama_model_load_from_file(str(path).encode(), model)
        if not self._model:
            raise RuntimeError(f"ik_llama.cpp cannot load {path}")
        params = api.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = sequences * context, batch, batch
        params.n_seq_max = sequences
        params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
        params.mla_attn, params.flash_attn = 3, True
        self._context = api.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError("ik_llama.cpp cannot make a context")
        self.vocab_size = int(api.llama_vocab_n_tokens(api.llama_model_get_vocab(self._model)))
        self._batch = api.llama_batch_init(batch, 0, 1)
        self._used = [0] * sequences

    def step(self, pieces: list[Any]) -> list[list[NDArray[np.float32]]]:
        """See `Runtime.step`."""
        batch, place, rows = self._batch, 0, []
        for piece in pieces:
            wanted = set(piece.wanted)
            rows.append([place + each for each in piece.wanted])
            for at, token in enumerate(piece.tokens):
                batch.token[place], batch.pos[place] = token, piece.start + at
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, piece.sequence
                batch.logits[place] = at in wanted
                place += 1
            self._used[piece.sequence] = piece.start + len(piece.tokens)
        batch.n_tokens = place
        if status := self._api.llama_decode(self._context, batch):
            raise RuntimeError(f"ik_llama.cpp: llama_decode returned {status}")
        return [[self._row(each) for each in group] for group in rows]

    def _row(self, place: int) -> NDArray[np.float32]:
        pointer = self._api.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(pointer, (self.vocab_size,)).copy()

    def room(self) -> int:
        """Tokens of KV cache that no sequence holds."""
        return self.sequences * self._context_size - sum(self._used)

    def forget(self, sequence: int, start: int) -> None:
        """Drop the KV cache of `sequence` from position `start` on."""
        self._api._lib.llama_kv_cache_seq_rm(_pointer(self._context), sequence, start, -1)
        self._used[sequence] = min(self._used[sequence], start)

    def share(self, source: int, target: int, length: int) -> None:
        """Let `target` begin with the first `length` tokens of `source`."""
        self.forget(target, 0)
        self._api._lib.llama_kv_cache_seq_cp(_pointer(self._context), source, target, 0, length)
        self._used[target] = length

    def device_memory(self) -> None:
        """It computes on the processor."""

    def close(self) -> None:
        self._api.llama_free(self._context)
        self._api.llama_free_model(self._model)


def _pointer(value: int) -> Any:
    import ctypes

    return ctypes.c_void_p(value)


def prepared(path: Path, folder: Path) -> Path:
    """`path` as ik_llama.cpp reads it, written to `folder` if it is not there; `path` itself if it can."""
    reader = gguf.GGUFReader(path)
    architecture = str(reader.fields["general.architecture"].contents())
    names = {tensor.name for tensor in reader.tensors}
    if architecture != "deepseek2" or "output.weight" in names:
        return path
    made = folder / f"{path.parent.name}-ik.gguf"
    if made.exists():
        return made
    draft = made.with_suffix(".part")
    writer = gguf.GGUFWriter(draft, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        sub = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    writer.add_expert_weights_scale(1.0)
    tensors = [(tensor.name, tensor) for tensor in reader.tensors]
    (table,) = (tensor for tensor in reader.tensors if tensor.name == "token_embd.weight")
    for name, tensor in [*tensors, ("output.weight", table)]:
        writer.add_tensor(name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    draft.replace(made)
    return made
