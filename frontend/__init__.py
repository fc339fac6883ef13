"""The HTTP frontend: `POST /chat`, OpenAI's routes, health, metrics, and a page.

It reaches the model only through `youtu_client` and handles neither tokens nor engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Flask
    from youtu_client import Client

    from serve.settings import Settings


def create_app(settings: Settings, client: Client | None = None) -> Flask:
    """The WSGI app. Makes its own client of the Triton that `settings` names, unless one is given.

    Raises KeysError when the file of keys cannot be used.
    """
    # Here, not above: the process that renders Markdown imports this package, too, and needs none of them.
    from flask import Flask
    from youtu_client import Client

    from . import access, anthropic, chat, description, errors, health, openai, page, render, responses
    from . import metrics as prometheus
    from .admission import Admission
    from .documents import routes as documents
    from .documents.collection import Collection
    from .fleet import Fleet
    from .keys import Keys
    from .metrics import Metrics
    from .openai import not_offered, tokens
    from .renderer import Renderer
    from .service import Drain, ServedModel, Service

    several = bool(settings.triton_servers)
    if client is None:
        servers = settings.triton_servers or settings.triton_grpc_address
        client = Client(servers, timeout=settings.request_timeout, affinity=several)
    keys = Keys.of(settings)
    admission = Admission(settings.slots, settings.queue)
    names = [name.strip() for name in settings.served_model_name.split(",") if name.strip()]
    fleet = Fleet(client, admission)
    served = ServedModel(client, lambda info: fleet.learn(info.slots), names)
    metrics = Metrics(
        lambda: admission.slots,
        lambda: admission.taken,
        lambda: admission.waiting,
        lambda: served.device_memory,
    )
    if several:
        metrics.watch_servers(lambda: client.servers)
        fleet.watch(settings.triton_servers.split(","), settings.hang_timeout)
    drain = Drain(settings.drain_timeout, settings.leave_timeout)
    service = Service(settings, served, admission, drain, metrics, Collection(settings))
    metrics.watch_state(service.state)

    app = Flask(__name__)
    app.url_map.strict_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.json.compact = True  # type: ignore[attr-defined]
    app.extensions["drain"] = service.drain
    app.extensions["state"] = service.state
    errors.init_app(app, {anthropic.ROOT: anthropic.error_body})
    limiter = access.init_app(app, settings, keys, metrics)
    for make in (chat.blueprint, openai.blueprint, responses.blueprint, anthropic.blueprint):
        routes = make(service)
        if settings.rate_limit:  # One budget over all routes that make the model work.
            limiter.shared_limit(settings.rate_limit, scope="model", methods=["POST"])(routes)
        app.register_blueprint(routes)
    app.register_blueprint(tokens.blueprint(service))
    app.register_blueprint(not_offered.blueprint())
    app.register_blueprint(health.blueprint(service))
    renderer = Renderer()
    rendering = render.blueprint(renderer, metrics)
    limiter.limit(render.RATE)(rendering)
    app.register_blueprint(rendering)
    reading = documents.blueprint(service)
    limiter.limit(documents.RATE, methods=["POST"])(reading)
    app.register_blueprint(reading)
    app.register_blueprint(page.blueprint(service, needs_key=bool(keys), on_open=renderer.start))
    app.register_blueprint(prometheus.blueprint(metrics))
    app.register_blueprint(description.blueprint(needs_key=bool(keys)))
    return app
