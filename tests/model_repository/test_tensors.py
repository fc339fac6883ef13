"""Requests of the token contract, read from their tensors alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from engine_request import EngineRequest
from tensors import engine_request


def request(**tensors: Any) -> EngineRequest:
    sent = {name: np.array([values]) for name, values in tensors.items()}
    return engine_request(sent.get, context=16, vocab_size=100, changed=lambda _: None)


def test_a_prompt_is_enough() -> None:
    made = request(input_ids=[5, 6, 7])
    assert made.prompt.tolist() == [5, 6, 7]
    assert made.max_new_tokens == 13
    assert made.sampling.ends == frozenset()


def test_every_end_counts() -> None:
    assert request(input_ids=[5], end_id=[2]).sampling.ends == {2}
    assert request(input_ids=[5], end_ids=[3, 4]).sampling.ends == {3, 4}
    assert request(input_ids=[5], end_id=[2], end_ids=[3]).sampling.ends == {2, 3}
    assert request(input_ids=[5], end_id=[-1]).sampling.ends == frozenset()
