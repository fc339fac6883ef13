"""OpenAI's routes: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.

As OpenAI documents them (platform.openai.com/docs/api-reference), so that its SDK works unchanged; beyond it:
`timings` (see `schema.timings`) in every answer, `reasoning_content` beside `content`, and the fields that
`schema` names. What is not supported is refused with 400 and the field's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, jsonify, request
from youtu_client import ModelInfo, Stream

from .. import body
from ..access import entry
from ..answering import Answering, Open
from ..errors import ApiError, shown
from ..service import Service
from . import chat, completions
from .schema import ChatCompletion, Completion


def blueprint(service: Service) -> Blueprint:
    """The routes."""
    routes = Blueprint("openai", __name__, url_prefix="/v1")
    client = service.served.client
    started = int(time.time())

    def read() -> dict[str, Any]:
        return body.parse(body.read(request, service.settings.max_body))

    def served(model: str | None) -> ModelInfo:
        facts = service.served.info()
        if model is not None and model != facts.id:
            raise unknown_model(model, facts.id)
        return facts

    def head(kind: str, model: str) -> dict[str, Any]:
        return {
            "id": f"{kind}-{entry().request_id}",
            "object": "",
            "created": int(time.time()),
            "model": model,
        }

    @routes.post("/chat/completions")
    def chat_completions() -> Response:
        wanted = body.validate(ChatCompletion, read())
        facts = served(wanted.model)
        chat.check(wanted, facts)
        conversation = wanted.conversation()
        opens = _opens(
            wanted.n or 1,
            lambda choice, **call: client.stream(conversation, **wanted.sampling(choice), **call),
        )
        answering = Answering(service, opens, chat.names(wanted), wanted)
        frame = head("chatcmpl", facts.id)
        if wanted.stream:
            return answering.streamed(chat.Chunks(wanted, frame))
        return answering.whole(lambda answers: chat.whole(wanted, frame, answers))

    @routes.post("/completions")
    def text_completions() -> Response:
        wanted = body.validate(Completion, read())
        facts = served(wanted.model)
        completions.check(wanted, facts)
        each = wanted.n or 1
        opens = _opens(
            each * len(wanted.prompt),
            lambda choice, **call: client.stream_complete(
                wanted.prompt[choice // each], **wanted.sampling(choice), **call
            ),
        )
        answering = Answering(service, opens, completions.NAMES, wanted)
        frame = head("cmpl", facts.id)
        if wanted.stream:
            return answering.streamed(completions.Chunks(wanted, frame))
        return answering.whole(lambda answers: completions.whole(wanted, frame, answers))

    def described(facts: ModelInfo) -> dict[str, Any]:
        return {
            "id": facts.id,
            "object": "model",
            "created": started,
            "owned_by": "youtu-triton",
            "max_model_len": facts.context,
        }

    @routes.get("/models")
    def models() -> Response:
        return jsonify({"object": "list", "data": [described(service.served.info())]})

    @routes.get("/models/<path:model>")
    def model(model: str) -> Response:
        return jsonify(described(served(model)))

    return routes


def unknown_model(asked: str, served: str) -> ApiError:
    """Another model than the one there is was asked for."""
    message = f"the model {shown(asked)} does not exist here; there is {shown(served)}"
    return ApiError(404, "model_not_found", message, param="model")


def _opens(count: int, start: Callable[..., Stream]) -> list[Open]:
    """What starts each of `count` calls: `start` with its number, its name and what belongs to every call."""
    line = entry()

    def one(choice: int) -> Open:
        def begin(seconds: float) -> Stream:
            name = f"{line.request_id}.{choice}" if choice else line.request_id
            return start(choice, timeout=seconds, request_id=name, metadata=line.call_metadata())

        return begin

    return [one(choice) for choice in range(count)]
