"""The events of a streamed response: OpenAI's names, in OpenAI's order, numbered from 0.

    response.created, response.in_progress
    response.output_item.added                                                 one item after the other
      response.content_part.added, response.output_text.delta …, response.output_text.done,
      response.content_part.done                                               text
      the same with response.reasoning_text.…, or response.reasoning_summary_part.added,
      response.reasoning_summary_text.…, response.reasoning_summary_part.done  thinking
      response.function_call_arguments.delta, response.function_call_arguments.done   a call
    response.output_item.done
    response.completed, response.incomplete or response.failed

What they hold is `answers`' to know; here is when.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from youtu_client import Answer, Piece
from youtu_contract.parts import ToolCall

from ..errors import ApiError
from ..openai.replies import ScoredToken
from ..replies import event
from .answers import Answering, end_status, needs_message, new_id
from .items import Status
from .replies import OutputItem, ResponseReply


class Events:
    """The form of `inference.Format`. `ended` is called with the response at its end, before it is sent."""

    def __init__(self, answering: Answering, ended: Callable[[ResponseReply], None]) -> None:
        self._answering = answering
        self._ended = ended
        self._number = 0
        self._output: list[OutputItem] = []
        self._open: _Text | None = None
        self._events: list[str] = []

    def piece(self, index: int, piece: Piece) -> str:
        self._begin()
        if piece.reasoning:
            self._opened(_Thinking).add(piece.reasoning, [])
        if piece.content:
            self._opened(_Message).add(piece.content, self._answering.scored(piece.tokens))
        for call in piece.tool_calls:
            self._close("completed")
            self._call(call)
        return self._taken()

    def answer(self, index: int, answer: Answer) -> str:
        self._begin()
        if needs_message(answer):
            self._opened(_Message)
        self._close(end_status(answer))
        return self._taken()

    def end(self, answers: list[Answer]) -> str:
        response = self._answering.ended(answers[0], self._output)
        self._ended(response)
        self.send(f"response.{response.status}", response=response)
        return self._taken()

    def error(self, error: ApiError) -> str:
        self._begin()
        self._close("incomplete")
        self.send("response.failed", response=self._answering.failed(error, self._output))
        return self._taken()

    def send(self, kind: str, **fields: Any) -> None:
        """The next event."""
        self._events.append(event({"type": kind, "sequence_number": self._number, **fields}, kind))
        self._number += 1

    def _taken(self) -> str:
        text = "".join(self._events)
        self._events.clear()
        return text

    def _begin(self) -> None:
        if self._number == 0:
            for kind in ("response.created", "response.in_progress"):
                self.send(kind, response=self._answering.begun([]))

    def _opened(self, kind: type[_Text]) -> _Text:
        """The item of this kind that is under way, or a new one."""
        if type(self._open) is kind:
            return self._open
        self._close("completed")
        self._open = opened = kind(self, self._answering, len(self._output))
        return opened

    def _close(self, status: Status) -> None:
        if self._open is not None:
            self._output.append(self._open.end(status))
            self._open = None

    def _call(self, call: ToolCall) -> None:
        id, at = new_id("fc"), len(self._output)
        place = {"item_id": id, "output_index": at}
        begun = self._answering.call(id, call, "in_progress")
        self.send("response.output_item.added", output_index=at, item=begun)
        self.send("response.function_call_arguments.delta", **place, delta=call.arguments)
        whole = {"name": call.name, "arguments": call.arguments}
        self.send("response.function_call_arguments.done", **place, **whole)
        item = self._answering.call(id, call, "completed")
        self.send("response.output_item.done", output_index=at, item=item)
        self._output.append(item)


class _Text:
    """An item whose text comes in pieces."""

    prefix = ""

    def __init__(self, events: Events, answering: Answering, at: int) -> None:
        self._events, self._answering, self._at = events, answering, at
        self._id = new_id(self.prefix)
        self._text = ""
        self._scored: list[ScoredToken] = []
        events.send("response.output_item.added", output_index=at, item=self.begun())
        self._part("added")

    def add(self, text: str, scored: list[ScoredToken]) -> None:
        """New text."""
        self._text += text
        self._scored += scored
        self._send(f"{self.kind()}.delta", delta=text, **self.log_probs(scored))

    def end(self, status: Status) -> OutputItem:
        """The whole item; no text comes any more."""
        self._send(f"{self.kind()}.done", text=self._text, **self.log_probs(self._scored))
        self._part("done")
        item = self.item(status)
        self._events.send("response.output_item.done", output_index=self._at, item=item)
        return item

    def _part(self, what: str) -> None:
        name = "response.reasoning_summary_part" if self.summary() else "response.content_part"
        self._send(f"{name}.{what}", part=self.part())

    def _send(self, kind: str, **fields: Any) -> None:
        index = {"summary_index": 0} if self.summary() else {"content_index": 0}
        self._events.send(kind, item_id=self._id, output_index=self._at, **index, **fields)

    def summary(self) -> bool:
        return False

    def log_probs(self, scored: list[ScoredToken]) -> dict[str, Any]:
        return {}

    def kind(self) -> str:
        raise NotImplementedError

    def begun(self) -> OutputItem:
        raise NotImplementedError

    def item(self, status: Status) -> OutputItem:
        raise NotImplementedError

    def part(self) -> Any:
        raise NotImplementedError


class _Message(_Text):
    prefix = "msg"

    def kind(self) -> str:
        return "response.output_text"

    def log_probs(self, scored: list[ScoredToken]) -> dict[str, Any]:
        return {"logprobs": scored}

    def begun(self) -> OutputItem:
        return self._answering.message(self._id, "", [], "in_progress") | {"content": []}

    def item(self, status: Status) -> OutputItem:
        return self._answering.message(self._id, self._text, self._scored, status)

    def part(self) -> Any:
        return self._answering.text(self._text, self._scored)


class _Thinking(_Text):
    prefix = "rs"

    def summary(self) -> bool:
        return self._answering.summarised

    def kind(self) -> str:
        return "response.reasoning_summary_text" if self.summary() else "response.reasoning_text"

    def begun(self) -> OutputItem:
        item = self._answering.reasoning(self._id, "", "in_progress")
        return item | {"summary": [], "content": [], "encrypted_content": None}

    def item(self, status: Status) -> OutputItem:
        return self._answering.reasoning(self._id, self._text, status)

    def part(self) -> Any:
        return {"type": "summary_text" if self.summary() else "reasoning_text", "text": self._text}
