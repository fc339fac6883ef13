"""OpenAI's responses: `/v1/responses` and what belongs to it.

As OpenAI documents them (platform.openai.com/docs/api-reference/responses), so that its SDK, its agents SDK
and others that speak this API by default work unchanged. Each request becomes a chat request (`translation`).
Answers are kept for a while (`store`), for their caller alone, unless `store` is false or they failed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flask import Blueprint, Response, jsonify
from flask import request as http_request
from youtu_client import Answer

from .. import body
from ..access import log_record
from ..asking import ask, count
from ..description import FINDS, GENERATES, Event, Operation
from ..errors import ApiError, shown
from ..service import Service
from . import replies
from .answers import Answering
from .events import Events
from .replies import Deleted, InputItems, InputTokens, ResponseReply
from .schema import InputRequest, ResponseRequest
from .sent import Sent, not_kept
from .store import Gone, Store, Stored

PAGE_ITEMS, MOST_PAGE_ITEMS = 20, 100
ORDERS = ("asc", "desc")
LISTED: dict[str, dict[str, Any]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": MOST_PAGE_ITEMS, "default": PAGE_ITEMS},
    "order": {"type": "string", "enum": list(ORDERS), "default": "desc"},
    "after": {"type": "string"},
}
"""Parameters of a list of items, as OpenAPI describes them."""


def blueprint(service: Service) -> Blueprint:
    """The routes."""
    settings = service.settings
    routes = Blueprint("responses", __name__, url_prefix="/v1/responses")
    store = Store(settings.stored_responses, settings.stored_size, settings.stored_age)

    @routes.post("")
    @Operation(
        "createResponse",
        "OpenAI's responses",
        ResponseReply,
        request=ResponseRequest,
        stream="With `stream` true, server-sent events as OpenAI's, numbered, the last of which is "
        "response.completed, response.incomplete or response.failed.",
        events=tuple(Event(each, replies.event_names(each)) for each in replies.EVENTS),
        errors=(*GENERATES, 404),
    )
    def create() -> Response:
        request = body.load(ResponseRequest, settings.max_body)
        info = service.served.named(request.model)
        owner = log_record().client
        sent = Sent(request, store, owner)
        answering = Answering(
            request, info, store=settings.stored_responses > 0 and request.store is not False
        )

        def ended(response: ResponseReply) -> None:
            if response.store:
                store.add(owner, Stored(response.to_dict(), sent.items, request.previous_response_id))

        def whole(answers: list[Answer]) -> ResponseReply:
            response = answering.ended(answers[0], answering.output(answers[0]))
            ended(response)
            return response

        inference = ask(service, info, sent.chat, sent.names)
        if request.stream:
            return inference.streamed(Events(answering, ended))
        return inference.whole(whole)

    @routes.post("/input_tokens")
    @Operation(
        "countInputTokens",
        "Count the tokens in the input of a response",
        InputTokens,
        request=InputRequest,
        errors=(*GENERATES, 404),
    )
    def input_tokens() -> Response:
        request = body.load(InputRequest, settings.max_body)
        info = service.served.named(request.model)
        sent = Sent(request, store, log_record().client)
        tokens = count(service, info, sent.chat, sent.names)
        return jsonify(InputTokens(object="response.input_tokens", input_tokens=tokens).to_dict())

    @routes.get("/<response_id>")
    @Operation("getResponse", "Get a stored response", ResponseReply, errors=FINDS)
    def retrieve(response_id: str) -> Response:
        if http_request.args.get("stream") == "true":
            words = "stream: a stored response is complete and cannot be streamed again"
            raise ApiError("invalid_value", words, param="stream")
        with _found():
            return jsonify(store.get(log_record().client, response_id).response)

    @routes.delete("/<response_id>")
    @Operation("deleteResponse", "Delete a response", Deleted, errors=FINDS)
    def delete(response_id: str) -> Response:
        with _found():
            store.remove(log_record().client, response_id)
        return jsonify(Deleted(id=response_id, object="response", deleted=True).to_dict())

    @routes.get("/<response_id>/input_items")
    @Operation(
        "listInputItems", "List the input items of a response", InputItems, query=LISTED, errors=(400, *FINDS)
    )
    def input_items(response_id: str) -> Response:
        with _found():
            chain = store.chain(log_record().client, response_id)
        items = [item for stored in chain[:-1] for item in stored.items()] + chain[-1].input
        return jsonify(_page(items, http_request.args).to_dict())

    return routes


@contextlib.contextmanager
def _found() -> Iterator[None]:
    """A response that is not there is a 404."""
    try:
        yield
    except Gone as gone:
        raise ApiError("response_not_found", not_kept(gone.id), param="response_id") from None


def _page(items: list[dict[str, Any]], query: Mapping[str, str]) -> InputItems:
    """Those of `items` that the query asks for. Raises ApiError 400."""
    limit, order, after = query.get("limit", str(PAGE_ITEMS)), query.get("order", "desc"), query.get("after")
    if not re.fullmatch("[0-9]{1,3}", limit, re.ASCII) or not 1 <= int(limit) <= MOST_PAGE_ITEMS:
        words = f"limit should be an integer from 1 to {MOST_PAGE_ITEMS}, not {shown(limit)}"
        raise ApiError("invalid_value", words, param="limit")
    if order not in ORDERS:
        raise ApiError("invalid_value", f"order should be asc or desc, not {shown(order)}", param="order")
    found = items if order == "asc" else items[::-1]
    if after is not None:
        ids = [item["id"] for item in found]
        found = found[ids.index(after) + 1 :] if after in ids else []
    page = found[: int(limit)]
    return InputItems(
        object="list",
        data=page,
        first_id=page[0]["id"] if page else None,
        last_id=page[-1]["id"] if page else None,
        has_more=len(found) > len(page),
    )
