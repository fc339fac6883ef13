"""OpenAI's Agents SDK over chat completions: tools, handoffs, and typed output."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from .conftest import Served

set_tracing_disabled(True)
CALLS: list[str] = []
MUST = ModelSettings(temperature=0, max_tokens=60, tool_choice="required", parallel_tool_calls=False)


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    CALLS.append(city)
    return f"It is sunny in {city}."


def run(served: Served, make: Any, question: str) -> Any:
    async def go() -> Any:
        async with AsyncOpenAI(base_url=served.v1, api_key="none") as client:
            model = OpenAIChatCompletionsModel(model=served.model, openai_client=client)
            return await Runner.run(make(model), question, max_turns=4)

    return asyncio.run(go())


def test_a_tool_is_run_and_its_result_sent_back(served: Served) -> None:
    CALLS.clear()

    def make(model: Any) -> Agent:
        settings = ModelSettings(
            tool_choice="required", temperature=0, max_tokens=60, parallel_tool_calls=False
        )
        return Agent(
            name="a", instructions="Use the tool.", model=model, tools=[weather], model_settings=settings
        )

    result = run(served, make, "What is the weather in Paris?")
    assert len(CALLS) >= 1  # the SDK itself lets go of "required" after the first call
    kinds = [item.type for item in result.new_items]
    assert kinds[:2] == ["tool_call_item", "tool_call_output_item"]
    assert isinstance(result.final_output, str)


def test_a_handoff(served: Served) -> None:
    def make(model: Any) -> Agent:
        quiet = ModelSettings(temperature=0, max_tokens=20)
        other = Agent(name="Spanish", instructions="Answer in Spanish.", model=model, model_settings=quiet)
        must = ModelSettings(temperature=0, max_tokens=60, tool_choice="required", parallel_tool_calls=False)
        return Agent(
            name="Triage", instructions="Hand off.", model=model, handoffs=[other], model_settings=must
        )

    result = run(served, make, "Hola")
    assert result.last_agent.name == "Spanish"


def test_an_output_of_a_type_also_with_tools(served: Served) -> None:
    class Answer(BaseModel):
        sunny: bool

    def make(model: Any) -> Agent:
        settings = ModelSettings(temperature=0, max_tokens=200)
        return Agent(name="a", model=model, output_type=Answer, model_settings=settings)

    assert isinstance(run(served, make, "Is it sunny?").final_output, Answer)


@pytest.mark.parametrize("tools", [[], [weather]])
def test_the_defaults_of_an_agent(served: Served, tools: list[Any]) -> None:
    def make(model: Any) -> Agent:
        return Agent(name="a", instructions="Be brief.", model=model, tools=tools)

    assert isinstance(run(served, make, "Say hello.").final_output, str)
