"""Routes of OpenAI's for what this server's model is not: they answer with an error that says so.

Not part of `/openapi.json`, which describes what there is.
"""

from __future__ import annotations

from flask import Blueprint, Response

from ..errors import ApiError

THINGS = {
    "embeddings": "embeddings: the model only generates text",
    "images/<path:rest>": "images: the model reads and writes text",
    "audio/<path:rest>": "speech: the model reads and writes text",
    "videos": "videos: the model reads and writes text",
    "moderations": "moderation: the model is not trained for it",
    "rerank": "ranking: the model only generates text",
    "score": "pair scores: the model only generates text",
    "files": "files",
    "batches": "batches: use `youtu batch` for tables",
    "fine_tuning/<path:rest>": "training",
    "assistants": "assistants: send the whole conversation to /v1/chat/completions",
    "threads": "threads: send the whole conversation to /v1/chat/completions",
    "realtime": "speech: the model reads and writes text",
}
"""Path below /v1 -> what it would be about."""


def blueprint() -> Blueprint:
    """The routes."""
    routes = Blueprint("not_offered", __name__, url_prefix="/v1")

    def refuse(what: str) -> Response:
        raise ApiError("not_offered", f"This server does not offer {what}.")

    for path, what in THINGS.items():
        routes.add_url_rule(
            f"/{path}",
            endpoint=path.partition("/")[0],
            view_func=lambda what=what, **_: refuse(what),
            methods=["GET", "POST"],
        )
    return routes
