"""The engine's own binding of llama.cpp in its exact mode (f32 cache, no flash attention), for tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import llama
import numpy as np

from tests.build.exact import Exact, Rows, log_softmax


@cache
def library() -> Any:
    """The one loaded library."""
    return llama.LlamaLibrary()


class Llama(Exact):
    """One model, one sequence of at most 512 tokens, one thread."""

    def __init__(self, path: Path) -> None:
        self._llama = llama.Llama(
            path, context=512, sequences=1, batch=512, threads=1, kv_type="f32", library=library()
        )
        self.vocab_size: int = self._llama.vocab_size
        self._position = 0

    def close(self) -> None:
        self._llama.close()

    def tokenize(self, text: str) -> list[int]:
        """Ids of the text, special tokens parsed, nothing added."""
        ids: list[int] = self._llama.tokenize(text)
        return ids

    def log_probs(self, tokens: list[int]) -> Rows:
        """Decode `tokens` after what came before; the natural log of what follows each of them [n, vocab]."""
        count = len(tokens)
        positions = np.arange(self._position, self._position + count, dtype=np.int32)
        found = self._llama.decode(np.array(tokens, np.int32), positions, [0] * count, list(range(count)))
        self._position += count
        return log_softmax(np.stack([found[i] for i in range(count)]))
