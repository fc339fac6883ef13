"""Tools on `/v1/chat/completions`: what is to be called, and earlier calls in the forms that clients send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from tests.client.fake_triton import FakeTriton

from ..conftest import script

MODEL = "youtu-demo"
ASKED: Any = {"role": "user", "content": "q"}
CALL = '<tool_call>{"name": "w", "arguments": {"city": "北京"}}</tool_call>'


def tool(name: str, **more: Any) -> Any:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, **more}}


def ask(sdk: OpenAI, *messages: Any, **options: Any) -> Any:
    return sdk.chat.completions.create(model=MODEL, messages=[*messages] or [ASKED], **options)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("required", "required"),
        ("any", "required"),
        ("auto", None),
        ({"type": "function", "function": {"name": "w"}}, "function:w"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": "v"}}],
                },
            },
            "required",
        ),
    ],
)
def test_who_is_to_be_called(sdk: OpenAI, fake: FakeTriton, choice: Any, sent: str | None) -> None:
    ask(sdk, tools=[tool("w", strict=True), tool("v")], tool_choice=choice)
    inputs = fake.calls[0].inputs
    assert inputs.get("tool_choice") == sent
    offered = json.loads(inputs["chat_template_kwargs"])["tools"]
    names = [one["function"]["name"] for one in offered]
    assert names == (["v"] if "allowed" in str(choice) else ["w", "v"])
    assert offered[0]["function"].get("strict") == (True if names[0] == "w" else None)


def test_one_call_at_most(sdk: OpenAI, fake: FakeTriton) -> None:
    ask(sdk, tools=[tool("w")], parallel_tool_calls=False)
    ask(sdk, tools=[tool("w")], parallel_tool_calls=True)
    ask(sdk, tools=[], parallel_tool_calls=False)
    assert [call.inputs.get("parallel_tool_calls") for call in fake.calls] == [False, True, None]


def test_no_tools_are_no_tools(sdk: OpenAI, fake: FakeTriton) -> None:
    ways: list[dict[str, Any]] = [
        {"tools": []},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": "none"},
    ]
    for options in ways:
        assert (
            ask(sdk, {"role": "user", "content": script(pieces=[CALL])}, **options).choices[0].message.content
        )
    assert all("chat_template_kwargs" not in call.inputs for call in fake.calls)


@pytest.mark.parametrize("stream", [False, True])
def test_several_calls_and_text_before_them(sdk: OpenAI, stream: bool) -> None:
    prompt = script(pieces=["One moment. ", CALL[:20], CALL[20:] + "\n" + CALL, " Done."])
    answer = ask(sdk, {"role": "user", "content": prompt}, tools=[tool("w")], stream=stream)
    if stream:
        choices = [chunk.choices[0] for chunk in answer]
        calls = [call for choice in choices for call in choice.delta.tool_calls or []]
        assert [call.index for call in calls] == [0, 1]
        text, reason = "".join(choice.delta.content or "" for choice in choices), choices[-1].finish_reason
    else:
        (choice,) = answer.choices
        calls, text, reason = choice.message.tool_calls, choice.message.content, choice.finish_reason
    assert [json.loads(call.function.arguments) for call in calls] == [{"city": "北京"}] * 2
    assert len({call.id for call in calls}) == 2
    assert (text, reason) == ("One moment.Done.", "tool_calls")


def called(id_: str = "c1", arguments: Any = None) -> dict[str, Any]:
    arguments = {"a": 1} if arguments is None else arguments
    return {"id": id_, "type": "function", "function": {"name": "f", "arguments": arguments}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"tool_calls": [called(arguments='{"a": 1}')], "content": None}, called()),
        ({"tool_calls": [called()], "content": ""}, called()),
        ({"tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}, called("call_0")),
        ({"tool_calls": [called(arguments="")], "content": None}, called(arguments={})),
        ({"function_call": {"name": "f", "arguments": '{"a": 1}'}, "content": None}, called("call_0")),
        (
            {"tool_calls": [called() | {"index": 0, "extra_content": {"x": 1}}], "refusal": None, "id": "m"},
            called(),
        ),
    ],
)
def test_calls_come_back_in_every_form(
    sdk: OpenAI, fake: FakeTriton, message: dict[str, Any], expected: dict[str, Any]
) -> None:
    ask(sdk, ASKED, {"role": "assistant", **message}, {"role": "tool", "tool_call_id": "c1", "content": "5"})
    assistant = fake.calls[0].inputs["messages"][1]
    assert assistant["tool_calls"] == [expected]
    assert not assistant["content"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "tool", "content": None}, {"role": "tool", "content": ""}),
        ({"role": "tool", "content": []}, {"role": "tool", "content": ""}),
        ({"role": "function", "name": "f", "content": "5"}, {"role": "tool", "content": "5", "name": "f"}),
        (
            {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "5"}]},
            {"role": "tool", "content": "5", "tool_call_id": "c"},
        ),
        ({"role": "assistant", "content": None}, {"role": "assistant", "content": ""}),
        ({"role": "assistant", "content": None, "refusal": "No."}, {"role": "assistant", "content": "No."}),
        (
            {
                "role": "assistant",
                "content": "a",
                "reasoning": "b",
                "thinking_blocks": [{}],
                "annotations": [1],
            },
            {"role": "assistant", "content": "a", "reasoning_content": "b"},
        ),
        (
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "a", "cache_control": {"type": "x"}}],
            },
            {"role": "user", "content": "a"},
        ),
    ],
)
def test_messages_come_in_every_form(
    sdk: OpenAI, fake: FakeTriton, message: dict[str, Any], expected: dict[str, Any]
) -> None:
    ask(sdk, message, ASKED)
    assert fake.calls[0].inputs["messages"][0] == expected


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"tool_choice": "required"}, None, "tool_choice requires tools"),
        ({"tool_choice": "required", "tools": []}, None, "tool_choice requires tools"),
        (
            {"tools": [tool("w")], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            None,
            "tool_choice names x, which is not in tools",
        ),
        ({"tools": [tool("w")], "tool_choice": "maybe"}, "tool_choice", "'required'"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "of type custom"),
        ({"tools": [tool("")]}, "tools[0].function.name", "at least 1 character"),
        (
            {"tools": [tool("w", returns={})]},
            "tools[0].function.returns",
            "expected one of name, description, parameters",
        ),
        ({"functions": [{"name": "w"}]}, "functions", "use tools"),
    ],
)
def test_refusals_name_the_field(
    sdk: OpenAI, fake: FakeTriton, options: dict[str, Any], param: str | None, words: str
) -> None:
    with pytest.raises(APIStatusError) as refused:
        ask(sdk, **options)
    assert (refused.value.status_code, refused.value.param) == (400, param)
    assert words in refused.value.message
    assert fake.calls == []


def test_only_the_assistant_calls(sdk: OpenAI) -> None:
    with pytest.raises(
        APIStatusError, match="has tool_calls, which only assistant messages may have, not role user"
    ):
        ask(sdk, ASKED | {"tool_calls": [called()]})


def test_a_schema_of_a_tool_that_the_engine_refuses_is_named_by_tools(sdk: OpenAI) -> None:
    prompt = script(
        fail_at=0, fail_code="invalid_value", fail_param="guided_decoding_guide", fail_message="odd"
    )
    with pytest.raises(APIStatusError) as refused:
        ask(sdk, {"role": "user", "content": prompt}, tools=[tool("w")], tool_choice="required")
    assert (refused.value.param, refused.value.message.endswith("tools: odd")) == ("tools", True)
