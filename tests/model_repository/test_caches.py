"""Which KV cache a prompt starts from, and what is given up when memory is wanted."""

from __future__ import annotations

import numpy as np
import pytest
from caches import Cache, Caches
from runtime import Piece


class Memory:
    """What a runtime does with its KV caches, written down."""

    block = 1

    def __init__(self, sequences: int, *, tokens: int = 10_000, neighbours: bool = False) -> None:
        self.sequences, self.neighbours, self.tokens = sequences, neighbours, tokens
        self.held = [0] * sequences
        self.shared: list[tuple[int, int, int]] = []

    def room(self) -> int:
        return self.tokens - sum(self.held)

    def forget(self, sequence: int, start: int) -> None:
        self.held[sequence] = min(self.held[sequence], start)

    def share(self, source: int, target: int, length: int) -> None:
        self.shared.append((source, target, length))
        self.held[target] = length


def caches(memory: Memory) -> Caches:
    return Caches(memory, context=1000)  # type: ignore[arg-type]


def numbers(seed: int, length: int) -> list[int]:
    return [int(n) for n in np.random.default_rng(seed).integers(10, 1000, length)]


def read(kept: Caches, memory: Memory, tokens: list[int]) -> Cache:
    """Begin with a prompt and read all of it."""
    cache = kept.begin(np.array(tokens, np.int32), len(tokens) - 1)
    rest = tokens[cache.length :]
    kept.extend(cache, rest)
    memory.held[cache.sequence] += len(rest)
    return cache


def test_a_conversation_goes_on_in_its_own_cache() -> None:
    memory = Memory(4)
    kept = caches(memory)
    first = read(kept, memory, numbers(1, 100))
    kept.end(first)
    again = kept.begin(np.array([*numbers(1, 100), 5, 6], np.int32), 101)
    assert (again, again.length, memory.shared) == (first, 100, [])


def test_a_beginning_is_shared_with_a_cache_in_use() -> None:
    memory = Memory(4)
    kept = caches(memory)
    first = read(kept, memory, numbers(1, 100))
    other = kept.begin(np.array([*numbers(1, 90), *numbers(2, 20)], np.int32), 109)
    assert other is not first
    assert memory.shared == [(first.sequence, other.sequence, 90)]
    assert other.tokens.tolist() == numbers(1, 90)
    assert first.tokens.tolist() == numbers(1, 100)


def test_a_long_conversation_is_kept_when_another_has_its_beginning() -> None:
    memory = Memory(4)
    kept = caches(memory)
    long = [*numbers(1, 50), *numbers(2, 300)]
    first = read(kept, memory, long)
    kept.end(first)
    other = kept.begin(np.array([*numbers(1, 50), *numbers(3, 20)], np.int32), 69)
    assert other is not first
    assert first.tokens.tolist() == long


def test_a_token_or_two_in_common_are_not_worth_sharing() -> None:
    memory = Memory(3)
    kept = caches(memory)
    read(kept, memory, [1, 2, *numbers(1, 50)])
    other = kept.begin(np.array([1, 2, *numbers(2, 50)], np.int32), 51)
    assert (memory.shared, other.length) == ([], 0)


def test_an_empty_cache_is_taken_before_one_that_holds_something_and_then_the_oldest() -> None:
    memory = Memory(3)
    kept = caches(memory)
    order = []
    for seed in range(5):
        cache = read(kept, memory, numbers(seed, 40))
        order.append(cache.sequence)
        kept.end(cache)
    assert order == [0, 1, 2, 0, 1]


def test_no_more_is_reused_than_may_be() -> None:
    memory = Memory(2)
    kept = caches(memory)
    kept.end(read(kept, memory, numbers(1, 100)))
    assert kept.begin(np.array(numbers(1, 100), np.int32), 0).length == 0


def test_the_oldest_idle_caches_go_when_memory_is_wanted_and_none_in_use() -> None:
    memory = Memory(4, tokens=300)
    kept = caches(memory)
    idle = [read(kept, memory, numbers(seed, 80)) for seed in range(3)]
    used = idle.pop()
    for cache in idle:
        kept.end(cache)
    kept.make_room([Piece(used.sequence, 80, [1] * 50), Piece(3, 0, [1] * 40)])
    assert memory.held == [0, 80, 80, 0]
    kept.make_room([Piece(3, 0, [1] * 500)])
    assert memory.held == [0, 0, 80, 0]
    assert used.length == 80


@pytest.mark.parametrize(("neighbours", "taken"), [(True, 1), (False, 2)])
def test_only_where_it_matters_neighbours_are_preferred(neighbours: bool, taken: int) -> None:
    memory = Memory(4, neighbours=neighbours)
    kept = caches(memory)
    first, *others = [read(kept, memory, numbers(seed, 80)) for seed in range(4)]
    for number in (1, 0, 2):
        kept.end(others[number])  # sequence 2 was used longest ago
    assert first.used
    assert kept.begin(np.array(numbers(9, 10), np.int32), 9).sequence == taken
