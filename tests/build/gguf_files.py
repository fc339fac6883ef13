"""Copies of GGUF files with something changed in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf


def rewrite(
    source: Path,
    target: Path,
    change: Callable[[dict[str, Any]], object],
    *,
    keep: Callable[[Any], bool] = lambda tensor: True,
    weights: Mapping[str, Any] | None = None,
) -> Path:
    """A copy with metadata that `change` has changed, of those tensors that are kept.

    weights: other values of tensors, by name, encoded as they are in the file.
    """
    reader = gguf.GGUFReader(source)
    keys = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    change(keys)
    writer = gguf.GGUFWriter(target, keys.pop("general.architecture"))
    for name, value in keys.items():
        kind = gguf.GGUFValueType.get_type(value)
        element = gguf.GGUFValueType.get_type(value[0]) if kind == gguf.GGUFValueType.ARRAY else None
        if kind == gguf.GGUFValueType.INT32:
            kind = gguf.GGUFValueType.UINT32
        writer.add_key_value(name, value, kind, sub_type=element)
    for tensor in filter(keep, reader.tensors):
        data = (weights or {}).get(tensor.name, tensor.data)
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
