"""Thinking and tool calls come apart from what is said, however the text is cut into pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from youtu_contract.parts import Content, PartsParser, Reasoning, ToolCall

CALL = '<tool_call>{"name": "weather", "arguments": {"city": "北京"}}</tool_call>'


def read(
    pieces: list[str], *, thinking: bool = False, tools: bool = False
) -> tuple[str, str, list[ToolCall]]:
    reader = PartsParser(thinking=thinking, tools=tools)
    parts = [part for piece in pieces for part in reader.feed(piece)] + list(reader.end())
    assert all(part.text for part in parts if not isinstance(part, ToolCall))
    return (
        "".join(part.text for part in parts if isinstance(part, Reasoning)),
        "".join(part.text for part in parts if isinstance(part, Content)),
        [part for part in parts if isinstance(part, ToolCall)],
    )


@pytest.mark.parametrize(
    ("text", "thinking", "reasoning", "content"),
    [
        ("plain", False, "", "plain"),
        ("  plain ", False, "", "  plain "),
        ("", False, "", ""),
        (" ", False, "", " "),
        ("<think>\nhm\n</think>\n\nyes", False, "hm", "yes"),
        ("\n<think>hm</think>yes ", False, "hm", "yes "),
        ("hm</think>yes", True, "hm", "yes"),
        ("\nhm <think> x\n</think>\nyes", True, "hm <think> x", "yes"),
        ("<think>hm</think>yes", True, "hm", "yes"),  # the mark that the prompt has too
        ("<thi", True, "<thi", ""),
        ("<think>cut off", False, "cut off", ""),
        ("<think>a </thin b</think>c", False, "a </thin b", "c"),
        ("<think></think>c", False, "", "c"),
        ("say <think>x</think>", False, "", "say <think>x</think>"),
        ("<thin", False, "", "<thin"),
        ("<thinking>", False, "", "<thinking>"),
        ("a </think> b", False, "", "a </think> b"),
        ("<think>a\n\n b</think> c </think> d", False, "a\n\n b", "c </think> d"),
    ],
)
def test_thinking(text: str, thinking: bool, reasoning: str, content: str) -> None:
    for pieces in ([text], list(text), [text[i : i + 3] for i in range(0, len(text), 3)]):
        assert read(pieces, thinking=thinking) == (reasoning, content, [])


@given(st.data())
def test_cutting_makes_no_difference(data: st.DataObject) -> None:
    words = [
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "{}",
        '{"',
        '"',
        "\\",
        "<",
        "</",
        " ",
        "\n",
        "字",
        CALL,
        "a",
    ]
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    for thinking in (False, True):
        whole, cut = read([text], thinking=thinking, tools=True), read(pieces, thinking=thinking, tools=True)
        assert whole[:2] == cut[:2]
        assert [(c.name, c.arguments) for c in whole[2]] == [(c.name, c.arguments) for c in cut[2]]


def test_nothing_certain_is_held_back() -> None:
    reader = PartsParser(tools=True)
    assert list(reader.feed("a b")) == [Content("a b")]
    assert list(reader.feed(" <tool")) == []
    assert list(reader.feed("box>")) == [Content(" <toolbox>")]
    thinking = PartsParser(thinking=True)
    assert list(thinking.feed("hm, x < y")) == [Reasoning("hm, x < y")]


def test_calls_of_tools() -> None:
    text = f"<think>which?</think>Let me see.\n{CALL}\n{CALL.replace('北京', 'Rom')}"
    for pieces in ([text], list(text)):
        reasoning, content, calls = read(pieces, tools=True)
        assert (reasoning, content) == ("which?", "Let me see.")
        assert [(call.name, json.loads(call.arguments)) for call in calls] == [
            ("weather", {"city": "北京"}),
            ("weather", {"city": "Rom"}),
        ]
        assert calls[0].id != calls[1].id


@pytest.mark.parametrize("inner", ["", "not json", "[]", '{"arguments": {}}', '{"name": 5}', "[" * 100_000])
def test_what_is_no_call_stays_text(inner: str) -> None:
    text = f"a <tool_call>{inner}</tool_call> b"
    assert read([text], tools=True) == ("", text, [])


def test_a_call_cut_off_stays_text() -> None:
    assert read(["a <tool_call>", '{"name"'], tools=True)[1] == 'a <tool_call>{"name"'


def test_without_tools_a_tag_is_text() -> None:
    assert read([CALL])[1] == CALL


@pytest.mark.parametrize(
    ("inner", "arguments"),
    [
        (r'{"name": "f", "arguments": {"x": "a</tool_call>b"}}', {"x": "a</tool_call>b"}),
        (r'{"name": "f", "arguments": {"x": "\"</tool_call>\\", "y": 1}}', {"x": '"</tool_call>\\', "y": 1}),
        ('{"name": "f", "arguments": {"x": "<tool_call></tool_call>"}}', {"x": "<tool_call></tool_call>"}),
        ('{"name": "f", "arguments": {"code": "a\nb"}}', {"code": "a\nb"}),  # a line end, unescaped
        ('{"name": "f", "parameters": {"x": 1}}', {"x": 1}),
        ('{"name": "f", "arguments": null, "parameters": {"x": 1}}', {"x": 1}),
        ('{"name": "f", "arguments": {"x": 1}, "parameters": {"x": 2}}', {"x": 1}),
        ('{"name": "f", "arguments": null}', {}),
        ('{"name": "f"}', {}),
        ('{"name": "f", "arguments": ""}', {}),
        (r'{"name": "f", "arguments": "{\"x\": [1]}"}', {"x": [1]}),
        ('{"name": "f", "arguments": {"x": 1, "x": 2}}', {"x": 2}),
        (r'{"name": "f", "arguments": {"x": "\ud800"}}', {"x": "\ud800"}),
        ('{"name": "f", "arguments": {"x": "' + "y" * 100_000 + '"}}', {"x": "y" * 100_000}),
    ],
)
def test_arguments_are_a_json_object(inner: str, arguments: dict[str, object]) -> None:
    text = f"a<tool_call>{inner}</tool_call>b"
    for pieces in ([text], list(text) if len(text) < 1000 else [text[:50], text[50:]]):
        reasoning, content, [call] = read(pieces, tools=True)
        assert (reasoning, content, call.name) == ("", "ab", "f")
        assert json.loads(call.arguments, parse_constant=pytest.fail) == arguments
        assert call.arguments.encode()


@pytest.mark.parametrize(
    "inner",
    [
        '{"name": "f", "arguments": NaN}',
        '{"name": "f", "arguments": {"x": -Infinity}}',
        '{"name": "f", "arguments": {"x": 1e999}}',
        '{"name": "f", "arguments": [1]}',
        '{"name": "f", "arguments": []}',
        '{"name": "f", "arguments": false}',
        '{"name": "f", "arguments": "word"}',
        r'{"name": "f", "arguments": "{\"x\": NaN}"}',
        '{"name": "", "arguments": {}}',
        r'{"name": "\ud800", "arguments": {}}',
        '{"name": "f", "arguments": {"x": "no end}',
        '{"name": "f"} {"name": "g"}',
        '{"name": "f", "arguments": ' + '{"x":' * 5000 + "1" + "}" * 5001,
    ],
)
def test_a_call_with_other_arguments_stays_text_and_spoils_no_other(inner: str) -> None:
    text = f"a <tool_call>{inner}</tool_call> b{CALL}"
    for pieces in ([text], list(text)):
        _, content, [call] = read(pieces, tools=True)
        assert content == text[: -len(CALL)]
        assert call.name == "weather"


def test_many_tags_without_an_end_are_text() -> None:
    text = '<tool_call>{"' * 3000 + "</tool_call>"
    assert read([text], tools=True) == ("", text, [])


texts = st.text() | st.sampled_from(["</tool_call>", '"</tool_call>"', "<tool_call>", "\\</tool_call>", "{"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(
    st.lists(st.tuples(st.text(min_size=1), st.dictionaries(texts, json_values, max_size=3)), max_size=3),
    st.booleans(),
    st.data(),
)
def test_calls_come_back_as_they_were_written_however_they_are_cut(
    calls: list[tuple[str, dict[str, object]]], ascii_only: bool, data: st.DataObject
) -> None:
    written = [json.dumps({"name": n, "arguments": a}, ensure_ascii=ascii_only) for n, a in calls]
    text = "".join(f"say <tool_call>{each}</tool_call>" for each in written)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    _, content, found = read(pieces, tools=True)
    assert [(call.name, json.loads(call.arguments)) for call in found] == calls
    assert content == "say" * len(calls)
