"""`GET /openapi.json`: the API in OpenAPI 3.1, made from the `Operation` beside each route. `GET /version`.

What a schema cannot express is in the messages of the refusals. A route without one is not part of the
API: those of the page are for browsers.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, current_app, jsonify
from pydantic import BaseModel, TypeAdapter
from youtu_client import __version__

from .replies import Error, Reply, Version

ERRORS = {
    400: "The request is invalid; `param` names the field.",
    401: "The API key is missing or wrong.",
    404: "The model or the id does not exist.",
    408: "The request was not sent in time.",
    413: "The body is too large.",
    415: "The content type of the body is not supported.",
    421: "Without keys: the Host header names a different server.",
    422: "The document cannot be read; `code` and `message` give the reason.",
    429: "The queue is full, the rate limit of this key is reached, or too many wrong keys were sent.",
    502: "The inference server failed.",
    503: "The model is loading, the server is shutting down, or the engine is unavailable.",
    504: "The answer did not finish within the time limit.",
}
"""What each status of an error means."""

WITH_RETRY_AFTER = (429, 503)
ASKS_MODEL = (400, 401, 421, 429, 502, 503, 504)
"""The errors of every route that asks the model something."""
FINDS = (401, 404, 421)
"""The errors of every route that finds something kept here."""
GENERATES = (*ASKS_MODEL, 408, 413, 415)
"""The errors of every route that takes a body and generates."""

View = TypeVar("View", bound=Callable[..., Any])


@dataclass(frozen=True)
class Event:
    """A kind of server-sent event: its data (a reply as JSON, or a fixed text), and its names, if any."""

    data: type[Any] | str
    name: str | tuple[str, ...] | None = None

    def schema(self) -> dict[str, Any]:
        """Of one event, as OpenAPI 3.2 and tools for 3.1 understand the schema of an event stream."""
        data: dict[str, Any] = {"type": "string"}
        if isinstance(self.data, str):
            data["const"] = self.data
        else:
            data |= {"contentMediaType": "application/json", "contentSchema": _ref(self.data)}
        if self.name is None:
            return {"type": "object", "properties": {"data": data}, "required": ["data"]}
        name = {"const": self.name} if isinstance(self.name, str) else {"enum": list(self.name)}
        properties = {"event": name, "data": data}
        return {"type": "object", "properties": properties, "required": ["event", "data"]}


@dataclass(frozen=True)
class Operation:
    """What a route says of itself; decorates the view, below `@routes.get`.

    `reply`: the model of its 200, whose docstring describes it, or a sentence about a plain text. `events`:
    of a streamed answer, which `stream` describes in words. `errors`: statuses out of ERRORS. `further`:
    other statuses whose body is a reply, each with a sentence. `query`: parameters behind the `?`, each with
    its schema. `error`: the shape of its errors. `open`: it asks for no key. `file`: its body is a file.
    """

    id: str
    summary: str
    reply: type[Reply] | str
    request: type[BaseModel] | None = None
    stream: str = ""
    events: tuple[Event, ...] = ()
    errors: tuple[int, ...] = ()
    further: dict[int, tuple[type[Reply], str]] = field(default_factory=dict)
    query: dict[str, dict[str, Any]] = field(default_factory=dict)
    error: type[Reply] = Error
    open: bool = False
    file: bool = False

    def __call__(self, view: View) -> View:
        view.operation = self  # type: ignore[attr-defined]
        return view

    def models(self) -> list[tuple[type[Any], Any]]:
        """The models that it refers to, each with pydantic's mode of its schema."""
        replies = [
            self.reply,
            self.error,
            *(event.data for event in self.events),
            *(each[0] for each in self.further.values()),
        ]
        found: list[tuple[type[Any], Any]] = [
            (reply, "serialization") for reply in replies if not isinstance(reply, str)
        ]
        return found if self.request is None else [(self.request, "validation"), *found]

    def described(self, parameters: list[str], needs_key: bool) -> dict[str, Any]:
        """As OpenAPI has it. `parameters`: the names of those in its path."""
        value: dict[str, Any] = {"operationId": self.id, "summary": self.summary}
        described = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in parameters
        ]
        described += [{"name": name, "in": "query", "schema": schema} for name, schema in self.query.items()]
        if described:
            value["parameters"] = described
        if self.request is not None:
            value["requestBody"] = {
                "required": True,
                "content": {"application/json": {"schema": _ref(self.request)}},
            }
        if self.file:
            content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
            value["requestBody"] = {"required": True, "content": content}
        responses = {200: self._answered()}
        responses |= {status: _response(status, self.error, ERRORS[status]) for status in sorted(self.errors)}
        responses |= {status: _response(status, *each) for status, each in self.further.items()}
        value["responses"] = {str(status): response for status, response in responses.items()}
        if needs_key and self.open:
            value["security"] = []
        return value

    def _answered(self) -> dict[str, Any]:
        if isinstance(self.reply, str):
            return {"description": self.reply, "content": {"text/plain": {"schema": {}}}}
        response = _response(200, self.reply, _sentences(self.reply))
        if self.events:
            response["description"] += f"\n\n{self.stream}"
            each = {"anyOf": [event.schema() for event in self.events]}
            response["content"]["text/event-stream"] = {"schema": each}
        return response


def document(app: Flask, needs_key: bool) -> dict[str, Any]:
    """The whole description of `app`."""
    paths: dict[str, dict[str, Any]] = {}
    models: list[tuple[type[Any], Any]] = [(Error, "serialization")]
    for rule in app.url_map.iter_rules():
        operation: Operation | None = getattr(app.view_functions[rule.endpoint], "operation", None)
        if operation is None:
            continue
        models += [each for each in operation.models() if each not in models]
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            described = operation.described(sorted(rule.arguments), needs_key)
            paths.setdefault(path, {})[method.lower()] = described
    _, schemas = TypeAdapter.json_schemas(
        [(model.__name__, mode, TypeAdapter(model)) for model, mode in models],
        ref_template="#/components/schemas/{model}",
    )
    value: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Youtu-LLM on Triton",
            "version": __version__,
            "description": "Chat with the model behind NVIDIA Triton through its own small API or those of "
            "OpenAI and Anthropic.",
        },
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }
    if needs_key:
        value["components"]["securitySchemes"] = {
            "key": {"type": "http", "scheme": "bearer"},
            "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        value["security"] = [{"key": []}, {"header": []}]
    return value


def _response(status: int, reply: type[Reply], description: str) -> dict[str, Any]:
    value: dict[str, Any] = {
        "description": description,
        "content": {"application/json": {"schema": _ref(reply)}},
    }
    if status in WITH_RETRY_AFTER:
        schema = {"type": "integer", "minimum": 1}
        value["headers"] = {"Retry-After": {"description": "Seconds.", "schema": schema}}
    return value


def _ref(model: type[Any]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _sentences(model: type[BaseModel]) -> str:
    """The docstring, each paragraph in one line."""
    paragraphs = inspect.cleandoc(model.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(each.split()) for each in paragraphs)


def blueprint(needs_key: bool) -> Blueprint:
    """The routes."""
    routes = Blueprint("description", __name__)

    @routes.get("/version")
    @Operation("version", "The version of this server", Version)
    def version() -> Response:
        return jsonify(Version(version=__version__).to_dict())

    @routes.get("/openapi.json")
    def read() -> Response:
        return jsonify(document(current_app, needs_key))

    return routes
