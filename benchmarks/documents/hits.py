"""The questions of `questions.toml` over the documents in `samples`: at which rank each passage comes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from frontend.documents.folder import Folder
from frontend.documents.ranking import question_words, ranked
from frontend.documents.reader import Contents, Reader

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
FIRST = 3
"""The right passage is to be among so many."""
LARGEST = 20 * 2**20


@dataclass(frozen=True)
class Question:
    """`passage`: a text that stands in the right passage alone."""

    text: str
    passage: str


def questions() -> list[Question]:
    """All of them, as they stand in the file."""
    read = tomllib.loads((HERE / "questions.toml").read_text(encoding="utf-8"))
    return [Question(**each) for each in read["question"]]


def samples() -> list[Contents]:
    """The documents, read as those of a knowledge base are."""
    folder = Folder(HERE / "samples", Reader(60, 512 * 2**20), LARGEST)
    folder.look()
    return [document.contents for document in folder.state.documents]


def ranks(documents: Sequence[Contents], asked: Sequence[Question]) -> list[int | None]:
    """Of each question: the rank of its passage, from 1; None where it was not found at all."""
    found: list[int | None] = []
    for question in asked:
        texts = [documents[at].passages[n].text for at, n in ranked(documents, question_words(question.text))]
        at = next((at for at, text in enumerate(texts, 1) if question.passage in text), None)
        found.append(at)
    return found
