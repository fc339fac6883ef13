"""Cells of CSV that a spreadsheet would run as formulas: an apostrophe before them makes them text.

The web page writes and reads them in the same way (`frontend/static/bench_csv.js`).
"""

from __future__ import annotations

import re

_FORMULA = re.compile("'*(?:\\s*[=+\\-@＝＋－＠]|[\t\r\n])")


def guarded(text: str) -> str:
    """A cell that is text to every spreadsheet."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(text: str) -> str:
    """What `guarded` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
