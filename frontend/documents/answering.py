"""What the generating routes do about the documents of a request: find them, quote them, refuse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from youtu_client import YoutuError

from ..access import log_record
from ..errors import ApiError, from_client, shown
from ..replies import QuotedSource
from .collection import KNOWLEDGE, NotThere, NotYet
from .library import Document
from .quoting import NoRoom, quoted, room_for_prompt

if TYPE_CHECKING:
    from ..service import Service

ASKED_S = 60.0
"""Seconds that one question for tokens may take."""

PROMPT_OPTIONS = (
    "chat_template_kwargs",
    "add_generation_prompt",
    "add_special_tokens",
    "continue_final_message",
)


def with_documents(
    service: Service,
    request: BaseModel,
    conversation: list[dict[str, Any]],
    names: Sequence[str],
    max_tokens: int | None,
    sampling: Mapping[str, Any],
    fields: dict[str, str],
) -> tuple[list[dict[str, Any]], list[QuotedSource]]:
    """The conversation with the documents of these `names`, and what the model is given of them.

    `max_tokens`, `sampling`: what the request says; `fields`: what the caller calls the model's inputs.
    Raises ApiError.
    """
    record = log_record()
    record.asked = request
    documents: dict[str, Document] = {}
    for at, name in enumerate(names):
        try:
            documents |= {each.id: each for each in service.documents.named(record.client, name)}
        except NotThere as error:
            message = f"documents[{at}]: there is no {shown(name)}: {error}"
            raise ApiError("document_not_found", message, param=f"documents[{at}]") from None
        except NotYet:
            message = "The knowledge base is being read. Try again shortly."
            raise ApiError("documents_loading", message, headers={"Retry-After": "5"}) from None
    options = {name: sampling[name] for name in PROMPT_OPTIONS if sampling.get(name) is not None}
    client = service.served.client

    def count(messages: list[dict[str, Any]]) -> int:
        return len(client.tokenize(messages, timeout=ASKED_S, **options).ids)

    try:
        room = room_for_prompt(service.served.info().context, max_tokens)
        made, sources = quoted(
            conversation, list(documents.values()), room, count, whole=KNOWLEDGE not in names
        )
    except NoRoom as error:
        message = (
            f"documents: with the best passage alone the prompt has {error.needed} tokens; it may have "
            f"{error.room}, since the rest of the context is kept for the answer"
        )
        raise ApiError("context_length_exceeded", message, param="documents") from None
    except YoutuError as error:
        raise from_client(error, fields, typed=record.typed()) from error
    return made, sources
