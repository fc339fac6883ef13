"""What both of OpenAI's completion routes build alike: log-probabilities and the events of a stream."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from youtu_client import Answer, Token

from ..errors import ApiError
from ..replies import Timings, event
from .replies import (
    ChatCompletionChunk,
    ChatLogProbs,
    CompletionChunk,
    CompletionUsage,
    Head,
    ScoredToken,
    TextLogProbs,
    UsageChunk,
)
from .schema import GenerationRequest

Value = TypeVar("Value")


class Chunks:
    """The events of a stream: half of `inference.Format`; the routes say what is in a chunk."""

    object: Literal["chat.completion.chunk", "text_completion"]

    def __init__(self, request: GenerationRequest, head: Head) -> None:
        self.head = head
        self._usage = bool(request.stream_options and request.stream_options.include_usage)

    def frame(self, choice: Any) -> Any:
        """The chunk with this choice, in OpenAI's order of keys."""
        return {
            "id": self.head["id"],
            "object": self.object,
            "created": self.head["created"],
            "model": self.head["model"],
            "choices": [choice],
        }

    def event(self, chunk: ChatCompletionChunk | CompletionChunk) -> str:
        """The event of a chunk; where usage was asked for, OpenAI has it null in every chunk but the last."""
        if self._usage:
            chunk["usage"] = None
        return event(chunk)

    def last(self, prompts: list[list[Answer]]) -> str:
        """The usage of answers grouped by their prompt, if it was asked for, and the end."""
        done = "data: [DONE]\n\n"
        if not self._usage:
            return done
        usage = UsageChunk(
            **self.head,
            object=self.object,
            choices=[],
            usage=CompletionUsage.of(prompts),
            timings=Timings.of([answer for answers in prompts for answer in answers]),
        )
        return event(usage) + done

    def error(self, error: ApiError) -> str:
        """A failure after the first byte; OpenAI's SDK raises it."""
        return event(error.body())


def with_text(tokens: Iterable[Token]) -> list[Token]:
    """Without those that gave no text: the end, a stop word."""
    return [token for token in tokens if token.data]


def chat_log_probs(tokens: Iterable[Token]) -> ChatLogProbs:
    """`logprobs` of a chat choice."""
    scored: list[ScoredToken] = [
        {
            "token": _text(token.data),
            "logprob": token.log_prob,
            "bytes": list(token.data),
            "top_logprobs": [
                {"token": _text(data), "logprob": log_prob, "bytes": list(data)}
                for data, log_prob in token.top
            ],
        }
        for token in with_text(tokens)
    ]
    return {"content": scored, "refusal": None}


def _text(data: bytes) -> str:
    """A token as text; bytes that are no whole character stand as \\xNN."""
    return data.decode("utf-8", "backslashreplace")


class Offsets:
    """`logprobs` of a text completion, with the offset in the text of each token, piece after piece."""

    def __init__(self, start: int = 0) -> None:
        self._at = start
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def log_probs(self, tokens: Iterable[Token], top: int) -> TextLogProbs:
        """The next tokens. `top` as many alternatives were asked for. The first of a prompt has neither."""
        tokens = list(tokens)

        def known(token: Token, value: Value) -> Value | None:
            return None if math.isnan(token.log_prob) else value

        offsets = []
        for token in tokens:
            offsets.append(max(0, self._at))
            self._at += len(self._decoder.decode(token.data))
        likeliest = [known(token, {_text(data): chance for data, chance in token.top}) for token in tokens]
        return {
            "tokens": [_text(token.data) for token in tokens],
            "token_logprobs": [known(token, token.log_prob) for token in tokens],
            "top_logprobs": likeliest if top else None,
            "text_offset": offsets,
        }
