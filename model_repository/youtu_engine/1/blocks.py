"""Which blocks of KV cache hold the tokens of which sequence, and which sequences share one.

Pure bookkeeping: the memory itself belongs to the runtime.
"""

from __future__ import annotations

import heapq

from runtime import ComputeError


class Blocks:
    """`count` blocks of `size` tokens each, for `sequences` sequences.

    A block may belong to several sequences; one that is about to write into it gets a copy of its own.
    """

    def __init__(self, count: int, size: int, sequences: int) -> None:
        self.size = size
        self.tables: list[list[int]] = [[] for _ in range(sequences)]
        self._free = list(
            range(count)
        )  # a heap: low numbers first, so that memory never used stays untouched
        self._owners = [0] * count

    @property
    def free(self) -> int:
        return len(self._free)

    def write(self, sequence: int, start: int, end: int) -> tuple[int, int] | None:
        """Have blocks for the tokens from `start` to `end` of a sequence that holds `start` tokens.

        Returns (from, to) when the contents of one block must be copied to another first. Raises ComputeError
        when no block is left; the sequence then has what it had.
        """
        table = self.tables[sequence]
        kept = -(-start // self.size)
        partial = start % self.size != 0
        copied = partial and self._owners[table[kept - 1]] > 1
        needed = -(-end // self.size) - kept + copied
        if needed > len(self._free):
            raise ComputeError(f"the KV cache needs {needed} more blocks, {len(self._free)} are free")
        copy = None
        if copied:
            old, new = table[kept - 1], self._take()
            self._release(old)
            table[kept - 1] = new
            copy = (old, new)
        while len(table) * self.size < end:
            table.append(self._take())
        return copy

    def cut(self, sequence: int, length: int) -> None:
        """Let go of the blocks behind the first `length` tokens."""
        table = self.tables[sequence]
        kept = -(-length // self.size)
        for block in table[kept:]:
            self._release(block)
        del table[kept:]

    def share(self, source: int, target: int, length: int) -> None:
        """Let `target` hold the first `length` tokens of `source`, and nothing else."""
        shared = self.tables[source][: -(-length // self.size)]
        for block in shared:
            self._owners[block] += 1
        self.cut(target, 0)
        self.tables[target] = shared

    def _take(self) -> int:
        block = heapq.heappop(self._free)
        self._owners[block] = 1
        return block

    def _release(self, block: int) -> None:
        self._owners[block] -= 1
        if self._owners[block] == 0:
            heapq.heappush(self._free, block)
