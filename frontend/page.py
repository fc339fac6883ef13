"""The page at `/`, and the facts it needs about what is served. All else happens in the browser.

GET /page/facts     200 {"status": "healthy", "model", "demo", "description", "context", "slots", "queue",
                         "defaults": {"temperature", "top_p", "repetition_penalty"}, "needs_key"}
                    503 {"status": "loading" | "unhealthy" | "draining", "needs_key"} + Retry-After

Both are open without a key: the page is where the key is typed in.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flask import Blueprint, Response, jsonify, make_response, render_template

from .drain import Drain
from .errors import RETRY_AFTER_S
from .model import ServedModel

STATIC = Path(__file__).parent / "static"
LATER = ("bench",)
"""Modules (their names' beginning) that the first view does not need."""


def blueprint(
    served: ServedModel, drain: Drain, *, needs_key: bool, on_open: Callable[[], None]
) -> Blueprint:
    """The routes. `needs_key`: the page asks for the API key. `on_open`: called when the page is fetched."""
    routes = Blueprint("page", __name__)
    modules = sorted(path.name for path in STATIC.glob("*.js") if not path.name.startswith(LATER))

    @routes.get("/")
    def index() -> Response:
        on_open()
        response = make_response(render_template("index.html", modules=modules))
        response.headers["Cache-Control"] = "no-cache"
        # A conversation may be full of links; none of their hosts is to be looked up unasked.
        response.headers["X-DNS-Prefetch-Control"] = "off"
        return response

    @routes.get("/page/facts")
    def facts() -> Response:
        state = "draining" if drain.begun else served.state()
        info = served.described() if state == "ready" else None
        if info is None:
            status = state if state in ("loading", "draining") else "unhealthy"
            response = jsonify({"status": status, "needs_key": needs_key})
            response.status_code = 503
            response.headers["Retry-After"] = str(RETRY_AFTER_S)
        else:
            response = jsonify(
                {
                    "status": "healthy",
                    "model": info.id,
                    "demo": info.demo,
                    "description": info.description,
                    "context": info.context,
                    "slots": info.slots,
                    "queue": info.queue,
                    "defaults": info.defaults,
                    "needs_key": needs_key,
                }
            )
        response.headers["Cache-Control"] = "no-store"
        return response

    return routes
