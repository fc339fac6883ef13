"""`POST /v1/completions`: raw text continued, in OpenAI's forms. Choices run prompt by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

from youtu_client import Answer, ModelInfo, Piece

from ..errors import unsupported
from ..replies import Timings
from ..schema import NAMES
from ..service import Service
from . import forms
from .forms import Offsets, check_generation, prompt_facts, prompt_log_probs, with_text
from .replies import (
    CompletionChunk,
    CompletionReply,
    CompletionUsage,
    FinishReason,
    Head,
    TextChoice,
    TextChunkChoice,
    TextLogProbs,
)
from .schema import Completion
from .tokens import text_tokens


def names(request: Completion) -> dict[str, str]:
    """What the caller calls the inputs of the model."""
    field = request.guide()[0] or "response_format"
    return NAMES | {
        "return_log_probs": "logprobs",
        "max_tokens": request.length_field,
        "text_input": "prompt",
        "input_ids": "prompt",
        "top_log_probs": "logprobs",
        "guided_decoding_guide_type": field,
        "guided_decoding_guide": field,
    }


def check(request: Completion, info: ModelInfo) -> None:
    """Refuse what this engine cannot do, with ApiError 400 that names the field."""
    check_generation(request, info)
    if (request.logprobs or 0) > info.top_log_probs:
        words = f"this engine returns at most {info.top_log_probs}, not {request.logprobs}"
        raise unsupported("logprobs", words)
    if request.scores_prompt and not info.prompt_log_probs:
        raise unsupported("echo", "this engine returns log-probabilities of generated tokens only")


def whole(request: Completion, head: Head, answers: list[Answer], echoes: Sequence[str]) -> CompletionReply:
    """The reply with all choices; `echoes`: see `echoes`."""
    return CompletionReply(
        **head,
        object="text_completion",
        choices=[_choice(request, index, answer, echoes) for index, answer in enumerate(answers)],
        usage=CompletionUsage.of(_by_prompt(request, answers)),
        timings=Timings.of(answers),
    )


def _choice(request: Completion, index: int, answer: Answer, echoes: Sequence[str]) -> TextChoice:
    prompt = b"".join(token.data for token in answer.prompt_tokens or ()).decode("utf-8", "replace")
    echoed = echoes[index // request.choices] if echoes else ""
    log_probs = None
    if answer.prompt_tokens is not None and request.logprobs is not None and request.echo:
        # Scoring a text counts its tokens: none is left out. A token that the tokenizer put before a
        # text stands before its first character.
        tokens = [*answer.prompt_tokens, *(answer.tokens or ())]
        log_probs = Offsets(len(echoed) - len(prompt)).log_probs(tokens, request.logprobs)
    elif request.logprobs is not None:
        log_probs = Offsets().log_probs(with_text(answer.tokens or ()), request.logprobs)
    facts = prompt_facts(request, answer)
    if request.tells_ids:
        facts["token_ids"] = list(answer.token_ids or ())
    return TextChoice(
        index=index,
        text=echoed + answer.text,
        logprobs=log_probs,
        finish_reason=cast(FinishReason, answer.finish_reason),
        stop_reason=answer.stop_reason,
        **facts,
    )


def echoes(service: Service, request: Completion) -> list[str]:
    """What the answers to each prompt begin with, if they do. The model tells the text of token ids."""
    if not request.echo:
        return []
    return [
        prompt if isinstance(prompt, str) else text_tokens(service, prompt, None, "prompt").text
        for prompt in request.prompt
    ]


def _by_prompt(request: Completion, answers: list[Answer]) -> list[list[Answer]]:
    each = request.choices
    return [answers[at : at + each] for at in range(0, len(answers), each)]


class Chunks(forms.Chunks):
    """The form of `inference.Format`."""

    object: Literal["text_completion"] = "text_completion"

    def __init__(self, request: Completion, head: Head, echoes: Sequence[str]) -> None:
        super().__init__(request, head)
        self._request = request
        self._echoes = echoes
        self._offsets: dict[int, Offsets] = {}

    def piece(self, index: int, piece: Piece) -> str:
        self.count(index, piece)
        opening = self._open(index, piece.prompt_token_ids)
        log_probs = None
        if self._request.logprobs is not None and piece.tokens:
            log_probs = self._offsets[index].log_probs(with_text(piece.tokens), self._request.logprobs)
        ids = list(piece.token_ids or ()) if self._tells_ids else []
        if not piece.text and log_probs is None and not ids:
            return opening
        chunk = self._chunk(index, piece.text, log_probs)
        if ids:
            chunk["choices"][0]["token_ids"] = ids
        return opening + self.event(chunk)

    def answer(self, index: int, answer: Answer) -> str:
        opening = self._open(index, answer.prompt_token_ids)
        end = self._chunk(index, "", finish_reason=cast(FinishReason, answer.finish_reason))
        end["choices"][0]["stop_reason"] = answer.stop_reason
        if self._request.prompt_logprobs is not None:
            end["choices"][0]["prompt_logprobs"] = prompt_log_probs(answer, self._request.prompt_logprobs)
        end["timings"] = Timings.of([answer])
        return opening + self.event(end)

    def end(self, answers: list[Answer]) -> str:
        return self.last(_by_prompt(self._request, answers))

    def _open(self, index: int, prompt_ids: Sequence[int] | None) -> str:
        if index in self._offsets:
            return ""
        self._offsets[index] = Offsets()
        echoed = self._echoes[index // self._request.choices] if self._echoes else ""
        chunk = self._chunk(index, echoed)
        if self._tells_ids and prompt_ids is not None:
            chunk["choices"][0]["prompt_token_ids"] = list(prompt_ids)
        elif not echoed:
            return ""
        return self.event(chunk)

    def _chunk(
        self,
        index: int,
        text: str,
        log_probs: TextLogProbs | None = None,
        finish_reason: FinishReason | None = None,
    ) -> CompletionChunk:
        choice: TextChunkChoice = {
            "index": index,
            "text": text,
            "logprobs": log_probs,
            "finish_reason": finish_reason,
        }
        chunk: CompletionChunk = self.frame(choice)
        return chunk
