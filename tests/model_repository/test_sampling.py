"""Sampling against its definition, written out slowly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sampling import GuideError, Sampler, SamplingParams, _nucleus, log_probs, most_probable

EMPTY = np.array([], np.int32)
rows = arrays(np.float32, st.integers(2, 600), elements=st.floats(-30, 30, width=32))


def allowed(logits: NDArray[np.float32], temperature: float, top_k: int, top_p: float) -> set[int]:
    """Every token that may be drawn: top_k first, then the smallest set that holds top_p of what is left."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    if top_k:
        cut = logits[order[min(top_k, len(order)) - 1]]
        order = [i for i in order if logits[i] >= cut]  # ties: any of them may be the one kept
    weights = np.exp((logits[order].astype(np.float64) - logits[order[0]]) / temperature)
    total, held, kept = weights.sum(), 0.0, 0
    for weight in weights:
        if held >= top_p * total + 1e-9:
            break
        held, kept = held + weight, kept + 1
    smallest = weights[kept - 1] * (1 - 1e-9)  # equally heavy tokens stand for one another
    return {i for i, weight in zip(order, weights, strict=True) if weight >= smallest}


@settings(deadline=None, max_examples=150)
@given(rows, st.floats(0.2, 3), st.integers(0, 20), st.floats(0.05, 1), st.integers(0, 2**63))
def test_only_tokens_of_the_nucleus_are_drawn(
    logits: NDArray[np.float32], temperature: float, top_k: int, top_p: float, seed: int
) -> None:
    sampler = Sampler(SamplingParams(temperature, top_k, top_p, seed=seed), EMPTY, len(logits))
    assert sampler(logits) in allowed(logits, temperature, top_k, top_p)


def test_draws_follow_the_distribution() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(SamplingParams(seed=7), EMPTY, 4)
    drawn = np.bincount([sampler(logits) for _ in range(20_000)], minlength=4) / 20_000
    assert drawn == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.015)


def test_a_large_vocabulary_gives_the_same_nucleus_as_a_full_sort() -> None:
    logits = np.random.default_rng(0).normal(size=128_256).astype(np.float32)  # flat: the nucleus is large
    drawn = {Sampler(SamplingParams(top_p=0.5, seed=s), EMPTY, len(logits))(logits) for s in range(30)}
    assert drawn <= allowed(logits, 1.0, 0, 0.5)


def test_same_seed_same_tokens_and_another_seed_others() -> None:
    logits = np.zeros(1000, np.float32)

    def draw(seed: int) -> list[int]:
        sampler = Sampler(SamplingParams(seed=seed), EMPTY, 1000)
        return [sampler(logits) for _ in range(8)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)


def test_temperature_zero_and_top_k_one_are_greedy() -> None:
    logits = np.array([0.0, 3.0, 2.9], np.float32)
    for params in (SamplingParams(temperature=0), SamplingParams(top_k=1)):
        assert {Sampler(params, EMPTY, 3)(logits) for _ in range(20)} == {1}


def test_repetition_penalty_counts_the_prompt_and_the_output() -> None:
    logits = np.array([2.0, 1.9, -1.0], np.float32)
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=1.5), np.array([0], np.int32), 3)
    assert sampler(logits) == 1  # 0 is in the prompt: 2.0 / 1.5 < 1.9
    assert sampler(logits) == 0  # now 1 was said too: 1.9 / 1.5 < 2.0 / 1.5
    assert logits.tolist() == pytest.approx([2.0, 1.9, -1.0])  # the model's row is left as it was


def test_presence_is_counted_once_and_frequency_each_time() -> None:
    logits = np.array([1.0, 0.5], np.float32)
    presence = SamplingParams(temperature=0, presence_penalty=1.0)
    frequency = SamplingParams(temperature=0, frequency_penalty=0.2)
    for params, drawn in ((presence, [0, 1, 0, 0, 0]), (frequency, [0, 0, 0, 1])):
        sampler = Sampler(params, EMPTY, 2)
        assert [sampler(logits) for _ in drawn] == drawn


def test_presence_and_frequency_leave_the_prompt_alone() -> None:
    """The fault: an answer that was to quote a document turned into nonsense, for its words were punished."""
    logits = np.array([1.0, 0.9], np.float32)
    prompt = np.array([0] * 50, np.int32)
    sampler = Sampler(SamplingParams(temperature=0, presence_penalty=2, frequency_penalty=2), prompt, 2)
    assert [sampler(logits) for _ in range(4)] == [0, 1, 0, 1]


def test_min_tokens_keeps_the_end_away_until_then() -> None:
    logits = np.array([5.0, 1.0], np.float32)
    sampler = Sampler(SamplingParams(temperature=0, ends=frozenset({0}), min_tokens=2), EMPTY, 2)
    assert [sampler(logits) for _ in range(3)] == [1, 1, 0]


def test_a_bad_word_is_stopped_at_its_last_token() -> None:
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    sampler = Sampler(SamplingParams(temperature=0, bad_words=((2, 2),)), EMPTY, 3)
    assert [sampler(logits) for _ in range(4)] == [2, 1, 2, 1]


