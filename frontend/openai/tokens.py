"""`/tokenize` and `/detokenize` in vLLM's shapes, and how many tokens a chat request's prompt has.

The frontend has no tokenizer: it asks the model behind Triton, which needs no slot.
"""

from __future__ import annotations

from typing import Annotated

from flask import Blueprint, Response, jsonify
from pydantic import ConfigDict, Field, model_validator
from youtu_client import Tokens, YoutuError

from .. import body
from ..access import log_record
from ..description import GENERATES, Operation
from ..errors import from_client
from ..replies import Reply
from ..schema import INT32_MAX, NAMES, WHOLE, Strict, Text
from ..service import Service
from .chat import check_tools
from .messages import Message
from .schema import MAX_MESSAGES, ChatPrompt

ASKED_S = 60.0
"""Seconds that a question for tokens may take."""


class Tokenize(ChatPrompt):
    """A text, `prompt`, or a conversation, `messages`, as it becomes the prompt of an answer."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["prompt"],
                    "properties": {"prompt": {"type": "string"}, "messages": {"type": "null"}},
                },
                {
                    "required": ["messages"],
                    "properties": {"messages": {"type": "array"}, "prompt": {"type": "null"}},
                },
            ],
        }
    )

    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)] | None = None  # type: ignore[assignment]
    model: Text | None = None
    prompt: Text | None = None
    return_token_strs: bool | None = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Tokenize:
        if (self.prompt is None) == (self.messages is None):
            sent = "neither" if self.prompt is None else "both"
            raise ValueError(f"send exactly one of prompt and messages; got {sent}")
        return self


class TokenizeReply(Reply):
    """The tokens of a prompt; `token_strs` where it was asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Detokenize(Strict):
    """Token ids."""

    model: Text | None = None
    tokens: list[Annotated[int, Field(ge=0, le=INT32_MAX), WHOLE]]


class DetokenizeReply(Reply):
    """The text of token ids; special tokens stand by their names."""

    prompt: str


def prompt_tokens(service: Service, request: ChatPrompt, names: dict[str, str] = NAMES) -> Tokens:
    """The prompt that `request` becomes for the model, with its chat template applied, tools included.

    `names`: what the caller calls the model's inputs. Raises ApiError.
    """
    try:
        client = service.served.client
        return client.tokenize(request.conversation(), timeout=ASKED_S, **request.prompt_options())
    except YoutuError as error:
        raise from_client(error, names, typed=log_record().typed()) from error


def text_tokens(service: Service, prompt: str | list[int], special: bool | None, name: str) -> Tokens:
    """A text, or token ids, as tokens; `name`: the caller's name of it. Raises ApiError."""
    names = NAMES | {"text_input": name, "input_ids": name}
    try:
        return service.served.client.tokenize_text(prompt, timeout=ASKED_S, add_special_tokens=special)
    except YoutuError as error:
        raise from_client(error, names, typed=log_record().typed()) from error


def blueprint(service: Service) -> Blueprint:
    """The routes."""
    routes = Blueprint("tokens", __name__)

    @routes.post("/tokenize")
    @Operation(
        "tokenize",
        "Tokenize a prompt, as vLLM does",
        TokenizeReply,
        request=Tokenize,
        errors=(*GENERATES, 404),
    )
    def tokenize() -> Response:
        request = body.load(Tokenize, service.settings.max_body)
        log_record().asked = request
        info = service.served.named(request.model)
        if request.prompt == "":
            tokens = Tokens((), ())
        elif request.prompt is not None:
            tokens = text_tokens(service, request.prompt, request.add_special_tokens, "prompt")
        else:
            check_tools(request, info)
            tokens = prompt_tokens(service, request)
        strings = [data.decode("utf-8", "replace") for data in tokens.data]
        return jsonify(
            TokenizeReply(
                count=len(tokens.ids),
                max_model_len=info.context,
                tokens=list(tokens.ids),
                token_strs=strings if request.return_token_strs else None,
            ).to_dict()
        )

    @routes.post("/detokenize")
    @Operation(
        "detokenize",
        "Turn token ids into text, as vLLM does",
        DetokenizeReply,
        request=Detokenize,
        errors=(*GENERATES, 404),
    )
    def detokenize() -> Response:
        request = body.load(Detokenize, service.settings.max_body)
        service.served.named(request.model)
        tokens = text_tokens(service, request.tokens, None, "tokens") if request.tokens else Tokens((), ())
        return jsonify(DetokenizeReply(prompt=tokens.text).to_dict())

    return routes
