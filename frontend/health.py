"""`/health` for people, `/health/live` and `/health/ready` for probes; open without a key.

GET /health         200 {"status": "healthy", "model": "youtu-demo", "demo": true, "description": "…"}, and
                        "device_memory" where the engine computes on a card
                    503 {"status": "loading" | "unhealthy" | "draining", "model": null, …} + Retry-After
GET /health/live    200 {"status": "live"} as long as this process answers, whatever Triton does
GET /health/ready   200 {"status": "ready"}, or 503 with a status as above
GET, POST /ping     the same, as SageMaker asks and vLLM answers
"""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response, jsonify

from .description import Operation
from .errors import RETRY_AFTER_S
from .replies import DeviceMemory, Health, Probe, Reply
from .service import Service, State

UNREADY = "The model does not accept requests; `status` gives the reason."
DESCRIPTIONS: dict[State, str] = {
    "ready": "The model provides no description.",
    "loading": "The model is loading.",
    "draining": "The server is shutting down.",
    "stalled": "The model is making no progress.",
    "down": "The inference server is not responding.",
}


def blueprint(service: Service) -> Blueprint:
    """The routes."""
    routes = Blueprint("health", __name__)

    @routes.get("/health")
    @Operation(
        "health",
        "Whether the model accepts requests, for people",
        Health,
        further={503: (Health, UNREADY)},
        open=True,
    )
    def health() -> Response:
        state = service.state()
        info = service.served.described() if state == "ready" else None
        if info is None:
            words = DESCRIPTIONS[state]
            return unready(Health(status=unready_status(state), model=None, demo=None, description=words))
        facts = Health(status="healthy", model=info.id, demo=info.demo, description=info.description)
        if memory := service.served.device_memory:
            facts.device_memory = DeviceMemory(used=memory[0], total=memory[1])
        return jsonify(facts.to_dict())

    @routes.get("/health/live")
    @Operation(
        "live",
        "Whether this process responds",
        Probe,
        further={503: (Probe, "Requests are waiting and no thread has taken one for a while.")},
        open=True,
    )
    def live() -> Response:
        return jsonify(Probe(status="live").to_dict())  # On a connection, `bridge` answers instead.

    @routes.get("/health/ready")
    @Operation(
        "ready",
        "Whether the model accepts requests, for probes",
        Probe,
        further={503: (Probe, UNREADY)},
        open=True,
    )
    def ready() -> Response:
        state = service.state()
        if state == "ready":
            return jsonify(Probe(status="ready").to_dict())
        return unready(Probe(status=unready_status(state)))

    @routes.get("/ping")
    @Operation(
        "ping",
        "Whether the model accepts requests, under SageMaker's path",
        Probe,
        further={503: (Probe, UNREADY)},
        open=True,
    )
    def ping() -> Response:
        return ready()

    @routes.post("/ping")
    @Operation(
        "postPing",
        "Whether the model accepts requests, under SageMaker's path",
        Probe,
        further={503: (Probe, UNREADY)},
        open=True,
    )
    def post_ping() -> Response:
        return ready()

    return routes


def unready_status(state: State) -> Literal["loading", "draining", "unhealthy"]:
    """The word for callers."""
    return state if state == "loading" or state == "draining" else "unhealthy"


def unready(reply: Reply) -> Response:
    """A 503 after which the caller may ask again."""
    response = jsonify(reply.to_dict())
    response.status_code = 503
    response.headers["Retry-After"] = str(RETRY_AFTER_S)
    return response
