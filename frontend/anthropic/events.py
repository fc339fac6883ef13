"""A message of Anthropic's API, whole and as the events of a stream, in Anthropic's order:

message_start, ping
content_block_start, content_block_delta …, content_block_stop    for thinking, text and each tool_use
message_delta, message_stop
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from youtu_client import Answer, ModelInfo, Piece
from youtu_contract.parts import ToolCall

from ..access import log_record
from ..errors import ApiError
from ..replies import Timings, event
from .replies import (
    MessageReply,
    MessageUsage,
    ReplyBlock,
    StopReason,
    Thought,
    ToolUse,
    error_reply,
)
from .schema import MessagesRequest

SIGNATURE = "youtu"
"""Of thinking: that this server wrote it. Clients want one and send it back; nothing is checked."""


class Answering:
    """The form of the reply to one request, whole and as `inference.Format`."""

    def __init__(self, request: MessagesRequest, info: ModelInfo) -> None:
        self._request = request
        self._model = info.id
        self._id = f"msg_{uuid.uuid4().hex}"
        self._request_id = log_record().request_id
        self._begun = False
        self._index = -1
        self._open = ""
        self._shows = request.thinking is None or request.thinking.display != "omitted"

    def whole(self, answers: list[Answer]) -> MessageReply:
        (answer,) = answers
        reply = self._message([*self._blocks(answer)], MessageUsage.of(answer))
        reply.stop_reason = self._stop_reason(answer)
        reply.stop_sequence = stop_sequence(answer)
        reply.timings = Timings.of(answers)
        return reply

    def piece(self, index: int, piece: Piece) -> str:
        found = [self._begin(len(piece.prompt_token_ids or ()))]
        if piece.reasoning:
            found.append(self._opened("thinking"))
            if self._shows:
                found.append(self._delta("thinking_delta", thinking=piece.reasoning))
        if piece.content:
            found.append(self._opened("text"))
            found.append(self._delta("text_delta", text=piece.content))
        for call in piece.tool_calls:
            found.append(self._closed())
            found.append(self._start(tool_use(call) | {"input": {}}))
            found.append(self._delta("input_json_delta", partial_json=call.arguments))
            found.append(self._closed())
        return "".join(found)

    def answer(self, index: int, answer: Answer) -> str:
        return self._begin(answer.usage.prompt_tokens) + self._closed()

    def end(self, answers: list[Answer]) -> str:
        (answer,) = answers
        delta = {
            "type": "message_delta",
            "delta": {"stop_reason": self._stop_reason(answer), "stop_sequence": stop_sequence(answer)},
            "usage": MessageUsage.of(answer),
            "timings": Timings.of(answers),
        }
        return event(delta, "message_delta") + event({"type": "message_stop"}, "message_stop")

    def error(self, error: ApiError) -> str:
        return event(error_reply(error, self._request_id), "error")

    def _begin(self, prompt_tokens: int) -> str:
        if self._begun:
            return ""
        self._begun = True
        start = {"type": "message_start", "message": self._message([], MessageUsage.begun(prompt_tokens))}
        return event(start, "message_start") + event({"type": "ping"}, "ping")

    def _opened(self, kind: str) -> str:
        if self._open == kind:
            return ""
        block: dict[str, Any] = {"type": kind, kind: ""}
        if kind == "thinking":
            block["signature"] = ""
        return self._closed() + self._start(block)

    def _start(self, block: Any) -> str:
        self._index += 1
        self._open = block["type"]
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        return event(start, "content_block_start")

    def _delta(self, kind: str, **fields: str) -> str:
        delta = {"type": "content_block_delta", "index": self._index, "delta": {"type": kind, **fields}}
        return event(delta, "content_block_delta")

    def _closed(self) -> str:
        if not self._open:
            return ""
        signed = self._delta("signature_delta", signature=SIGNATURE) if self._open == "thinking" else ""
        self._open = ""
        return signed + event({"type": "content_block_stop", "index": self._index}, "content_block_stop")

    def _blocks(self, answer: Answer) -> Iterator[ReplyBlock]:
        if answer.reasoning:
            thought: Thought = {
                "type": "thinking",
                "thinking": answer.reasoning if self._shows else "",
                "signature": SIGNATURE,
            }
            yield thought
        if answer.content:
            yield {"type": "text", "text": answer.content}
        for call in answer.tool_calls:
            yield tool_use(call)

    def _message(self, content: list[ReplyBlock], usage: MessageUsage) -> MessageReply:
        return MessageReply(
            id=self._id,
            type="message",
            role="assistant",
            model=self._model,
            content=content,
            stop_reason=None,
            stop_sequence=None,
            usage=usage,
        )

    def _stop_reason(self, answer: Answer) -> StopReason:
        if answer.finish_reason == "length":
            full = answer.usage.completion_tokens < self._request.max_tokens
            return "model_context_window_exceeded" if full else "max_tokens"
        if answer.tool_calls:
            return "tool_use"
        return "end_turn" if stop_sequence(answer) is None else "stop_sequence"


def stop_sequence(answer: Answer) -> str | None:
    """The stop sequence that ended it, if one did."""
    return answer.stop_reason if isinstance(answer.stop_reason, str) else None


def tool_use(call: ToolCall) -> ToolUse:
    """A call of a tool; what the model wrote as its arguments is a JSON object."""
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": json.loads(call.arguments)}
