"""Blocks of KV cache: who holds which, who shares one, and who gets a copy before it writes."""

from __future__ import annotations

import pytest
from blocks import Blocks
from runtime import ComputeError


def test_a_sequence_has_blocks_for_what_it_holds() -> None:
    blocks = Blocks(8, 4, 2)
    assert blocks.write(0, 0, 5) is None
    assert (blocks.tables[0], blocks.free) == ([0, 1], 6)
    assert blocks.write(0, 5, 8) is None
    assert blocks.free == 6
    blocks.write(0, 8, 9)
    assert blocks.tables[0] == [0, 1, 2]


def test_what_is_cut_is_free_again_lowest_first() -> None:
    """So that memory that was never touched stays untouched as long as possible."""
    blocks = Blocks(8, 4, 2)
    blocks.write(0, 0, 12)
    blocks.cut(0, 3)
    assert (blocks.tables[0], blocks.free) == ([0], 7)
    blocks.write(1, 0, 4)
    assert blocks.tables[1] == [1]


def test_a_shared_block_is_free_when_the_last_has_let_go() -> None:
    blocks = Blocks(8, 4, 3)
    blocks.write(0, 0, 8)
    blocks.share(0, 1, 8)
    blocks.share(1, 2, 4)
    assert (blocks.tables[1], blocks.tables[2], blocks.free) == ([0, 1], [0], 6)
    blocks.cut(0, 0)
    assert blocks.free == 6
    blocks.cut(1, 0)
    assert blocks.free == 7
    blocks.cut(2, 0)
    assert blocks.free == 8


@pytest.mark.parametrize("writer", [0, 1])
def test_whoever_writes_into_a_shared_block_first_gets_a_copy(writer: int) -> None:
    """Also the one that the block came from, when it goes on or was cut in the middle."""
    blocks = Blocks(8, 4, 2)
    blocks.write(0, 0, 6)
    blocks.share(0, 1, 6)
    assert blocks.write(writer, 6, 7) == (1, 2)
    assert blocks.tables[writer] == [0, 2]
    assert blocks.tables[1 - writer] == [0, 1]
    assert blocks.write(1 - writer, 6, 7) is None
    blocks.cut(writer, 0)
    assert (blocks.tables[1 - writer], blocks.free) == ([0, 1], 6)


def test_at_the_border_of_a_block_nothing_is_copied() -> None:
    blocks = Blocks(8, 4, 2)
    blocks.write(0, 0, 8)
    blocks.share(0, 1, 4)
    assert blocks.write(1, 4, 5) is None
    assert blocks.tables == [[0, 1], [0, 2]]


def test_without_a_free_block_nothing_changes() -> None:
    blocks = Blocks(3, 4, 2)
    blocks.write(0, 0, 10)
    blocks.share(0, 1, 10)
    with pytest.raises(ComputeError, match="the KV cache needs 1 more blocks, 0 are free"):
        blocks.write(1, 10, 11)
    assert blocks.tables == [[0, 1, 2], [0, 1, 2]]
    blocks.cut(0, 0)
    assert blocks.write(1, 10, 11) is None


def test_sharing_replaces_what_was_there() -> None:
    blocks = Blocks(8, 4, 2)
    blocks.write(0, 0, 8)
    blocks.write(1, 0, 8)
    blocks.share(0, 1, 8)
    assert (blocks.tables[1], blocks.free) == ([0, 1], 6)
