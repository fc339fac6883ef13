"""Thinking and answer apart, however the text was cut into pieces."""

from __future__ import annotations

import pytest
from youtu_client.thinking import Thoughts


def split(pieces: list[str], *, inside: bool = False) -> tuple[str, str]:
    thoughts = Thoughts(inside=inside)
    for piece in pieces:
        thoughts.feed(piece)
    thoughts.end()
    return thoughts.thinking, thoughts.answer


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
@pytest.mark.parametrize(
    ("text", "inside", "thinking", "answer"),
    [
        ("<think>\nhm, a < b\n</think>\n\nyes", False, "hm, a < b", "yes"),
        ("hm </thin </think>yes\n", True, "hm </thin", "yes\n"),
        ("<think>hm</think>yes", True, "hm", "yes"),
        ("<think></think>\n\nyes", False, "", "yes"),
        ("never done", True, "never done", ""),
        ("half a tag </thi", True, "half a tag </thi", ""),
        ("<thi", False, "", "<thi"),
        ("plain", False, "", "plain"),
        ("about <think>x</think> tags", False, "", "about <think>x</think> tags"),
        ("a</think>b</think>c", True, "a", "b</think>c"),
        ("", True, "", ""),
    ],
)
def test_every_cut_gives_the_same(size: int, text: str, inside: bool, thinking: str, answer: str) -> None:
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    assert split(pieces, inside=inside) == (thinking, answer)


def test_an_answer_is_there_as_soon_as_it_is_one() -> None:
    thoughts = Thoughts()
    thoughts.feed("H")
    assert thoughts.answer == "H"
    thoughts = Thoughts(inside=True)
    thoughts.feed("hm </")
    assert (thoughts.thinking, thoughts.inside) == ("hm ", True)
