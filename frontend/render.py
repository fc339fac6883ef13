"""`POST /render`: an answer's Markdown to safe HTML, block by block, for the page.

    {"text": "# Hello\\n\\nworld"}
    → {"blocks": [{"line": 0, "html": "<h3>Hello</h3>\\n"}, {"line": 2, "html": "<p>world</p>\\n"}]}

What follows a text never changes a block before the last, so the page sends a growing answer from the start
of its last block only, and one too long for a single request piece by piece in the same way. `Server-Timing`
says how many milliseconds of CPU it took: the page asks the less often, the dearer its text is.

It needs no model, and works in a process of its own (`renderer`), which bounds what a text may cost.
"""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response
from pydantic import Field

from . import body
from .access import log_record
from .errors import RETRY_AFTER_S, ApiError
from .metrics import Metrics
from .renderer import WAITING, WAITING_EACH, Broken, Busy, Renderer
from .schema import Strict

MAX_CHARS = 16_000
"""Characters (Unicode code points) of one request."""
MAX_BODY = 8 * MAX_CHARS
"""Bytes; JSON may write one character as six."""
RATE = "300 per 5 seconds"
"""Of one key or address. The page asks eight times a second at most while it shows an answer."""


class RenderRequest(Strict):
    """One text, or a part of one that starts where a block starts."""

    text: Annotated[str, Field(max_length=MAX_CHARS)]


def blueprint(renderer: Renderer, metrics: Metrics) -> Blueprint:
    """The route. It asks for the key like every route that costs something."""
    routes = Blueprint("render", __name__)

    @routes.post("/render")
    def render() -> Response:
        request = body.load(RenderRequest, MAX_BODY)
        try:
            made, took = renderer.render(request.text, log_record().client)
        except Busy:
            metrics.refused("render_busy")
            message = (
                f"at most {WAITING} texts may be rendered or waiting at once, "
                f"{WAITING_EACH} of them from one caller; try again in a second"
            )
            raise ApiError("render_busy", message, headers={"Retry-After": "1"}) from None
        except Broken:
            message = "The process that renders texts failed. Try again shortly."
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            raise ApiError("render_failed", message, headers=headers) from None
        response = Response(made, mimetype="application/json")
        response.headers["Cache-Control"] = "no-store"
        response.headers["Server-Timing"] = f"render;dur={1000 * took:.1f}"
        return response

    return routes
