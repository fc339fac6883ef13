"""`/health` for people, `/health/live` and `/health/ready` for probes; open without a key.

GET /health         200 {"status": "healthy", "model": "youtu-demo", "demo": true, "description": "…"}
                    503 {"status": "loading" | "unhealthy", "model": null, …} + Retry-After
GET /health/live    200 {"status": "live"} as long as this process answers, whatever Triton does
GET /health/ready   200 {"status": "ready"}, or 503 {"status": "loading" | "unhealthy"}
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from .errors import RETRY_AFTER_S
from .model import ServedModel


def blueprint(served: ServedModel) -> Blueprint:
    """The routes, speaking for `served`."""
    routes = Blueprint("health", __name__, url_prefix="/health")

    def unready(state: str, **facts: Any) -> Response:
        response = jsonify({"status": "loading" if state == "loading" else "unhealthy", **facts})
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @routes.get("")
    def health() -> Response:
        state = served.state()
        info = served.described() if state == "ready" else None
        if info is None:
            words = {
                "ready": "The model does not describe itself.",
                "loading": "The model is loading.",
                "down": "The inference server does not answer.",
            }
            return unready(state, model=None, demo=None, description=words[state])
        return jsonify(
            {"status": "healthy", "model": info.id, "demo": info.demo, "description": info.description}
        )

    @routes.get("/live")
    def live() -> Response:
        return jsonify({"status": "live"})

    @routes.get("/ready")
    def ready() -> Response:
        state = served.state()
        return jsonify({"status": "ready"}) if state == "ready" else unready(state)

    return routes
