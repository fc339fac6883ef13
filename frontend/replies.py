"""What goes out as JSON: the base of all reply models, what several routes share, and `POST /chat`'s replies.

`/openapi.json` is made from these models. Handles the client's answers; independent of HTTP.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict
from youtu_client import Answer


class Reply(BaseModel):
    """A JSON object. A key with a default is left out unless it is set; more keys may be added to the API."""

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, json_schema_extra={"additionalProperties": True}
    )

    def to_dict(self) -> dict[str, Any]:
        """The object: the keys that were set, in the order in which the model declares them."""
        return self.model_dump(exclude_unset=True)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=Reply.to_dict).encode


def event(data: object, name: str | None = None) -> str:
    """One server-sent event. `data`: a reply, or a JSON value that may hold replies."""
    text = _encode(data)
    return f"data: {text}\n\n" if name is None else f"event: {name}\ndata: {text}\n\n"


class Fault(Reply):
    """What went wrong, in words and for programs; `param` is the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class Error(Reply):
    """The one shape of all errors."""

    error: Fault


class Timings(Reply):
    """From the model server's clock: seconds to the first and to the last token; decode speed.

    Of several answers: to the first token of any, to the last of all, the speed of all together.
    """

    ttft_s: float
    total_s: float
    tokens_per_second: float

    @classmethod
    def of(cls, answers: list[Answer]) -> Timings:
        """Those of the answers to one request."""
        times = [answer.timings for answer in answers]
        first = min(times, key=lambda one: one.ttft)
        last = max(times, key=lambda one: one.total)
        return cls(
            ttft_s=round(first.ttft, 4),
            total_s=round(last.total, 4),
            tokens_per_second=round(sum(one.tokens_per_second for one in times), 2),
        )


class Usage(Reply):
    """Tokens, as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatUsage(Usage):
    """Tokens, as the engine counted them; `cached_tokens` of the prompt came out of the prefix cache."""

    cached_tokens: int


class QuotedSource(Reply):
    """What the model was given of a document, behind the mark [`number`]: a passage, or the `whole` of it.

    `document`: as the request names it, or of a document in the knowledge base its id. `page` counts from 1;
    `section`: the headings above, or the sheet.
    """

    number: int
    document: str
    name: str
    page: int | None
    section: str | None
    text: str
    whole: bool


class SourcesEvent(Reply):
    """What the model was given of documents, before its answer begins."""

    sources: list[QuotedSource]


class ChatReply(Reply):
    """The whole answer: its text, how long the caller waited for it (`time_cost`), and its figures.

    `reasoning_content` is there when the model thought before it answered, `sources` when it was given
    documents.
    """

    response: str
    time_cost: str
    token_count: int
    finish_reason: Literal["stop", "length"]
    usage: ChatUsage
    timings: Timings
    model: str
    request_id: str
    reasoning_content: str = ""
    sources: list[QuotedSource] = Field(default=[])

    @classmethod
    def of(
        cls, answer: Answer, *, model: str, seconds: float, sources: Sequence[QuotedSource] = ()
    ) -> ChatReply:
        """`seconds`: what the caller waited, measured here."""
        usage = answer.usage
        optional: dict[str, Any] = {"reasoning_content": answer.reasoning, "sources": list(sources)}
        return cls(
            response=answer.content,
            time_cost=f"{seconds:.1f}s",
            token_count=usage.completion_tokens,
            finish_reason=answer.finish_reason,  # type: ignore[arg-type]  # checked, as everything here
            usage=ChatUsage(
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                total_tokens=usage.prompt_tokens + usage.completion_tokens,
                cached_tokens=usage.cached_tokens,
            ),
            timings=Timings.of([answer]),
            model=model,
            request_id=answer.request_id,
            **{name: value for name, value in optional.items() if value},
        )


class ChatDelta(TypedDict):
    """A piece of the text."""

    delta: str


class ReasoningDelta(TypedDict):
    """A piece of the thinking; `delta` is empty, for callers who know no other key."""

    delta: str
    reasoning_content: str


class Probe(Reply):
    """Whether requests are taken, in one word."""

    status: Literal["live", "ready", "stuck", "loading", "unhealthy", "draining"]


class Version(Reply):
    """The version of this server, which its client shares."""

    version: str


class DeviceMemory(Reply):
    """Bytes of the card that the engine computes on."""

    used: int
    total: int


class Health(Reply):
    """Whether requests are taken, and what is served: null while that is not known."""

    status: Literal["healthy", "loading", "unhealthy", "draining"]
    model: str | None
    demo: bool | None
    description: str
    device_memory: DeviceMemory | None = None
