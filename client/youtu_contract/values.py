"""Tensors read, checked and packed, as their rows say.

What a client sends is checked for what the wire cannot carry (`encoded`), what a model gets for the ranges of
the contract (`value_of`). All refusals are `errors.Refused`, and name the input, the limit and what was sent.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import invalid
from .rows import Tensor

Array = NDArray[Any]
Read = Callable[[str], "Array | None"]
"""Gives the tensor of a name with its batch dimension, or None where the request has none."""

Limits = Mapping[str, float]
"""The deployment's limits that rows name: context, vocab_size, last_token, top_log_probs."""

DTYPES: dict[str, Any] = {
    "BYTES": np.object_,
    "BOOL": np.bool_,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "FP32": np.float32,
}
DATATYPES: dict[str, str] = {np.dtype(dtype).name: datatype for datatype, dtype in DTYPES.items()}
RANGES = {"INT32": (-(2**31), 2**31 - 1), "INT64": (-(2**63), 2**63 - 1), "UINT64": (0, 2**64 - 1)}


def values_of(
    rows: Mapping[str, Tensor], read: Read, limits: Limits, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """The value of each of `rows` in a request, or its default; `defaults`: those of the deployment.

    Raises Refused.
    """
    values = {}
    for name, row in rows.items():
        value = value_of(row, read(row.name), limits)
        if value is None:
            value = defaults[name] if row.default == "deployment" else row.default
        values[name] = value
    return values


def value_of(row: Tensor, array: Array | None, limits: Limits) -> Any:
    """What a tensor with its batch dimension holds; None where none was sent. Raises Refused.

    A number, a bool, a text, a dict (of a JSON object; None where the text is empty), a tuple for a list, and
    arrays of more dimensions as they are.
    """
    if array is None:
        return None
    if len(row.shape) > 1:
        return array
    flat = array.reshape(-1)
    if not row.is_list:
        if flat.size != 1:
            raise invalid(row.name, f"expected one value; got {flat.size}")
    elif row.max_values is not None and flat.size > row.max_values:
        raise invalid(row.name, f"at most {row.max_values} are allowed; got {flat.size}")
    if row.datatype == "BYTES":
        texts = tuple(_text(row.name, value) for value in flat)
        if row.is_list:
            return _of_allowed_length(row, texts)
        return json_object(row.name, texts[0]) if row.json else texts[0]
    if row.low is not None or row.high is not None:
        low, high = bounds(row, limits)
        if row.datatype == "FP32":  # so that a limit that a tensor cannot hold exactly is within itself
            low, high = float(np.float32(low)), float(np.float32(high))
        if not (within := (flat >= low) & (flat <= high)).all():  # false for NaN too
            wrong = str(flat[np.flatnonzero(~within)[0]])  # a float as short as its 32 bits allow
            raise invalid(row.name, f"must be {_number(low)} to {_number(high)}; got {wrong}")
    return tuple(flat.tolist()) if row.is_list else flat[0].item()


def bounds(row: Tensor, limits: Limits) -> tuple[float, float]:
    """The least and the greatest value that is allowed."""
    least, greatest = RANGES.get(row.datatype, (-np.inf, np.inf))
    low = least if row.low is None else row.low
    high = greatest if row.high is None else row.high
    return (
        limits[low] if isinstance(low, str) else low,
        limits[high] if isinstance(high, str) else high,
    )


def _number(value: Any) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def _text(name: str, value: Any) -> str:
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise invalid(name, f"expected UTF-8; byte {error.start} is invalid") from None


def _of_allowed_length(row: Tensor, texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        if row.max_length is not None and not 1 <= len(text) <= row.max_length:
            raise invalid(row.name, f"must have 1 to {row.max_length} characters; got {shown(text)}")
    return texts


def json_value(name: str, text: str) -> Any:
    """What the JSON in `text` stands for. Raises Refused."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(name, f"expected JSON: {error}; got {shown(text)}") from None


def json_object(name: str, text: str) -> dict[str, Any] | None:
    """The JSON object in `text`; None where the text is empty. Raises Refused."""
    if text == "":
        return None
    value = json_value(name, text)
    if not isinstance(value, dict):
        raise invalid(name, f"expected a JSON object; got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """What was sent, quoted and shortened."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def array_of(row: Tensor, values: Any) -> Array:
    """Values as the tensor of `row` with its batch dimension: one value, or a sequence for a list."""
    if row.datatype != "BYTES":
        return np.array([values if row.is_list else [values]], DTYPES[row.datatype])
    texts = list(values) if row.is_list else [values]
    array = np.empty((1, len(texts)), np.object_)
    array[0, :] = [text.encode() if isinstance(text, str) else text for text in texts]
    return array


def encoded(field: str, row: Tensor, value: object) -> list[Any]:
    """A Python value as elements of the tensor of `row`; `field`: the caller's name of it. Raises Refused."""
    if row.json:
        if not isinstance(value, Mapping):
            raise invalid(field, f"must be a dict, not {_kind(value)}")
        return [encoded_json(field, dict(value))]
    if not row.is_list:
        return [_element(field, row.datatype, value)]
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, Sequence) or isinstance(values, bytes):
        kinds = "a string or a list of strings" if row.datatype == "BYTES" else "a list"
        raise invalid(field, f"must be {kinds}, not {_kind(value)}")
    return [_element(f"{field}[{at}]", row.datatype, each) for at, each in enumerate(values)]


def encoded_json(field: str, value: object) -> bytes:
    """`value` as JSON. Raises Refused."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid(field, f"cannot be written as JSON: {error}") from None
    return encoded_text(field, text)


def encoded_text(field: str, value: object) -> bytes:
    """A text in UTF-8. Raises Refused."""
    if not isinstance(value, str):
        raise invalid(field, f"must be a string, not {_kind(value)}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise invalid(field, f"is not valid text: a lone surrogate at character {error.start}") from None


def _element(field: str, datatype: str, value: object) -> Any:
    if datatype == "BYTES":
        return encoded_text(field, value)
    if datatype == "BOOL":
        if not isinstance(value, bool):
            raise invalid(field, f"must be True or False, not {value!r}")
        return value
    if datatype == "FP32":
        if not isinstance(value, Real) or isinstance(value, bool):
            raise invalid(field, f"must be a number, not {value!r}")
        try:
            struct.pack("<f", float(value))
        except OverflowError:
            raise invalid(field, f"does not fit a 32-bit float: {value!r}") from None
        return float(value)
    low, high = RANGES[datatype]
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise invalid(field, f"must be a whole number, not {value!r}")
    if not low <= int(value) <= high:
        raise invalid(field, f"must be from {low} to {high}, not {int(value)}")
    return int(value)


def _kind(value: object) -> str:
    return type(value).__name__


def add_input(request: Any, row: Tensor, elements: Sequence[Any]) -> None:
    """Add the tensor of `row` with these elements to a ModelInferRequest."""
    request.inputs.add(name=row.name, datatype=row.datatype, shape=[1, len(elements)])
    request.raw_input_contents.append(packed(row.datatype, elements))


def add_array(request: Any, name: str, array: Array) -> None:
    """Add a tensor with its batch dimension to a ModelInferRequest."""
    datatype = DATATYPES[array.dtype.name]
    request.inputs.add(name=name, datatype=datatype, shape=array.shape)
    elements = array.reshape(-1)
    request.raw_input_contents.append(packed(datatype, elements) if datatype == "BYTES" else array.tobytes())


def packed(datatype: str, elements: Iterable[Any]) -> bytes:
    """Elements as raw contents of a tensor."""
    if datatype == "BYTES":
        return b"".join(len(data).to_bytes(4, "little") + data for data in elements)
    return np.array(list(elements), DTYPES[datatype]).tobytes()


def unpacked(datatype: str, raw: bytes) -> list[Any]:
    """The elements in the raw contents of a tensor, texts as bytes. Raises ValueError if they do not fit."""
    if datatype != "BYTES":
        elements: list[Any] = np.frombuffer(raw, DTYPES[datatype]).tolist()
        return elements
    found, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw) or (end := at + 4 + int.from_bytes(raw[at : at + 4], "little")) > len(raw):
            raise ValueError(f"the text at byte {at} of {len(raw)} is cut off")
        found.append(raw[at + 4 : end])
        at = end
    return found


def outputs_of(response: Any) -> dict[str, list[Any]]:
    """Output name -> elements of a ModelInferResponse. Raises ValueError, naming the output."""
    if len(response.outputs) != len(response.raw_output_contents):
        raise ValueError("the response's tensors are not in raw_output_contents")
    values = {}
    for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
        try:
            values[tensor.name] = unpacked(tensor.datatype, raw)
        except (KeyError, ValueError) as error:
            raise ValueError(f"output {tensor.name} ({tensor.datatype}) cannot be read: {error}") from None
    return values
