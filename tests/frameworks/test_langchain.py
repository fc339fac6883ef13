"""LangChain: structured output in each of its methods, and tools that must be called."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from .conftest import Served


class Person(BaseModel):
    """A person."""

    name: Literal["Alice", "Bob"]
    age: Literal[20, 30, 40]


def model(served: Served, **more: Any) -> ChatOpenAI:
    return ChatOpenAI(base_url=served.v1, api_key="none", model=served.model, temperature=0, **more)


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
@pytest.mark.parametrize("strict", [None, True])
def test_structured_output(served: Served, method: Any, strict: bool | None) -> None:
    asked = model(served).with_structured_output(Person, method=method, strict=strict)
    assert isinstance(asked.invoke("Alice is 30 years old."), Person)


def test_structured_output_by_json_mode(served: Served) -> None:
    """The method that asks for JSON only; LangChain parses it, so a dict is what can be promised."""
    asked = model(served, max_tokens=300).with_structured_output(None, method="json_mode")
    prompt = 'Answer with this JSON object only: {"name": "Alice"}'
    assert isinstance(asked.invoke(prompt), dict)


@tool
def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def test_any_tool_strictly_and_back(served: Served) -> None:
    bound = model(served).bind_tools([multiply], strict=True, tool_choice="any", parallel_tool_calls=False)
    asked = [SystemMessage("Use tools."), HumanMessage("What is 6 times 7?")]
    message = bound.invoke(asked)
    assert isinstance(message, AIMessage)
    (call,) = message.tool_calls
    assert call["name"] == "multiply"
    assert set(call["args"]) == {"a", "b"}
    result = ToolMessage(str(multiply.invoke(call["args"])), tool_call_id=call["id"])
    assert isinstance(model(served, max_tokens=20).invoke([*asked, message, result]).content, str)


def test_a_named_tool_streamed(served: Served) -> None:
    bound = model(served).bind_tools([multiply], tool_choice="multiply")
    whole = None
    for chunk in bound.stream("What is 6 times 7?"):
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    assert [call["name"] for call in whole.tool_calls] == ["multiply"]  # type: ignore[attr-defined]
