"""LlamaIndex: tools that must be called, and answers of a type."""

from __future__ import annotations

from typing import Literal

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from .conftest import Served


class Album(BaseModel):
    """A music album."""

    artist: Literal["Queen", "Abba"]
    year: int


def multiply(a: int, b: int) -> int:
    """Multiply two numbers."""
    return a * b


def model(served: Served) -> OpenAILike:
    return OpenAILike(
        model=served.model,
        api_base=served.v1,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        temperature=0,
        max_tokens=200,
    )


def test_chat_with_tools(served: Served) -> None:
    llm = model(served)
    answer = llm.chat_with_tools(
        [FunctionTool.from_defaults(fn=multiply)], user_msg="What is 6 times 7?", tool_required=True
    )
    calls = llm.get_tool_calls_from_response(answer)
    assert {call.tool_name for call in calls} == {"multiply"}
    assert all(set(call.tool_kwargs) == {"a", "b"} for call in calls)


def test_tools_that_may_be_called(served: Served) -> None:
    answer = model(served).chat_with_tools([FunctionTool.from_defaults(fn=multiply)], user_msg="Hello")
    assert answer.message is not None


def test_as_structured_llm(served: Served) -> None:
    structured = model(served).as_structured_llm(Album)
    answer = structured.chat([ChatMessage(role="user", content="An album of Queen, of 1975.")])
    assert isinstance(answer.raw, Album)
