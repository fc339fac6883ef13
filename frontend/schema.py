"""The fields of a request to `POST /chat`, and those that all generating routes share. Independent of HTTP.

How a text is made is asked in fields made from the rows of `youtu_contract`: type and range are the row's.
The model behind Triton has the last word (a prompt that does not fit, a `top_k` beyond its vocabulary).
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    create_model,
    model_validator,
)
from youtu_client import Sampling
from youtu_contract.rows import OPTIONS, SAMPLING_OPTIONS, Tensor
from youtu_contract.values import RANGES

_TOKEN = re.compile("[0-9]{1,9}")
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")


def _only_text(text: str) -> str:
    if found := _NOT_TEXT.search(text):
        what = f"U+{ord(found[0]):04X}, which is not a text character,"
        raise ValueError(f"contains {what} at position {found.start()}")
    return text


def _no_number(value: object) -> object:
    # To Python 0 and 0.0 equal False.
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        raise ValueError("must be false")
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


Text = Annotated[str, AfterValidator(_only_text)]
Question = Annotated[Text, AfterValidator(_not_blank), Field(json_schema_extra={"pattern": r"\S"})]
No = Annotated[Literal[False], BeforeValidator(_no_number)]
"""For what is not offered: a field that may only say so."""
MAX_DOCUMENTS = 20
DocumentName = Annotated[Text, Field(min_length=1, max_length=100)]
"""The id of a document that was sent, or `knowledge`."""
INT32_MAX = RANGES["INT32"][1]
UINT64_MAX = RANGES["UINT64"][1]


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


def _list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _filled(texts: list[str]) -> list[str]:
    if "" in texts:
        raise ValueError(f"must not contain an empty string; item {texts.index('')} is empty")
    return texts


def _bias(value: object) -> object:
    """JSON's keys are strings, which pydantic's strict integers refuse; integers were validated already."""
    if not isinstance(value, dict):
        return value
    return {
        int(key) if isinstance(key, str) and _TOKEN.fullmatch(key) else key: bias
        for key, bias in value.items()
    }


def field_type(row: Tensor) -> Any:
    """The type of the JSON field for an option of the model, without what only the deployment limits."""
    low = row.low if not isinstance(row.low, str) else None
    high = row.high if not isinstance(row.high, str) else None
    if row.json:
        if low is None:
            return dict[str, Any]
        number = Annotated[float, Field(ge=low, le=high)]
        schema: dict[str, Any] = {
            "type": "object",
            "additionalProperties": {"type": "number", "minimum": low, "maximum": high},
            "propertyNames": {"pattern": f"^{_TOKEN.pattern}$"},
            "maxProperties": row.max_values,
        }
        biases = Annotated[dict[int, number], BeforeValidator(_bias), Field(max_length=row.max_values)]
        return Annotated[biases, WithJsonSchema(schema)]
    one: Any = {"BYTES": Text, "BOOL": bool, "FP32": Annotated[float, Field(ge=low, le=high)]}.get(
        row.datatype
    )
    if row.datatype in RANGES:
        least, greatest = RANGES[row.datatype]
        limits = Field(ge=least if low is None else low, le=greatest if high is None else high)
        one = Annotated[int, limits, WHOLE]
    if not row.is_list:
        return one
    if row.datatype != "BYTES":
        return Annotated[list[one], Field(max_length=row.max_values)]
    text = {"type": "string", "minLength": 1}
    choices: dict[str, Any] = {"anyOf": [text, {"type": "array", "items": text, "maxItems": row.max_values}]}
    texts = Annotated[
        list[one], BeforeValidator(_list), Field(max_length=row.max_values), AfterValidator(_filled)
    ]
    return Annotated[texts, WithJsonSchema(choices)]


def sampling_fields(**others: Any) -> dict[str, Any]:
    """Name -> type and default of a field for each option of how a text is made; `others` replace types."""
    types = {option: field_type(row) for option, row in SAMPLING_OPTIONS.items()} | others
    return {
        option: (type_ | None, Field(default=None, description=SAMPLING_OPTIONS[option].meaning))
        for option, type_ in types.items()
    }


def sampling_options(request: BaseModel) -> dict[str, Any]:
    """The options of how a text is made, as a request has them; absent ones are None."""
    return {option: getattr(request, option) for option in SAMPLING_OPTIONS}


NAMES = {row.name: option for option, row in OPTIONS.items()}
"""Input of the model -> the field of a request that it comes from."""

Count = Annotated[int, Field(ge=1, le=INT32_MAX), WHOLE]

_ChatSampling: Any = create_model("_ChatSampling", __base__=Strict, **sampling_fields(max_tokens=Count))


class ChatRequest(_ChatSampling):  # type: ignore[misc]
    """`prompt`, optionally after `history`; or `messages`. Everything else is optional; null means absent.

    `history` is a list of {"role", "content"} or of [question, answer] pairs. `max_tokens` in tokens
    (default: what is left of the context); temperature 0 is greedy; `stop` a string or a list of them.
    With `continue_final_message` the last of `messages`, which is the assistant's, is gone on with.
    `documents`: what the answer is to be found in: ids of `POST /documents`, or `knowledge`.
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
    thinking: bool | None = None
    continue_final_message: bool | None = None
    documents: Annotated[list[DocumentName], Field(max_length=MAX_DOCUMENTS)] | None = None
    stream: bool | None = None

    @model_validator(mode="after")
    def _one_conversation(self) -> ChatRequest:
        if (self.prompt is None) == (self.messages is None):
            sent = "neither" if self.prompt is None else "both"
            raise ValueError(f"send exactly one of prompt and messages; got {sent}")
        if self.messages is not None and self.history is not None:
            raise ValueError("history requires prompt; put earlier turns into messages")
        if self.system is not None and any(turn["role"] == "system" for turn in self._turns()):
            raise ValueError("system is set twice: as a field and as a message")
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
        options: Sampling = {
            "chat_template_kwargs": thinking,
            "continue_final_message": self.continue_final_message or None,
            "request_id": request_id,
            "return_parts": True,
        }
        options.update(sampling_options(self))  # type: ignore[typeddict-item]
        return options
