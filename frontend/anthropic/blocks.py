"""Messages and content blocks of Anthropic's API, and the same as chat messages.

What this server writes into a block is read, too: the output of one request is the input of the next.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from ..schema import Strict, Text
from ..translation import of_types

Label = Annotated[Text, Field(min_length=1, max_length=256)]

TEXT_ONLY = "the model reads text only"


class CacheControl(Strict):
    """Taken in with no effect: the prefix cache here needs no marks."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(Strict):
    """What all blocks may carry."""

    cache_control: CacheControl | None = None


class TextBlock(Block):
    """Text; its citations are not read."""

    type: Literal["text"]
    text: Text
    citations: list[Any] | None = None


class ThinkingBlock(Block):
    """What the model thought; the signature is not checked."""

    type: Literal["thinking"]
    thinking: Text
    signature: Text | None = None


class RedactedBlock(Block):
    """Thinking that only Anthropic's servers can read: left out."""

    type: Literal["redacted_thinking"]
    data: Text


class ToolUseBlock(Block):
    """A call of a tool that the model made."""

    type: Literal["tool_use"]
    id: Label
    name: Annotated[Text, Field(min_length=1)]
    input: dict[str, Any]
    caller: dict[str, Any] | None = None
    toolset_name: None = None


_TEXT = of_types(("text",), TEXT_ONLY)
TextBlocks = list[Annotated[TextBlock, _TEXT]]


def _kind(value: object) -> str:
    return "<blocks>" if isinstance(value, list) else "<text>"


SystemText = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[TextBlocks, Tag("<blocks>")], Discriminator(_kind)
]


class ToolResultBlock(Block):
    """What a tool gave back."""

    type: Literal["tool_result"]
    tool_use_id: Label
    content: SystemText | None = None
    is_error: bool | None = None
    toolset_name: None = None


BLOCKS = {
    "text": TextBlock,
    "thinking": ThinkingBlock,
    "redacted_thinking": RedactedBlock,
    "tool_use": ToolUseBlock,
    "tool_result": ToolResultBlock,
}

ROLES = {
    "thinking": "assistant",
    "redacted_thinking": "assistant",
    "tool_use": "assistant",
    "tool_result": "user",
}
"""Type of a block -> the only role that has it; text is everybody's."""


def _kind_of_block(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return f"<{kind}>" if isinstance(kind, str) and kind in BLOCKS else "<none>"


AnyBlock = Annotated[
    Annotated[TextBlock, Tag("<text>")]
    | Annotated[ThinkingBlock, Tag("<thinking>")]
    | Annotated[RedactedBlock, Tag("<redacted_thinking>")]
    | Annotated[ToolUseBlock, Tag("<tool_use>")]
    | Annotated[ToolResultBlock, Tag("<tool_result>")],
    Discriminator(
        _kind_of_block,
        custom_error_type="block_type",
        custom_error_message=f"should be a block of type {', '.join(BLOCKS)}",
    ),
    of_types(BLOCKS, f"{TEXT_ONLY}; blocks are of type {', '.join(BLOCKS)}"),
]
Content = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[AnyBlock], Field(min_length=1), Tag("<blocks>")],
    Discriminator(_kind),
]


class Message(Strict):
    """One turn. Only the user's has tool_result blocks, only the assistant's thinking and tool_use."""

    role: Literal["user", "assistant", "system"]
    content: Content

    @model_validator(mode="after")
    def _blocks_of_its_role(self) -> Message:
        for at, block in enumerate([] if isinstance(self.content, str) else self.content):
            role = ROLES.get(block.type, self.role)
            if role != self.role:
                raise ValueError(
                    f"has a {block.type} block at content[{at}]; only {role} messages may have one"
                )
        return self

    def chat(self) -> Iterable[dict[str, Any]]:
        """The same as chat messages, at least one."""
        blocks = (
            [TextBlock(type="text", text=self.content)] if isinstance(self.content, str) else self.content
        )
        if self.role == "assistant":
            yield _assistant(blocks)
            return
        texts: list[str] = []
        told = False
        for block in blocks:
            if isinstance(block, ToolResultBlock):
                if texts:
                    yield {"role": self.role, "content": "".join(texts)}
                    texts = []
                content = joined(block.content or "")
                if block.is_error:
                    content = f"Error: {content}"
                yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}
                told = True
            elif isinstance(block, TextBlock):
                texts.append(block.text)
        if texts or not told:
            yield {"role": self.role, "content": "".join(texts)}


def _assistant(blocks: Iterable[Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    calls = []
    for block in blocks:
        if isinstance(block, TextBlock):
            message["content"] = message.get("content", "") + block.text
        elif isinstance(block, ThinkingBlock) and block.thinking:
            message["reasoning_content"] = message.get("reasoning_content", "") + block.thinking
        elif isinstance(block, ToolUseBlock):
            function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
            calls.append({"id": block.id, "type": "function", "function": function})
    if calls:
        message["tool_calls"] = calls
    else:
        message.setdefault("content", "")
    return message


def joined(content: str | TextBlocks) -> str:
    """The text of blocks."""
    return content if isinstance(content, str) else "".join(block.text for block in content)
