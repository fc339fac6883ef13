"""Public text is plain technical English: none of the phrases that readers found translated or riddling."""

from __future__ import annotations

import ast
import io
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
BANNED = (
    "as it must be",
    "be had",
    "begin anew",
    "begins anew",
    "breaks down on",
    "by heart",
    "foretold",
    "gave the request up",
    "half of a surrogate",
    "has no place for",
    "is ended, to start",
    "is not known here",
    "is not taken here",
    "is nowhere",
    "it knows no ",
    "known are",
    "made a mistake",
    "no word of it",
    "sent were",
    "stands twice",
    "the other way round",
    "to their end",
    "turned away unasked",
    "which is none of",
    "who leaves frees",
)
"""Each was found in an error, a page or a docstring of this project and rewritten."""

NOT_OURS = (
    "tests/",
    "frontend/static/vendor/",
    "build/demo/corpus/",  # what people ask and are answered
    "benchmarks/documents/samples/",
    "benchmarks/quality/items/",
    "benchmarks/results/",
)


def public_files() -> list[str]:
    """The paths in git of everything with text for readers, but tests and what others wrote."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [
        path
        for path in listed.decode().split("\0")
        if Path(path).suffix in (".py", ".md", ".toml", ".html", ".js")
        and not path.startswith(NOT_OURS)
        and "node_modules/" not in path
        and (ROOT / path).is_file()
    ]


def words(path: str) -> str:
    """The text of a file in one line, in lower case: of Python strings and comments, else everything."""
    source = (ROOT / path).read_text(encoding="utf-8")
    return " ".join((" ".join(python_text(source)) if path.endswith(".py") else source).lower().split())


def python_text(source: str) -> Iterator[str]:
    """Comments, and strings as they read once adjacent ones are joined."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.string.lstrip("# ")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_banned_phrase_in_public_text() -> None:
    """The fault: "best is not known here; known are …", "It knows no route by heart but those"."""
    assert len(BANNED) <= 25
    files = public_files()
    assert len(files) > 300, "the files were not found"
    texts = {path: words(path) for path in files}
    found = [(path, phrase) for path, text in texts.items() for phrase in BANNED if phrase in text]
    assert found == []


def test_strings_over_several_lines_are_read_as_one() -> None:
    """The fault: a phrase that the formatter had broken over two lines passed."""
    source = 'say(\n    f"{name} is not "\n    "known here"\n)  # stands twice\n'
    text = " ".join(python_text(source))
    assert "is not known here" in text
    assert "stands twice" in text
