"""`GET /openapi.json`: the API in OpenAPI 3.1, made from the models that read the requests.

What cannot be said in a schema is said by the refusals themselves. It knows all routes of the API; those of
the page (`/`, `/page`, `/render`, `/static`) are for browsers and not described.
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from . import replies
from .openai.schema import ChatCompletion, Completion
from .schema import ChatRequest

_REASONS = {
    400: "The request is not as it must be; `param` names the field.",
    401: "No API key, or a wrong one.",
    404: "There is no such model.",
    408: "The request was not sent in time.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    421: "Without keys: the Host header names another server.",
    429: "No place in the queue, the rate of this key is used up, or too many wrong keys were sent.",
    502: "The inference server failed.",
    503: "The model is loading, the server is ending, or the engine is away.",
    504: "The answer was not finished within the time limit.",
}
_RETRY = (429, 503)
VERSION = "1.0.0"
"""Of this API, as OpenAPI wants it: raised when a caller must change something."""

_REPLIES: list[type[BaseModel]] = [
    replies.Error,
    replies.ChatReply,
    replies.ChatCompletionReply,
    replies.CompletionReply,
    replies.Models,
    replies.Model,
    replies.Health,
]


def document(needs_key: bool) -> dict[str, Any]:
    """The whole description."""
    _, schemas = models_json_schema(
        [(model, "validation") for model in (ChatRequest, ChatCompletion, Completion)]
        + [(model, "serialization") for model in _REPLIES],
        ref_template="#/components/schemas/{model}",
    )
    generating = (400, 401, 408, 413, 415, 421, 429, 502, 503, 504)
    about_models = (400, 401, 404, 421, 429, 502, 503, 504)
    value: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Youtu-LLM on Triton",
            "version": VERSION,
            "description": "Chat with the model behind NVIDIA Triton: a small API of our own, and OpenAI's.",
        },
        "paths": {
            "/chat": {
                "post": _post(
                    "chat", "A question in, an answer out", ChatRequest, replies.ChatReply, generating
                )
            },
            "/v1/chat/completions": {
                "post": _post(
                    "createChatCompletion",
                    "OpenAI's chat completions",
                    ChatCompletion,
                    replies.ChatCompletionReply,
                    (*generating, 404),
                )
            },
            "/v1/completions": {
                "post": _post(
                    "createCompletion",
                    "OpenAI's completions of raw text",
                    Completion,
                    replies.CompletionReply,
                    (*generating, 404),
                )
            },
            "/v1/models": {"get": _get("listModels", "What is served", replies.Models, about_models)},
            "/v1/models/{model}": {
                "get": _get("retrieveModel", "One model", replies.Model, about_models)
                | {
                    "parameters": [
                        {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
                    ]
                }
            },
            "/health": {"get": _probe("health", "Whether the model takes requests, for people")},
            "/health/live": {"get": _probe("live", "Whether this process answers", ready=False)},
            "/health/ready": {"get": _probe("ready", "Whether the model takes requests, for probes")},
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Figures for Prometheus",
                    "responses": {
                        "200": {
                            "description": "In its text form.",
                            "content": {"text/plain": {"schema": {}}},
                        },
                        "401": _fault(401),
                    },
                }
            },
        },
        "components": {"schemas": schemas["$defs"]},
    }
    if needs_key:
        value["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        value["security"] = [{"key": []}]
        for path in ("/health", "/health/live", "/health/ready"):
            value["paths"][path]["get"]["security"] = []
    return value


def _ref(model: type[BaseModel]) -> dict[str, Any]:
    return {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}


def _post(
    name: str, summary: str, asked: type[BaseModel], told: type[BaseModel], faults: tuple[int, ...]
) -> dict[str, Any]:
    operation = _get(name, summary, told, faults)
    operation["requestBody"] = {"required": True, "content": {"application/json": _ref(asked)}}
    operation["responses"]["200"]["content"]["text/event-stream"] = {}
    return operation


def _get(name: str, summary: str, told: type[BaseModel], faults: tuple[int, ...]) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {"description": "It is so.", "content": {"application/json": _ref(told)}}
    }
    responses |= {str(status): _fault(status) for status in sorted(faults)}
    return {"operationId": name, "summary": summary, "responses": responses}


def _probe(name: str, summary: str, *, ready: bool = True) -> dict[str, Any]:
    operation = _get(name, summary, replies.Health, ())
    if ready:
        operation["responses"]["503"] = {
            "description": "Not now.",
            "headers": _retry_after(),
            "content": {"application/json": _ref(replies.Health)},
        }
    return operation


def _fault(status: int) -> dict[str, Any]:
    value: dict[str, Any] = {
        "description": _REASONS[status],
        "content": {"application/json": _ref(replies.Error)},
    }
    if status in _RETRY:
        value["headers"] = _retry_after()
    return value


def _retry_after() -> dict[str, Any]:
    return {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}


def blueprint(needs_key: bool) -> Blueprint:
    """The route."""
    routes = Blueprint("description", __name__)

    @routes.get("/openapi.json")
    def read() -> Response:
        return jsonify(document(needs_key))

    return routes
