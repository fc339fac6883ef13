"""One chat request to the model, for the routes of other APIs that translate theirs into one."""

from __future__ import annotations

from collections.abc import Mapping

from youtu_client import ModelInfo

from .inference import Inference
from .openai import _opens, chat, unknown_model
from .openai.schema import ChatCompletion
from .service import Service
from .translation import named


def served(service: Service, model: str | None) -> ModelInfo:
    """The model that is served, if it is the one that was asked for. Raises ApiError 404, YoutuError."""
    info = service.served.info()
    if model is not None and model != info.id:
        raise unknown_model(model, info.id)
    return info


def ask(service: Service, info: ModelInfo, request: ChatCompletion, names: Mapping[str, str]) -> Inference:
    """Its one answer. `names` as in `translation`. Raises ApiError when the model cannot do what is asked."""
    with named(names):
        chat.check(request, info)
    conversation = request.conversation()
    opens = _opens(
        1,
        lambda choice, **call: service.served.client.stream(conversation, **request.sampling(choice), **call),
    )
    return Inference(service, opens, chat.names(request) | dict(names), request)
