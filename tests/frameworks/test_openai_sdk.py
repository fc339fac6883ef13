"""The official SDK's own forms of tools and structured answers."""

from __future__ import annotations

import json
from typing import Literal

import openai
from openai import OpenAI
from pydantic import BaseModel

from .conftest import Served


class Weather(BaseModel):
    """Tell the weather of a city."""

    city: str
    unit: Literal["celsius", "fahrenheit"]


def test_a_tool_of_a_pydantic_model_is_called_and_parsed(served: Served) -> None:
    with OpenAI(base_url=served.v1, api_key="none") as client:
        answer = client.chat.completions.parse(
            model=served.model,
            messages=[{"role": "user", "content": "What is the weather in Paris, in celsius?"}],
            tools=[openai.pydantic_function_tool(Weather)],
            tool_choice="required",
            parallel_tool_calls=False,
            temperature=0,
        )
    (call,) = answer.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Weather)
    assert answer.choices[0].finish_reason == "tool_calls"


def test_parse_gives_the_model(served: Served) -> None:
    class Answer(BaseModel):
        yes: bool

    with OpenAI(base_url=served.v1, api_key="none") as client:
        answer = client.chat.completions.parse(
            model=served.model,
            messages=[{"role": "user", "content": "Is water wet?"}],
            response_format=Answer,
            temperature=0,
        )
        message = answer.choices[0].message
        assert isinstance(message.parsed, Answer)
        # A message that `parse` gave can be sent back as it is.
        again = client.chat.completions.create(
            model=served.model,
            messages=[
                {"role": "user", "content": "Is water wet?"},
                message,  # type: ignore[list-item]
                {"role": "user", "content": "Say yes."},
            ],
            max_tokens=5,
        )
    assert again.choices[0].finish_reason in ("stop", "length")


def test_a_streamed_call_adds_up(served: Served) -> None:
    with (
        OpenAI(base_url=served.v1, api_key="none") as client,
        client.chat.completions.stream(
            model=served.model,
            messages=[{"role": "user", "content": "What is the weather in Paris, in celsius?"}],
            tools=[openai.pydantic_function_tool(Weather)],
            tool_choice={"type": "function", "function": {"name": "Weather"}},
            temperature=0,
        ) as stream,
    ):
        for _ in stream:
            pass
        (call,) = stream.get_final_completion().choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments).keys() == {"city", "unit"}
