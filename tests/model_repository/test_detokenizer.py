"""The streaming detokeniser: pieces equal the whole, characters stay whole, stop words never leak."""

from __future__ import annotations

import codecs

import pytest
from detokenizer import StreamingText, byte_alphabet, token_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders
from tokenizers.models import BPE

from .conftest import DEMO

TOKENIZER = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
TABLE = token_bytes(TOKENIZER)
BYTES = [bytes([b]) for b in range(256)]
EMOJI = [
    "👩‍👩‍👧‍👦",
    "👍🏽",
    "🏳️‍🌈",
    "🇨🇳",
    "é",
    "e\u0301",
    "한국어",
    "𠮷野家",
    "ﷺ",
    "\u200d",
    "\x00",
    "𝔘",
    "〇",
    "々",
]
texts = st.one_of(
    st.text(),
    st.text(st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF)),
    st.text(st.characters(min_codepoint=0x20000, max_codepoint=0x2EBEF)),
    st.lists(st.sampled_from(EMOJI)).map("".join),
)


def whole_characters(data: bytes) -> str:
    """All of it, an unfinished character at the very end left out."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(data)


def stream(table: list[bytes], ids: list[int], stop_words: tuple[str, ...] = ()) -> list[str]:
    text = StreamingText(table, stop_words)
    pieces = []
    for token in ids:
        pieces.append(text.push(token))
        if text.stopped:
            return pieces
    return [*pieces, text.finish()]


@settings(deadline=None, max_examples=300)
@given(texts)
def test_pieces_equal_the_text(text: str) -> None:
    pieces = stream(TABLE, TOKENIZER.encode(text, add_special_tokens=False).ids)
    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@settings(deadline=None, max_examples=300)
@given(texts)
def test_no_piece_ends_inside_a_character(text: str) -> None:
    for piece in stream(BYTES, list(text.encode())):  # the hardest split: every byte its own token
        assert "\ufffd" in text or "\ufffd" not in piece


@given(st.binary())
def test_broken_bytes_become_what_the_whole_would(data: bytes) -> None:
    assert "".join(stream(BYTES, list(data))) == whole_characters(data)


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(0, TOKENIZER.get_vocab_size() - 1)))
def test_any_tokens_equal_the_tokenizers_own_decoding(ids: list[int]) -> None:
    ids = [i for i in ids if TOKENIZER.id_to_token(i) not in ("<think>", "</think>")]
    text = "".join(stream(TABLE, ids))
    assert text == whole_characters(b"".join(TABLE[i] for i in ids))
    cut = TOKENIZER.decode(ids, skip_special_tokens=True).removeprefix(text)
    assert cut in ("", "\ufffd")  # an unfinished character, which the tokenizer's own decoding marks


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("退货".encode()[:-1], "退"),
        ("退👍".encode()[:-1], "退"),
        (b"\xe9\x80", ""),
        (b"a\xe9\x80b", "a\ufffdb"),  # broken in the middle
        (b"a\xff", "a\ufffd"),  # no beginning of a character
        (b"\xe9\x80\xe9\x80", "\ufffd"),
        ("a\ufffd".encode(), "a\ufffd"),  # written by the model
        ("a\ufffd".encode()[:-1], "a"),
    ],
)
def test_a_text_that_ends_inside_a_character_ends_before_it(data: bytes, text: str) -> None:
    assert "".join(stream(BYTES, list(data))) == text
    assert "".join(stream(BYTES, list(data), ("b好",))) == text


@settings(deadline=None, max_examples=500)
@given(
    st.text("abc好。", max_size=30),
    st.lists(st.text("abc好。", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_stop_words_never_leak(text: str, words: list[str]) -> None:
    shown = "".join(stream(BYTES, list(text.encode()), tuple(words)))
    ends = [at + len(word) for word in words if (at := text.find(word)) >= 0]
    if not ends:
        assert shown == text
        return
    # It ends with the stop word that is complete first; of several complete there, the earliest start counts.
    seen = text[: min(ends)]
    starts = [seen.find(word) for word in words if word in seen]
    assert shown == seen[: min(starts)]
    assert not any(word in shown for word in words)


def test_held_text_comes_out_when_it_was_no_stop_word() -> None:
    assert stream(BYTES, list(b"a<en>b"), ("<end>",)) == ["a", "", "", "", "<en>", "b", ""]


def test_the_alphabet_is_all_bytes_once() -> None:
    alphabet = byte_alphabet()
    assert sorted(alphabet.values()) == list(range(256))
    assert alphabet["Ġ"] == 0x20
    assert alphabet["Ċ"] == 0x0A
    assert alphabet["ÿ"] == 0xFF


def test_special_tokens_are_not_text_but_thinking_is() -> None:
    ids = TOKENIZER.encode("<|begin_of_text|>a<think>b</think>", add_special_tokens=False).ids
    assert "".join(stream(TABLE, ids)) == "a<think>b</think>"


def test_a_vocabulary_of_another_kind_is_refused() -> None:
    from tokenizers.models import WordLevel

    with pytest.raises(ValueError, match="ByteLevel"):
        token_bytes(Tokenizer(WordLevel({"a": 0}, unk_token="a")))


def test_each_token_of_a_byte_level_vocabulary_has_its_bytes() -> None:
    tokenizer = Tokenizer(BPE({"a": 0, "Ġ": 1, "å": 2}, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("<b>", special=False)])
    tokenizer.add_special_tokens(["<|x|>", "<think>"])
    assert token_bytes(tokenizer) == [b"a", b" ", b"\xe5", b"<b>", b"", b"<think>"]


def test_each_token_of_a_sentencepiece_vocabulary_has_its_bytes() -> None:
    tokenizer = Tokenizer(BPE({"<0x0A>": 0, "<0xE5>": 1, "▁a": 2}, []))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback()])
    assert token_bytes(tokenizer) == [b"\n", b"\xe5", b" a"]


def test_an_id_outside_the_table_adds_no_text() -> None:
    text = StreamingText([b"a", b"b"])
    assert text.shown == 0
    assert [text.push(token) for token in (-1, 2, 3, 1)] == ["", "", "", "b"]


def test_stop_words_of_several_special_tokens() -> None:
    table = [b"a", b"", b"", b"t"]

    def shown(ids: list[int], *stop_words: str) -> str:
        text = StreamingText(table, stop_words, names={1: b"x", 2: b"<x>", 3: b"t"})
        return "".join(text.push(token) for token in ids) + text.finish()

    assert shown([0, 2, 0], "<x>") == "a"  # the longer name counts where one contains the other
    assert shown([0, 2, 0, 1, 0], "<x>x") == "aaa"
    assert shown([0, 2, 1, 0], "<x>x") == "a"
    assert shown([0, 1, 0], "aa") == ""  # a name outside the stop word does not separate the text
    assert shown([0, 3, 3, 0], "tt") == "a"  # a special token with a text of its own counts as that


def test_a_token_of_several_characters_is_searched_whole() -> None:
    text = StreamingText([b"xab", b"cd"], ["abcd"])
    assert [text.push(0), text.push(1), text.stopped_by] == ["x", "", "abcd"]
    thinking = StreamingText([b"a</think>b stop"], ["stop"], thinking=True)
    assert (thinking.push(0), thinking.stopped) == ("a</think>b ", True)


def test_a_stop_word_that_does_not_count_yet_is_not_held_back() -> None:
    text = StreamingText(BYTES, ["ab"], min_tokens=2)
    assert [text.push(ord("a")), text.push(ord("b"))] == ["", "ab"]


@pytest.mark.parametrize(
    ("before", "thinking", "content", "no_content"),
    [
        (b"", False, [b"", b"a", b"<b"], [b"<", b"<think>", b"<think>a", b" <thi"]),
        (b"<thin", False, [b"g", b"kk"], [b"", b"k", b"k>", b"k>a"]),
        (b"", True, [], [b"", b"a", b" "]),
        (b"a</think>", True, [b"", b"a", b" a"], [b"\n"]),
        (b"<think>a</think>\n", False, [b"", b"a"], [b" "]),
        (b"a</think>\nb", True, [b"", b"a", b" "], []),
    ],
)
def test_whether_the_next_token_belongs_to_the_content(
    before: bytes, thinking: bool, content: list[bytes], no_content: list[bytes]
) -> None:
    text = StreamingText(BYTES, thinking=thinking)
    for byte in before:
        text.push(byte)
    assert {data: text.in_content(data) for data in [*content, *no_content]} == {
        **dict.fromkeys(content, True),
        **dict.fromkeys(no_content, False),
    }
