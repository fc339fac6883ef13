"""Requests of other APIs as the chat request that `/v1/chat/completions` would have got, and how it is asked.

So that tools, formats, thinking and limits mean the same on every route. Independent of HTTP and replies.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field
from youtu_contract.rows import SAMPLING_OPTIONS

from . import body
from .errors import ApiError, renamed, shown
from .openai.schema import ChatCompletion
from .schema import INT32_MAX, WHOLE

Count = Annotated[int, Field(ge=1, le=INT32_MAX), WHOLE]
"""A length of at least 1."""

EXTENSIONS = (*SAMPLING_OPTIONS, "chat_template_kwargs", "enable_thinking")
"""Fields of a chat request that no other API has, or has under another name."""


def chat_request(value: dict[str, Any], names: Mapping[str, str]) -> ChatCompletion:
    """The chat request with these fields. Raises ApiError 400 about the caller's own field.

    `names`: path in the chat request -> the caller's path; of several that fit, the longest counts.
    """
    with named(names):
        return body.validate(ChatCompletion, value)


@contextlib.contextmanager
def named(names: Mapping[str, str]) -> Iterator[None]:
    """What is refused inside is refused by the caller's own names."""
    try:
        yield
    except ApiError as error:
        if error.param is None:
            raise
        param = renamed(error.param, names)
        message = error.message.replace(error.param, param, 1)
        raise ApiError(error.code, message, param=param, headers=error.headers) from None


def extension_fields(*others: str) -> dict[str, Any]:
    """Name -> type and default of the chat request's own fields, for another request; without `others`."""
    fields = ChatCompletion.model_fields
    return {name: (fields[name].annotation, fields[name]) for name in EXTENSIONS if name not in others}


def extensions(request: BaseModel) -> dict[str, Any]:
    """Those of these fields that `request` has set."""
    values = {name: getattr(request, name, None) for name in EXTENSIONS}
    return {name: value for name, value in values.items() if value is not None}


def only_null(words: str) -> BeforeValidator:
    """A field that is known, and whose feature is not there: `words` say so to who asks for it."""

    def check(value: object) -> object:
        if value is not None:
            raise ValueError(f"is not supported: {words}")
        return value

    return BeforeValidator(check)


def of_types(known: Collection[str], words: str) -> BeforeValidator:
    """An object whose `type` is one of `known`, or left out; of the others `words` say why not."""

    def check(value: object) -> object:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind not in known:
            raise ValueError(f"has unsupported type {shown(kind)}: {words}")
        return value

    return BeforeValidator(check)
