"""Bytes of a request to a JSON object, strictly; and a pydantic model's refusals as one sentence.

Handles sizes, encodings and gaps of JSON (duplicate keys, NaN, depth); independent of any route's fields.
"""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar, get_args

from flask import request
from pydantic import BaseModel, ValidationError

from .errors import ApiError, shown

Model = TypeVar("Model", bound=BaseModel)

JSON_TYPES = ("application/json", "application/x-www-form-urlencoded", "")
"""`curl -d '{…}'` says it sends a form; what parses as a JSON object is taken for one."""

CHARSETS = ("utf-8", "utf8", "us-ascii", "ascii")

_TAGS = re.compile(r"<\w+>|\[key\]")
"""What pydantic puts into its paths and callers never wrote: names of union branches in the schemas."""


def load(model: type[Model], limit: int) -> Model:
    """The body of the present request, of at most `limit` bytes, as a `model`. Raises ApiError."""
    return validate(model, parse(read(limit)))


def read(limit: int) -> bytes:
    """The body of the present request. Raises ApiError 413, 415.

    The server has checked that it is whole.
    """
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding not in ("", "identity"):
        message = f"unsupported Content-Encoding {shown(coding)}; send the body uncompressed"
        raise ApiError("unsupported_media_type", message)
    charset = request.mimetype_params.get("charset", "utf-8")
    if charset.lower() not in CHARSETS:
        message = f"the charset of the body must be utf-8, not {shown(charset)}"
        raise ApiError("unsupported_media_type", message)
    kind = request.mimetype
    # A page of another site can send what claims to be a form (or nothing) without asking; JSON it cannot.
    allowed = JSON_TYPES[:1] if "Origin" in request.headers else JSON_TYPES
    if kind not in allowed:
        raise ApiError("unsupported_media_type", f"Content-Type must be application/json, not {shown(kind)}")
    return received(limit)


def received(limit: int) -> bytes:
    """The body of the present request, whatever its type. Raises ApiError 413."""
    length = request.content_length
    if length is not None and length > limit:
        raise _too_large(limit, f"{length}")
    # Not request.get_data(): it refuses a chunked body as it refuses an absent one.
    body: bytes = request.environ["wsgi.input"].read(limit + 1 if length is None else length)
    if len(body) > limit:
        raise _too_large(limit, "more")
    return body


def _too_large(limit: int, sent: str) -> ApiError:
    return ApiError("body_too_large", f"the body is limited to {limit} bytes; got {sent}")


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in `body`. Raises ApiError 400 that says what is wrong and where."""
    if not body.strip():
        raise _not_json('the body is empty; send a JSON object such as {"prompt": "…"}')
    try:
        value = json.loads(body.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _not_json(f"the body is not UTF-8: byte {error.start} is 0x{body[error.start]:02x}") from None
    except json.JSONDecodeError as error:
        raise _not_json(
            f"the body is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except RecursionError:
        raise _not_json("the body is nested too deeply") from None
    except ValueError as error:  # An integer of thousands of digits.
        raise _not_json(f"the body contains a number that is too long: {error}") from None
    if not isinstance(value, dict):
        raise _not_json(f"the body must be a JSON object, not {shown(value)}")
    return value


def _not_json(message: str) -> ApiError:
    return ApiError("invalid_json", message)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ApiError("duplicate_key", f"duplicate key `{_printable(key)}`", param=_printable(key))
        found[key] = value
    return found


def _no_constant(name: str) -> float:
    raise _not_json(f"{name} is not JSON; numbers must be finite")


def validate(model: type[Model], value: dict[str, Any]) -> Model:
    """`value` as a `model`. Raises ApiError 400 about its first fault, with the path of the field."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise _fault(model, fault) from None


def _fault(model: type[BaseModel], fault: Any) -> ApiError:
    path, kind, sent = _path(fault["loc"]), fault["type"], fault["input"]
    if kind == "extra_forbidden":
        known = ", ".join(_known(model, fault["loc"][:-1]))
        return ApiError("unknown_field", f"unknown field `{path}`; expected one of {known}", param=path)
    if kind == "missing":
        return ApiError("missing_field", f"{path} is missing", param=path)
    if kind == "value_error":
        message = str(fault["ctx"]["error"])
        return ApiError("invalid_value", f"{path} {message}" if path else message, param=path or None)
    if kind in ("too_short", "too_long"):
        limits = fault["ctx"]
        bound = (
            f"at least {limits['min_length']}" if kind == "too_short" else f"at most {limits['max_length']}"
        )
        unit = "characters" if isinstance(sent, str) else "items"
        message = f"{path} should have {bound} {unit}, not {limits['actual_length']}"
        return ApiError("invalid_value", message, param=path)
    message = re.sub(r"^[A-Z]\w+ should", "should", fault["msg"])
    return ApiError("invalid_value", f"{path} {message}, not {shown(sent)}", param=path)


def _known(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """The names of the fields of the object at this place, without those that say nothing (`repr` False)."""
    found: list[Any] = [model]
    for part in place:
        if isinstance(part, str) and _TAGS.fullmatch(part):
            continue
        inner: list[Any] = []
        for type_ in found:
            if isinstance(part, str):
                inner += [
                    one.annotation for name, one in type_.model_fields.items() if part in (name, one.alias)
                ]
            else:
                inner.append(type_)
        found = [one for annotation in inner for one in _models(annotation)]
    return list(
        dict.fromkeys(
            one.alias or name for type_ in found for name, one in type_.model_fields.items() if one.repr
        )
    )


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation, at any depth."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _path(parts: tuple[int | str, ...]) -> str:
    path = ""
    for part in parts:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not _TAGS.fullmatch(part):
            path += f".{_printable(part)}" if path else _printable(part)
    return path


def _printable(key: str) -> str:
    text = key.encode("utf-8", "replace").decode()
    return text if len(text) <= 60 else text[:60] + "…"
