"""What a request holds the answer to: OpenAI's `response_format`, and the fields of vLLM and llama-server.

Each becomes a guide of the model behind: a kind (json, json_schema, regex, choice, grammar) and its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, create_model, model_validator
from typing_extensions import Self

from ..schema import Strict, Text
from .labels import Lacking, silent_fields
from .rules import GIVEN, TRUE, at_most_one

MAX_CHOICES_OF_TEXT = 1000

Guide = tuple[str, str | None]
"""Kind and text."""

Filled = Annotated[Text, Field(min_length=1)]
Choices = Annotated[list[Filled], Field(min_length=1, max_length=MAX_CHOICES_OF_TEXT)]


class JsonSchema(Strict):
    """A named schema. The answer is always held to it, so `strict` makes no difference."""

    name: Text | None = None
    description: Text | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    strict: bool | None = None


class ResponseFormat(Strict):
    """`{"type": "text"}`, `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {…}}`.

    llama-server's form is taken, too: `json_object` with a `schema`.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "properties": {
                        "type": {"const": "json_schema"},
                        "json_schema": {"type": "object"},
                        "schema": {"type": "null"},
                    },
                    "required": ["json_schema"],
                },
                {"properties": {"type": {"const": "json_object"}, "json_schema": {"type": "null"}}},
                {
                    "properties": {
                        "type": {"const": "text"},
                        "json_schema": {"type": "null"},
                        "schema": {"type": "null"},
                    }
                },
            ]
        }
    )

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None

    @model_validator(mode="after")
    def _schema_where_named(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("type json_schema and the field json_schema require each other")
        if self.schema_ is not None and self.type != "json_object":
            raise ValueError(
                "schema requires type json_object; for type json_schema put it inside json_schema"
            )
        return self

    def guide(self) -> Guide | None:
        """The guide; None for a text."""
        schema = self.json_schema.schema_ if self.json_schema else self.schema_
        return None if self.type == "text" else _json(schema)


_Silent: Any = create_model(
    "_Silent",
    __base__=Strict,
    **silent_fields(
        {"disable_any_whitespace": bool, "disable_fallback": bool},
        {
            "disable_additional_properties": Lacking("a different interpretation of the schema"),
            "structural_tag": Lacking("structural tags"),
            "whitespace_pattern": Lacking("a whitespace pattern in JSON"),
        },
    ),
)
_ASKED = {"json": GIVEN, "json_object": TRUE, "regex": GIVEN, "choice": GIVEN, "grammar": GIVEN}


class StructuredOutputs(_Silent):  # type: ignore[misc]
    """vLLM's: one of `json` (a schema), `json_object`, `regex`, `choice` and `grammar` (Lark or GBNF)."""

    model_config = ConfigDict(json_schema_extra={"allOf": at_most_one(_ASKED)})

    json_: Annotated[dict[str, Any] | Text | None, Field(alias="json")] = None
    json_object: bool | None = None
    regex: Filled | None = None
    choice: Choices | None = None
    grammar: Filled | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if len(list(self._guides())) > 1:
            raise ValueError("may have only one of json, json_object, regex, choice and grammar")
        return self

    def guide(self) -> Guide | None:
        """The guide, if any."""
        return next(self._guides(), None)

    def _guides(self) -> Iterator[Guide]:
        if self.json_ is not None:
            yield _json(self.json_)
        if self.json_object:
            yield "json", None
        yield from _texts(self.regex, self.choice, self.grammar)


class GuidedRequest(Strict):
    """The fields that hold the answer to something; of several the first counts, in this order."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    json_schema: dict[str, Any] | None = None
    grammar: Text | None = None
    guided_json: dict[str, Any] | Text | None = None
    guided_regex: Filled | None = None
    guided_choice: Choices | None = None
    guided_grammar: Filled | None = None

    def guide(self) -> tuple[str | None, Guide | tuple[None, None]]:
        """The field that asks for a guide, and the guide; None and two None without."""
        return next(self._guides(), (None, (None, None)))

    def _guides(self) -> Iterator[tuple[str, Guide]]:
        for field in ("response_format", "structured_outputs"):
            asked: ResponseFormat | StructuredOutputs | None = getattr(self, field)
            if asked is not None and (guide := asked.guide()) is not None:
                yield field, guide
        if self.json_schema is not None:
            yield "json_schema", _json(self.json_schema)
        if self.guided_json is not None:
            yield "guided_json", _json(self.guided_json)
        for guide in _texts(None, None, self.grammar):
            yield "grammar", guide
        for guide in _texts(self.guided_regex, self.guided_choice, self.guided_grammar):
            yield f"guided_{guide[0]}", guide


def _json(schema: dict[str, Any] | str | None) -> Guide:
    if schema is None:
        return "json", None
    return "json_schema", schema if isinstance(schema, str) else json.dumps(schema, ensure_ascii=False)


def _texts(regex: str | None, choice: list[str] | None, grammar: str | None) -> Iterator[Guide]:
    if regex:
        yield "regex", regex
    if choice:
        yield "choice", json.dumps(choice, ensure_ascii=False)
    if grammar:
        yield "grammar", grammar
