"""OpenAI's routes: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.

As OpenAI documents them (platform.openai.com/docs/api-reference), so that its SDK works unchanged; beyond it:
`timings` in every answer, `reasoning_content` beside `content`, and the fields that
`schema` names. What is not supported is refused with 400 and the field's name.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from flask import Blueprint, Response, jsonify
from youtu_client import ModelInfo, Stream

from .. import body
from ..access import log_record
from ..description import ASKS_MODEL, GENERATES, Event, Operation
from ..documents.answering import with_documents
from ..inference import Inference, Open
from ..replies import Error, QuotedSource
from ..service import Service
from . import chat, completions
from .replies import (
    ChatCompletionChunk,
    ChatCompletionReply,
    CompletionChunk,
    CompletionReply,
    Head,
    Model,
    Models,
    UsageChunk,
)
from .schema import ChatCompletion, Completion

STREAM = (
    "With `stream` true, server-sent events: chunks with what is new, the usage if `stream_options` asks for "
    "it, then `[DONE]`. A failure after the first chunk is an event too, and ends the stream."
)


def blueprint(service: Service) -> Blueprint:
    """The routes."""
    routes = Blueprint("openai", __name__, url_prefix="/v1")
    client = service.served.client
    started = int(time.time())

    served = service.served.named

    def head(kind: str, model: str) -> Head:
        return {"id": f"{kind}-{log_record().request_id}", "created": int(time.time()), "model": model}

    @routes.post("/chat/completions")
    @Operation(
        "createChatCompletion",
        "OpenAI's chat completions",
        ChatCompletionReply,
        request=ChatCompletion,
        stream=STREAM,
        events=(Event(ChatCompletionChunk), Event(UsageChunk), Event(Error), Event("[DONE]")),
        errors=(*GENERATES, 404),
    )
    def chat_completions() -> Response:
        request = body.load(ChatCompletion, service.settings.max_body)
        info = served(request.model)
        chat.check(request, info)
        conversation = request.conversation()
        sources: list[QuotedSource] = []
        if ours := request.document_names():
            longest = getattr(request, request.length_field)
            conversation, sources = with_documents(
                service, request, conversation, ours, longest, request.sampling(0), chat.names(request)
            )
        opens = _opens(
            request.choices,
            lambda choice, **call: client.stream(conversation, **request.sampling(choice), **call),
        )
        inference = Inference(service, opens, chat.names(request), request)
        first = head("chatcmpl", info.id)
        if request.stream:
            return inference.streamed(chat.Chunks(request, first, sources))
        return inference.whole(lambda answers: chat.whole(request, first, answers, sources))

    @routes.post("/completions")
    @Operation(
        "createCompletion",
        "OpenAI's completions of raw text",
        CompletionReply,
        request=Completion,
        stream=STREAM,
        events=(Event(CompletionChunk), Event(UsageChunk), Event(Error), Event("[DONE]")),
        errors=(*GENERATES, 404),
    )
    def text_completions() -> Response:
        request = body.load(Completion, service.settings.max_body)
        info = served(request.model)
        completions.check(request, info)
        each = request.choices
        opens = _opens(
            each * len(request.prompt),
            lambda choice, **call: client.stream_complete(
                request.prompt[choice // each], **request.sampling(choice), **call
            ),
        )
        echoes = completions.echoes(service, request)
        inference = Inference(service, opens, completions.names(request), request)
        first = head("cmpl", info.id)
        if request.stream:
            return inference.streamed(completions.Chunks(request, first, echoes))
        return inference.whole(lambda answers: completions.whole(request, first, answers, echoes))

    def described(name: str, info: ModelInfo) -> Model:
        return Model(
            id=name,
            object="model",
            created=started,
            owned_by="youtu-triton",
            max_model_len=info.context,
        )

    @routes.get("/models")
    @Operation("listModels", "List the models", Models, errors=(*ASKS_MODEL, 404))
    def models() -> Response:
        info = service.served.info()
        data = [described(name, info) for name in service.served.names()]
        return jsonify(Models(object="list", data=data).to_dict())

    @routes.get("/models/<path:model>")
    @Operation("retrieveModel", "One model", Model, errors=(*ASKS_MODEL, 404))
    def model(model: str) -> Response:
        return jsonify(described(model, served(model)).to_dict())

    return routes


def _opens(count: int, start: Callable[..., Stream]) -> list[Open]:
    """What starts each of `count` calls: `start` with its number, its name and what belongs to every call."""
    record = log_record()

    def one(choice: int) -> Open:
        def begin(seconds: float) -> Stream:
            name = f"{record.request_id}.{choice}" if choice else record.request_id
            return start(choice, timeout=seconds, request_id=name, metadata=record.call_metadata())

        return begin

    return [one(choice) for choice in range(count)]
