"""OpenAI's Agents SDK over responses, its default, and chat completions: tools, handoffs, typed output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from .conftest import Served

set_tracing_disabled(True)
CALLS: list[str] = []
Run = Callable[[Callable[[Any], Agent], str], Any]
MUST = ModelSettings(temperature=0, max_tokens=60, tool_choice="required", parallel_tool_calls=False)


class Answer(BaseModel):
    sunny: bool


@function_tool
def weather(city: str) -> str:
    """Tell the weather of a city."""
    CALLS.append(city)
    return f"It is sunny in {city}."


@pytest.fixture(params=["responses", "responses, streamed", "chat completions", "chat completions, streamed"])
def run(request: pytest.FixtureRequest, served: Served) -> Run:
    """Runs the agent that a function makes of a model, with a question."""
    over, _, streamed = request.param.partition(", ")
    kind = OpenAIResponsesModel if over == "responses" else OpenAIChatCompletionsModel

    async def go(make: Callable[[Any], Agent], question: str) -> Any:
        async with AsyncOpenAI(base_url=served.v1, api_key="none") as client:
            agent = make(kind(model=served.model, openai_client=client))
            if not streamed:
                return await Runner.run(agent, question, max_turns=4)
            result = Runner.run_streamed(agent, question, max_turns=4)
            kinds = {event.type async for event in result.stream_events()}
            assert "raw_response_event" in kinds
            return result

    return lambda make, question: asyncio.run(go(make, question))


def test_a_tool_is_run_and_its_result_sent_back(run: Run) -> None:
    CALLS.clear()

    def make(model: Any) -> Agent:
        return Agent(
            name="a", instructions="Use the tool.", model=model, tools=[weather], model_settings=MUST
        )

    result = run(make, "What is the weather in Paris?")
    assert len(CALLS) >= 1  # the SDK itself lets go of "required" after the first call
    kinds = [item.type for item in result.new_items]
    assert kinds[:2] == ["tool_call_item", "tool_call_output_item"]
    assert isinstance(result.final_output, str)


def test_a_handoff(run: Run) -> None:
    def make(model: Any) -> Agent:
        short = ModelSettings(temperature=0, max_tokens=200)
        other = Agent(name="Spanish", model=model, output_type=Answer, model_settings=short)
        return Agent(
            name="Triage", instructions="Hand off.", model=model, handoffs=[other], model_settings=MUST
        )

    assert run(make, "Hola").last_agent.name == "Spanish"


def test_an_output_of_a_type(run: Run) -> None:
    def make(model: Any) -> Agent:
        settings = ModelSettings(temperature=0, max_tokens=200)
        return Agent(name="a", model=model, output_type=Answer, model_settings=settings)

    assert isinstance(run(make, "Is it sunny?").final_output, Answer)


@pytest.mark.parametrize("tools", [[], [weather]])
def test_the_defaults_of_an_agent(run: Run, tools: list[Any]) -> None:
    def make(model: Any) -> Agent:
        return Agent(name="a", instructions="Be brief.", model=model, tools=tools)

    assert isinstance(run(make, "Say hello.").final_output, str)
