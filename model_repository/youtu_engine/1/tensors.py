"""Reads the token contract's input tensors into what the engine takes; refuses what is not in range.

Source of names and shapes: NVIDIA's `tensorrt_llm` model configuration (inflight_batcher_llm).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from engine import Generation
from guide import KINDS, MAX_BYTES
from numpy.typing import NDArray
from sampling import SamplingParams

MAX_TOP_LOG_PROBS = 20

Read = Callable[[str], "NDArray[Any] | None"]  # a tensor with its batch dimension, or None


class InvalidTensor(ValueError):
    """A tensor holds what the engine cannot honour; the message names it, the limit and the value."""


def scalar(read: Read, name: str, default: Any) -> Any:
    """The single value of `name` as a Python number, or `default` when it was not sent."""
    value = read(name)
    if value is None:
        return default
    if value.size != 1:
        raise InvalidTensor(f"{name}: one value is expected, {value.size} were sent")
    first = value.reshape(-1)[0]
    return first if value.dtype == np.object_ else first.item()


def guide(read: Read) -> tuple[str, str] | None:
    """The kind and the text of what the output is to be held to. Raises InvalidTensor."""
    kind, text = _string(read, "guided_decoding_guide_type"), _string(read, "guided_decoding_guide")
    if kind is None:
        if text is not None:
            raise InvalidTensor("guided_decoding_guide: it was sent without guided_decoding_guide_type")
        return None
    if kind not in KINDS:
        raise InvalidTensor(
            f"guided_decoding_guide_type: this engine knows {', '.join(KINDS)}, {kind[:60]!r} was sent"
        )
    if (text is None) != (kind == "json"):
        needed = "it must not be sent" if kind == "json" else "it is needed"
        raise InvalidTensor(f"guided_decoding_guide: {needed} with the type {kind}")
    if text is not None and (size := len(text.encode())) > MAX_BYTES:
        raise InvalidTensor(f"guided_decoding_guide: at most {MAX_BYTES} bytes are allowed, {size} were sent")
    return kind, text or ""


def _string(read: Read, name: str) -> str | None:
    value = scalar(read, name, None)
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise InvalidTensor(f"{name}: UTF-8 is expected, byte {error.start} is not") from error


def generation(
    read: Read, *, context: int, vocab_size: int, changed: Callable[[Generation], None]
) -> Generation:
    """Build a request from its tensors. Raises InvalidTensor."""
    ids = read("input_ids")
    if ids is None or ids.size == 0:
        raise InvalidTensor("input_ids: at least one token is needed, none was sent")
    prompt = np.ascontiguousarray(ids.reshape(-1), np.int32)
    length = scalar(read, "input_lengths", len(prompt))
    if length != len(prompt):
        raise InvalidTensor(f"input_lengths: {length} was sent with {len(prompt)} input_ids")
    if prompt.min() < 0 or prompt.max() >= vocab_size:
        wrong = int(prompt.min() if prompt.min() < 0 else prompt.max())
        raise InvalidTensor(f"input_ids: ids are 0 to {vocab_size - 1}, {wrong} was sent")
    if len(prompt) >= context:
        raise InvalidTensor(
            f"input_ids: {len(prompt)} tokens were sent; "
            f"at most {context - 1} leave room in a context of {context}"
        )
    room = context - len(prompt)
    bias = read("embedding_bias")
    if bias is not None and (bias.size != vocab_size or not np.isfinite(bias).all()):
        raise InvalidTensor(f"embedding_bias: {vocab_size} finite values are expected, {bias.size} were sent")
    seed = read("seed")
    want_log_probs = bool(scalar(read, "return_log_probs", False))
    want_prompt_log_probs = bool(scalar(read, "return_prompt_log_probs", False))
    want_top = _ranged(read, "num_top_log_probs", 0, 0, min(MAX_TOP_LOG_PROBS, vocab_size))
    for name, sent in (("num_top_log_probs", want_top), ("return_prompt_log_probs", want_prompt_log_probs)):
        if sent and not want_log_probs:
            raise InvalidTensor(f"{name}: {sent} was sent without return_log_probs")
    return Generation(
        prompt=prompt,
        # TensorRT-LLM lowers the length to what fits, too.
        max_new_tokens=min(room, _ranged(read, "request_output_len", room, 1, 2**31 - 1)),
        sampling=SamplingParams(
            temperature=_ranged(read, "temperature", 1.0, 0.0, 1e4),
            top_k=_ranged(read, "runtime_top_k", 0, 0, 2**31 - 1),
            top_p=_ranged(read, "runtime_top_p", 1.0, 0.0, 1.0),
            repetition_penalty=_ranged(read, "repetition_penalty", 1.0, 1e-4, 1e4),
            presence_penalty=_ranged(read, "presence_penalty", 0.0, -1e4, 1e4),
            frequency_penalty=_ranged(read, "frequency_penalty", 0.0, -1e4, 1e4),
            min_tokens=_ranged(read, "min_tokens", 0, 0, 2**31 - 1),
            seed=None if seed is None else int(seed.reshape(-1)[0]),
            end_id=None if (end := _ranged(read, "end_id", -1, -1, vocab_size - 1)) == -1 else end,
            bad_words=_words(read, "bad_words_list", vocab_size),
            bias=None if bias is None else np.ascontiguousarray(bias.reshape(-1), np.float32),
        ),
        stop_words=_words(read, "stop_words_list", vocab_size),
        want_log_probs=want_log_probs,
        want_prompt_log_probs=want_prompt_log_probs,
        want_top=want_top,
        changed=changed,
    )


def _ranged(read: Read, name: str, default: Any, low: float, high: float) -> Any:
    value = scalar(read, name, default)
    if not low <= value <= high:  # false for NaN too
        raise InvalidTensor(f"{name}: {low:g} to {high:g} is allowed, {value} was sent")
    return value


def _words(read: Read, name: str, vocab_size: int) -> tuple[tuple[int, ...], ...]:
    """[1, 2, n]: row 0 the ids of all words in a row, row 1 where each ends, filled up with -1."""
    array = read(name)
    if array is None:
        return ()
    if array.ndim != 3 or array.shape[:2] != (1, 2):
        raise InvalidTensor(f"{name}: shape [1, 2, n] is expected, {list(array.shape)} was sent")
    ids, ends = array[0]
    words, start = [], 0
    for end in ends.tolist():
        if end == -1:
            break
        if not start < end <= len(ids):
            raise InvalidTensor(f"{name}: offsets must grow and stay within {len(ids)}, {end} was sent")
        word = tuple(ids[start:end].tolist())
        if not all(0 <= token < vocab_size for token in word):
            raise InvalidTensor(f"{name}: ids are 0 to {vocab_size - 1}, {list(word)} was sent")
        words.append(word)
        start = end
    return tuple(words)
