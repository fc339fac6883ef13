"""Token ids to text, piece by piece: complete characters only, and no part of a stop word.

For byte-level BPE vocabularies, such as Youtu-LLM's, and SentencePiece's, with a token for each byte.
Independent of requests and Triton.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer
from youtu_contract.parts import THINK, THINK_END

# Special in some vocabularies, yet text to programs that show or collapse the model's thinking.
VISIBLE_SPECIALS = frozenset({THINK, THINK_END})


def byte_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes for the 256 bytes (GPT-2's mapping).

    Printable Latin-1 characters stand for themselves; the others, in order, for U+0100 onwards.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


_ALPHABET = byte_alphabet()
_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """What each token id adds to the text: its bytes; nothing for special tokens and unused ids.

    Raises ValueError when the vocabulary is neither byte-level nor has a token for each byte.
    """
    decoder = json.loads(tokenizer.to_str()).get("decoder") or {}
    steps = {step.get("type") for step in decoder.get("decoders", [decoder])}
    if not steps & {"ByteLevel", "ByteFallback"}:
        raise ValueError(
            f"tokenizer.json: expected a ByteLevel or ByteFallback decoder, found {decoder.get('type')}"
        )
    of_token = _bytes_of_piece if "ByteFallback" in steps else _bytes_of_byte_level
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocab.values()) + 1)
    added = tokenizer.get_added_tokens_decoder()
    for token, index in vocab.items():
        if index in added:
            if not added[index].special or token in VISIBLE_SPECIALS:
                table[index] = token.encode()
        else:
            table[index] = of_token(token)
    return table


def _bytes_of_byte_level(token: str) -> bytes:
    return b"".join(bytes([_ALPHABET[c]]) if c in _ALPHABET else c.encode("utf-8", "replace") for c in token)


def _bytes_of_piece(token: str) -> bytes:
    """SentencePiece's: `<0x0A>` is a byte, `▁` a space."""
    if byte := _BYTE_PIECE.fullmatch(token):
        return bytes([int(byte[1], 16)])
    return token.replace("▁", " ").encode("utf-8", "replace")


def special_names(tokenizer: Tokenizer) -> dict[int, bytes]:
    """The names of the tokens that have no part in the text, `<|end_of_text|>` for one."""
    added = tokenizer.get_added_tokens_decoder()
    return {index: token.content.encode() for index, token in added.items() if token.special}


