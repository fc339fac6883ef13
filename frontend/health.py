"""`/health` for people, `/health/live` and `/health/ready` for probes; open without a key.

GET /health         200 {"status": "healthy", "model": "youtu-demo", "demo": true, "description": "…"}
                    503 {"status": "loading" | "unhealthy" | "draining", "model": null, …} + Retry-After
GET /health/live    200 {"status": "live"} as long as this process answers, whatever Triton does
GET /health/ready   200 {"status": "ready"}, or 503 with a status as above
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, jsonify

from .drain import Drain
from .errors import RETRY_AFTER_S
from .model import ServedModel


def blueprint(served: ServedModel, drain: Drain) -> Blueprint:
    """The routes, speaking for `served` until `drain`."""
    routes = Blueprint("health", __name__, url_prefix="/health")

    def now() -> str:
        return "draining" if drain.begun else served.state()

    def unready(state: str, **facts: Any) -> Response:
        response = jsonify({"status": state if state in ("loading", "draining") else "unhealthy", **facts})
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    @routes.get("")
    def health() -> Response:
        state = now()
        info = served.described() if state == "ready" else None
        if info is None:
            words = {
                "ready": "The model does not describe itself.",
                "loading": "The model is loading.",
                "draining": "The server is ending.",
                "stalled": "The model makes no progress.",
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
        state = now()
        return jsonify({"status": "ready"}) if state == "ready" else unready(state)

    return routes
