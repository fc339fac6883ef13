"""A request of the text contract as the input tensors of the token contract.

What a request leaves alone is not sent: an engine need not know it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from text_request import TextRequest
from youtu_contract.rows import OPTIONS, TOKEN_INPUTS
from youtu_contract.values import Array, array_of

ALWAYS = ("temperature", "top_p", "repetition_penalty")  # the engines' own defaults are others
# What is more than one value under another name; see below.
_MADE_BELOW = frozenset({"seed", "stop_token_ids", "logit_bias"})


def engine_inputs(
    request: TextRequest, ids: Sequence[int], *, limit: int, ends: Sequence[int], vocab_size: int
) -> dict[str, Array]:
    """Tensor name -> array with its batch dimension. ids: the prompt; ends: the model's own end ids."""
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
    for name, row in OPTIONS.items():
        if row.engine and name not in _MADE_BELOW and (name in ALWAYS or options[name] != row.default):
            values[row.engine] = options[name]
    # Both engines know greedy as top_k 1, and NVIDIA's refuses a top_p of 0.
    if options["temperature"] == 0 or options["top_p"] == 0:
        values["runtime_top_k"] = 1
        del values["temperature"], values["runtime_top_p"]
    if ends:
        values["end_id"] = ends[0]
    inputs = {name: array_of(TOKEN_INPUTS[name], value) for name, value in values.items()}
    if others := [*ends[1:], *options["stop_token_ids"]]:
        inputs["stop_words_list"] = np.array([[others, range(1, len(others) + 1)]], np.int32)
    if options["logit_bias"]:
        bias = np.zeros((1, vocab_size), np.float32)
        bias[0, list(options["logit_bias"])] = list(options["logit_bias"].values())
        inputs["embedding_bias"] = bias
    return inputs
