"""Token ids to text, piece by piece: whole characters only, and no part of a stop word.

For byte-level BPE vocabularies, the kind that Youtu-LLM has. Knows nothing of requests or Triton.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Sequence

from tokenizers import Tokenizer

# Special in some vocabularies, yet text to whoever shows or folds away the model's thinking.
VISIBLE_SPECIALS = frozenset({"<think>", "</think>"})


def byte_alphabet() -> dict[str, int]:
    """The characters that byte-level BPE writes for the 256 bytes (GPT-2's mapping).

    Printable Latin-1 characters stand for themselves; the others, in order, for U+0100 onwards.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(b): b for b in printable} | {chr(0x100 + i): b for i, b in enumerate(others)}


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    """What each token id adds to the text: its bytes; nothing for special tokens and unused ids.

    Raises ValueError when the vocabulary is not byte-level.
    """
    decoder = (json.loads(tokenizer.to_str()).get("decoder") or {}).get("type")
    if decoder != "ByteLevel":
        raise ValueError(f"tokenizer.json: a ByteLevel decoder is needed, this one has {decoder}")
    alphabet = byte_alphabet()
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    table = [b""] * (max(vocab.values()) + 1)
    added = tokenizer.get_added_tokens_decoder()
    for token, index in vocab.items():
        if index in added:
            if not added[index].special or token in VISIBLE_SPECIALS:
                table[index] = token.encode()
        else:
            table[index] = b"".join(
                bytes([alphabet[c]]) if c in alphabet else c.encode("utf-8", "replace") for c in token
            )
    return table


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
    """

    def __init__(self, table: Sequence[bytes], stop_words: Sequence[str] = ()) -> None:
        self._table = table
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop_words = tuple(stop_words)
        self._held = ""
        self.stopped = False
        self.shown = 0
        self._pushed = 0

    def push(self, token: int) -> str:
        data = self._table[token] if 0 <= token < len(self._table) else b""
        self._pushed += len(data)
        return self._release(self._decoder.decode(data), final=False)

    def finish(self) -> str:
        return self._release("", final=True)

    def _release(self, text: str, *, final: bool) -> str:
        if self.stopped:
            return ""
        text = self._held + text
        found = [at for word in self._stop_words if (at := text.find(word)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            self._count(text[min(found) :])
            return text[: min(found)]
        keep = 0 if final else max((_overlap(text, word) for word in self._stop_words), default=0)
        self._held = text[len(text) - keep :]
        self._count(self._held)
        return text[: len(text) - keep]

    def _count(self, hidden: str) -> None:
        unfinished = len(self._decoder.getstate()[0])
        self.shown = max(self.shown, self._pushed - unfinished - len(hidden.encode()))


def _overlap(text: str, word: str) -> int:
    """Length of the longest end of `text` that `word` begins with (shorter than the word)."""
    for size in range(min(len(text), len(word) - 1), 0, -1):
        if text.endswith(word[:size]):
            return size
    return 0
