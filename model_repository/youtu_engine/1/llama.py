"""The part of llama.cpp's C API that the engine needs, through ctypes.

The `xllamacpp` wheel links llama.cpp into one extension module and exports its C symbols, so a
pinned, prebuilt llama.cpp comes from PyPI. For an NVIDIA card the same sources are compiled with CUDA
(`build.cuda`), into a folder of shared libraries. Structures follow `llama.h` of the pinned version;
`LlamaLibrary` compares the library's own default parameters with that header before anything is
loaded, so a different layout is refused instead of misread.

Independent of requests, slots, text and Triton.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import importlib.util
import json
import os
import re
from collections.abc import Callable
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int8, c_int32, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from runtime import ComputeError, Piece

PINNED = "2026.10.11549"
# enum ggml_type, ggml.h
KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
_FLASH_ATTENTION_OFF = 0
# Of a compiled library: what it was made of, and the folder of CUDA's own libraries.
LIBRARY_JSON = "library.json"
CUDA_LIBRARIES = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13")
_GGML_LOG_INFO, _GGML_LOG_ERROR, _GGML_LOG_CONT = 2, 4, 5
_DEVICE_TYPE_GPU = 1  # enum ggml_backend_dev_type, ggml-backend.h
# Embeddings are looked up on the CPU, all else is computed on the card: two parts of the graph. A card that
# cannot do the attention of a layer adds two for each.
_MOST_SPLITS = 2
_LOG_CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_int, c_char_p, c_void_p)


class LlamaError(ComputeError):
    """llama.cpp could not load, or could not compute."""


class _ModelParams(ctypes.Structure):
    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        ("n_gpu_layers", c_int32),
        ("split_mode", c_int32),
        ("load_mode", c_int32),
        ("lazy_mode", c_int32),
        ("main_gpu", c_int32),
        ("tensor_split", c_void_p),
        ("progress_callback", c_void_p),
        ("progress_callback_user_data", c_void_p),
        ("kv_overrides", c_void_p),
        ("vocab_only", c_bool),
        ("check_tensors", c_bool),
        ("use_extra_bufts", c_bool),
        ("no_host", c_bool),
        ("no_alloc", c_bool),
        ("load_mtp", c_bool),
    ]


class _ContextParams(ctypes.Structure):
    _fields_ = [
        ("n_ctx", c_uint32),
        ("n_batch", c_uint32),
        ("n_ubatch", c_uint32),
        ("n_seq_max", c_uint32),
        ("n_rs_seq", c_uint32),
        ("n_outputs_max", c_uint32),
        ("n_outputs_max_per_seq", c_uint32),
        ("n_threads", c_int32),
        ("n_threads_batch", c_int32),
        ("ctx_type", c_int32),
        ("rope_scaling_type", c_int32),
        ("pooling_type", c_int32),
        ("attention_type", c_int32),
        ("flash_attn_type", c_int32),
        ("rope_freq_base", c_float),
        ("rope_freq_scale", c_float),
        ("yarn_ext_factor", c_float),
        ("yarn_attn_factor", c_float),
        ("yarn_beta_fast", c_float),
        ("yarn_beta_slow", c_float),
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        ("cb_eval", c_void_p),
        ("cb_eval_user_data", c_void_p),
        ("type_k", c_int32),
        ("type_v", c_int32),
        ("moe_cache_size", c_size_t),
        ("abort_callback", c_void_p),
        ("abort_callback_data", c_void_p),
        ("embeddings", c_bool),
        ("offload_kqv", c_bool),
        ("no_perf", c_bool),
        ("op_offload", c_bool),
        ("swa_full", c_bool),
        ("kv_unified", c_bool),
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", POINTER(c_float)),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "llama_backend_init": (None, []),
    "llama_log_set": (None, [_LOG_CALLBACK, c_void_p]),
    "llama_model_default_params": (_ModelParams, []),
    "llama_context_default_params": (_ContextParams, []),
    "llama_model_load_from_file": (c_void_p, [c_char_p, _ModelParams]),
    "llama_model_free": (None, [c_void_p]),
    "llama_model_get_vocab": (c_void_p, [c_void_p]),
    "llama_model_n_ctx_train": (c_int32, [c_void_p]),
    "llama_vocab_n_tokens": (c_int32, [c_void_p]),
    "llama_tokenize": (c_int32, [c_void_p, c_char_p, c_int32, POINTER(c_int32), c_int32, c_bool, c_bool]),
    "llama_init_from_model": (c_void_p, [c_void_p, _ContextParams]),
    "llama_free": (None, [c_void_p]),
    "llama_get_memory": (c_void_p, [c_void_p]),
    "llama_memory_seq_rm": (c_bool, [c_void_p, c_int32, c_int32, c_int32]),
    "llama_memory_seq_cp": (None, [c_void_p, c_int32, c_int32, c_int32, c_int32]),
    "llama_batch_init": (_Batch, [c_int32, c_int32, c_int32]),
    "llama_batch_free": (None, [_Batch]),
    "llama_decode": (c_int32, [c_void_p, _Batch]),
    "llama_get_logits_ith": (POINTER(c_float), [c_void_p, c_int32]),
    "ggml_backend_dev_count": (c_size_t, []),
    "ggml_backend_dev_get": (c_void_p, [c_size_t]),
    "ggml_backend_dev_type": (c_int32, [c_void_p]),
    "ggml_backend_dev_name": (c_char_p, [c_void_p]),
    "ggml_backend_dev_description": (c_char_p, [c_void_p]),
    "ggml_backend_dev_memory": (None, [c_void_p, POINTER(c_size_t), POINTER(c_size_t)]),
}


# llama.cpp goes on calling the last of these, also when the library that set it is no longer needed.
_called_for_ever: list[Callable[..., None]] = []


@dataclass(frozen=True)
class Device:
    """A card that llama.cpp can compute on; memory in bytes."""

    name: str
    description: str
    free: int
    total: int


@dataclass(frozen=True)
class Placement:
    """What is computed and kept where, as llama.cpp reported it while it loaded a model.

    weights, cache, buffers: bytes by device ("CUDA0", "CPU", "CUDA_Host"). layers: all of the model's, with
    the output layer. splits: parts of the graph that run on one device without a break.
    """

    layers: int
    layers_on_device: int
    weights: dict[str, int]
    cache: dict[str, int]
    buffers: dict[str, int]
    flash_attention: bool
    splits: int


class LlamaLibrary:
    """The loaded library, its functions typed and its layout checked. Raises LlamaError.

    folder: of a library that was compiled for a card (`build.cuda`); without it, xllamacpp's, for the CPU.
    cuda: the folder of CUDA's own libraries, where it is not the one that library.json names.
    """

    def __init__(self, folder: Path | None = None, cuda: Path | None = None) -> None:
        # How long a thread looks for work before it sleeps: with no end it starves the servers on the same
        # cores, not at all it wakes up too late (2B decode on two cores, idle and beside a busy loop).
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        self.c = _xllamacpp() if folder is None else _compiled(folder, cuda)
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(self.c, name)
            function.restype, function.argtypes = result, arguments
        self.last_error = ""
        self.reports: list[str] = []  # what llama.cpp has reported since the last model was begun
        _called_for_ever.append(_LOG_CALLBACK(self._remember))
        self.c.llama_log_set(_called_for_ever[-1], None)
        self.c.llama_backend_init()
        self._check_layout()

    def devices(self) -> list[Device]:
        """The cards that this library can compute on; none with a library for the CPU."""
        found = []
        for index in range(self.c.ggml_backend_dev_count()):
            device = self.c.ggml_backend_dev_get(index)
            if self.c.ggml_backend_dev_type(device) == _DEVICE_TYPE_GPU:
                free, total = c_size_t(), c_size_t()
                self.c.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
                name = self.c.ggml_backend_dev_name(device).decode()
                description = self.c.ggml_backend_dev_description(device).decode()
                found.append(Device(name, description, free.value, total.value))
        return found

    def require_card(self) -> None:
        """Raises LlamaError when there is no card that the library can compute on."""
        if not self.devices():
            raise LlamaError(
                "llama.cpp sees no card, although it was compiled for one: is the driver's libcuda.so.1 "
                "there, and /dev/nvidia0 open to this user?"
            )

    def _remember(self, level: int, text: bytes | None, _data: object) -> None:
        if not text:
            return
        line = text.decode("utf-8", "replace").strip()
        if level >= _GGML_LOG_ERROR and level != _GGML_LOG_CONT:
            if not line.endswith("failed to load model"):  # comes after the reason
                self.last_error = line.rpartition("error loading model: ")[2]
        elif level >= _GGML_LOG_INFO:
            self.reports.append(line)

    def _check_layout(self) -> None:
        model, context = self.c.llama_model_default_params(), self.c.llama_context_default_params()
        found = (
            model.n_gpu_layers, model.load_mode, model.vocab_only, model.use_extra_bufts,
            context.n_ctx, context.n_batch, context.flash_attn_type, context.yarn_ext_factor,
            context.type_k, context.type_v, context.embeddings, context.offload_kqv, context.swa_full,
            context.kv_unified, context.n_samplers,
        )  # fmt: skip
        expected = (-1, -1, False, True, 512, 2048, -1, -1.0, 1, 1, False, True, True, False, 0)
        if found != expected:
            raise LlamaError(f"llama.cpp's parameters have a different layout: {found} is not {expected}")


def _xllamacpp() -> ctypes.CDLL:
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or not spec.submodule_search_locations:
        raise LlamaError("xllamacpp is not installed: pip install -r requirements/serve.lock")
    installed = importlib.metadata.version("xllamacpp")
    if installed != PINNED:
        raise LlamaError(f"xllamacpp {installed} is installed; this engine is written for {PINNED}")
    return ctypes.CDLL(str(Path(spec.submodule_search_locations[0]) / "xllamacpp.abi3.so"))


def _compiled(folder: Path, cuda: Path | None) -> ctypes.CDLL:
    try:
        about = json.loads((folder / LIBRARY_JSON).read_text(encoding="utf-8"))
        made_of, cuda = about["xllamacpp"], cuda or Path(about["cuda"])
    except (OSError, ValueError, KeyError) as error:
        raise LlamaError(f"{folder} contains no compiled llama.cpp: {error}") from None
    if made_of != PINNED:
        raise LlamaError(f"{folder} was compiled from xllamacpp {made_of}; this engine is for {PINNED}")
    try:
        for name in CUDA_LIBRARIES:  # found by their names once they are loaded, wherever they lie
            ctypes.CDLL(str(cuda / name), ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(str(folder / "libllama.so"))
    except OSError as error:
        raise LlamaError(f"the compiled llama.cpp cannot be loaded: {error}") from None


def _placement(reports: list[str]) -> Placement:
    """Read llama.cpp's reports of one load."""
    text = "\n".join(reports)
    offloaded = re.search(r"offloaded (\d+)/(\d+) layers", text)
    splits = re.findall(r"splits = (\d+)(?: / (\d+))?", text)  # of a prompt's batch, of single tokens
    return Placement(
        layers=int(offloaded[2]) if offloaded else 0,
        layers_on_device=int(offloaded[1]) if offloaded else 0,
        weights=_sizes(text, "model"),
        cache=_sizes(text, "KV"),
        buffers=_sizes(text, "compute"),
        flash_attention="Flash Attention enabled" in text or "enabling flash_attn" in text,
        splits=max((int(count) for counts in splits for count in counts if count), default=0),
    )


