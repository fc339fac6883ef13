"""What both of OpenAI's routes say in the same form: usage, log-probabilities, the chunks of a stream."""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterable
from typing import Any

from youtu_client import Answer, Token

from ..errors import ApiError
from ..schema import timings
from .schema import Generation


class Chunks:
    """The events of a stream: half of `answering.Format`; the routes say what is in a choice.

    `head`: the keys that all chunks begin with.
    """

    def __init__(self, wanted: Generation, head: dict[str, Any]) -> None:
        self._head = head
        self._usage = bool(wanted.stream_options and wanted.stream_options.include_usage)

    def chunk(
        self,
        index: int,
        said: dict[str, Any],
        *,
        log_probs: dict[str, Any] | None = None,
        finish_reason: str | None = None,
        **further: Any,
    ) -> str:
        """News of one choice. `said`: what the route calls its text; `further` stands beside the choice."""
        choice = {"index": index, **said, "logprobs": log_probs, "finish_reason": finish_reason}
        value = self._head | {"choices": [choice]} | further
        return _event(value | {"usage": None} if self._usage else value)

    def last(self, prompts: list[list[Answer]]) -> str:
        """The usage of answers grouped by their prompt, if it is wanted, and the end."""
        done = "data: [DONE]\n\n"
        if not self._usage:
            return done
        answers = [answer for each in prompts for answer in each]
        figures = {"choices": [], "usage": usage(prompts), "timings": timings(answers)}
        return _event(self._head | figures) + done

    def error(self, error: ApiError) -> str:
        """A failure after the first byte; OpenAI's SDK raises it."""
        return _event(error.body())


def _event(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def usage(prompts: list[list[Answer]]) -> dict[str, Any]:
    """`usage` of answers grouped by their prompt. A prompt counts once, as often as it was answered; of it
    were cached what the first answer found in the cache."""
    read = sum(answers[0].usage.prompt_tokens for answers in prompts)
    made = sum(answer.usage.completion_tokens for answers in prompts for answer in answers)
    return {
        "prompt_tokens": read,
        "completion_tokens": made,
        "total_tokens": read + made,
        "prompt_tokens_details": {
            "cached_tokens": sum(answers[0].usage.cached_tokens for answers in prompts)
        },
    }


def with_text(tokens: Iterable[Token]) -> list[Token]:
    """Without those that gave no text: the end, a stop word."""
    return [token for token in tokens if token.data]


def chat_log_probs(tokens: Iterable[Token]) -> dict[str, Any]:
    """`logprobs` of a chat choice."""
    return {
        "content": [
            _named(token.data, token.log_prob)
            | {"top_logprobs": [_named(data, log_prob) for data, log_prob in token.top]}
            for token in with_text(tokens)
        ],
        "refusal": None,
    }


def _named(data: bytes, log_prob: float) -> dict[str, Any]:
    return {"token": _text(data), "logprob": log_prob, "bytes": list(data)}


def _text(data: bytes) -> str:
    """A token as text; bytes that are no whole character stand as \\xNN."""
    return data.decode("utf-8", "backslashreplace")


class Offsets:
    """`logprobs` of a text completion, which tell where in the text each token begins, piece after piece."""

    def __init__(self, start: int = 0) -> None:
        self._at = start
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def log_probs(self, tokens: Iterable[Token], top: int) -> dict[str, Any]:
        """The next tokens. `top` as many alternatives were asked for. The first of a prompt has neither."""
        tokens = list(tokens)

        def known(token: Token, value: Any) -> Any:
            return None if math.isnan(token.log_prob) else value

        offsets = []
        for token in tokens:
            offsets.append(max(0, self._at))
            self._at += len(self._decoder.decode(token.data))
        return {
            "tokens": [_text(token.data) for token in tokens],
            "token_logprobs": [known(token, token.log_prob) for token in tokens],
            "top_logprobs": [
                known(token, {_text(data): chance for data, chance in token.top}) for token in tokens
            ]
            if top
            else None,
            "text_offset": offsets,
        }
