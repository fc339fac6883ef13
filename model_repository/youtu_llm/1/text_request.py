"""A request of the text contract: read, checked beyond its rows, converted to the engine's tensors."""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from youtu_contract.errors import invalid, unsupported
from youtu_contract.parts import THINK_END
from youtu_contract.rows import OPTIONS, PROMPTS, TEXT_INPUTS, TOKEN_INPUTS
from youtu_contract.values import Array, Limits, Read, array_of, json_value, shown, value_of, values_of

ROLES = ("system", "user", "assistant", "tool")
MAX_MESSAGES = 1000
_MESSAGE_KEYS = frozenset({"role", "content", "name", "reasoning_content", "tool_calls", "tool_call_id"})
_TEMPLATE_OWN = frozenset(
    {
        *("messages", "add_generation_prompt", "bos_token", "eos_token", "unk_token"),
        *("sep_token", "pad_token", "cls_token", "mask_token"),
    }
)
_ALWAYS = ("temperature", "top_p", "repetition_penalty")  # the engines' own defaults are others
# What is more than one value under another name; see engine_inputs.
_MADE_BELOW = frozenset({"seed", "stop_token_ids", "ignore_eos", "logit_bias"})
# What means nothing without return_log_probs.
_ABOUT_LOG_PROBS = ("top_log_probs", "return_prompt_log_probs")


@dataclass(frozen=True, slots=True)
class Deployment:
    """The deployment's own values where a request names none, and the limits that its engine sets.

    defaults: option -> value; limits: see `youtu_contract.values.Limits`; engine_inputs: the tensors of the
    token contract that the engine has.
    """

    defaults: Mapping[str, Any]
    limits: Limits
    engine_inputs: Collection[str]
    template_kwargs: dict[str, Any]

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return int(self.limits["context"])

    @property
    def vocab_size(self) -> int:
        return int(self.limits["vocab_size"])


