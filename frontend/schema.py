"""The fields of a request to `POST /chat`. Knows the text contract's options; knows no HTTP.

What a value may be is said once more by the model behind Triton, which has the last word (a prompt that does
not fit, a `top_k` beyond its vocabulary); here stands what can be refused without asking it.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from youtu_client import Sampling

_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


def _only_text(text: str) -> str:
    if found := _NOT_TEXT.search(text):
        what = f"U+{ord(found[0]):04X}, which is no character of a text"
        raise ValueError(f"holds {what}, at position {found.start()}")
    return text


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(_only_text)]
Question = Annotated[Text, AfterValidator(_not_blank)]
MAX_STOP_WORDS = 16
INT32_MAX = 2**31 - 1
UINT64_MAX = 2**64 - 1


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""2.0 is an integer to JSON, and there are languages that write it so."""


class Strict(BaseModel):
    """No coercion ("5" is not 5), no unknown keys, no NaN."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class Message(Strict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


Pair = Annotated[list[Text], Field(min_length=2, max_length=2)]
Turn = Annotated[
    Annotated[Message, Tag("<message>")] | Annotated[Pair, Tag("<pair>")],
    Discriminator(lambda item: "<pair>" if isinstance(item, list) else "<message>"),
]


def _words(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _filled(words: list[str]) -> list[str]:
    if "" in words:
        raise ValueError(f"must not hold an empty string, as it does at place {words.index('')}")
    return words


Words = Annotated[
    list[Text],
    BeforeValidator(_words, json_schema_input_type=str | list[str]),
    Field(max_length=MAX_STOP_WORDS),
    AfterValidator(_filled),
]
"""One or several, as a list."""


class ChatRequest(Strict):
    """`prompt`, optionally after `history`; or `messages`. Everything else is optional; null means absent.

    `history` is a list of {"role", "content"} or of [question, answer] pairs. `max_tokens` in tokens
    (default: what is left of the context); temperature 0 is greedy; `stop` a string or a list of them.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {
                    "required": ["prompt"],
                    "properties": {"prompt": {"type": "string"}, "messages": {"type": "null"}},
                },
                {
                    "required": ["messages"],
                    "properties": {
                        "messages": {"type": "array"},
                        "prompt": {"type": "null"},
                        "history": {"type": "null"},
                    },
                },
            ]
        }
    )

    prompt: Question | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    history: list[Turn] | None = None
    system: Text | None = None
    max_tokens: Annotated[int, Field(ge=1, le=INT32_MAX), WHOLE] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=INT32_MAX), WHOLE] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    seed: Annotated[int, Field(ge=0, le=UINT64_MAX), WHOLE] | None = None
    stop: Words | None = None
    thinking: bool | None = None
    stream: bool | None = None

    @model_validator(mode="after")
    def _one_conversation(self) -> ChatRequest:
        if (self.prompt is None) == (self.messages is None):
            sent = "neither" if self.prompt is None else "both"
            raise ValueError(f"give exactly one of prompt and messages; sent were {sent}")
        if self.messages is not None and self.history is not None:
            raise ValueError("history goes with prompt; put earlier turns into messages")
        if self.system is not None and any(turn["role"] == "system" for turn in self._turns()):
            raise ValueError("system is given twice: as a field and as a message")
        return self

    def conversation(self) -> list[dict[str, str]]:
        """The whole conversation as chat messages, the question last."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return system + self._turns()

    def _turns(self) -> list[dict[str, str]]:
        if self.messages is not None:
            return [message.model_dump() for message in self.messages]
        turns: list[dict[str, str]] = []
        for turn in self.history or []:
            if isinstance(turn, Message):
                turns.append(turn.model_dump())
            else:
                turns.append({"role": "user", "content": turn[0]})
                turns.append({"role": "assistant", "content": turn[1]})
        return [*turns, {"role": "user", "content": self.prompt or ""}]

    def sampling(self, request_id: str) -> Sampling:
        """The options for the client; absent ones are left to the deployment's defaults."""
        thinking = None if self.thinking is None else {"enable_thinking": self.thinking}
        return {
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
            "repetition_penalty": self.repetition_penalty,
            "seed": self.seed,
            "stop": self.stop,
            "chat_template_kwargs": thinking,
            "request_id": request_id,
        }


NAMES = {name: name for name in ChatRequest.model_fields} | {"stop_words": "stop"}
"""What the caller calls the inputs of the model."""
