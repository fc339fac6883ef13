"""What an answer is held to: grammars of tools let through what the parser reads as calls, nothing else."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest
from grammar import compiled
from guides import MAX_CALLS, with_engine_guide
from llguidance import LLTokenizer
from text_request import TextRequest
from youtu_contract.errors import Refused
from youtu_contract.parts import PartsParser, ToolCall
from youtu_contract.rows import OPTIONS, TOKEN_INPUTS

from .conftest import DEMO

POINT = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
W = {
    "name": "w",
    "parameters": {
        "type": "object",
        "$defs": {"Point": POINT},
        "properties": {"city": {"type": "string"}, "at": {"$ref": "#/$defs/Point"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
CALL = '<tool_call>{"name": "w", "arguments": {"city": "北京"}}</tool_call>'
PLAIN = '<tool_call>{"name": "plain", "arguments": {}}</tool_call>'


def tools(*functions: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {**function, **more}} for function in functions]


def guided(offered: list[dict[str, Any]], *, grammars: bool = True, **options: Any) -> tuple[Any, Any]:
    """Kind and text of the guide that the engine gets."""
    defaults = {name: row.default for name, row in OPTIONS.items()}
    kwargs = {"tools": offered}
    request = TextRequest("a", None, None, False, kwargs, defaults | options)
    made = with_engine_guide(request, frozenset(TOKEN_INPUTS), grammars=grammars).options
    return made["guided_decoding_guide_type"], made["guided_decoding_guide"]


@cache
def tokenizer() -> LLTokenizer:
    return LLTokenizer((DEMO / "tokenizer.json").read_text(encoding="utf-8"))


def takes(guide: tuple[Any, Any], text: str) -> bool:
    """Whether the whole text is let through."""
    matcher = compiled(tokenizer(), *guide)
    ids = tokenizer().tokenize_str(text)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def calls(text: str) -> list[tuple[str, Any]]:
    parser = PartsParser(tools=True)
    parts = [*parser.feed(text), *parser.end()]
    assert all(isinstance(part, ToolCall) for part in parts)
    return [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, ToolCall)]


def test_a_required_call_is_a_call_of_one_of_the_tools() -> None:
    guide = guided(tools(W, {"name": "plain"}), tool_choice="required")
    nested = CALL.replace('"北京"', '"a", "at": {"x": 1}').replace(": ", ":").replace('"name":', '"name": ')
    spaced = '<tool_call>\n{"name": "w", "arguments": {"city":"a</tool_call>"}}\n</tool_call>'
    for text in (CALL, PLAIN, CALL + PLAIN, f"{CALL}\n{CALL}", spaced):
        assert takes(guide, text), text
        assert calls(text)
    assert takes(guide, nested.replace('"arguments":', '"arguments": '))
    for text in (
        "Hello",
        f"Hello {CALL}",
        CALL + "bye",
        CALL.replace("city", "town"),
        CALL.replace('"w"', '"v"'),
    ):
        assert not takes(guide, text), text
    assert not takes(guide, PLAIN.replace("{}", '{"a": 1}'))
    assert takes(guide, CALL * MAX_CALLS)
    assert not takes(guide, CALL * (MAX_CALLS + 1))


def test_a_named_function_is_called_once_and_parallel_calls_can_be_switched_off() -> None:
    offered = tools(W, {"name": "plain"})
    named = guided(offered, tool_choice="function:plain")
    assert takes(named, PLAIN)
    assert not takes(named, CALL)
    assert not takes(named, PLAIN + PLAIN)
    single = guided(offered, tool_choice="required", parallel_tool_calls=False)
    assert takes(single, CALL)
    assert not takes(single, CALL + CALL)


def test_strict_tools_hold_the_calls_in_a_free_text() -> None:
    assert guided(tools(W)) == (None, None)
    guide = guided(tools(W, strict=True))
    for text in ("Hello", f"Hello {CALL}", f"a{CALL}b\n{CALL}c", "1 < 2 <tool"):
        assert takes(guide, text), text
    assert not takes(guide, '<tool_call>{"name": "w", "arguments": {"town": ""}}</tool_call>')
    single = guided(tools(W, strict=True), parallel_tool_calls=False)
    assert takes(single, f"Hello {CALL}")
    assert not takes(single, f"{CALL}{CALL}")


def test_a_format_and_tools_leave_the_choice_between_both() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    by_schema: dict[str, Any] = {
        "guided_decoding_guide_type": "json_schema",
        "guided_decoding_guide": json.dumps(schema),
    }
    guide = guided(tools(W), **by_schema)
    assert takes(guide, '{"a":1}')
    assert takes(guide, CALL)
    assert not takes(guide, '{"b":1}')
    assert not takes(guided(tools(W), tool_choice="required", **by_schema), '{"a":1}')
    by_choice: dict[str, Any] = {
        "guided_decoding_guide_type": "choice",
        "guided_decoding_guide": '["a/b", "c"]',
    }
    for text in ("a/b", "c", CALL):
        assert takes(guided(tools(W), **by_choice), text)
    assert takes(guided(tools(W), guided_decoding_guide_type="json"), '{"b":1}')


@pytest.mark.parametrize(
    "text", ["a.b", "(x|y)", "1+1?", "C:\\n", "[a-z]{2}", "^$", "a b\nc", "中文/日本", "#&~"]
)
def test_a_choice_is_the_very_text(text: str) -> None:
    kind, expression = guided(
        [], guided_decoding_guide_type="choice", guided_decoding_guide=json.dumps([text, "other"])
    )
    assert kind == "regex"
    assert re.fullmatch(expression, text)
    assert takes((kind, expression), text)
    assert takes((kind, expression), "other")
    assert not takes((kind, expression), text + "x")
    assert not takes((kind, expression), "axb")


@pytest.mark.parametrize("grammar", ['start: "a" | "b" "c"\n', 'root ::= "a" | "b" "c"\n'])
def test_grammars_in_lark_and_gbnf(grammar: str) -> None:
    guide = guided([], guided_decoding_guide_type="grammar", guided_decoding_guide=grammar)
    assert (takes(guide, "a"), takes(guide, "bc"), takes(guide, "b")) == (True, True, False)


def test_keywords_that_cannot_be_held_matter_only_where_the_tool_is_strict() -> None:
    odd = {"name": "w", "parameters": {"type": "array", "uniqueItems": True}}
    compiled(tokenizer(), *guided(tools(odd), tool_choice="required"))
    with pytest.raises(ValueError, match="uniqueItems"):
        compiled(tokenizer(), *guided(tools(odd, strict=True), tool_choice="required"))


@pytest.mark.parametrize(
    ("offered", "options", "says"),
    [
        ([], {"tool_choice": "required"}, "tool_choice: 'required' requires tools"),
        (tools(W), {"tool_choice": "function:x"}, "tool_choice: unknown tool 'x'"),
        (tools(W), {"tool_choice": "any"}, "tool_choice: unknown tool 'any'"),
        (tools({}), {"tool_choice": "required"}, "chat_template_kwargs.tools: a tool needs a name"),
        ([], {"guided_decoding_guide_type": "choice", "guided_decoding_guide": "[]"}, "a JSON list of texts"),
        ([], {"guided_decoding_guide_type": "choice"}, "a JSON list of texts"),
    ],
)
def test_refusals(offered: list[Any], options: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=says):
        guided(offered, **options)


@pytest.mark.parametrize(
    ("offered", "options", "says"),
    [
        (tools(W), {"tool_choice": "required"}, "tool_choice: this engine cannot force a tool call"),
        (
            tools(W, strict=True),
            {},
            "tools: this engine cannot constrain calls to their schemas; got strict true",
        ),
        (
            tools(W),
            {"guided_decoding_guide_type": "json"},
            "guide_type: this engine supports either tools or a guide",
        ),
        (
            [],
            {"guided_decoding_guide_type": "grammar"},
            "supports json, json_schema, regex and choice, not grammar",
        ),
    ],
)
def test_what_tensorrt_llm_cannot_do_is_refused_by_name(
    offered: list[Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(Refused, match=says) as refused:
        guided(offered, grammars=False, **options)
    assert refused.value.error.code == "unsupported"
