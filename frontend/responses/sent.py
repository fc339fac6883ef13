"""What was sent to `/v1/responses`, with all that it refers to: earlier responses, items of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ApiError
from ..openai.schema import ChatCompletion
from ..translation import chat_request
from .answers import new_id
from .items import ITEM, Conversation, ItemReference
from .schema import InputRequest
from .store import Gone, Store

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


class Sent:
    """`chat`: the chat request that it becomes; `names` of its fields, as in `translation`; `items`: those of
    this request alone, each with an id, as they are kept. Raises ApiError 400, 404.
    """

    def __init__(self, request: InputRequest, store: Store, owner: str) -> None:
        self.items: list[dict[str, Any]] = []
        conversation = Conversation()
        if request.instructions is not None:
            conversation.add_system(request.instructions, "instructions")
        if request.previous_response_id is not None:
            for before in _before(request.previous_response_id, store, owner):
                conversation.add(ITEM.validate_python(before), "previous_response_id")
        asked = request.input
        if isinstance(asked, str):
            asked = [ITEM.validate_python({"role": "user", "content": asked})]
        for at, item in enumerate(asked):
            path = "input" if isinstance(request.input, str) else f"input[{at}]"
            if isinstance(item, ItemReference):
                try:
                    kept = store.item(owner, item.id)
                except Gone as gone:
                    words = not_kept(gone.id, "item")
                    raise ApiError("item_not_found", f"{path}.id: {words}", param=f"{path}.id") from None
                self.items.append(kept)
                conversation.add(ITEM.validate_python(kept), path)
            else:
                self.items.append(_kept(item))
                conversation.add(item, path)
        conversation.end()
        self.names: Mapping[str, str] = request.names(conversation)
        self.chat: ChatCompletion = chat_request(request.fields(conversation), self.names)


def not_kept(id: str, what: str = "response") -> str:
    """A sentence about something that is not here."""
    return f"{what} {id} does not exist or has expired"


def _before(id: str, store: Store, owner: str) -> list[dict[str, Any]]:
    """All items of the responses up to this one."""
    try:
        return [item for stored in store.chain(owner, id) for item in stored.items()]
    except Gone as gone:
        words = (
            not_kept(gone.id)
            if gone.id == id
            else f"{id} continues another response, and {not_kept(gone.id)}"
        )
        message = f"previous_response_id: {words}"
        raise ApiError("previous_response_not_found", message, param="previous_response_id") from None


def _kept(item: Any) -> dict[str, Any]:
    """An item as it is kept and listed: with an id, its content as parts."""
    value: dict[str, Any] = item.model_dump(exclude_none=True, by_alias=True)
    kept = {"id": value.get("id") or new_id(_PREFIXES[item.type]), "type": item.type, "status": "completed"}
    if item.type == "message" and isinstance(item.content, str):
        kind = "output_text" if item.role == "assistant" else "input_text"
        value["content"] = [{"type": kind, "text": item.content}]
    return kept | value
