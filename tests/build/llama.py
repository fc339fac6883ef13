"""A small ctypes binding of the llama.cpp inside xllamacpp, for tests: load a GGUF, tokenise, get log-probs.

Structures follow include/llama.h of xllamacpp 2026.10.11549. Exact mode only: f32 cache, no flash attention.
"""

from __future__ import annotations

import ctypes as C
import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class ModelParams(C.Structure):
    _fields_ = [
        ("devices", C.c_void_p),
        ("tensor_buft_overrides", C.c_void_p),
        ("n_gpu_layers", C.c_int32),
        ("split_mode", C.c_int),
        ("load_mode", C.c_int),
        ("lazy_mode", C.c_int),
        ("main_gpu", C.c_int32),
        ("tensor_split", C.c_void_p),
        ("progress_callback", C.c_void_p),
        ("progress_callback_user_data", C.c_void_p),
        ("kv_overrides", C.c_void_p),
        ("vocab_only", C.c_bool),
        ("check_tensors", C.c_bool),
        ("use_extra_bufts", C.c_bool),
        ("no_host", C.c_bool),
        ("no_alloc", C.c_bool),
        ("load_mtp", C.c_bool),
    ]


class ContextParams(C.Structure):
    _fields_ = [
        *((name, C.c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")),
        *((name, C.c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")),
        *((name, C.c_int32) for name in ("n_threads", "n_threads_batch")),
        *((name, C.c_int) for name in ("ctx_type", "rope_scaling_type", "pooling_type", "attention_type")),
        ("flash_attn_type", C.c_int),
        *((name, C.c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor")),
        *((name, C.c_float) for name in ("yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", C.c_uint32),
        ("defrag_thold", C.c_float),
        ("cb_eval", C.c_void_p),
        ("cb_eval_user_data", C.c_void_p),
        ("type_k", C.c_int),
        ("type_v", C.c_int),
        ("moe_cache_size", C.c_size_t),
        ("abort_callback", C.c_void_p),
        ("abort_callback_data", C.c_void_p),
        *(
            (name, C.c_bool)
            for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full", "kv_unified")
        ),
        ("samplers", C.c_void_p),
        ("n_samplers", C.c_size_t),
        ("ctx_other", C.c_void_p),
    ]


class Batch(C.Structure):
    _fields_ = [
        ("n_tokens", C.c_int32),
        ("token", C.POINTER(C.c_int32)),
        ("embd", C.POINTER(C.c_float)),
        ("pos", C.POINTER(C.c_int32)),
        ("n_seq_id", C.POINTER(C.c_int32)),
        ("seq_id", C.POINTER(C.POINTER(C.c_int32))),
        ("logits", C.POINTER(C.c_int8)),
    ]


LOG = C.CFUNCTYPE(None, C.c_int, C.c_char_p, C.c_void_p)
last_errors: list[str] = []


def _keep_errors(level: int, text: bytes, _: object) -> None:
    if level >= 4:  # GGML_LOG_LEVEL_ERROR
        last_errors.append(text.decode(errors="replace").strip())


_callback = LOG(_keep_errors)


@cache
def library() -> Any:
    spec = importlib.util.find_spec("xllamacpp")
    assert spec is not None
    assert spec.submodule_search_locations
    lib = C.CDLL(str(next(Path(spec.submodule_search_locations[0]).glob("xllamacpp*.so"))))
    lib.llama_log_set(_callback, None)
    lib.llama_backend_init()
    lib.llama_model_default_params.restype = ModelParams
    lib.llama_context_default_params.restype = ContextParams
    for name in ("llama_model_load_from_file", "llama_init_from_model", "llama_model_get_vocab"):
        getattr(lib, name).restype = C.c_void_p
    lib.llama_model_load_from_file.argtypes = [C.c_char_p, ModelParams]
    lib.llama_init_from_model.argtypes = [C.c_void_p, ContextParams]
    lib.llama_model_get_vocab.argtypes = [C.c_void_p]
    lib.llama_vocab_n_tokens.argtypes = [C.c_void_p]
    lib.llama_model_free.argtypes = lib.llama_free.argtypes = [C.c_void_p]
    lib.llama_model_free.restype = lib.llama_free.restype = None
    lib.llama_batch_init.restype = Batch
    lib.llama_batch_init.argtypes = [C.c_int32, C.c_int32, C.c_int32]
    lib.llama_batch_free.argtypes = [Batch]
    lib.llama_batch_free.restype = None
    lib.llama_decode.argtypes = [C.c_void_p, Batch]
    lib.llama_get_logits_ith.argtypes = [C.c_void_p, C.c_int32]
    lib.llama_get_logits_ith.restype = C.POINTER(C.c_float)
    lib.llama_tokenize.argtypes = [
        C.c_void_p, C.c_char_p, C.c_int32, C.POINTER(C.c_int32), C.c_int32, C.c_bool, C.c_bool,
    ]  # fmt: skip
    return lib


class Llama:
    """One model, one sequence. `position` tokens have been decoded so far."""

    def __init__(self, path: Path, *, context: int = 512, vocab_only: bool = False) -> None:
        lib = library()
        last_errors.clear()
        params = lib.llama_model_default_params()
        params.vocab_only, params.check_tensors = vocab_only, not vocab_only
        self._context = None
        self._model = lib.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise RuntimeError("; ".join(last_errors))
        self._vocab = lib.llama_model_get_vocab(self._model)
        self.vocab_size: int = lib.llama_vocab_n_tokens(self._vocab)
        self.position = 0
        if not vocab_only:
            settings = lib.llama_context_default_params()
            settings.n_ctx = settings.n_batch = settings.n_ubatch = context
            settings.n_threads = settings.n_threads_batch = 1
            settings.type_k = settings.type_v = 0  # GGML_TYPE_F32
            settings.flash_attn_type = 0
            self._context = lib.llama_init_from_model(self._model, settings)
            assert self._context

    def close(self) -> None:
        if self._context:
            library().llama_free(self._context)
        library().llama_model_free(self._model)

    def log_probs(self, tokens: list[int]) -> npt.NDArray[np.float64]:
        """Decode `tokens` after what came before; the natural log of what follows each of them [n, vocab]."""
        lib = library()
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, self.position + i, 1
            batch.seq_id[i][0], batch.logits[i] = 0, 1
        assert lib.llama_decode(self._context, batch) == 0
        lib.llama_batch_free(batch)
        self.position += len(tokens)
        rows = [
            np.ctypeslib.as_array(lib.llama_get_logits_ith(self._context, i), (self.vocab_size,)).astype(
                np.float64
            )
            for i in range(len(tokens))
        ]
        logits: npt.NDArray[np.float64] = np.stack(rows)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return logits

    def greedy(self, prompt: list[int], count: int) -> tuple[list[int], npt.NDArray[np.float64]]:
        """`count` greedy tokens after the prompt, and the distribution each was taken from [count, vocab]."""
        tokens: list[int] = []
        rows = [self.log_probs(prompt)[-1]]
        while True:
            tokens.append(int(rows[-1].argmax()))
            if len(tokens) == count:
                return tokens, np.stack(rows)
            rows.append(self.log_probs(tokens[-1:])[0])

    def tokenize(self, text: str) -> list[int]:
        """Ids of the text, special tokens parsed, nothing added."""
        raw = text.encode()
        room = (C.c_int32 * (len(raw) + 8))()
        count = library().llama_tokenize(self._vocab, raw, len(raw), room, len(room), False, True)
        assert count >= 0
        return list(room[:count])
