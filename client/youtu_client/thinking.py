"""The model's thinking apart from its answer, while the text streams in. It knows two tags, nothing else."""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


class Thoughts:
    """Splits a text that may begin with thinking: `<think>…</think>answer`, or `…</think>answer`.

    The second where `inside`, that is where the prompt ended in <think> (`Stream.starts_in_thinking`). A tag
    anywhere else is text. White space around either part is left out.
    """

    def __init__(self, *, inside: bool = False) -> None:
        self.thinking = self.answer = ""
        self._inside: bool | None = True if inside else None  # None: what it begins with is not known yet
        self._rest = ""

    @property
    def inside(self) -> bool:
        """Whether what comes next is thinking, as far as is known."""
        return bool(self._inside)

    def feed(self, text: str) -> None:
        """More of the text."""
        self._rest += text
        if not self.thinking and not self.answer and self._inside is not False:
            begin = self._rest.lstrip()
            if begin.startswith(OPEN):
                self._inside, self._rest = True, begin[len(OPEN) :]
            elif OPEN.startswith(begin):
                return
            elif self._inside is None:
                self._inside = False
        if self._inside:
            before, tag, after = self._rest.partition(CLOSE)
            held = 0 if tag else _beginning_of(CLOSE, before)
            self.thinking = (self.thinking + before[: len(before) - held]).lstrip()
            self._rest = after if tag else before[len(before) - held :]
            if not tag:
                return
            self._inside, self.thinking = False, self.thinking.rstrip()
        self.answer += self._rest if self.answer else self._rest.lstrip()
        self._rest = ""

    def end(self) -> None:
        """The text is over: what looked like the beginning of a tag was none."""
        if self._inside:
            self.thinking = (self.thinking + self._rest).strip()
        else:
            self.answer += self._rest if self.answer else self._rest.lstrip()
        self._rest = ""


def _beginning_of(tag: str, text: str) -> int:
    """How many characters at the end of `text` may be the beginning of `tag`."""
    return next((size for size in range(len(tag) - 1, 0, -1) if text.endswith(tag[:size])), 0)
