"""`POST /chat`: a question in, an answer out, whole or piece by piece.

Whole (`application/json`): `schema.facts`. With `"stream": true` (`text/event-stream`):

    data: {"reasoning_content": "Hm"}      one event per piece of thinking, if the model thinks first
    data: {"delta": "Hel"}                 one event per piece of text; together they are `response`
    : ping                                 a comment when there was nothing to say for PING_S seconds
    event: done
    data: {"response": "Hello", "time_cost": "0.3s", "token_count": 2, …}     what the JSON would be

and instead of `done`, when something fails after the first byte:

    event: error
    data: {"error": {"message": "…", "type": "…", "param": null, "code": "…"}}

When things are sent is `answering`'s to know; here is what.
"""

from __future__ import annotations

import json
from typing import Any

from flask import Blueprint, Response, request
from youtu_client import Answer, Piece, Stream, YoutuError

from . import body
from .access import Entry, entry
from .answering import Answering
from .errors import ApiError
from .schema import NAMES, ChatRequest, facts
from .service import Service


def blueprint(service: Service) -> Blueprint:
    """The route."""
    routes = Blueprint("chat", __name__)

    @routes.post("/chat")
    def chat() -> Response:
        wanted = body.validate(ChatRequest, body.parse(body.read(request, service.settings.max_body)))
        names = NAMES | {"messages": "prompt" if wanted.messages is None else "messages"}
        line = entry()

        def start(seconds: float) -> Stream:
            options = wanted.sampling(line.request_id)
            options |= {"timeout": seconds, "metadata": line.call_metadata()}
            return service.served.client.stream(wanted.conversation(), **options)

        answering = Answering(service, [start], names, wanted)
        try:
            model = service.served.info().id
        except YoutuError:
            answering.close()
            raise
        if not wanted.stream:
            return answering.whole(lambda answers: facts(answers[0], model=model, seconds=line.seconds()))
        return answering.streamed(_Events(model, line))

    return routes


class _Events:
    """The form of `answering.Format`."""

    def __init__(self, model: str, line: Entry) -> None:
        self._model = model
        self._line = line

    def piece(self, index: int, piece: Piece, thinking: bool) -> str:
        reasoning = _data({"reasoning_content": piece.reasoning}) if piece.reasoning else ""
        return reasoning + (_data({"delta": piece.content}) if piece.content else "")

    def answer(self, index: int, answer: Answer) -> str:
        return ""

    def end(self, answers: list[Answer]) -> str:
        return "event: done\n" + _data(facts(answers[0], model=self._model, seconds=self._line.seconds()))

    def error(self, error: ApiError) -> str:
        return "event: error\n" + _data(error.body())


def _data(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
