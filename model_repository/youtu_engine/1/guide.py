"""Holds an answer to a JSON schema or a regular expression, by llguidance.

Knows grammars and which tokens may come next; knows no logits, no slots and no Triton. llguidance and the
tokenizer are loaded at the first request that needs them: a server that is never asked pays nothing.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sampling import GuideError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KINDS = ("json", "json_schema", "regex")
MAX_BYTES = 64 << 10
_ANY_OBJECT = '{"type": "object"}'
# Without an end to it, a model that is unsure writes white space until its length is over.
_JSON_OPTIONS: Any = {"whitespace_flexible": True, "whitespace_pattern": r"[ \n\t]{0,20}"}


class InvalidGuide(ValueError):
    """No grammar can be made of the guide; the message says why, in llguidance's words."""


class Guides:
    """Makes the guides of one vocabulary. tokenizer: path of its tokenizer.json. Safe to use from threads."""

    def __init__(self, tokenizer: Path, vocab_size: int) -> None:
        self._path, self._vocab_size = tokenizer, vocab_size
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None

    def make(self, kind: str, text: str, ends: frozenset[int]) -> Guide:
        """A guide of one of KINDS; `text` is the schema or the expression, `ends` the ids that end an answer.

        Takes up to a second or so, without holding others up. Raises InvalidGuide.
        """
        from llguidance import LLMatcher

        tokenizer = self._loaded()
        try:
            if kind == "regex":
                grammar = LLMatcher.grammar_from_regex(text)
            else:
                schema = _ANY_OBJECT if kind == "json" else text
                grammar = LLMatcher.grammar_from_json_schema(schema, overrides=_JSON_OPTIONS)
        except ValueError as error:
            raise InvalidGuide(_line(str(error))) from error
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise InvalidGuide(_line(matcher.get_error()))
        return Guide(matcher, self._vocab_size, ends, frozenset(tokenizer.eos_tokens))

    def _loaded(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        with self._lock:
            if self._tokenizer is None:
                text = self._path.read_text(encoding="utf-8")
                self._tokenizer = LLTokenizer(text, n_vocab=self._vocab_size)
            return self._tokenizer


class Guide:
    """Where one answer stands in its grammar. Ends are no part of the grammar: they are allowed by `ends`."""

    def __init__(
        self, matcher: LLMatcher, vocab_size: int, ends: frozenset[int], own_ends: frozenset[int]
    ) -> None:
        self._matcher, self._vocab_size = matcher, vocab_size
        self._ends, self._own_ends = list(ends), list(own_ends)

    @property
    def complete(self) -> bool:
        """Whether nothing can follow what has been taken."""
        return bool(self._matcher.is_stopped())

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocab_size]. Raises GuideError."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").astype(np.bool_)
        mask[self._own_ends] = False
        mask[self._ends] |= (
            self._matcher.is_accepting()
        )  # an end that the grammar has as a text may come anyway
        return mask

    def take(self, token: int) -> None:
        """Go on by a token that was allowed. Raises GuideError."""
        if token not in self._ends:
            self._matcher.consume_token(token)
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GuideError(_line(self._matcher.get_error()))


def _line(text: str) -> str:
    """The first paragraph of an error, on one line and not too long."""
    return " ".join(text.split("\n\n")[0].split())[:500]
