"""A few numbers from a GGUF file's header, without reading its vocabulary.

The format: magic, version, counts of tensors and of keys, then the keys, each a name, a type and a value
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). The `gguf` package takes seconds for a vocabulary
of 128,256 words before the number of layers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
INTEGERS = {4, 5, 10, 11}


def read_numbers(path: Path, names: Sequence[str]) -> dict[str, int | list[int]]:
    """Those of `names` (their architecture's prefix left out) that are there: a number, or one per layer."""
    found: dict[str, int | list[int]] = {}
    with path.open("rb") as file:
        magic, _, _, keys = struct.unpack("<4sIQQ", file.read(24))
        if magic != b"GGUF":
            raise ValueError(f"{path} is not a GGUF file")
        for _ in range(keys):
            if len(found) == len(names):
                break
            name = file.read(_unsigned(file, 8)).decode().partition(".")[2]
            value = _value(file, _unsigned(file, 4))
            if name in names and isinstance(value, (int, list)):
                found[name] = value
    return found


def _unsigned(file: BinaryIO, size: int) -> int:
    return int.from_bytes(file.read(size), "little")


def _value(file: BinaryIO, kind: int) -> float | bool | list[int] | None:
    """Read one value; strings, and arrays of anything but whole numbers, are skipped."""
    if kind in SCALARS:
        number = struct.unpack("<" + SCALARS[kind], file.read(struct.calcsize("<" + SCALARS[kind])))[0]
        return int(number) if isinstance(number, int) else float(number)
    if kind == STRING:
        file.seek(_unsigned(file, 8), 1)
    elif kind == ARRAY:
        item, count = _unsigned(file, 4), _unsigned(file, 8)
        if item in INTEGERS:
            form = f"<{count}{SCALARS[item]}"
            return list(struct.unpack(form, file.read(struct.calcsize(form))))
        if item in SCALARS:
            file.seek(count * struct.calcsize("<" + SCALARS[item]), 1)
        else:
            for _ in range(count):
                _value(file, item)
    else:
        raise ValueError(f"{file.name}: value type {kind} is unknown")
    return None
