"""The first token of an answer is drawn from the distribution that its log-probabilities state.

Several hundred samples with fixed seeds against the exact probabilities, by a chi-square test: its bound is
that of one chance in a million, and the seeds do not change.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import OpenAI

from tests.smollm2.test_answers import NAME

PROMPT = "My favourite colour is"
SAMPLES = 500
TEMPERATURES = (0.5, 1.0, 2.0)
TOP = 20
Z = 4.75  # of the normal distribution: one in a million
LEAST = 5.0  # samples expected in a bin


def likeliest(openai: OpenAI) -> dict[str, float]:
    """Log-probability of the likeliest TOP tokens after PROMPT, before temperature and cuts."""
    answer = openai.completions.create(
        model=NAME,
        prompt=PROMPT,
        max_tokens=1,
        temperature=0,
        logprobs=TOP,
        extra_body={"repetition_penalty": 1.0},
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert found.top_logprobs is not None
    assert len(found.top_logprobs[0]) == TOP
    return dict(found.top_logprobs[0])


def drawn(openai: OpenAI, temperature: float, top_k: int | None) -> Counter[str]:
    more = {"repetition_penalty": 1.0} | ({} if top_k is None else {"top_k": top_k})

    def one(seed: int) -> str:
        answer = openai.completions.create(
            model=NAME,
            prompt=PROMPT,
            max_tokens=1,
            temperature=temperature,
            top_p=1.0,
            seed=seed,
            extra_body=more,
        )
        return answer.choices[0].text

    with ThreadPoolExecutor(4) as pool:
        return Counter(pool.map(one, range(SAMPLES)))


def at(temperature: float, log_probs: Mapping[str, float]) -> dict[str, float]:
    """The probabilities of these tokens alone, at a temperature."""
    weights = {token: math.exp(value / temperature) for token, value in log_probs.items()}
    return {token: weight / sum(weights.values()) for token, weight in weights.items()}


def excess(counts: Counter[str], expected: Mapping[str, float]) -> float:
    """How far the chi-square statistic is above its bound (Wilson and Hilferty); negative: it is below.

    What `expected` leaves to one, and bins that are too small, form one bin.
    """
    total = counts.total()
    bins = {token: share for token, share in expected.items() if share * total >= LEAST}
    pairs = [(counts[token], share * total) for token, share in bins.items()]
    rest = (total - sum(count for count, _ in pairs), (1 - sum(bins.values())) * total)
    pairs += [rest] if rest[1] >= LEAST else []
    statistic = sum((count - share) ** 2 / share for count, share in pairs)
    free = len(pairs) - 1
    return statistic - free * (1 - 2 / (9 * free) + Z * math.sqrt(2 / (9 * free))) ** 3


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_temperature_spreads_as_it_should(openai: OpenAI, temperature: float) -> None:
    log_probs = likeliest(openai)
    counts = drawn(openai, temperature, TOP)
    assert set(counts) <= set(log_probs)
    assert excess(counts, at(temperature, log_probs)) < 0
    # and the test can tell: another temperature would not pass
    for other in set(TEMPERATURES) - {temperature}:
        assert excess(counts, at(other, log_probs)) > 0


def test_without_a_cut_the_rest_of_the_vocabulary_has_its_share(openai: OpenAI) -> None:
    log_probs = likeliest(openai)
    counts = drawn(openai, 1.0, None)
    assert excess(counts, {token: math.exp(value) for token, value in log_probs.items()}) < 0
    assert set(counts) - set(log_probs)
