"""The constraints of an answer, as the kinds of guides that engines support: tool calls, schemas, choices.

A request that must call a tool is constrained to the form that `youtu_contract.parts` reads, by a grammar for
llguidance (Lark, with JSON schemas in it). Independent of the engine and tensors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from text_request import TextRequest
from youtu_contract.errors import invalid, unsupported
from youtu_contract.parts import CALL, CALL_END
from youtu_contract.rows import FUNCTION
from youtu_contract.values import json_value, shown

TYPE, GUIDE = "guided_decoding_guide_type", "guided_decoding_guide"
CHOICE, GRAMMAR = "choice", "grammar"
MAX_CALLS = 16
"""Calls in an answer that must call tools: a small model may not stop by itself."""

# Characters that mean something in a regular expression, of Rust's and of ECMAScript's.
_MEANING = re.compile(r"[\\.+*?()|\[\]{}^$/-]")
# What ends a regular expression in a grammar, beside what is escaped there already.
_NOT_IN_A_LITERAL = re.compile(r"\\.|/|\n", re.DOTALL)
# As models write JSON, with spaces or without, and no other white space.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
_OPTIONAL_SPACE = r"/[ \n]?/"


def with_engine_guide(request: TextRequest, engine_inputs: Collection[str], *, grammars: bool) -> TextRequest:
    """The request with the guide that its engine is to be given.

    grammars: whether the engine takes the kind `grammar`. Raises Refused.
    """
    kind, text = request.options[TYPE], request.options[GUIDE]
    if kind == CHOICE:
        kind, text = "regex", _choice(text)
    tools = request.tools
    choice = request.options["tool_choice"]
    if choice != "auto" and not tools:
        raise invalid("tool_choice", f"{shown(choice)} requires tools")
    if _needs_grammar(tools, choice, kind):
        if not grammars or TYPE not in engine_inputs:
            raise _cannot(choice, kind)
        kind, text = GRAMMAR, _grammar(request, tools, choice, kind, text)
    if kind == GRAMMAR and not grammars:
        raise unsupported(TYPE, "this engine supports json, json_schema, regex and choice, not grammar")
    return replace(request, options={**request.options, TYPE: kind, GUIDE: text})


def _choice(text: str | None) -> str:
    choices = json_value(GUIDE, text or "null")
    if (
        not isinstance(choices, list)
        or not choices
        or not all(isinstance(one, str) and one for one in choices)
    ):
        raise invalid(GUIDE, f"expected a JSON list of texts to choose from; got {shown(choices)}")
    return "|".join(f"({_MEANING.sub(_escaped, one)})" for one in choices)


def _escaped(found: re.Match[str]) -> str:
    return f"\\{found[0]}"


def _needs_grammar(tools: list[dict[str, Any]], choice: str, kind: str | None) -> bool:
    if not tools or kind == GRAMMAR:
        return choice != "auto"
    return choice != "auto" or kind is not None or any(map(_strict, tools))


def _cannot(choice: str, kind: str | None) -> Exception:
    if choice != "auto":
        return unsupported("tool_choice", f"this engine cannot force a tool call; got {shown(choice)}")
    if kind is not None:
        return unsupported(TYPE, "this engine supports either tools or a guide, not both")
    message = "this engine cannot constrain calls to their schemas; got strict true"
    return unsupported("chat_template_kwargs.tools", message)


def _grammar(
    request: TextRequest, tools: list[dict[str, Any]], choice: str, kind: str | None, text: str | None
) -> str:
    if choice != "auto" and choice != "required":
        tools = [tool for tool in tools if FUNCTION + _name(tool) == choice]
        if not tools:
            raise invalid("tool_choice", f"unknown tool {shown(choice.removeprefix(FUNCTION))}")
    several = request.options["parallel_tool_calls"] and not choice.startswith(FUNCTION)
    rules = [
        f'call: "{CALL}" {_OPTIONAL_SPACE} ({" | ".join(f"tool_{at}" for at in range(len(tools)))}) '
        f'{_OPTIONAL_SPACE} "{CALL_END}"'
    ]
    for at, tool in enumerate(tools):
        opening = f'{{"name": {json.dumps(_name(tool), ensure_ascii=False)}, "arguments": '
        rules.append(f'tool_{at}: {_quoted(opening)} arguments_{at} "}}"')
        rules.append(f"arguments_{at}: %json {_schema(_parameters(tool), strict=_strict(tool))}")
    calls = f'call ("\\n"? call){{0,{MAX_CALLS - 1}}}' if several else "call"
    if choice != "auto":
        return "\n".join(["%llguidance {}", f"start: {calls}", *rules, ""])
    if kind is not None:
        return "\n".join(
            ["%llguidance {}", f"start: {calls} | answer", f"answer: {_answer(kind, text)}", *rules, ""]
        )
    # Text as the model likes, in which the mark of a call begins one.
    free = ["start: (opening rest)* TEXT" if several else "start: TEXT | opening rest"]
    free += ["TEXT: /(.|\\n)*/", f'opening[lazy]: TEXT "{CALL}"']
    rules[0] = rules[0].replace(f'call: "{CALL}"', "rest:", 1)
    return "\n".join(["%llguidance {}", *free, *rules, ""])


def _answer(kind: str, text: str | None) -> str:
    if kind == "regex":
        return f"/{_NOT_IN_A_LITERAL.sub(_literal, text or '')}/"
    schema = {"type": "object"} if kind == "json" else json_value(GUIDE, text or "null")
    if not isinstance(schema, dict):
        raise invalid(GUIDE, f"expected a JSON object; got {shown(schema)}")
    return f"%json {_schema(schema, strict=True)}"


def _literal(found: re.Match[str]) -> str:
    return {"/": "\\/", "\n": "\\n"}.get(found[0], found[0])


def _schema(schema: Mapping[str, Any], *, strict: bool) -> str:
    """strict: a keyword that llguidance does not know is an error, not passed over."""
    return json.dumps({**schema, "x-guidance": {**_COMPACT, "lenient": not strict}}, ensure_ascii=False)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    function = tool.get("function", tool)
    return function if isinstance(function, dict) else {}


def _name(tool: Mapping[str, Any]) -> str:
    name = _function(tool).get("name")
    if not isinstance(name, str) or not name:
        raise invalid("chat_template_kwargs.tools", f"a tool needs a name; got {shown(tool)}")
    return name


def _strict(tool: Mapping[str, Any]) -> bool:
    return _function(tool).get("strict") is True


def _parameters(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of its arguments; without one it takes none."""
    schema = _function(tool).get("parameters")
    none = {"type": "object", "properties": {}, "additionalProperties": False}
    return schema if isinstance(schema, dict) and schema else none
