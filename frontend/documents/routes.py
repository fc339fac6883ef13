"""`POST /documents`: a file in, its id out, by which questions name it. `DELETE /documents/{id}`: forget it.

    curl --data-binary @manual.pdf -H 'Content-Type: application/octet-stream' \\
        'localhost:8080/documents?name=manual.pdf'
    → {"id": "doc-…", "name": "manual.pdf", "kind": "pdf", "characters": 4210, "tokens": 1320, "passages": 6}

`GET /documents` tells of the knowledge base. Reading needs no model; how many tokens a document has is null
while the model takes no questions.
"""

from __future__ import annotations

from typing import Literal

from flask import Blueprint, Response, jsonify, request
from youtu_client import YoutuError

from .. import body
from ..access import log_record
from ..description import FINDS, Operation
from ..errors import ApiError, shown
from ..replies import Reply
from ..service import Service
from .files import Kind
from .library import Document
from .reader import AT_ONCE, Busy
from .unreadable import Unreadable

PATH = "/documents"
RATE = "60 per minute"
"""Files of one key or address."""
TYPE = "application/octet-stream"
NAME_CHARACTERS = 255
COUNTED_CHARACTERS = 100_000
"""The tokens of a longer text are estimated from its beginning."""
ASKED_S = 20.0
SHOWN = 100

NAME = {"type": "string", "maxLength": NAME_CHARACTERS, "default": "document"}


class ReadDocument(Reply):
    """A document that was read. `tokens`: of its whole text, estimated above 100,000 characters; null while
    the model takes no questions."""

    id: str
    name: str
    kind: Kind
    characters: int
    tokens: int | None
    passages: int


class DeletedDocument(Reply):
    """The document is forgotten."""

    id: str
    deleted: Literal[True]


class UnreadFile(Reply):
    """A file of the knowledge base that cannot be read, and why."""

    name: str
    code: str
    message: str


class Knowledge(Reply):
    """The knowledge base: how many documents are in it, and the first 100 files that cannot be read.

    `complete`: all of its files were looked at once; until then it answers no questions.
    """

    complete: bool
    documents: int
    passages: int
    unreadable: list[UnreadFile]


class Documents(Reply):
    """What can be asked about here beside what a caller sends; `largest`: bytes of a file."""

    largest: int
    knowledge: Knowledge | None


def blueprint(service: Service) -> Blueprint:
    """The routes."""
    routes = Blueprint("documents", __name__)
    collection = service.documents

    @routes.post(PATH)
    @Operation(
        "readDocument",
        "A document to ask questions about: text, Markdown, CSV, JSON, source code, PDF, .docx, .xlsx",
        ReadDocument,
        file=True,
        query={"name": NAME},
        errors=(400, 401, 408, 413, 415, 421, 422, 429, 503),
    )
    def read() -> Response:
        name = _name()
        # A page of another site can send a form or a plain text without asking; this type it cannot.
        if request.mimetype != TYPE:
            message = f"Content-Type must be {TYPE}, not {shown(request.mimetype)}"
            raise ApiError("unsupported_media_type", message)
        data = body.received(service.settings.document_size)
        try:
            document = collection.read(log_record().client, name, data)
        except Unreadable as error:
            raise ApiError(error.code, f"{shown(name)}: {error.message}", param="name") from None
        except Busy:
            service.metrics.refused("documents_busy")
            message = f"{AT_ONCE} documents are read at once, and others wait; try again in a few seconds"
            raise ApiError("documents_busy", message, headers={"Retry-After": "5"}) from None
        contents = document.contents
        reply = ReadDocument(
            id=document.id,
            name=name,
            kind=contents.kind,
            characters=contents.characters,
            tokens=_tokens(service, document),
            passages=len(contents.passages),
        )
        return jsonify(reply.to_dict())

    @routes.get(PATH)
    @Operation("documents", "The knowledge base, and how large a file may be", Documents, errors=(401, 421))
    def overview() -> Response:
        knowledge = None
        if collection.folder is not None:
            state = collection.folder.state
            knowledge = Knowledge(
                complete=state.complete,
                documents=len(state.documents),
                passages=sum(len(each.contents.passages) for each in state.documents),
                unreadable=[
                    UnreadFile(name=name, code=error.code, message=error.message)
                    for name, error in list(state.unreadable.items())[:SHOWN]
                ],
            )
        reply = Documents(largest=service.settings.document_size, knowledge=knowledge)
        return jsonify(reply.to_dict())

    @routes.delete(f"{PATH}/<id>")
    @Operation("deleteDocument", "Forget a document", DeletedDocument, errors=FINDS)
    def delete(id: str) -> Response:
        if not collection.library.remove(log_record().client, id):
            raise ApiError("document_not_found", f"there is no document {shown(id)}", param="id")
        return jsonify(DeletedDocument(id=id, deleted=True).to_dict())

    return routes


def _name() -> str:
    name = " ".join(request.args.get("name", "").split()) or "document"
    if len(name) > NAME_CHARACTERS:
        message = f"name should have at most {NAME_CHARACTERS} characters, not {len(name)}"
        raise ApiError("invalid_value", message, param="name")
    return name


def _tokens(service: Service, document: Document) -> int | None:
    """Of the whole text; None where the model does not tell."""
    text = "\n\n".join(each.text for each in document.contents.passages)
    counted = text[:COUNTED_CHARACTERS]
    try:
        tokens = service.served.client.tokenize_text(counted, timeout=ASKED_S, add_special_tokens=False)
    except YoutuError:
        return None
    return round(len(tokens.ids) * len(text) / len(counted))
