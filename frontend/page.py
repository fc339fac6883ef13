"""The page at `/`. Knows its files and whether a key is asked for; all else happens in the browser."""

from __future__ import annotations

from flask import Blueprint, Response, make_response, render_template


def blueprint(needs_key: bool) -> Blueprint:
    """The route. `needs_key` shows the field for the API key."""
    routes = Blueprint("page", __name__)

    @routes.get("/")
    def index() -> Response:
        response = make_response(render_template("index.html", needs_key=needs_key))
        response.headers["Cache-Control"] = "no-cache"
        return response

    return routes
