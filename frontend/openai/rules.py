"""How fields of a request depend on each other, as JSON schema: `/openapi.json` says what is checked.

Written with `anyOf` where it can be, which generators of test data understand.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

Schema = dict[str, Any]

TRUE: Schema = {"const": True}
NOT_TRUE: Schema = {"enum": [False, None]}
NULL: Schema = {"type": "null"}
GIVEN: Schema = {"not": NULL}


def has(**fields: Schema) -> Schema:
    """An object in which these fields are there and fit."""
    return {"properties": fields, "required": list(fields)}


def either(*schemas: Schema) -> Schema:
    """An object that fits one of them."""
    return {"anyOf": list(schemas)}


def unless(**fields: Schema) -> Schema:
    """An object in which these fields fit or are absent."""
    return {"properties": fields}


def at_most_one(asked: Mapping[str, Schema]) -> list[Any]:
    """No two of these fields ask for something; `asked`: field -> the schema of a value that does."""
    return [{"not": has(**{one: asked[one], two: asked[two]})} for one, two in combinations(asked, 2)]
