"""The page at `/`, and the facts it needs about what is served. All else happens in the browser.

GET /page/facts     200 {"status": "healthy", "model", "demo", "description", "context", "slots", "queue",
                         "defaults": {"temperature", "top_p", "repetition_penalty"}, "needs_key",
                         "place": of ?request=ID (its X-Request-ID) in the queue, from 1; 0: none}
                    503 {"status": "loading" | "unhealthy" | "draining", "needs_key"} + Retry-After

Both are open without a key: the page is where the key is typed in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from flask import Blueprint, Response, jsonify, make_response, render_template, request
from pydantic import Field

from .health import unready, unready_status
from .replies import Reply
from .service import Service

STATIC = Path(__file__).parent / "static"
LATER = ("bench",)
"""Modules (their names' beginning) that the first view does not need."""


class Facts(Reply):
    """What the page needs to know; only `status` and `needs_key` while the model takes no requests."""

    status: Literal["healthy", "loading", "unhealthy", "draining"]
    model: str = ""
    demo: bool = False
    description: str = ""
    context: int = 0
    slots: int = 0
    queue: int = 0
    defaults: dict[str, float] = Field(default={})
    needs_key: bool
    place: int | None = None


def blueprint(service: Service, *, needs_key: bool, on_open: Callable[[], None]) -> Blueprint:
    """The routes. `needs_key`: the page asks for the API key. `on_open`: called when the page is fetched."""
    routes = Blueprint("page", __name__)
    modules = sorted(path.name for path in STATIC.glob("*.js") if not path.name.startswith(LATER))

    @routes.get("/")
    def index() -> Response:
        on_open()
        response = make_response(render_template("index.html", modules=modules))
        response.headers["Cache-Control"] = "no-cache"
        # A conversation may be full of links; none of their hosts may be looked up without a click.
        response.headers["X-DNS-Prefetch-Control"] = "off"
        return response

    @routes.get("/page/facts")
    def facts() -> Response:
        state = service.state()
        info = service.served.described() if state == "ready" else None
        if info is None:
            response = unready(Facts(status=unready_status(state), needs_key=needs_key))
        else:
            known = Facts(
                status="healthy",
                model=info.id,
                demo=info.demo,
                description=info.description,
                context=info.context,
                slots=info.slots,
                queue=info.queue,
                defaults=info.defaults,
                needs_key=needs_key,
            )
            if name := request.args.get("request"):
                known.place = service.admission.place(name)
            response = jsonify(known.to_dict())
        response.headers["Cache-Control"] = "no-store"
        return response

    return routes
