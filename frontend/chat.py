"""`POST /chat`: a question in, an answer out, whole or piece by piece.

Whole (`application/json`): `replies.ChatReply`. With `"stream": true` (`text/event-stream`):

    data: {"delta": "", "reasoning_content": "Hm"}      one event per piece of thinking, if the model thinks
    data: {"delta": "Hel"}                 one event per piece of text; together they are `response`
    : ping                                 a comment when there was nothing to say for PING_S seconds
    event: done
    data: {"response": "Hello", "time_cost": "0.3s", "token_count": 2, …}     what the JSON would be

with `documents`, before the first piece:

    event: sources
    data: {"sources": [{"number": 1, "document": "doc-…", "name": "manual.pdf", "page": 3, "text": "…", …}]}

and instead of `done`, when something fails after the first byte:

    event: error
    data: {"error": {"message": "…", "type": "…", "param": null, "code": "…"}}

When things are sent is `inference`'s to know; here is what.
"""

from __future__ import annotations

from flask import Blueprint, Response
from youtu_client import Answer, Piece, Stream, YoutuError

from . import body
from .access import LogRecord, log_record
from .description import GENERATES, Event, Operation
from .documents.answering import with_documents
from .errors import ApiError
from .inference import Inference
from .replies import ChatDelta, ChatReply, Error, QuotedSource, ReasoningDelta, SourcesEvent, event
from .schema import NAMES, ChatRequest
from .service import Service


def blueprint(service: Service) -> Blueprint:
    """The route."""
    routes = Blueprint("chat", __name__)

    @routes.post("/chat")
    @Operation(
        "chat",
        "Ask a question and get the answer",
        ChatReply,
        request=ChatRequest,
        stream="With `stream` true, server-sent events: one for each piece of text, then one named `done` "
        "with what the JSON would be, or one named `error`.",
        events=(
            Event(SourcesEvent, "sources"),
            Event(ReasoningDelta),
            Event(ChatDelta),
            Event(ChatReply, "done"),
            Event(Error, "error"),
        ),
        errors=(*GENERATES, 404),
    )
    def chat() -> Response:
        request = body.load(ChatRequest, service.settings.max_body)
        names = NAMES | {"messages": "prompt" if request.messages is None else "messages"}
        record = log_record()

        def start(seconds: float) -> Stream:
            options = request.sampling(record.request_id)
            options |= {"timeout": seconds, "metadata": record.call_metadata()}
            return service.served.client.stream(conversation, **options)

        conversation = request.conversation()
        sources: list[QuotedSource] = []
        if request.documents:
            sampling = request.sampling(record.request_id)
            conversation, sources = with_documents(
                service, request, conversation, request.documents, request.max_tokens, sampling, names
            )
        inference = Inference(service, [start], names, request)
        try:
            model = service.served.info().id
        except YoutuError:
            inference.close()
            raise
        form = _Form(model, record, sources)
        return inference.streamed(form) if request.stream else inference.whole(form.whole)

    return routes


class _Form:
    """The form of the reply, whole and as `inference.Format`."""

    def __init__(self, model: str, record: LogRecord, sources: list[QuotedSource]) -> None:
        self._model = model
        self._record = record
        self._sources = sources
        self._told = not sources

    def whole(self, answers: list[Answer]) -> ChatReply:
        seconds = self._record.seconds()
        return ChatReply.of(answers[0], model=self._model, seconds=seconds, sources=self._sources)

    def piece(self, index: int, piece: Piece) -> str:
        opening = "" if self._told else event(SourcesEvent(sources=self._sources), "sources")
        self._told = True
        reasoning = ""
        if piece.reasoning:
            reasoning = event(ReasoningDelta(delta="", reasoning_content=piece.reasoning))
        return opening + reasoning + (event(ChatDelta(delta=piece.content)) if piece.content else "")

    def answer(self, index: int, answer: Answer) -> str:
        return ""

    def end(self, answers: list[Answer]) -> str:
        return event(self.whole(answers), "done")

    def error(self, error: ApiError) -> str:
        return event(error.body(), "error")
