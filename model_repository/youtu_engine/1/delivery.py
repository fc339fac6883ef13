"""What the caller of one request has got of its answer, and the tensors of the next piece.

Knows the tensors of an answer; knows nothing of how requests come in or are computed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from engine_request import EngineRequest, LogProbs
from numpy.typing import NDArray
from outbox import Paced
from youtu_contract.responder import Responder
from youtu_contract.rows import TOKEN_OUTPUTS
from youtu_contract.values import Array, array_of


class Delivery(Responder, Paced):
    """The way back to the caller of one request, and how much of the answer it has got.

    watched: whether the caller may leave without a word.
    """

    def __init__(
        self, request_id: str, sender: Any, *, streaming: bool, echo: bool, perf: bool, watched: bool
    ) -> None:
        Responder.__init__(self, sender)
        Paced.__init__(self)
        self.request_id = request_id
        self.streaming, self.echo, self.perf, self.watched = streaming, echo, perf, watched
        self.request: EngineRequest | None = None
        self.sent = 0

    def outputs(self, request: EngineRequest, finished: bool) -> dict[str, Array] | None:
        """The tensors of what has been made since the last response; None when there is nothing new."""
        end = len(request.tokens)
        new = request.tokens[self.sent : end]
        if not new and not finished:
            return None
        first, start, self.sent = self.sent == 0, self.sent, end
        ids = [*request.prompt.tolist(), *new] if self.echo else new
        out: dict[str, Array] = {
            "output_ids": np.array([[ids]], np.int32),
            "sequence_length": np.array([[len(ids)]], np.int32),
        }
        if request.return_log_probs:
            values = np.array(request.log_probs.values[:end], np.float32)
            out["output_log_probs"] = values[None, None, start:]
            out["cum_log_probs"] = np.array([[values.sum()]], np.float32)
        best = request.top_log_probs
        if best and new:
            top_ids, top_values = _top(request.log_probs, best, start, end)
            out |= {"top_log_prob_ids": top_ids[:, None], "top_log_probs": top_values[:, None]}
        if request.return_prompt_log_probs and new and first:
            prompt = request.prompt_log_probs
            out["prompt_log_probs"] = np.array([prompt.values], np.float32)
            if best:
                top_ids, top_values = _top(prompt, best, 0, len(prompt.values))
                out |= {"top_prompt_log_prob_ids": top_ids, "top_prompt_log_probs": top_values}
        if self.perf and (first or finished):
            figures = {
                "kv_cache_reused_blocks": request.cached_tokens,
                "arrival_time_ns": request.arrival_ns,
                "first_scheduled_time_ns": request.scheduled_ns,
                "first_token_time_ns": request.first_token_ns,
                "last_token_time_ns": request.last_token_ns,
            }
            out |= {name: array_of(TOKEN_OUTPUTS[name], value) for name, value in figures.items()}
        return out


def _top(
    log_probs: LogProbs, best: int, start: int, end: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The likeliest at the places from start to end: their ids and log-probabilities, [1, places, best]."""
    part, shape = slice(start * best, end * best), (1, end - start, best)
    ids, values = log_probs.top_ids[part], log_probs.top_values[part]
    return np.array(ids, np.int32).reshape(shape), np.array(values, np.float32).reshape(shape)