@given(rows)
def test_log_prob_is_the_log_of_the_softmax(logits: NDArray[np.float32]) -> None:
    wide = logits.astype(np.float64)
    expected = wide - np.log(np.exp(wide - wide.max()).sum()) - wide.max()
    assert log_probs(logits, [1, 0]) == pytest.approx([expected[1], expected[0]], abs=1e-6)


@given(rows, st.integers(0, 20))
def test_the_most_probable_stand_in_order_and_the_lower_id_first(
    logits: NDArray[np.float32], count: int
) -> None:
    count = min(count, len(logits))
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    assert most_probable(logits, count) == order[:count]


def test_min_p_leaves_only_what_is_likely_enough_beside_the_best() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    for min_p, left in ((0.0, {0, 1, 2, 3}), (0.25, {0, 1, 2}), (0.5, {0, 1}), (1.0, {0})):
        params = [SamplingParams(min_p=min_p, seed=seed) for seed in range(200)]
        assert {Sampler(each, EMPTY, 4)(logits) for each in params} == left
    # Of what min_p leaves, top_p takes its share: 0.5 of 0.8 is the best one alone.
    assert {Sampler(SamplingParams(min_p=0.5, top_p=0.5, seed=s), EMPTY, 4)(logits) for s in range(50)} == {0}


def test_min_tokens_holds_back_every_end() -> None:
    sampler = Sampler(SamplingParams(temperature=0, ends=frozenset({0, 1}), min_tokens=1), EMPTY, 3)
    logits = np.array([3, 2, 1], np.float32)
    assert [sampler(logits), sampler(logits)] == [2, 0]


def first(params: SamplingParams, logits: list[float], prompt: list[int]) -> int:
    return Sampler(params, np.array(prompt, np.int32), len(logits))(np.array(logits, np.float32))


def test_a_bias_is_added() -> None:
    bias = np.array([1, 3], np.float32)
    assert first(SamplingParams(temperature=0, bias=bias), [1, 0], []) == 1


def test_a_bad_word_that_the_prompt_begins_loses_its_last_token() -> None:
    params = SamplingParams(temperature=0, bad_words=((2, 1, 0),))
    assert first(params, [-1, -2, -3], [2, 1]) == 1
    assert first(params, [-1, -2, -3], [1, 1]) == 0


def test_repetition_penalty_lowers_small_logits_and_counts_ids_below_those_seen() -> None:
    params = SamplingParams(temperature=0, repetition_penalty=2)
    assert first(params, [0.5, 0.4], [0]) == 1
    assert [first(params, [-1, other], [0]) for other in (-1.5, -2.5)] == [1, 0]
    assert first(params, [-0.5, -0.7], [0]) == 1
    sampler = Sampler(params, np.array([2], np.int32), 3)
    assert [sampler(np.array([2, 1.5, 0], np.float32)) for _ in range(2)] == [0, 1]


def test_top_k_draws_each_of_the_best_and_no_other() -> None:
    logits = np.array([0.2, 0.4, 0, 0.1, 0.3], np.float32)
    drawn = {Sampler(SamplingParams(top_k=2, seed=seed), EMPTY, 5)(logits) for seed in range(100)}
    assert drawn == {1, 4}


class OneOf:
    """A guide that allows the same tokens at every step."""

    complete = False

    def __init__(self, *tokens: int) -> None:
        self.tokens, self.taken = list(tokens), list[int]()

    def allowed(self) -> NDArray[np.bool_]:
        return np.isin(np.arange(3), self.tokens)

    def take(self, token: int) -> None:
        self.taken.append(token)


def test_a_guide_allows_and_hears_of_each_token() -> None:
    guide, logits = OneOf(1, 2), np.array([-1, -2, -3], np.float32)
    sampler = Sampler(SamplingParams(temperature=0), EMPTY, 3, guide)
    assert [sampler(logits), sampler(logits)] == guide.taken == [1, 1]
    excluded = SamplingParams(temperature=0, bad_words=((1,), (2,)))
    with pytest.raises(GuideError, match="exclude every token"):
        Sampler(excluded, EMPTY, 3, guide)(logits)


@pytest.mark.parametrize("top_p", [0.01, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("spread", [0.001, 0.3, 2, 8])
def test_the_nucleus_is_what_a_full_sort_gives(top_p: float, spread: float) -> None:
    logits = np.random.default_rng(1).normal(size=2000) * spread
    weights = np.exp(logits - logits.max()).astype(np.float32)
    order = np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order], dtype=np.float64)
    needed = int(np.searchsorted(sums, top_p * sums[-1])) + 1
    assert sorted(_nucleus(weights, top_p)) == sorted(order[:needed])


def test_a_nucleus_of_nearly_all_the_weight_has_the_lightest() -> None:
    assert sorted(_nucleus(np.array([1, 1e-7, 1e-7], np.float32), 1 - 1e-9)) == [0, 1, 2]


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_a_negative_penalty_favours_what_was_said(penalty: str) -> None:
    sampler = Sampler(SamplingParams(temperature=0, **{penalty: -1.0}), EMPTY, 2)  # type: ignore[arg-type]
    assert [sampler(np.array(row, np.float32)) for row in ([1, 0], [0, 0.2])] == [0, 0]
