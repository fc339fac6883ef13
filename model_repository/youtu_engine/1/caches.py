"""Which KV cache a prompt starts from: one that already contains its beginning, if any.

A cache is kept after its request until its sequence or its memory is needed. A prompt may reuse the part that
another request, still running, has read: the system prompt of many conversations is read once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from runtime import Piece, Runtime

# An idle cache that holds less than this beyond the common beginning, and less than that beginning, is taken
# over; otherwise it is kept, and its beginning shared.
_LEAST_TO_KEEP = 64
# Sharing may copy memory, which takes about as long as reading this many tokens.
_LEAST_TO_SHARE = 8


@dataclass(eq=False, slots=True)
class Cache:
    """The KV cache of one sequence and the tokens that it holds."""

    sequence: int
    room: NDArray[np.int32]  # [context]
    length: int = 0
    used: bool = False
    used_at: int = 0

    @property
    def tokens(self) -> NDArray[np.int32]:
        return self.room[: self.length]

    def common(self, prompt: NDArray[np.int32]) -> int:
        """How many of the first tokens are also the prompt's."""
        length = min(self.length, len(prompt))
        different = self.room[:length] != prompt[:length]
        return int(different.argmax()) if different.any() else length


class Caches:
    """The KV caches of all of a runtime's sequences, of at most `context` tokens each."""

    def __init__(self, runtime: Runtime, context: int) -> None:
        self._runtime = runtime
        self._all = [Cache(i, np.empty(context, np.int32)) for i in range(runtime.sequences)]
        self._clock = 0

    def begin(self, prompt: NDArray[np.int32], reuse: int) -> Cache:
        """A cache for the prompt, which holds at most `reuse` of its first tokens."""
        common = {cache: min(cache.common(prompt), reuse) for cache in self._all}
        source = max(self._all, key=lambda cache: (common[cache], not cache.used, cache.used_at))
        target = self._target(source, common[source])
        kept = common[target]
        if common[source] > kept + _LEAST_TO_SHARE:
            kept = common[source]
            self._runtime.share(source.sequence, target.sequence, kept)
            target.room[:kept] = source.room[:kept]
        self._runtime.forget(target.sequence, kept)
        target.length, target.used = kept, True
        return target

    def _target(self, source: Cache, common: int) -> Cache:
        """The idle cache to give up: the source if little else is in it, or the one used longest ago."""
        idle = [cache for cache in self._all if not cache.used]
        if self._runtime.neighbours:
            groups = {cache: self._groups(cache) for cache in idle}
            idle = [cache for cache in idle if groups[cache] == min(groups.values())]
        if source in idle and source.length - common < min(_LEAST_TO_KEEP, common):
            return source
        return min(idle, key=lambda cache: (cache is source and common > 0, cache.length > 0, cache.used_at))

    def _groups(self, taken: Cache) -> int:
        """Into how many runs of neighbours the caches in use fall when `taken` is one of them.

        llama.cpp computes neighbours together, others apart (2B shape, four of eight: 240 or 340 ms a step).
        """
        used = [cache.used or cache is taken for cache in self._all]
        return sum(now and not before for before, now in zip([False, *used], used, strict=False))

    def extend(self, cache: Cache, tokens: Sequence[int]) -> None:
        """These have been read."""
        cache.room[cache.length : cache.length + len(tokens)] = tokens
        cache.length += len(tokens)

    def cut(self, cache: Cache, length: int) -> None:
        """Drop what is behind the first `length` tokens."""
        if length < cache.length:
            self._runtime.forget(cache.sequence, length)
            cache.length = length

    def end(self, cache: Cache) -> None:
        """Its request has gone."""
        self._clock += 1
        cache.used, cache.used_at = False, self._clock

    def make_room(self, pieces: list[Piece]) -> None:
        """Drop idle caches, the one used longest ago first, until the pieces have room."""
        needed = sum(len(piece.tokens) + self._runtime.block for piece in pieces)
        if self._runtime.room() >= needed:
            return
        idle = sorted(
            (cache for cache in self._all if not cache.used and cache.length), key=lambda cache: cache.used_at
        )
        for cache in idle:
            self.cut(cache, 0)
            if self._runtime.room() >= needed:
                return
