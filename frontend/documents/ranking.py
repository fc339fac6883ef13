"""Finds the passages for a question, over any set of documents: Okapi BM25 (Robertson and Zaragoza, 2009).

Written here because libraries for it (bm25s, rank-bm25) score one fixed collection: with each document that
comes, goes or is chosen they would have to count everything anew. Here each document brings its own counts.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from .reader import Contents
from .words import words

K1 = 1.2
B = 0.75
QUESTION_CHARACTERS = 4000
"""A longer question is looked for by its end, where people put what they want to know."""
EARLIER = 0.3
"""How much a word of the question before counts, beside those of the question itself."""

Place = tuple[int, int]
"""Number of a document in the sequence given, and of a passage in it."""


def question_words(question: str, earlier: str = "") -> dict[str, float]:
    """The words to look for, with their weights. "And in winter?" needs the words of the question before."""
    weights: dict[str, float] = dict.fromkeys(words(earlier[-QUESTION_CHARACTERS:]), EARLIER)
    asked = Counter(words(question[-QUESTION_CHARACTERS:]))
    weights |= {word: min(2.0, float(count)) for word, count in asked.items()}
    return weights


def ranked(documents: Sequence[Contents], weights: Mapping[str, float]) -> list[Place]:
    """The passages that have any of the words, the best first; equal ones in their order."""
    count = sum(len(each.lengths) for each in documents)
    if not count:
        return []
    mean = sum(sum(each.lengths) for each in documents) / count or 1.0
    scores: dict[Place, float] = {}
    for word, weight in weights.items():
        found = [(at, places) for at, each in enumerate(documents) if (places := each.postings.get(word))]
        frequency = sum(len(places) // 2 for _, places in found)
        rarity = weight * math.log(1 + (count - frequency + 0.5) / (frequency + 0.5))
        for at, places in found:
            lengths = documents[at].lengths
            for passage, times in zip(places[::2], places[1::2], strict=True):
                norm = K1 * (1 - B + B * lengths[passage] / mean)
                place = (at, passage)
                scores[place] = scores.get(place, 0.0) + rarity * times * (K1 + 1) / (times + norm)
    return sorted(scores, key=lambda place: (-scores[place], place))
