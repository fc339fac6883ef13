"""The interface of a runtime: steps over any mix of sequences, KV caches that can be truncated and shared.

A runtime holds one model and the KV caches of its sequences. Independent of requests, sampling and text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class ComputeError(Exception):
    """The runtime could not load the model, or could not compute."""


@dataclass(slots=True)
class Piece:
    """What a step reads of one sequence.

    tokens: token ids, the first at position `start`, which is where the sequence's KV cache ends.
    guesses: how many of the last tokens are guesses; these, and the token before them, are computed exactly
    as if each were read in a step of its own.
    wanted: the places in `tokens` whose logits are made, ascending.
    """

    sequence: int
    start: int
    tokens: list[int]
    guesses: int = 0
    wanted: list[int] = field(default_factory=list)


class Runtime(Protocol):
    """One model, computed step by step. The methods raise ComputeError.

    sequences: how many KV caches are kept apart. One without a request keeps what was read for later prompts.
    block: tokens of KV cache that are handed out together.
    rows: how many rows a step computes for little more than the time of one; guesses pay up to here.
    shortest_piece: a prompt gives the same logits however it is cut into pieces of at least so many tokens.
    neighbours: whether only rows of neighbouring sequences are computed together.
    """

    vocab_size: int
    sequences: int
    block: int
    rows: int
    shortest_piece: int
    neighbours: bool

    def step(self, pieces: list[Piece]) -> list[list[NDArray[np.float32]]]:
        """Read the pieces, of one sequence each, in one step.

        Returns for each piece the logits [vocab_size] of its wanted places: views, valid until the next step.
        """

    def room(self) -> int:
        """Tokens of KV cache that no sequence holds."""

    def forget(self, sequence: int, start: int) -> None:
        """Drop the KV cache of `sequence` from position `start` on."""

    def share(self, source: int, target: int, length: int) -> None:
        """Let `target`, whose KV cache is dropped, begin with the first `length` tokens of `source`."""

    def device_memory(self) -> tuple[int, int] | None:
        """Bytes in use and in all on the card that computes; None when the processor does."""

    def close(self) -> None:
        """Give the memory back."""
