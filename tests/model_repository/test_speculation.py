"""Guesses from what was said before; how many tokens of prompts fit beside running answers."""

from __future__ import annotations

import numpy as np
from pace import Pace
from speculation import Guesser


def guesser(*prompt: int) -> Guesser:
    return Guesser(np.array(prompt, np.int32))


def test_what_followed_the_last_three_tokens_before_is_proposed() -> None:
    guesses = guesser(1, 2, 3, 4, 5, 6, 9, 1, 2, 3)
    assert guesses.guesses(2) == [4, 5]
    guesses.take(4)
    assert guesses.guesses(2) == [5, 6]


def test_the_newest_place_counts() -> None:
    assert guesser(1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3).guesses(1) == [8]


def test_nothing_is_proposed_for_what_is_new_or_too_short() -> None:
    assert guesser(1, 2, 3, 4, 5).guesses(4) == []
    assert guesser(1, 1).guesses(4) == []
    assert guesser(1, 2, 3, 4, 1, 2, 3).guesses(0) == []


def test_successes_make_guesses_longer_and_a_miss_shorter() -> None:
    text = guesser(*range(40), 0, 1, 2)
    first = len(text.guesses(30))
    text.verified(first, first)
    assert len(text.guesses(30)) == 2 * first
    text.verified(2 * first, 1)
    assert len(text.guesses(30)) == 2


def test_after_eight_misses_in_a_row_no_more_are_made() -> None:
    text = guesser(*range(40), 0, 1, 2)
    for _ in range(7):
        text.verified(1, 0)
    text.verified(1, 1)
    for _ in range(8):
        assert text.guesses(4)
        text.verified(1, 0)
    assert text.guesses(4) == []


def test_prompts_get_what_does_not_hold_up_running_answers() -> None:
    """A step of 100 ms beside which a token of a prompt costs 5 ms may read 32 of them."""
    pace = Pace(128)
    assert pace.prompt_tokens(0) == 128
    assert pace.prompt_tokens(2) == 32  # nothing is known yet
    for _ in range(20):
        pace.took(2, 0, 0.1)
        pace.took(0, 100, 0.5)
    assert pace.prompt_tokens(2) == 32
    assert pace.prompt_tokens(0) == 128
    for _ in range(50):
        pace.took(2, 32, 0.1 + 32 * 0.01)
    assert pace.prompt_tokens(2) == 16


def test_slow_prompts_still_make_progress_and_fast_ones_stay_within_the_limit() -> None:
    pace = Pace(64)
    pace.took(1, 0, 0.01)
    pace.took(0, 64, 64.0)
    assert pace.prompt_tokens(1) == 4
    fast = Pace(64)
    fast.took(1, 0, 1.0)
    fast.took(0, 64, 0.001)
    assert fast.prompt_tokens(1) == 64
