"""`POST /render`: an answer's Markdown to safe HTML, block by block, for the page.

    {"text": "# Hello\\n\\nworld"}
    → {"blocks": [{"line": 0, "html": "<h3>Hello</h3>\\n"}, {"line": 2, "html": "<p>world</p>\\n"}]}

What follows a text never changes a block before the last, so the page sends a growing answer from the start
of its last block only, and one too long for a single request piece by piece in the same way. `Server-Timing`
says how many milliseconds it took: the page asks the less often, the dearer its text is.

It needs no model. It does cost this process's time, hence the limits: MAX_CHARS, and PLACES at once.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import Annotated

from flask import Blueprint, Response, jsonify, request
from pydantic import Field

from . import body
from .errors import ApiError
from .render_markdown import blocks
from .schema import Strict

MAX_CHARS = 16_000
"""Characters (Unicode code points) of one request; the slowest text that was found takes 0.3 s."""
MAX_BODY = 8 * MAX_CHARS
"""Bytes; JSON may write one character as six."""
PLACES = 2
WAIT_S = 1.0


class RenderRequest(Strict):
    """One text, or a part of one that starts where a block starts."""

    text: Annotated[str, Field(max_length=MAX_CHARS)]


def blueprint() -> Blueprint:
    """The route. It asks for the key like every route that costs something."""
    routes = Blueprint("render", __name__)
    places = threading.BoundedSemaphore(PLACES)

    @routes.post("/render")
    def render() -> Response:
        wanted = body.validate(RenderRequest, body.parse(body.read(request, MAX_BODY)))
        if not places.acquire(timeout=WAIT_S):
            message = f"{PLACES} texts are being rendered, as many as may be at once; try again in a second"
            raise ApiError(429, "render_busy", message, headers={"Retry-After": "1"})
        try:
            begun = time.thread_time()
            made = blocks(wanted.text)
            took = time.thread_time() - begun
        finally:
            places.release()
        response = jsonify({"blocks": [asdict(block) for block in made]})
        response.headers["Cache-Control"] = "no-store"
        response.headers["Server-Timing"] = f"render;dur={1000 * took:.1f}"
        return response

    return routes
