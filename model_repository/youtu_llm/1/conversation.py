"""A conversation in the form a chat template takes: one system message, and tools where it lacks them.

For a template without the variable `tools` they are described in the system message, in the form that
`youtu_contract.parts` reads; earlier calls and their results become text of the assistant and the user.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from youtu_contract.parts import CALL, CALL_END

Message = dict[str, Any]

RESULT, RESULT_END = "<tool_response>", "</tool_response>"
DESCRIPTION = f"""You can call functions. Each line describes one, with a JSON schema of its arguments:
{{functions}}

To call a function, write its name and its arguments as JSON between these tags:
{CALL}{{{{"name": "the name", "arguments": {{{{"an argument": "its value"}}}}}}}}{CALL_END}
You may call several, one after the other; then stop. What they return is sent to you between \
{RESULT} and {RESULT_END}. Call a function only where it helps; else answer in plain words."""


def with_one_system(messages: Sequence[Message], *, everywhere: bool) -> list[Message]:
    """The system messages at the beginning as one; those that come later too, if `everywhere`."""
    systems: list[str] = []
    others: list[Message] = []
    for message in messages:
        if message["role"] == "system" and (everywhere or not others):
            systems.append(message["content"])
        else:
            others.append(message)
    return [{"role": "system", "content": "\n\n".join(systems)}, *others] if systems else others


def with_described_tools(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> list[Message]:
    """The messages without tools, calls and results in any other form than text."""
    written: list[Message] = []
    for message in messages:
        if message["role"] == "tool":
            result = f"{RESULT}{message['content']}{RESULT_END}"
            if written and written[-1].get("result"):
                written[-1]["content"] += f"\n{result}"
            else:
                written.append({"role": "user", "content": result, "result": True})
        elif calls := message.get("tool_calls"):
            texts = [message.get("content") or "", *map(_written, calls)]
            content = "\n".join(text for text in texts if text)
            rest = {name: value for name, value in message.items() if name != "tool_calls"}
            written.append(rest | {"content": content})
        else:
            written.append(dict(message))
    for message in written:
        message.pop("result", None)
    if not tools:
        return written
    functions = "\n".join(map(_described, tools))
    return [{"role": "system", "content": DESCRIPTION.format(functions=functions)}, *written]


def _described(tool: Mapping[str, Any]) -> str:
    function = tool.get("function", tool)
    if isinstance(function, dict):
        function = {name: value for name, value in function.items() if name != "strict"}
    return json.dumps(function, ensure_ascii=False)


def _written(call: Mapping[str, Any]) -> str:
    function = call.get("function", call)
    body = {"name": function.get("name"), "arguments": function.get("arguments")}
    return f"{CALL}{json.dumps(body, ensure_ascii=False)}{CALL_END}"