def _sizes(text: str, kind: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for name, size in re.findall(rf"(\S+) +{kind} buffer size = +([\d.]+) MiB", text):
        found[name] = found.get(name, 0) + int(float(size) * (1 << 20))
    return found


class Llama:
    """One model with `sequences` independent KV caches of `context` tokens each.

    kv_type: "f16", "q8_0" (both with flash attention) or "f32" (without: exact, slower). A library with
    CUDA computes on the card. Raises LlamaError when the file is not a model that llama.cpp can run, and when
    a card is there and does not compute all of it.
    """

    block = 1
    rows = 1  # on a CPU every further row costs nearly as much as the first
    shortest_piece = 1
    neighbours = True

    def __init__(
        self,
        path: Path,
        *,
        context: int,
        sequences: int,
        batch: int,
        threads: int,
        kv_type: str = "f16",
        library: LlamaLibrary | None = None,
    ) -> None:
        self.library = library or LlamaLibrary()
        self._c = self.library.c
        self._context = None
        self.library.reports.clear()
        self.library.last_error = ""
        self._model = self._c.llama_model_load_from_file(
            os.fsencode(path), self._c.llama_model_default_params()
        )
        if not self._model:
            raise LlamaError(f"{path}: {self.library.last_error or 'not a model that llama.cpp can load'}")
        self.vocab_size: int = self._c.llama_vocab_n_tokens(self._c.llama_model_get_vocab(self._model))
        self.batch_size = batch
        self.sequences = sequences
        self._size = sequences * context
        params = self._c.llama_context_default_params()
        params.n_ctx, params.n_seq_max = context * sequences, sequences
        # Attention is computed per part of the KV cache: no sequence sees or pays for another.
        params.kv_unified = False
        params.n_batch = params.n_ubatch = batch
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = KV_TYPES[kv_type]
        if kv_type == "f32":
            params.flash_attn_type = _FLASH_ATTENTION_OFF
        self._context = self._c.llama_init_from_model(self._model, params)
        if not self._context:
            raise LlamaError(
                f"{path}: no context of {sequences} x {context} tokens with a {kv_type} KV cache: "
                f"{self.library.last_error or 'not enough memory?'}"
            )
        self.placement = _placement(self.library.reports)
        self.library.reports.clear()
        self._check_placement(path)
        self._memory = self._c.llama_get_memory(self._context)
        self._batch = self._c.llama_batch_init(batch, 0, 1)
        self._token = np.ctypeslib.as_array(self._batch.token, (batch,))
        self._pos = np.ctypeslib.as_array(self._batch.pos, (batch,))
        self._logits = np.ctypeslib.as_array(self._batch.logits, (batch,))
        np.ctypeslib.as_array(self._batch.n_seq_id, (batch,))[:] = 1

    def __str__(self) -> str:
        return str(self.placement)

    def _check_placement(self, path: Path) -> None:
        """A part left on the CPU makes every step many times as slow: that is an error, and no surprise."""
        placed = self.placement
        if not self.library.devices() or (
            placed.layers_on_device == placed.layers
            and placed.splits <= _MOST_SPLITS
            and not any(name.startswith("CPU") for name in placed.cache)
        ):
            return
        raise LlamaError(
            f"{path}: the card computes {placed.layers_on_device} of {placed.layers} layers, its graph has "
            f"{placed.splits} parts (at most {_MOST_SPLITS}), the KV cache is in {', '.join(placed.cache)}: "
            "part of the model would run on the CPU"
        )

    def decode(
        self,
        tokens: NDArray[np.int32],
        positions: NDArray[np.int32],
        sequences: list[int],
        output_rows: list[int],
    ) -> dict[int, NDArray[np.float32]]:
        """Run one batch. Logits [vocab_size] of the rows in `output_rows`: views, valid until the next call.

        tokens, positions: [n], n <= batch; sequences: the KV cache of each row. Raises LlamaError.
        """
        n = len(tokens)
        self._token[:n], self._pos[:n], self._logits[:n] = tokens, positions, 0
        self._logits[output_rows] = 1
        for row, sequence in enumerate(sequences):
            self._batch.seq_id[row][0] = sequence
        self._batch.n_tokens = n
        status = self._c.llama_decode(self._context, self._batch)
        if status != 0:
            raise LlamaError(f"llama_decode returned {status}: {self.library.last_error}")
        rows = {}
        for row in output_rows:
            pointer = self._c.llama_get_logits_ith(self._context, row)
            rows[row] = np.ctypeslib.as_array(pointer, (self.vocab_size,))
        return rows

    def step(self, pieces: list[Piece]) -> list[list[NDArray[np.float32]]]:
        """See `Runtime.step`."""
        tokens = [token for piece in pieces for token in piece.tokens]
        positions = [piece.start + i for piece in pieces for i in range(len(piece.tokens))]
        sequences = [piece.sequence for piece in pieces for _ in piece.tokens]
        wanted, first = [], 0
        for piece in pieces:
            wanted.append([first + place for place in piece.wanted])
            first += len(piece.tokens)
        rows = [row for places in wanted for row in places]
        logits = self.decode(np.array(tokens, np.int32), np.array(positions, np.int32), sequences, rows)
        return [[logits[row] for row in places] for places in wanted]

    def room(self) -> int:
        """Each sequence has its own part of the KV cache: there is always enough."""
        return self._size

    def device_memory(self) -> tuple[int, int] | None:
        """Of the first card; None with a library for the CPU."""
        cards = self.library.devices()
        return (cards[0].total - cards[0].free, cards[0].total) if cards else None

    def share(self, source: int, target: int, length: int) -> None:
        """Copy the KV cache of `source` (llama.cpp copies all of it) and drop what is behind `length`."""
        self.forget(target, 0)
        self._c.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        self.forget(target, length)

    def forget(self, sequence: int, start: int) -> None:
        """Drop the KV cache of `sequence` from position `start` on."""
        if not self._c.llama_memory_seq_rm(self._memory, sequence, start, -1):
            raise LlamaError(f"cannot truncate the KV cache of sequence {sequence} at {start}")

    def tokenize(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids by the GGUF's own vocabulary, without added tokens; for checks, not for serving."""
        data = text.encode()
        ids = (c_int32 * (len(data) + 8))()
        vocab = self._c.llama_model_get_vocab(self._model)
        count = self._c.llama_tokenize(vocab, data, len(data), ids, len(ids), False, special)
        if count < 0:
            raise LlamaError(f"llama_tokenize needs room for {-count} tokens of {len(data)} bytes")
        return list(ids[:count])

    def close(self) -> None:
        if self._context:
            self._c.llama_batch_free(self._batch)
            self._c.llama_free(self._context)
            self._context = None
        if self._model:
            self._c.llama_model_free(self._model)
            self._model = None
