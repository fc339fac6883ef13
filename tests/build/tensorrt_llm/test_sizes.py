"""The arithmetic of memory: what the specification computes, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from build.catalogue import Profile, catalogue, profiles
from build.random_checkpoint import YOUTU_2B
from build.tensorrt_llm.sizes import GIB, does_not_fit, kv_bytes_per_token, sizes, weight_bytes

CARDS = (8, 12, 16, 24)


def of_2b(profile: Profile, card_gib: float, **changes: object) -> int:
    """Tokens of cache."""
    changed = replace(profile, **changes)  # type: ignore[arg-type]
    per_token = kv_bytes_per_token(YOUTU_2B, changed.kv_cache)
    return sizes(
        changed, int(card_gib * GIB), weights=weight_bytes(YOUTU_2B), kv_per_token=per_token
    ).cache_tokens


def test_the_published_model_in_w8a16() -> None:
    """2.07 GiB: 53,084,160 linear and 6,144 norm weights a layer, and one table of 262,668,288 in 16 bits."""
    assert weight_bytes(YOUTU_2B) / GIB == pytest.approx(2.07, abs=0.01)
    names = YOUTU_2B.tensors()
    linear = sum(math.prod(shape) for name, shape in names.items() if "proj" in name)
    assert linear == 32 * 53_084_160
    untied = replace(YOUTU_2B, tie_word_embeddings=False)
    assert weight_bytes(untied) - weight_bytes(YOUTU_2B) == 2 * 128_256 * 2048


def test_kv_of_one_token() -> None:
    assert kv_bytes_per_token(YOUTU_2B, "bf16") == 384 << 10
    assert kv_bytes_per_token(YOUTU_2B, "int8") == 192 << 10


def test_tokens_of_cache_on_the_cards() -> None:
    """The specification has about 10.7 thousand on 8 GB and 50 thousand on 24 GB, at nine tenths."""
    full = profiles()["8gb"]
    tokens = [of_2b(full, card, kv_cache_free_gpu_mem_fraction=0.9) for card in CARDS]
    assert tokens == sorted(tokens)
    assert tokens[0] == pytest.approx(10_700, rel=0.05)
    assert of_2b(profiles()["24gb"], 24) == pytest.approx(50_000, rel=0.05)
    assert of_2b(profiles()["int8-kv"], 8) == pytest.approx(2 * of_2b(full, 8), abs=1)


def test_every_profile_fits_its_own_card_and_says_so() -> None:
    for profile in profiles().values():
        per_token = kv_bytes_per_token(YOUTU_2B, profile.kv_cache)
        size = sizes(profile, profile.card_gib * GIB, weights=weight_bytes(YOUTU_2B), kv_per_token=per_token)
        assert does_not_fit(profile, size) is None
        assert size.total < size.card
        assert f"{size.cache_tokens:,} tokens" in str(size)


def test_eight_gigabytes_hold_about_six() -> None:
    profile = profiles()["8gb"]
    size = sizes(profile, 8 * GIB, weights=weight_bytes(YOUTU_2B), kv_per_token=384 << 10)
    assert size.total / GIB == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("card", [0, 2, 4])
def test_a_profile_that_cannot_fit_is_refused_with_the_sum(card: int) -> None:
    profile = profiles()["8gb"]
    size = sizes(profile, card * GIB, weights=weight_bytes(YOUTU_2B), kv_per_token=384 << 10)
    fault = does_not_fit(profile, size)
    assert fault is not None
    assert fault.startswith(f"the profile 8gb does not fit a card of {card:.2f} GiB: weights 2.07 GiB")
    assert fault.endswith("one sequence of 2048 tokens needs 0.75 GiB of KV cache")


def test_baichuan_fits_no_small_card() -> None:
    (baichuan,) = (entry for entry in catalogue() if entry.name == "baichuan-13b")
    assert baichuan.tensorrt_llm is not None
    for card, fits in ((8, False), (12, False), (24, True)):
        size = sizes(
            profiles()["8gb"],
            card * GIB,
            weights=baichuan.tensorrt_llm.engine_bytes,
            kv_per_token=baichuan.tensorrt_llm.kv_bytes_per_token,
        )
        assert (does_not_fit(profiles()["8gb"], size) is None) == fits
