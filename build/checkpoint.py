"""Read the safetensors of a checkpoint folder, one file or many shards, a few rows at a time.

Name, shape and type of each tensor and the length of each file are checked before the first weight is read.
Independent of GGUF and llama.cpp; needs neither torch nor transformers.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from build.config import read_json
from build.errors import BuildError
from build.pointer import refuse_pointer

F32 = npt.NDArray[np.float32]

CHUNK_BYTES = 8 << 20  # of f32 in flight
ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
HEADER_LIMIT = 100_000_000  # bytes; the limit of the safetensors format itself


class Tensors(Protocol):
    """What config.json says of the tensors beside it."""

    @property
    def architecture(self) -> str: ...

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of each tensor that must be there."""


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies: `offset` bytes into `file`, row-major, little-endian."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int


class Weights:
    """The tensors of a checkpoint folder, read by rows; a context manager that closes the files.

    Read with pread, not mapped: mapped pages count as resident memory, and a 4 GB checkpoint would show.
    """

    def __init__(self, folder: Path, shape: Tensors) -> None:
        self._files: dict[Path, int] = {}
        self.tensors = _locate(folder)
        _compare(folder, self.tensors, shape)

    def __enter__(self) -> Weights:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._files.values():
            os.close(handle)
        self._files.clear()

    def rows(self, name: str, start: int, stop: int) -> F32:
        """Rows start to stop of a matrix (or elements of a vector, as one column) as f32 [rows, columns].

        BuildError names the tensor and the row when a value is NaN or infinite, or the file ends too early.
        """
        tensor = self.tensors[name]
        columns = math.prod(tensor.shape[1:])
        row_bytes = columns * ITEM_BYTES[tensor.dtype]
        raw = self._read(tensor, tensor.offset + start * row_bytes, (stop - start) * row_bytes)
        values: F32
        if tensor.dtype == "F32":
            values = np.frombuffer(raw, dtype="<f4").astype(np.float32, copy=False)
        elif tensor.dtype == "F16":
            values = np.frombuffer(raw, dtype="<f2").astype(np.float32)
        else:
            values = (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << 16).view(np.float32)
        values = values.reshape(stop - start, columns)
        finite = np.isfinite(values)
        if not finite.all():
            row, column = (int(index) for index in np.argwhere(~finite)[0])
            raise BuildError(
                f"tensor {name} contains {values[row, column]} at row {start + row}, column {column}: "
                "weights must be finite numbers"
            )
        return values

    def chunks(self, name: str, stop: int | None = None) -> Iterator[F32]:
        """The first `stop` rows (None: all), a few megabytes at a time."""
        first, *others = self.tensors[name].shape
        stop = first if stop is None else stop
        step = max(1, CHUNK_BYTES // (4 * math.prod(others)))
        for begin in range(0, stop, step):
            yield self.rows(name, begin, min(begin + step, stop))

    def _read(self, tensor: StoredTensor, offset: int, length: int) -> bytes:
        if tensor.file not in self._files:
            self._files[tensor.file] = os.open(tensor.file, os.O_RDONLY)
        raw = os.pread(self._files[tensor.file], length, offset)
        if len(raw) != length:
            raise BuildError(f"{tensor.file} ended while reading tensor {tensor.name}")
        return raw


def _locate(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of model.safetensors, or of the shards named by model.safetensors.index.json."""
    single, index_path = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if index_path.exists():
        weight_map = read_json(index_path).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise BuildError(f"{index_path}: weight_map must be a non-empty object, found {weight_map!r}")
        names = sorted({str(name) for name in weight_map.values()})
        found: dict[str, StoredTensor] = {}
        for name in names:
            if Path(name).name != name:
                raise BuildError(f"{index_path}: shard {name!r} must be a file name in the same folder")
            if not (folder / name).is_file():
                raise BuildError(
                    f"{folder / name} is missing; {index_path.name} names it as one of {len(names)} shards"
                )
            found.update(read_header(folder / name))
        for tensor, name in weight_map.items():
            if tensor not in found or found[tensor].file.name != name:
                raise BuildError(f"{index_path}: tensor {tensor} should be in {name} but is not")
        return found
    if not single.is_file():
        raise BuildError(f"{folder} has neither model.safetensors nor model.safetensors.index.json")
    return read_header(single)


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one safetensors file; BuildError when the header or the length of the file is wrong."""
    refuse_pointer(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, HEADER_LIMIT):
            raise BuildError(
                f"{path} is incomplete: its safetensors header needs {length} bytes, the file has {size}"
            )
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            begin = 8 + length
            tensors = {}
            for name, entry in header.items():
                shape = tuple(int(n) for n in entry["shape"])
                first, last = (int(n) for n in entry["data_offsets"])
                dtype = str(entry["dtype"])
                if dtype in ITEM_BYTES and last - first != math.prod(shape) * ITEM_BYTES[dtype]:
                    raise BuildError(
                        f"{path}: tensor {name}, {dtype} {list(shape)}, cannot take {last - first} bytes"
                    )
                if first < 0 or begin + last > size:
                    raise BuildError(
                        f"{path} is truncated: tensor {name} ends at byte {begin + last}, the file at {size}"
                    )
                tensors[name] = StoredTensor(name, path, dtype, shape, begin + first)
        except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BuildError(f"{path} has no readable safetensors header: {error!r}") from None
    return tensors


def _compare(folder: Path, stored: dict[str, StoredTensor], shape: Tensors) -> None:
    expected = shape.tensors()
    for name, dims in expected.items():
        if name not in stored:
            raise BuildError(f"{folder}: tensor {name} of shape {list(dims)} is missing")
        tensor = stored[name]
        if tensor.shape != dims:
            raise BuildError(
                f"{folder}: tensor {name} must have shape {list(dims)}, found {list(tensor.shape)}"
            )
        if tensor.dtype not in ITEM_BYTES:
            raise BuildError(
                f"{folder}: tensor {name} must be one of {', '.join(ITEM_BYTES)}, found {tensor.dtype}"
            )
    for name in stored:
        # transformers ignores both: a tied checkpoint may repeat its head, an old one may carry rope tables
        if name not in expected and name != "lm_head.weight" and not name.endswith("rotary_emb.inv_freq"):
            raise BuildError(
                f"{folder}: tensor {name} of shape {list(stored[name].shape)} belongs to no "
                f"{shape.architecture}"
            )
