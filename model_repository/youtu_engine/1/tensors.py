"""Reads the token contract's input tensors into an engine request; refuses what the engine cannot honour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
from engine_request import EngineRequest
from grammar import KINDS
from guide import MAX_BYTES
from sampling import SamplingParams
from youtu_contract.errors import context_length_exceeded, invalid
from youtu_contract.rows import TOKEN_INPUTS
from youtu_contract.values import Read, value_of, values_of

# What is checked here, where more is known than the rows say.
_ARRAYS = ("input_ids", "end_ids", "stop_words_list", "bad_words_list", "embedding_bias")
_SCALARS = {name: row for name, row in TOKEN_INPUTS.items() if name not in _ARRAYS}
# Fields of SamplingParams that have another name than their tensor.
_TENSORS = {"top_k": "runtime_top_k", "top_p": "runtime_top_p"}


def flag(read: Read, name: str) -> bool:
    """Whether the bool `name` was sent and is true. Raises Refused."""
    return bool(value_of(TOKEN_INPUTS[name], read(name), {}))


def guide(read: Read) -> tuple[str, str, str] | None:
    """Kind and text of what the output is to be held to, and the text after which. Raises Refused."""
    names = ("guided_decoding_guide_type", "guided_decoding_guide", "guided_decoding_after")
    kind, text, after = (value_of(TOKEN_INPUTS[name], read(name), {}) for name in names)
    if kind is None:
        for name, value in zip(names[1:], (text, after), strict=True):
            if value is not None:
                raise invalid(name, "it requires guided_decoding_guide_type")
        return None
    if kind not in KINDS:
        message = f"expected one of {', '.join(KINDS)}; got {kind[:60]!r}"
        raise invalid("guided_decoding_guide_type", message)
    if (text is None) != (kind == "json"):
        needed = "it is not allowed" if kind == "json" else "it is required"
        raise invalid("guided_decoding_guide", f"{needed} with type {kind}")
    if text is not None and (size := len(text.encode())) > MAX_BYTES:
        raise invalid("guided_decoding_guide", f"at most {MAX_BYTES} bytes are allowed; got {size}")
    return kind, text or "", after or ""


def engine_request(
    read: Read, *, context: int, vocab_size: int, changed: Callable[[EngineRequest], None]
) -> EngineRequest:
    """Build a request from its tensors. Raises Refused."""
    limits = {"context": context, "vocab_size": vocab_size, "last_token": vocab_size - 1}
    values = values_of(_SCALARS, read, limits, {})
    prompt = np.array(value_of(TOKEN_INPUTS["input_ids"], read("input_ids"), limits) or (), np.int32)
    if prompt.size == 0:
        raise invalid("input_ids", "at least one token is required")
    if values["input_lengths"] not in (None, len(prompt)):
        raise invalid(
            "input_lengths", f"it is {values['input_lengths']}, but there are {len(prompt)} input_ids"
        )
    if len(prompt) >= context:
        raise context_length_exceeded("input_ids", len(prompt), context)
    bias = read("embedding_bias")
    if bias is not None and (bias.size != vocab_size or not np.isfinite(bias).all()):
        raise invalid("embedding_bias", f"expected {vocab_size} finite values; got {bias.size}")
    for name in ("num_top_log_probs", "return_prompt_log_probs"):
        if values[name] and not values["return_log_probs"]:
            raise invalid(name, f"{values[name]} requires return_log_probs")
    if values["num_top_log_probs"] > vocab_size:
        sent = values["num_top_log_probs"]
        raise invalid("num_top_log_probs", f"must be 0 to {vocab_size}; got {sent}")
    stop_words = _words(read, "stop_words_list", vocab_size)
    more_ends = value_of(TOKEN_INPUTS["end_ids"], read("end_ids"), limits) or ()
    end_ids = {*more_ends, values["end_id"]} - {-1}
    made: dict[str, Any] = {
        "ends": frozenset(word[0] for word in stop_words if len(word) == 1) | end_ids,
        "bad_words": _words(read, "bad_words_list", vocab_size),
        "bias": None if bias is None else np.ascontiguousarray(bias.reshape(-1), np.float32),
    }
    names = [field.name for field in fields(SamplingParams) if field.name not in made]
    room = context - len(prompt)
    return EngineRequest(
        prompt=prompt,
        # TensorRT-LLM lowers the length to what fits, too.
        max_new_tokens=min(room, values["request_output_len"] or room),
        sampling=SamplingParams(**made, **{name: values[_TENSORS.get(name, name)] for name in names}),
        stop_words=stop_words,
        return_log_probs=values["return_log_probs"],
        return_prompt_log_probs=values["return_prompt_log_probs"],
        top_log_probs=values["num_top_log_probs"],
        changed=changed,
    )


def _words(read: Read, name: str, vocab_size: int) -> tuple[tuple[int, ...], ...]:
    """[1, 2, n]: row 0 the ids of all words in a row, row 1 where each ends, filled up with -1."""
    array = read(name)
    if array is None:
        return ()
    if array.ndim != 3 or array.shape[:2] != (1, 2):
        raise invalid(name, f"expected shape [1, 2, n]; got {list(array.shape)}")
    ids, ends = array[0]
    words, start = [], 0
    for end in ends.tolist():
        if end == -1:
            break
        if not start < end <= len(ids):
            raise invalid(name, f"offsets must increase and be at most {len(ids)}; got {end}")
        word = tuple(ids[start:end].tolist())
        if not all(0 <= token < vocab_size for token in word):
            raise invalid(name, f"ids must be 0 to {vocab_size - 1}; got {list(word)}")
        words.append(word)
        start = end
    return tuple(words)
