"""Items of `/v1/responses`: what a conversation is made of there, and the same as chat messages.

The output of one response is the input of the next, so all that this server writes into an item is read, too.
Independent of the store: references are replaced before.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter

from ..schema import No, Strict, Text
from ..translation import of_types, only_null

TEXTS = ("input_text", "output_text", "text", "summary_text", "reasoning_text")

PACKED = "youtu:"
"""Before the thinking in `encrypted_content`: what begins otherwise is another server's."""

Label = Annotated[Text, Field(min_length=1, max_length=256)]
Status = Literal["in_progress", "completed", "incomplete"]
_NO_NAMESPACE = Annotated[None, only_null("tool namespaces are not supported")]


class TextPart(Strict):
    """Text of a message, of a function's output or of the thinking; what stands beside it is not read."""

    type: Literal["input_text", "output_text", "text", "summary_text", "reasoning_text"]  # as in TEXTS
    text: Text
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    prompt_cache_breakpoint: dict[str, Any] | None = None


class Refusal(Strict):
    """What another model said when it refused to answer."""

    type: Literal["refusal"]
    refusal: Text


def _kind_of_part(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return "<refusal>" if kind == "refusal" else "<text>"


Part = Annotated[
    Annotated[TextPart, Tag("<text>")] | Annotated[Refusal, Tag("<refusal>")],
    Discriminator(_kind_of_part),
    of_types((*TEXTS, "refusal"), "the model reads text only"),
]
Content = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[Part], Tag("<parts>")],
    Discriminator(lambda value: "<parts>" if isinstance(value, list) else "<text>"),
]


class MessageItem(Strict):
    """A message; `type` may be left out."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: Label | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None


class FunctionCall(Strict):
    """A call that the model made; `arguments` is JSON in a string."""

    type: Literal["function_call"]
    call_id: Label
    name: Annotated[Text, Field(min_length=1)]
    arguments: Text
    id: Label | None = None
    status: Status | None = None
    namespace: _NO_NAMESPACE = None
    async_: Annotated[No | None, Field(alias="async")] = None
    caller: dict[str, Any] | None = None


class FunctionCallOutput(Strict):
    """What the function gave back, to the call with this `call_id`."""

    type: Literal["function_call_output"]
    call_id: Label
    output: Content
    id: Label | None = None
    status: Status | None = None
    name: Text | None = None
    namespace: _NO_NAMESPACE = None
    caller: dict[str, Any] | None = None
    created_by: Text | None = None


class ReasoningItem(Strict):
    """Thinking. `encrypted_content` of this server counts where `content` and `summary` were left out."""

    type: Literal["reasoning"]
    id: Label | None = None
    summary: list[TextPart] | None = None
    content: list[TextPart] | None = None
    encrypted_content: Text | None = None
    status: Status | None = None

    def text(self) -> str:
        """The thinking; "" where it was another server's and encrypted."""
        told = "".join(part.text for part in self.content or self.summary or [])
        return told or unpacked(self.encrypted_content or "")


class ItemReference(Strict):
    """An item of a stored response, by its id; `type` may be left out."""

    type: Literal["item_reference"] | None = "item_reference"
    id: Label


_KINDS = {
    "message": MessageItem,
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
    "reasoning": ReasoningItem,
    "item_reference": ItemReference,
}


def _kind_of_item(value: object) -> str:
    if not isinstance(value, dict):
        kind = getattr(value, "type", None)
    elif (kind := value.get("type")) is None:
        kind = "item_reference" if "id" in value and "role" not in value else "message"
    return f"<{kind}>" if isinstance(kind, str) and kind in _KINDS else "<other>"


Item = Annotated[
    Annotated[MessageItem, Tag("<message>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[ReasoningItem, Tag("<reasoning>")]
    | Annotated[ItemReference, Tag("<item_reference>")],
    Discriminator(
        _kind_of_item,
        custom_error_type="item_type",
        custom_error_message=f"should be an item of type {', '.join(_KINDS)}",
    ),
]
ITEM: TypeAdapter[Any] = TypeAdapter(Item)


def packed(text: str) -> str:
    """`encrypted_content` of thinking: it can be sent back where nothing is stored. It hides nothing."""
    return PACKED + base64.b64encode(text.encode()).decode()


def unpacked(content: str) -> str:
    """The thinking in what `packed` made; "" for what it did not make."""
    if not content.startswith(PACKED):
        return ""
    try:
        return base64.b64decode(content.removeprefix(PACKED), validate=True).decode()
    except ValueError:
        return ""


def _text(content: str | list[TextPart | Refusal]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.refusal if isinstance(part, Refusal) else part.text for part in content)


class Conversation:
    """Chat messages made of items; `paths[i]` is what the caller calls message i.

    Thinking, text and calls that follow one another are one message of the assistant, as chat templates
    expect it.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.paths: list[str] = []

    def add_system(self, text: str, path: str) -> None:
        """Instructions."""
        self._add(path, {"role": "system", "content": text})

    def add(self, item: Any, path: str) -> None:
        """An item, validated, that is no reference."""
        if isinstance(item, ReasoningItem):
            if text := item.text():
                message = self._assistant(path, "reasoning_content", "content", "tool_calls")
                message["reasoning_content"] = text
        elif isinstance(item, FunctionCall):
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            message = self._assistant(path)
            message.setdefault("tool_calls", []).append(call)
        elif isinstance(item, FunctionCallOutput):
            content = _text(item.output)
            self._add(path, {"role": "tool", "tool_call_id": item.call_id, "content": content})
        elif item.role == "assistant":
            self._assistant(path, "content")["content"] = _text(item.content)
        else:
            self._add(path, {"role": item.role, "content": _text(item.content)})

    def _assistant(self, path: str, *absent: str) -> dict[str, Any]:
        """The message of the assistant at the end that has none of `absent` yet, or a new one."""
        last = self.messages[-1] if self.messages else {}
        if last.get("role") != "assistant" or any(last.get(name) is not None for name in absent):
            self._add(path, {"role": "assistant"})
        return self.messages[-1]

    def _add(self, path: str, message: dict[str, Any]) -> None:
        self.messages.append(message)
        self.paths.append(path)

    def end(self) -> None:
        """Thinking without text or a call gets an empty text: a message needs one of them."""
        for message in self.messages:
            if message["role"] == "assistant" and not message.get("tool_calls"):
                message.setdefault("content", "")