class StreamingText:
    """Grows by tokens, gives text: `push` returns what is safe to show, `finish` the rest.

    Bytes of an unfinished character wait for its end; where the text ends before, they are left out. Bytes
    that no continuation can make valid become U+FFFD. Text that may turn into a stop word waits
    until it has or has not. After a stop word `stopped` is true and nothing more comes out. `shown`
    counts the bytes of tokens whose text has come out.

    names: of the tokens that add no text; they may be part of a stop word. min_tokens: a stop word that is
    complete by then does not count. thinking: whether the text begins in the thinking, before whose end no
    stop word counts; False: it may still begin with its mark; None: there is none to look for.
    """

    def __init__(
        self,
        table: Sequence[bytes],
        stop_words: Sequence[str] = (),
        *,
        names: Mapping[int, bytes] | None = None,
        min_tokens: int = 0,
        thinking: bool | None = None,
    ) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        # For tokens that add no text and are named in a stop word: a lone surrogate, never in a text.
        silent = {
            token: name.decode()
            for token, name in (names or {}).items()
            if not table[token] and any(name.decode() in word for word in stop_words)
        }
        self._marks = {token: chr(0xD800 + i) for i, token in enumerate(silent)}
        # As it may come -> the word itself.
        self._stop_words = {word: word for word in stop_words}
        for word in stop_words:
            self._stop_words.setdefault(_marked(word, silent, self._marks), word)
        self._before = None if thinking is None else _BeforeContent(thinking)
        self._held = ""
        self._uncounted = 0  # characters at the beginning of _held that came by min_tokens
        self._min_tokens = min_tokens
        self.stopped_by: str | None = None
        self.shown = 0
        self._pushed = 0
        self._tokens = 0

    @property
    def stopped(self) -> bool:
        """Whether a stop word has come: `stopped_by`."""
        return self.stopped_by is not None

    def in_content(self, data: bytes) -> bool:
        """Whether a token that adds `data` belongs to the content, were it the next one."""
        return self._before is None or self._before.ends_before(self._held, data.decode(errors="replace"))

    def push(self, token: int) -> str:
        data = self._table[token] if 0 <= token < len(self._table) else b""
        self._pushed += len(data)
        self._tokens += 1
        return self._release(self._decoder.decode(data) + self._marks.get(token, ""), final=False)

    def finish(self) -> str:
        return self._release("", final=True)

    def _release(self, text: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        text, before = self._held + text, ""
        uncounted = len(text) if self._tokens <= self._min_tokens else self._uncounted
        if self._before is not None:
            before, text, begun = self._before.split(text)
            uncounted -= len(before)
            if begun or (final and self._before.undecided):
                self._before = None
            elif not final:
                return self._show(before, text, uncounted)
        found = [(at, word) for word in self._stop_words if (at := _find(text, word, uncounted)) >= 0]
        if found and self._before is None:
            at, form = min(found)
            self.stopped_by, self._held = self._stop_words[form], ""
            self._count(text[at:])
            return _unmarked(before + text[:at])
        keep = 0 if final else max((_overlap(text, word) for word in self._stop_words), default=0)
        sure = len(text) - keep
        return self._show(before + text[:sure], text[sure:], uncounted - sure)

    def _show(self, text: str, held: str, uncounted: int) -> str:
        self._held, self._uncounted = held, max(0, uncounted)
        self._count(held)
        return _unmarked(text)

    def _count(self, hidden: str) -> None:
        unfinished = len(self._decoder.getstate()[0])
        self.shown = max(self.shown, self._pushed - unfinished - len(_unmarked(hidden).encode()))


class _BeforeContent:
    """Finds where the content begins: after the thinking and the white space around its marks."""

    def __init__(self, thinking: bool) -> None:
        self._state = "thinking" if thinking else "start"

    @property
    def undecided(self) -> bool:
        """Whether the text so far may be the beginning of the mark of thinking."""
        return self._state == "start"

    def split(self, text: str) -> tuple[str, str, bool]:
        """What is certain to be no content, the rest, and whether that is content."""
        if self._state == "start":
            begin = text.lstrip()
            if begin.startswith(THINK):
                self._state = "thinking"
            else:
                return "", text, not THINK.startswith(begin)
        cut = 0
        if self._state == "thinking":
            at = text.find(THINK_END)
            if at < 0:
                sure = len(text) - _overlap(text, THINK_END)
                return text[:sure], text[sure:], False
            self._state, cut = "ended", at + len(THINK_END)
        rest = text[cut:].lstrip()
        return text[: len(text) - len(rest)], rest, bool(rest)

    def ends_before(self, held: str, text: str) -> bool:
        """Whether `text`, which may be empty, is content where `held` was held back."""
        if self._state == "start":
            begin = (held + text).lstrip()
            return not (begin and THINK.startswith(begin)) and not begin.startswith(THINK)
        return self._state == "ended" and (not text or not text.isspace())


def _marked(word: str, names: Mapping[int, str], marks: Mapping[int, str]) -> str:
    """The stop word as it comes when the model writes the tokens that its parts are the names of."""
    for token in sorted(names, key=lambda token: -len(names[token])):
        word = word.replace(names[token], marks[token])
    return word


def _unmarked(text: str) -> str:
    return "".join(c for c in text if not "\ud800" <= c <= "\udfff")


def _find(text: str, word: str, uncounted: int) -> int:
    """Where `word` first stands in `text` without being complete in its first `uncounted` characters."""
    return text.find(word, max(0, uncounted - len(word) + 1))


def _overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that `word` begins with (shorter than the word)."""
    for size in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:size]):
            return size
    return 0
