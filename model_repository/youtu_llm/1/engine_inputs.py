"""A request of the text contract as the input tensors of the token contract.

What a request leaves alone is not sent: an engine need not know it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from contract import GUIDE, TextRequest
from numpy.typing import NDArray


def engine_inputs(
    wanted: TextRequest, ids: Sequence[int], *, limit: int, ends: Sequence[int], vocab_size: int
) -> dict[str, NDArray[Any]]:
    """Tensor name -> array with its batch dimension. ids: the prompt; ends: the ids that end an answer."""
    inputs: dict[str, NDArray[Any]] = {
        "input_ids": np.array([ids], np.int32),
        "input_lengths": np.array([[len(ids)]], np.int32),
        "request_output_len": np.array([[limit]], np.int32),
        "temperature": np.array([[wanted.temperature]], np.float32),
        "runtime_top_p": np.array([[wanted.top_p]], np.float32),
        "repetition_penalty": np.array([[wanted.repetition_penalty]], np.float32),
        "streaming": np.array([[True]]),
        "return_perf_metrics": np.array([[True]]),
    }
    # Both engines know greedy as top_k 1, and NVIDIA's refuses a top_p of 0.
    if wanted.temperature == 0 or wanted.top_p == 0:
        inputs["runtime_top_k"] = np.array([[1]], np.int32)
        del inputs["temperature"], inputs["runtime_top_p"]
    elif wanted.top_k:
        inputs["runtime_top_k"] = np.array([[wanted.top_k]], np.int32)
    if ends:
        inputs["end_id"] = np.array([[ends[0]]], np.int32)
    if others := ends[1:]:
        inputs["stop_words_list"] = np.array([[others, range(1, len(others) + 1)]], np.int32)
    for name, value, default, kind in (
        ("presence_penalty", wanted.presence_penalty, 0.0, np.float32),
        ("frequency_penalty", wanted.frequency_penalty, 0.0, np.float32),
        ("min_tokens", wanted.min_tokens, 0, np.int32),
        ("return_log_probs", wanted.return_log_probs, False, np.bool_),
        ("return_prompt_log_probs", wanted.return_prompt_log_probs, False, np.bool_),
        ("num_top_log_probs", wanted.top_log_probs, 0, np.int32),
    ):
        if value != default:
            inputs[name] = np.array([[value]], kind)
    for name, text in zip(GUIDE, (wanted.guide_type, wanted.guide), strict=True):
        if text is not None:
            inputs[name] = np.array([[text.encode()]], np.object_)
    if wanted.logit_bias:
        bias = np.zeros((1, vocab_size), np.float32)
        bias[0, list(wanted.logit_bias)] = list(wanted.logit_bias.values())
        inputs["embedding_bias"] = bias
    seed = wanted.seed if wanted.seed is not None else secrets.randbits(63)
    inputs["seed"] = np.array([[seed]], np.uint64)
    return inputs
