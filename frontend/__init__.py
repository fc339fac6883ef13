"""The HTTP door: `POST /chat`, health, and a page. See DESIGN in the README for the contract.

It speaks to the model only through `youtu_client` and knows no tokens and no engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask
from youtu_client import Client

from . import access, chat, errors, health, page
from .drain import Drain
from .model import ServedModel

if TYPE_CHECKING:
    from serve.settings import Settings


def create_app(settings: Settings, client: Client | None = None) -> Flask:
    """The WSGI app. Makes its own client of the Triton that `settings` names, unless one is given."""
    if client is None:
        host = f"[{settings.triton_host}]" if ":" in settings.triton_host else settings.triton_host
        client = Client(f"{host}:{settings.grpc_port}", timeout=settings.request_timeout)
    key = settings.api_key.get_secret_value() if settings.api_key else None
    served = ServedModel(client)

    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.compact = True  # type: ignore[attr-defined]
    errors.init_app(app)
    access.init_app(app, key)
    app.extensions["drain"] = drain = Drain(settings.drain_timeout)
    app.register_blueprint(chat.blueprint(served, drain, settings.max_body))
    app.register_blueprint(health.blueprint(served, drain))
    app.register_blueprint(page.blueprint(needs_key=key is not None))
    return app
