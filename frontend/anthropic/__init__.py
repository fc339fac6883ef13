"""Anthropic's routes: `/v1/messages` and its count of tokens.

As Anthropic documents them (docs.anthropic.com/en/api/messages), so that its SDK works unchanged, with its
shape of errors. Each request becomes a chat request (`translation`).
"""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, g, jsonify

from .. import body
from ..access import log_record
from ..asking import ask, count
from ..description import GENERATES, Event, Operation
from ..errors import ApiError
from ..service import Service
from ..translation import chat_request
from . import replies
from .events import Answering
from .replies import MessageError, MessageReply, TokenCount, error_reply
from .schema import CountRequest, MessagesRequest

ROOT = "/v1/messages"


def error_body(error: ApiError) -> dict[str, Any]:
    """What an error below ROOT says."""
    record = g.get("log_record")
    return error_reply(error, record and record.request_id).to_dict()


def blueprint(service: Service) -> Blueprint:
    """The routes."""
    routes = Blueprint("anthropic", __name__, url_prefix=ROOT)

    @routes.post("")
    @Operation(
        "createMessage",
        "Anthropic's messages",
        MessageReply,
        request=MessagesRequest,
        stream="With `stream` true, server-sent events as Anthropic's, the last of which is message_stop, or "
        "error when something failed after the first.",
        events=(
            Event(replies.MessageStart, "message_start"),
            Event(replies.Bare, ("ping", "message_stop")),
            Event(replies.BlockStart, "content_block_start"),
            Event(replies.BlockDelta, "content_block_delta"),
            Event(replies.BlockStop, "content_block_stop"),
            Event(replies.MessageDelta, "message_delta"),
            Event(MessageError, "error"),
        ),
        errors=(*GENERATES, 404),
        error=MessageError,
    )
    def create() -> Response:
        request = body.load(MessagesRequest, service.settings.max_body)
        info = service.served.named(request.model)
        fields, names = request.chat()
        inference = ask(service, info, chat_request(fields, names), names)
        form = Answering(request, info)
        return inference.streamed(form) if request.stream else inference.whole(form.whole)

    @routes.post("/count_tokens")
    @Operation(
        "countMessageTokens",
        "Count the tokens in the prompt of a message",
        TokenCount,
        request=CountRequest,
        errors=(*GENERATES, 404),
        error=MessageError,
    )
    def count_tokens() -> Response:
        request = body.load(CountRequest, service.settings.max_body)
        info = service.served.named(request.model)
        fields, names = request.chat()
        tokens = count(service, info, chat_request(fields, names), names)
        return jsonify(TokenCount(input_tokens=tokens).to_dict())

    @routes.after_request
    def name(response: Response) -> Response:
        """The request's id where Anthropic's clients look for it."""
        response.headers["request-id"] = log_record().request_id
        return response

    return routes
