"""What counts as right. One function for each kind of item; each knows the text of an answer and its item
only.

* chinese: the last letter after 答案, "answer" or 选, else the letter A to D that the answer begins with;
* maths: the last number after 答案, "answer", #### or in \\boxed{}, else the last number, equal in value;
* code: the first ```python block (else the whole text) passes the item's tests in the sandbox.

The mark out of ten is ten times the share of right answers to the Chinese items: our definition, because the
article that has such a mark gives none. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from benchmarks.quality.sandbox import passes

__all__ = ["SCORES", "chinese", "code", "code_of", "maths", "passes", "wilson"]

Z = 1.959964  # of the 95 % interval
_SAID = r"(?:答案|answer)\s*(?:是|为|is)?\s*[:：]?\s*"
_LETTER = re.compile(rf"(?:{_SAID}|选择?\s*)[（(【\[*]*([A-D])(?![A-Za-z])", re.IGNORECASE)
_FIRST = re.compile(r"\A\s*[（(【\[*]*([A-D])(?![A-Za-z'’]| [a-z])")
_NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:\s*/\s*\d+)?"
_MARKED = re.compile(rf"(?:{_SAID}|####\s*|\\boxed\{{\s*)[*$（(]*\s*({_NUMBER})", re.IGNORECASE)
_ANY_NUMBER = re.compile(_NUMBER)
_BLOCK = re.compile(r"```(?:python|py)?[^\S\n]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)


def chinese(answer: str, item: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the letter is right, and which letter was read out of the answer."""
    marked = _LETTER.findall(answer) or _FIRST.findall(answer) or [""]
    found = marked[-1].upper()
    return found == item["answer"], found


def maths(answer: str, item: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the number is right, and which number was read out of the answer."""
    found = (_MARKED.findall(answer) or _ANY_NUMBER.findall(answer) or [""])[-1]
    return _value(found) == _value(item["answer"]), found


def code(answer: str, item: Mapping[str, str]) -> tuple[bool, str]:
    """Whether the code passes, and else why not. Raises SandboxError."""
    verdict = passes(code_of(answer), item["tests"])
    return verdict.passed, verdict.why


def code_of(answer: str) -> str:
    """The first block of code in an answer, or all of it."""
    blocks = _BLOCK.findall(answer)
    return str(blocks[0]) if blocks else answer


SCORES: dict[str, Callable[[str, Mapping[str, str]], tuple[bool, str]]] = {
    "chinese": chinese,
    "code": code,
    "maths": maths,
}


def _value(text: str) -> Fraction | None:
    try:
        over, _, under = text.replace(",", "").replace(" ", "").partition("/")
        return Fraction(Decimal(over)) / (Fraction(under) if under else 1)
    except (InvalidOperation, ZeroDivisionError, ValueError):
        return None


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, after Wilson (1927)."""
    if not count:
        return 0.0, 1.0
    share = right / count
    middle = share + Z * Z / (2 * count)
    half = Z * math.sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    scale = 1 + Z * Z / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
