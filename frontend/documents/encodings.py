"""Bytes of a text file to text: UTF-8, UTF-16, GB18030, Big5 and what else charset-normalizer tells apart."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from .unreadable import Unreadable

BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
SAMPLE_BYTES = 64 * 2**10
"""How much is looked at to tell encodings apart."""

_CONTROLS = re.compile("[\0-\b\x0e-\x1f\x7f\ud800-\udfff]")
"""No part of a text; a tab, line feeds, form feeds and carriage returns are."""
_NEWLINES = re.compile("\r\n?|[\f\v\x85\u2028\u2029]")


def decode(data: bytes) -> str:
    """The text. Raises Unreadable when the bytes are none."""
    for bom, encoding in BOMS:
        if data.startswith(bom):
            return _decoded(data, encoding)
    wide = _wide(data[:SAMPLE_BYTES])
    if wide is not None:
        return _decoded(data, wide)
    if b"\0" in data:
        raise Unreadable("document_kind", "this is no text file, and of no kind that is read here")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    # A character that the sample's end cut in two would count against its encoding.
    sample = data[:SAMPLE_BYTES].rpartition(b"\n")[0] or data[:SAMPLE_BYTES]
    best = from_bytes(sample).best()
    if best is None:
        raise Unreadable("document_kind", "the text's encoding is not known; save the file as UTF-8")
    encoding = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs"}.get(best.encoding, best.encoding)
    return _decoded(data, encoding)


def _wide(sample: bytes) -> str | None:
    """UTF-16 without its mark: spaces, digits and line ends have a zero byte, always on the same side."""
    if len(sample) < 4:
        return None
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    for zeros, others, encoding in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
        if zeros > 8 * others and zeros >= 1:
            whole = sample[: len(sample) // 2 * 2]
            text = whole.decode(encoding, "replace")
            strange = sum(character == "\ufffd" or ord(character) < 9 for character in text)
            if strange <= len(text) // 100:
                return encoding
    return None


def _decoded(data: bytes, encoding: str) -> str:
    text = data.decode(encoding, "replace")
    if text.count("\ufffd") > max(1, len(text) // 100):
        message = f"the text is damaged: many of its bytes are no {encoding}; save the file as UTF-8"
        raise Unreadable("document_damaged", message)
    return text


def cleaned(text: str) -> str:
    """Without control characters, with line feeds at the ends of lines."""
    return _CONTROLS.sub("", _NEWLINES.sub("\n", text))
