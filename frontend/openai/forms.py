"""What both of OpenAI's completion routes build alike: log-probabilities and the events of a stream."""

from __future__ import annotations

import codecs
import math
from collections.abc import Iterable
from typing import Any, Literal, TypeVar

from youtu_client import Answer, ModelInfo, Piece, Token

from ..errors import ApiError, unsupported
from ..replies import Timings, Usage, event
from .replies import (
    ChatCompletionChunk,
    ChatLogProbs,
    CompletionChunk,
    CompletionUsage,
    Head,
    PromptLogProb,
    PromptLogProbs,
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
        self._along = request.counts_along
        self._tells_ids = request.tells_ids
        self._prompts: dict[int, int] = {}  # of each answer that has begun: tokens of its prompt
        self._made: dict[int, int] = {}  # and of the answer so far

    def frame(self, choice: Any) -> Any:
        """The chunk with this choice, in OpenAI's order of keys."""
        return {
            "id": self.head["id"],
            "object": self.object,
            "created": self.head["created"],
            "model": self.head["model"],
            "choices": [choice],
        }

    def count(self, index: int, piece: Piece) -> None:
        """Take in the tokens of a piece, before its chunks are made."""
        if piece.prompt_token_ids is not None:
            self._prompts[index] = len(piece.prompt_token_ids)
        self._made[index] = self._made.get(index, 0) + len(piece.token_ids or ())

    def event(self, chunk: ChatCompletionChunk | CompletionChunk) -> str:
        """The event of a chunk; where usage was asked for, OpenAI has it null in every chunk but the last.

        vLLM's `continuous_usage_stats`: in each chunk, that of its answer so far.
        """
        if self._along:
            index = chunk["choices"][0]["index"]
            read, made = self._prompts.get(index, 0), self._made.get(index, 0)
            chunk["usage"] = Usage(prompt_tokens=read, completion_tokens=made, total_tokens=read + made)
        elif self._usage:
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


def check_generation(request: GenerationRequest, info: ModelInfo) -> None:
    """Refuse what this model's engine cannot do, with ApiError 400 that names the field."""
    field, _ = request.guide()
    if field is not None and not info.guided_decoding:
        raise unsupported(field, "this engine does not support guided output; only free text is possible")
    if request.prompt_logprobs is not None and not info.prompt_log_probs:
        raise unsupported("prompt_logprobs", "this engine returns log-probabilities of generated tokens only")
    if (request.prompt_logprobs or 0) > info.top_log_probs:
        words = f"this engine returns at most {info.top_log_probs}, not {request.prompt_logprobs}"
        raise unsupported("prompt_logprobs", words)


def prompt_facts(request: GenerationRequest, answer: Answer) -> dict[str, Any]:
    """What a reply tells of the prompt, where it was asked for."""
    facts: dict[str, Any] = {}
    if request.tells_ids:
        facts["prompt_token_ids"] = list(answer.prompt_token_ids or ())
    if request.prompt_logprobs is not None:
        facts["prompt_logprobs"] = prompt_log_probs(answer, request.prompt_logprobs)
    return facts


def with_text(tokens: Iterable[Token]) -> list[Token]:
    """Without those that gave no text: the end, a stop word."""
    return [token for token in tokens if token.data]


def prompt_log_probs(answer: Answer, top: int) -> PromptLogProbs:
    """vLLM's `prompt_logprobs`; `top` as many of the likeliest were asked for."""
    found: PromptLogProbs = []
    for token_id, token in zip(answer.prompt_token_ids or (), answer.prompt_tokens or (), strict=True):
        if math.isnan(token.log_prob):
            found.append(None)
            continue
        likeliest = list(zip(token.top_ids, token.top, strict=True))
        rank = next((at for at, (other, _) in enumerate(likeliest, 1) if other == token_id), None)
        place = {str(token_id): _told(token.data, token.log_prob, rank)}
        for at, (other, (data, log_prob)) in enumerate(likeliest[:top], 1):
            place.setdefault(str(other), _told(data, log_prob, at))
        found.append(place)
    return found


def _told(data: bytes, log_prob: float, rank: int | None) -> PromptLogProb:
    return {"logprob": log_prob, "rank": rank, "decoded_token": _text(data)}


def chat_log_probs(tokens: Iterable[Token], top: int) -> ChatLogProbs:
    """`logprobs` of a chat choice; `top` as many alternatives were asked for."""
    scored: list[ScoredToken] = [
        {
            "token": _text(token.data),
            "logprob": token.log_prob,
            "bytes": list(token.data),
            "top_logprobs": [
                {"token": _text(data), "logprob": log_prob, "bytes": list(data)}
                for data, log_prob in token.top[:top]
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
        likeliest = [
            known(token, {_text(data): chance for data, chance in token.top[:top]}) for token in tokens
        ]
        return {
            "tokens": [_text(token.data) for token in tokens],
            "token_logprobs": [known(token, token.log_prob) for token in tokens],
            "top_logprobs": likeliest if top else None,
            "text_offset": offsets,
        }
