"""Which JSON schemas xgrammar 0.1.25 enforces.

It ignores most keywords that it does not support. With minLength, maxLength or pattern it allows quotes and
control characters in a string, which is then not JSON; it does not enforce the bounds of non-integers.
Found by experiment, which tests/model_repository/test_guide_check.py repeats. No tokens or processes here.
"""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 32
_SAID = {"$schema", "$id", "$comment", "title", "description", "default", "examples", "deprecated"}
_DEFINITIONS = ("$defs", "definitions")
# The first of these in a schema is taken, and what stands beside it is passed over.
_ALONE = ("$ref", "anyOf", "allOf")
_VALUES = ("const", "enum")
_OF_TYPE = {
    "object": frozenset(("properties", "required", "additionalProperties")),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
    "string": frozenset(("format",)),
    "integer": frozenset(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")),
    "number": frozenset[str](),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
_FORMATS = ("date", "time", "date-time", "uuid", "ipv4")


class NotHeld(ValueError):
    """An answer would not be held to a part of the schema; the message names it and its place."""


def check_schema(schema: Any, where: str = "", depth: int = 0) -> None:
    """Raises NotHeld. `schema` is what JSON has made of it."""
    if schema is True:
        return
    if not isinstance(schema, dict):
        raise NotHeld(f"{where or 'the schema'} must be an object")
    if depth > MAX_DEPTH:
        raise NotHeld(f"{where}: schemas may be at most {MAX_DEPTH} levels deep")
    for name in _DEFINITIONS:
        for key, inner in _object(schema, name, where).items():
            check_schema(inner, f"{where}/{name}/{key}", depth + 1)
    said = schema.keys() - _SAID - set(_DEFINITIONS)
    if alone := [name for name in _ALONE if name in said]:
        _check_alone(schema, alone[0], said - {alone[0]}, where, depth)
    else:
        _check_typed(schema, said, where, depth)


def _check_alone(schema: dict[str, Any], name: str, others: set[str], where: str, depth: int) -> None:
    if others:
        raise NotHeld(f"{where}/{min(others)} cannot be combined with {name}")
    if name == "$ref":
        if not isinstance(schema["$ref"], str) or not schema["$ref"].startswith("#"):
            raise NotHeld(f"{where}/$ref must begin with #")
        return
    options = schema[name]
    if not isinstance(options, list) or not options:
        raise NotHeld(f"{where}/{name} must be a non-empty list")
    if name == "allOf" and len(options) > 1:
        raise NotHeld(f"{where}/allOf may contain only one schema")
    for i, inner in enumerate(options):
        check_schema(inner, f"{where}/{name}/{i}", depth + 1)


def _check_typed(schema: dict[str, Any], said: set[str], where: str, depth: int) -> None:
    types = schema.get("type", [])
    types = types if isinstance(types, list) else [types]
    known = set(_OF_TYPE)
    if odd := [kind for kind in types if not isinstance(kind, str) or kind not in known]:
        raise NotHeld(f"{where}/type: {str(odd[0])[:40]!r} is not one of {', '.join(_OF_TYPE)}")
    allowed = {"type", *_VALUES}.union(*(_OF_TYPE[kind] for kind in types))
    if odd := sorted(said - allowed):
        beside = f"{where}/{odd[0]}"
        raise NotHeld(f"this engine does not support {beside}{'' if types else ' without a type'}")
    if given := [name for name in _VALUES if name in schema]:
        _check_values(schema, given, types, said, where)
    if "format" in said and schema["format"] not in _FORMATS:
        raise NotHeld(f"{where}/format must be one of {', '.join(_FORMATS)}")
    properties = _object(schema, "properties", where)
    required = schema.get("required", [])
    if not isinstance(required, list) or any(name not in properties for name in required):
        raise NotHeld(f"{where}/required must be a list of property names")
    for key, inner in properties.items():
        check_schema(inner, f"{where}/properties/{key}", depth + 1)
    for name in ("additionalProperties", "items"):
        if name in said and schema[name] is not False:
            check_schema(schema[name], f"{where}/{name}", depth + 1)
    first = schema.get("prefixItems", [])
    if not isinstance(first, list):
        raise NotHeld(f"{where}/prefixItems must be a list")
    for i, inner in enumerate(first):
        check_schema(inner, f"{where}/prefixItems/{i}", depth + 1)


def _check_values(
    schema: dict[str, Any], given: list[str], types: list[str], said: set[str], where: str
) -> None:
    if len(given) > 1 or said - {"type", *given}:
        raise NotHeld(f"{where}: this engine supports only type together with {given[0]}")
    values = schema["enum"] if given == ["enum"] else [schema["const"]]
    if not isinstance(values, list) or not values:
        raise NotHeld(f"{where}/enum must be a non-empty list")
    for value in values:
        if types and not any(_is(value, kind) for kind in types):
            raise NotHeld(f"{where}/{given[0]} has a value that is not of its type")


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float)}
    return kind in kinds and isinstance(value, kinds[kind])  # type: ignore[arg-type]


def _object(schema: dict[str, Any], name: str, where: str) -> dict[str, Any]:
    value = schema.get(name, {})
    if not isinstance(value, dict):
        raise NotHeld(f"{where}/{name} must be an object")
    return value
