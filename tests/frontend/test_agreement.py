"""`/openapi.json` and the server agree on which requests are valid: bodies that differ from good ones."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

ODD: list[Any] = [
    None, True, False, 0, 0.0, 1, -1, 2, 3, 16, 17, 0.5, 2.0, 2.5, -0.1, 11, 101, 2**31, "", "a", "auto",
    "none", "required", [], [1], [1, "a"],
    ["a", ""], [[]], {}, {"type": "text"}, {"1": 1}, {"x": 1}, {"1": 101}, {"a": None},
]  # fmt: skip
MESSAGE = {"role": "user", "content": "q"}
TOOL = {"type": "function", "function": {"name": "w", "parameters": {"type": "object"}}}
GOOD: dict[str, list[dict[str, Any]]] = {
    "/chat": [{"prompt": "q"}, {"messages": [MESSAGE], "stop": ["a"], "logit_bias": {"7": 1}}],
    "/v1/chat/completions": [
        {"messages": [MESSAGE], "logprobs": True, "top_logprobs": 2, "max_tokens": 5},
        {"messages": [MESSAGE], "tools": [TOOL], "tool_choice": "required", "stream": False},
        {
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "s"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"function": {"name": "w", "arguments": {}}}],
                },
                {"role": "tool", "content": "5", "tool_call_id": "c"},
            ],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
            "structured_outputs": {"regex": "a"},
            "thinking": {"type": "enabled"},
        },
    ],
    "/v1/completions": [
        {"prompt": "q", "echo": True, "logprobs": 1, "max_tokens": 0},
        {"prompt": [1, 2, 3], "logit_bias": {"7": 1}, "stop": "a"},
        {"prompt": ["a", [5]], "n": 2, "guided_choice": ["a"]},
    ],
    "/v1/responses": [
        {
            "input": "q",
            "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
            "reasoning": {"effort": "low"},
            "store": False,
        },
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                {"type": "reasoning", "summary": []},
                {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c", "output": "x"},
            ],
            "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "async": False}],
            "tool_choice": "auto",
            "top_logprobs": 2,
        },
    ],
    "/v1/messages": [
        {
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "q"}],
            "system": "s",
            "thinking": {"type": "enabled", "budget_tokens": 9},
            "output_config": {"format": {"type": "json_schema", "schema": {}}},
        },
        {
            "max_tokens": 9,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "a"}]},
                {
                    "role": "assistant",
                    "content": [
                        {"type": "thinking", "thinking": "t", "signature": "s"},
                        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
                    ],
                },
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "x"}]},
            ],
            "tools": [{"name": "f", "input_schema": {"type": "object"}}],
            "tool_choice": {"type": "auto"},
        },
    ],
    "/tokenize": [{"prompt": "q"}, {"messages": [MESSAGE], "tools": [TOOL]}],
    "/detokenize": [{"tokens": [1, 2]}],
}
# What JSON schema cannot say: what depends on two values, and how much is asked for in all.
BEYOND = (
    "best_of must equal",
    "names ",
    "tool_choice requires tools",
    "block at content[",
    "may give",
    "is set twice",
    "history requires",
    "system is set twice",
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in places(part, (*path, key)))]


@st.composite
def bodies(draw: Any, path: str, fields: list[str]) -> dict[str, Any]:
    body = copy.deepcopy(draw(st.sampled_from(GOOD[path])))
    for _ in range(draw(st.integers(1, 2))):
        if not body or draw(st.booleans()):
            body[draw(st.sampled_from(fields))] = copy.deepcopy(draw(st.sampled_from(ODD)))
            continue
        *way, last = draw(st.sampled_from([place for place in places(body) if place]))
        at: Any = body
        for step in way:
            at = at[step]
        change = draw(st.sampled_from(["replace", "drop", "add"]))
        if change == "replace":
            at[last] = copy.deepcopy(draw(st.sampled_from(ODD)))
        elif change == "drop":
            del at[last]
        elif isinstance(at, dict):
            at[draw(st.sampled_from(["x", "name", "strict", "text", "schema", "arguments"]))] = "a"
    return body  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", GOOD)
def test_the_description_and_the_server_agree(app: FlaskClient, path: str) -> None:
    """Faults: 17 token ids, keys of logit_bias, top_logprobs without logprobs, empty stop words on /chat."""
    document = json.loads(app.get("/openapi.json").data)
    name = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    validator = Draft202012Validator({**document, "$ref": name})
    fields = list(document["components"]["schemas"][name.rpartition("/")[2]]["properties"])

    def agree(body: dict[str, Any]) -> None:
        reply = app.post(path, json=body)
        refused = reply.status_code == 400
        if refused and any(words in reply.get_json()["error"]["message"] for words in BEYOND):
            return
        fault = next(validator.iter_errors(body), None)
        assert refused == (fault is not None), (
            body,
            reply.data.decode()[:300],
            fault and fault.message[:300],
        )

    for body in GOOD[path]:
        agree(body)

    @settings(max_examples=120, deadline=None, database=None)
    @given(body=bodies(path, fields))
    def differ(body: dict[str, Any]) -> None:
        agree(body)

    differ()
