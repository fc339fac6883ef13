"""Pydantic AI: typed output in each of its modes, tools, and two system messages."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput, UsageLimitExceeded, UsageLimits
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from .conftest import Served


class Answer(BaseModel):
    """The answer."""

    colour: Literal["red", "green", "blue"]


def model(served: Served) -> OpenAIChatModel:
    return OpenAIChatModel(served.model, provider=OpenAIProvider(base_url=served.v1, api_key="none"))


@pytest.mark.parametrize("mode", [None, ToolOutput, NativeOutput])
def test_an_output_of_a_type(served: Served, mode: Any) -> None:
    agent: Any = Agent(
        model(served), output_type=Answer if mode is None else mode(Answer), model_settings={"temperature": 0}
    )
    result = agent.run_sync("Which colour has the sky?")
    assert isinstance(result.output, Answer)


def test_system_prompt_together_with_instructions(served: Served) -> None:
    agent: Any = Agent(
        model(served),
        system_prompt="You are a test.",
        instructions="Be brief.",
        model_settings={"temperature": 0, "max_tokens": 20},
    )
    assert isinstance(agent.run_sync("Hello").output, str)


def test_a_tool_and_an_output(served: Served) -> None:
    """With an output of a type something has to be called at each turn: a tool, or the output."""
    agent: Any = Agent(model(served), output_type=Answer, model_settings={"temperature": 0}, retries=3)

    @agent.tool_plain
    def sky() -> str:
        """Tell the colour of the sky."""
        return "blue"

    try:
        result = agent.run_sync("Which colour has the sky?", usage_limits=UsageLimits(request_limit=6))
    except UsageLimitExceeded:  # so small a model may ask the tool again and again; each turn was a call
        return
    assert isinstance(result.output, Answer)