@dataclass(frozen=True, slots=True)
class TextRequest:
    """A request, complete and within its limits: one of three prompts, and a value of every option."""

    text: str | None
    messages: list[dict[str, Any]] | None
    input_ids: list[int] | None
    stream: bool
    template_kwargs: dict[str, Any]
    options: Mapping[str, Any]
    tokenize: bool = False

    @property
    def answer(self) -> Literal["begun", "continued", "none"]:
        """What the prompt ends with: an answer that the template begins, or the last message, or neither."""
        if self.options["continue_final_message"]:
            return "continued"
        return "begun" if self.options["add_generation_prompt"] else "none"

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The tools that the model is told of."""
        tools: list[dict[str, Any]] = self.template_kwargs.get("tools") or []
        return tools

    @property
    def prompt_name(self) -> str:
        """The input that holds its prompt."""
        sent = {"text_input": self.text, "messages": self.messages, "input_ids": self.input_ids}
        return next(name for name, value in sent.items() if value is not None)


def is_probe(read: Read) -> bool:
    """Whether the request asks for no text, but whether text would come out."""
    value = read("probe")
    return value is not None and bool(value.size) and bool(value.reshape(-1)[0])


def read_request(read: Read, deployment: Deployment) -> TextRequest:
    """Raises Refused."""
    limits = deployment.limits
    prompts = {name: value_of(row, read(name), limits) for name, row in PROMPTS.items()}
    sent = [name for name, value in prompts.items() if value is not None]
    if len(sent) != 1:
        found = " and ".join(sent) or "none"
        raise invalid(None, f"expected exactly one of {', '.join(PROMPTS)}; got {found}")
    if prompts["text_input"] == "":
        raise invalid("text_input", "the text must not be empty")
    options = values_of(OPTIONS, read, limits, deployment.defaults)
    _check_engine_has(options, deployment.engine_inputs)
    for name in _ABOUT_LOG_PROBS:
        if options[name] and not options["return_log_probs"]:
            raise invalid(name, f"{json.dumps(options[name])} requires return_log_probs true")
    longest = options["max_tokens"]
    if longest is not None and options["min_tokens"] > longest:
        raise invalid("min_tokens", f"must be 0 to {longest}; got {options['min_tokens']}")
    options["logit_bias"] = _logit_bias(options["logit_bias"], deployment.vocab_size)
    ids = prompts["input_ids"]
    messages = None if prompts["messages"] is None else _messages(prompts["messages"])
    if options["continue_final_message"]:
        _check_continued(messages)
    return TextRequest(
        text=prompts["text_input"],
        messages=messages,
        input_ids=None if ids is None else list(ids),
        stream=bool(value_of(TEXT_INPUTS["stream"], read("stream"), limits)),
        tokenize=bool(value_of(TEXT_INPUTS["tokenize"], read("tokenize"), limits)),
        template_kwargs=deployment.template_kwargs | _template_kwargs(options["chat_template_kwargs"]),
        options=options,
    )


def _check_continued(messages: list[dict[str, Any]] | None) -> None:
    last = messages[-1] if messages else {}
    if last.get("role") != "assistant" or last.get("tool_calls"):
        message = "the last message must be the assistant's and have no tool calls"
        raise invalid("continue_final_message", message)


def _check_engine_has(options: Mapping[str, Any], engine_inputs: Collection[str]) -> None:
    for name, row in OPTIONS.items():
        if row.engine is not None and row.engine not in engine_inputs and options[name] != row.default:
            raise unsupported(row.name, f"this engine does not support it; got {shown(options[name])}")


def _messages(text: str) -> list[dict[str, Any]]:
    messages = json_value("messages", text)
    if not isinstance(messages, list):
        raise invalid("messages", f"expected a list of messages; got {shown(messages)}")
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise invalid("messages", f"must have 1 to {MAX_MESSAGES} messages; got {len(messages)}")
    for i, message in enumerate(messages):
        _check_message(f"messages[{i}]", message)
    return messages


def _check_message(where: str, message: Any) -> None:
    if not isinstance(message, dict):
        raise invalid(where, f'expected {{"role", "content"}}; got {shown(message)}')
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise invalid(f"{where}.role", f"expected one of {', '.join(ROLES)}; got {shown(role)}")
    calls = role == "assistant" and message.get("tool_calls")
    if calls and not (isinstance(calls, list) and all(isinstance(call, dict) for call in calls)):
        raise invalid(f"{where}.tool_calls", f"expected a list of JSON objects; got {shown(calls)}")
    if not isinstance(content, str) and not (calls and content is None):
        raise invalid(f"{where}.content", f"expected text; got {shown(content)}")
    if unknown := sorted(message.keys() - _MESSAGE_KEYS):
        raise invalid(where, f"unknown key {shown(unknown[0])}")
    _check_characters(where, message)


def _template_kwargs(value: dict[str, Any] | None) -> dict[str, Any]:
    value = value or {}
    if taken := sorted(value.keys() & _TEMPLATE_OWN):
        raise invalid("chat_template_kwargs", f"{taken[0]!r} is reserved for the server")
    for name in ("tools", "documents"):
        items = value.get(name, [])
        if not (items is None or (isinstance(items, list) and all(isinstance(item, dict) for item in items))):
            where = f"chat_template_kwargs.{name}"
            raise invalid(where, f"expected a list of JSON objects; got {shown(items)}")
    _check_characters("chat_template_kwargs", value)
    return value


def _check_characters(where: str, value: dict[str, Any]) -> None:
    if any("\ud800" <= c <= "\udfff" for c in json.dumps(value, ensure_ascii=False)):
        raise invalid(where, "a lone surrogate is not a character")


def _logit_bias(value: dict[str, Any] | None, vocab_size: int) -> dict[int, float]:
    row = OPTIONS["logit_bias"]
    value = value or {}
    if row.max_values is not None and len(value) > row.max_values:
        raise invalid("logit_bias", f"at most {row.max_values} tokens are allowed; got {len(value)}")
    biases = {}
    for key, bias in value.items():
        if not (key.isascii() and key.isdigit() and len(key) < 10 and int(key) < vocab_size):
            raise invalid("logit_bias", f"token ids must be 0 to {vocab_size - 1}; got {shown(key)}")
        number = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not number or not row.low <= bias <= row.high:
            raise invalid(f"logit_bias[{key}]", f"must be {row.low} to {row.high}; got {shown(bias)}")
        biases[int(key)] = float(bias)
    return biases


def engine_inputs(
    request: TextRequest,
    ids: Sequence[int],
    deployment: Deployment,
    *,
    limit: int,
    ends: Sequence[int],
    thinking: bool,
) -> dict[str, Array]:
    """Tensor name -> array with its batch dimension. Raises Refused.

    ids: the prompt; ends: the model's own end ids; thinking: the prompt leaves the model in its thinking, so
    that stop_token_ids are not for the engine. What a request leaves alone is not sent: an engine need not
    know it.
    """
    options = request.options
    seed = options["seed"]
    values = {
        "input_ids": ids,
        "input_lengths": len(ids),
        "request_output_len": limit,
        "streaming": True,
        "return_perf_metrics": True,
        "seed": secrets.randbits(63) if seed is None else seed,
    }
    if "unwatched" in deployment.engine_inputs:
        values["unwatched"] = True  # the model ends what nobody waits for any more
    for name, row in OPTIONS.items():
        if row.engine and name not in _MADE_BELOW and (name in _ALWAYS or options[name] != row.default):
            values[row.engine] = options[name]
    # Both engines know greedy as top_k 1, and NVIDIA's refuses a top_p of 0.
    if options["temperature"] == 0 or options["top_p"] == 0:
        values["runtime_top_k"] = 1
        del values["temperature"], values["runtime_top_p"]
    if thinking and options["guided_decoding_guide_type"] is not None:
        values["guided_decoding_after"] = THINK_END
    own_ends = () if options["ignore_eos"] else ends
    all_ends = list(dict.fromkeys([*own_ends, *(() if thinking else options["stop_token_ids"])]))
    words = {}
    if all_ends and "end_ids" in deployment.engine_inputs:
        values["end_ids"] = all_ends
    elif all_ends:
        values["end_id"], *others = all_ends
        words = _other_ends(others, options["min_tokens"], limit)
    if options["ignore_eos"] and (banned := [end for end in ends if end not in all_ends]):
        words = {"bad_words_list": _words([*_single(words.pop("bad_words_list", None)), *banned])} | words
    inputs = {name: array_of(TOKEN_INPUTS[name], value) for name, value in values.items()} | words
    if options["logit_bias"]:
        bias = np.zeros((1, deployment.vocab_size), np.float32)
        bias[0, list(options["logit_bias"])] = list(options["logit_bias"].values())
        inputs["embedding_bias"] = bias
    return inputs


def _other_ends(others: Sequence[int], min_tokens: int, limit: int) -> dict[str, Array]:
    """The end tokens after the first, for NVIDIA's backend, whose min_tokens holds back the first alone."""
    if not others:
        return {}
    words = _words(others)
    if min_tokens == 0:
        return {"stop_words_list": words}
    if min_tokens >= limit:
        return {"bad_words_list": words}
    message = f"this engine can suppress only one end token until then; this request has {len(others) + 1}"
    raise unsupported("min_tokens", message)


def _words(tokens: Sequence[int]) -> Array:
    """Words of one token each, in the form of `stop_words_list`."""
    return np.array([[tokens, range(1, len(tokens) + 1)]], np.int32)


def _single(words: Array | None) -> list[int]:
    """The tokens of such words."""
    return [] if words is None else words[0, 0].tolist()
