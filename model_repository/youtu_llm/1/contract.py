"""The text contract's inputs: read, checked, refused with the field, the limit and what was sent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Read = Callable[[str], "np.ndarray[Any, Any] | None"]

ROLES = ("system", "user", "assistant", "tool")
MAX_MESSAGES = 1000
MAX_STOP_WORDS = 16
MAX_STOP_WORD_LENGTH = 200
MAX_LOGIT_BIASES = 1024
MAX_LOGIT_BIAS = 100
GUIDE = ("guided_decoding_guide_type", "guided_decoding_guide")
_MESSAGE_KEYS = frozenset({"role", "content", "name", "reasoning_content", "tool_calls", "tool_call_id"})
_TEMPLATE_OWN = frozenset({"messages", "add_generation_prompt", "bos_token", "eos_token"})


class InvalidInput(ValueError):
    """An input is outside the contract; the message says which, the limit and what was sent."""


@dataclass(frozen=True, slots=True)
class Defaults:
    """The deployment's own values where a request names none, and the limits that its engine sets."""

    temperature: float
    top_p: float
    repetition_penalty: float
    context: int
    vocab_size: int
    top_log_probs: int
    prompt_log_probs: bool
    guided_decoding: bool
    template_kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A request of the text contract, complete and within its limits. seed None: a new one each time."""

    text: str | None
    messages: list[dict[str, Any]] | None
    input_ids: list[int] | None
    template_kwargs: dict[str, Any]
    max_tokens: int | None
    temperature: float
    top_p: float
    top_k: int
    min_tokens: int
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    seed: int | None
    stop_words: tuple[str, ...]
    stream: bool
    return_log_probs: bool
    return_prompt_log_probs: bool
    top_log_probs: int
    logit_bias: dict[int, float]
    guide_type: str | None
    guide: str | None


def is_probe(read: Read) -> bool:
    """Whether the request asks for no text, but whether text would come out."""
    value = read("probe")
    return value is not None and bool(value.size) and bool(value.reshape(-1)[0])


def read_request(read: Read, defaults: Defaults) -> TextRequest:
    """Raises InvalidInput. `read` gives a tensor with its batch dimension, or None."""
    text, messages, ids = _string(read, "text_input"), _string(read, "messages"), read("input_ids")
    prompts = {"text_input": text, "messages": messages, "input_ids": ids}
    sent = [name for name, value in prompts.items() if value is not None]
    if len(sent) != 1:
        found = f"{' and '.join(sent)} were" if sent else "none was"
        raise InvalidInput(f"{', '.join(prompts)}: exactly one of the three is expected, {found} sent")
    if text == "":
        raise InvalidInput("text_input: at least one character is needed, an empty text was sent")
    max_tokens = _scalar(read, "max_tokens")
    if max_tokens is not None:
        _check("max_tokens", max_tokens, 1, defaults.context)
    return_log_probs = bool(_scalar(read, "return_log_probs") or False)
    return_prompt_log_probs = bool(_scalar(read, "return_prompt_log_probs") or False)
    if return_prompt_log_probs and not defaults.prompt_log_probs:
        raise InvalidInput("return_prompt_log_probs: this engine tells of its own tokens only, true was sent")
    top_log_probs = _number(read, "top_log_probs", 0, 0, defaults.top_log_probs)
    for name, value in (
        ("top_log_probs", top_log_probs),
        ("return_prompt_log_probs", return_prompt_log_probs),
    ):
        if value and not return_log_probs:
            raise InvalidInput(f"{name}: {str(value).lower()} was sent without return_log_probs true")
    guide_type, guide = (_string(read, name) for name in GUIDE)
    if not defaults.guided_decoding and (guide_type, guide) != (None, None):
        raise InvalidInput(f"{GUIDE[0]}: this engine cannot hold its output to a guide, one was sent")
    min_tokens = _number(read, "min_tokens", 0, 0, max_tokens or defaults.context)
    return TextRequest(
        text=text,
        messages=None if messages is None else _messages(messages),
        input_ids=None if ids is None else _input_ids(ids, defaults.vocab_size),
        template_kwargs=defaults.template_kwargs | _template_kwargs(_string(read, "chat_template_kwargs")),
        max_tokens=max_tokens,
        temperature=_number(read, "temperature", defaults.temperature, 0, 10),
        top_p=_number(read, "top_p", defaults.top_p, 0, 1),
        top_k=_number(read, "top_k", 0, 0, defaults.vocab_size),
        min_tokens=min_tokens,
        repetition_penalty=_number(read, "repetition_penalty", defaults.repetition_penalty, 0.01, 10),
        presence_penalty=_number(read, "presence_penalty", 0.0, -2, 2),
        frequency_penalty=_number(read, "frequency_penalty", 0.0, -2, 2),
        seed=_scalar(read, "seed"),
        stop_words=_stop_words(read),
        stream=bool(_scalar(read, "stream") or False),
        return_log_probs=return_log_probs,
        return_prompt_log_probs=return_prompt_log_probs,
        top_log_probs=top_log_probs,
        guide_type=guide_type,
        guide=guide,
        logit_bias=_logit_bias(_string(read, "logit_bias"), defaults.vocab_size),
    )


def _scalar(read: Read, name: str) -> Any:
    value = read(name)
    if value is None:
        return None
    if value.size != 1:
        raise InvalidInput(f"{name}: one value is expected, {value.size} were sent")
    return value.reshape(-1)[0].item() if value.dtype != np.object_ else value.reshape(-1)[0]


def _number(read: Read, name: str, default: Any, low: float, high: float) -> Any:
    value = _scalar(read, name)
    return default if value is None else _check(name, value, low, high)


def _check(name: str, value: Any, low: float, high: float) -> Any:
    if not low <= value <= high:  # false for NaN too
        raise InvalidInput(f"{name}: {low:g} to {high:g} is allowed, {value} was sent")
    return value


def _decode(name: str, value: Any) -> str:
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{name}: UTF-8 is expected, byte {error.start} is not") from error


def _string(read: Read, name: str) -> str | None:
    value = _scalar(read, name)
    return None if value is None else _decode(name, value)


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{name}: JSON is expected: {error}; {_shown(text)} was sent") from error


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _messages(text: str) -> list[dict[str, Any]]:
    messages = _json("messages", text)
    if not isinstance(messages, list):
        raise InvalidInput(f"messages: a list of messages is expected, {_shown(messages)} was sent")
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise InvalidInput(f"messages: 1 to {MAX_MESSAGES} messages are allowed, {len(messages)} were sent")
    for i, message in enumerate(messages):
        where = f"messages[{i}]"
        if not isinstance(message, dict):
            raise InvalidInput(f'{where}: {{"role", "content"}} is expected, {_shown(message)} was sent')
        if message.get("role") not in ROLES:
            raise InvalidInput(
                f"{where}.role: one of {', '.join(ROLES)} is expected, {_shown(message.get('role'))} was sent"
            )
        calls = message["role"] == "assistant" and message.get("tool_calls")
        if not isinstance(message.get("content"), str) and not (calls and message.get("content") is None):
            raise InvalidInput(
                f"{where}.content: a text is expected, {_shown(message.get('content'))} was sent"
            )
        if unknown := sorted(message.keys() - _MESSAGE_KEYS):
            raise InvalidInput(f"{where}: unknown key {_shown(unknown[0])}")
        if _has_surrogate(json.dumps(message, ensure_ascii=False)):
            raise InvalidInput(f"{where}: half of a surrogate pair is not a character")
    return messages


def _input_ids(ids: np.ndarray[Any, Any], vocab_size: int) -> list[int]:
    found: list[int] = ids.reshape(-1).tolist()
    if wrong := [index for index in found if not 0 <= index < vocab_size]:
        raise InvalidInput(f"input_ids: token ids are 0 to {vocab_size - 1}, {wrong[0]} was sent")
    return found


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


def _template_kwargs(text: str | None) -> dict[str, Any]:
    if text is None or text == "":
        return {}
    value = _json("chat_template_kwargs", text)
    if not isinstance(value, dict):
        raise InvalidInput(f"chat_template_kwargs: an object is expected, {_shown(value)} was sent")
    if taken := sorted(value.keys() & _TEMPLATE_OWN):
        raise InvalidInput(f"chat_template_kwargs: {taken[0]!r} is the server's own")
    return value


def _logit_bias(text: str | None, vocab_size: int) -> dict[int, float]:
    if text is None or text == "":
        return {}
    value = _json("logit_bias", text)
    if not isinstance(value, dict):
        raise InvalidInput(
            f"logit_bias: an object of token id to number is expected, {_shown(value)} was sent"
        )
    if len(value) > MAX_LOGIT_BIASES:
        raise InvalidInput(
            f"logit_bias: at most {MAX_LOGIT_BIASES} tokens are allowed, {len(value)} were sent"
        )
    biases = {}
    for key, bias in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < vocab_size):
            raise InvalidInput(f"logit_bias: token ids are 0 to {vocab_size - 1}, {_shown(key)} was sent")
        number = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not number or not -MAX_LOGIT_BIAS <= bias <= MAX_LOGIT_BIAS:
            raise InvalidInput(
                f"logit_bias[{key}]: -{MAX_LOGIT_BIAS} to {MAX_LOGIT_BIAS} is allowed, "
                f"{_shown(bias)} was sent"
            )
        biases[int(key)] = float(bias)
    return biases


def _stop_words(read: Read) -> tuple[str, ...]:
    value = read("stop_words")
    words = [] if value is None else [_decode("stop_words", word) for word in value.reshape(-1)]
    if len(words) > MAX_STOP_WORDS:
        raise InvalidInput(f"stop_words: at most {MAX_STOP_WORDS} are allowed, {len(words)} were sent")
    for word in words:
        if not 1 <= len(word) <= MAX_STOP_WORD_LENGTH:
            raise InvalidInput(
                f"stop_words: 1 to {MAX_STOP_WORD_LENGTH} characters are allowed, {_shown(word)} was sent"
            )
    return tuple(words)
