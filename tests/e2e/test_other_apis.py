"""`/v1/responses` and `/v1/messages` of the served demo, asked by the official SDKs."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from typing import Any

from anthropic import Anthropic
from openai import OpenAI
from youtu_client import Client

from tests.e2e.running import ROOT, RunningServer
from tests.limits import WAIT_S

QUESTION = "How do I return an item?"
GREEDY: Any = {"temperature": 0.0, "repetition_penalty": 1.0}
CITIES = ["Paris", "Rome"]
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": CITIES}},
    "required": ["city"],
    "additionalProperties": False,
}


def test_responses(server: RunningServer, client: Client) -> None:
    sdk = OpenAI(base_url=f"{server.http_url}/v1", api_key="none", max_retries=0, timeout=WAIT_S)
    model = sdk.models.list().data[0].id
    expected = client.chat(QUESTION, **GREEDY)
    first = sdk.responses.create(model=model, input=QUESTION, extra_body=GREEDY)
    assert (first.output_text, first.status) == (expected.text, "completed")
    assert first.usage is not None
    assert first.usage.input_tokens == expected.usage.prompt_tokens
    assert first.usage.output_tokens == expected.usage.completion_tokens
    counted = sdk.responses.input_tokens.count(model=model, input=QUESTION)
    assert counted.input_tokens == expected.usage.prompt_tokens
    turns: Any = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": expected.text},
        {"role": "user", "content": "你好"},
    ]
    events: list[Any] = list(
        sdk.responses.create(
            model=model, input="你好", previous_response_id=first.id, stream=True, extra_body=GREEDY
        )
    )
    assert events[-1].type == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == client.chat(turns, **GREEDY).text
    tool: Any = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
    forced = sdk.responses.create(model=model, input=QUESTION, tools=[tool], tool_choice="required")
    call: Any = forced.output[-1]
    assert (call.type, call.name) == ("function_call", "weather")
    assert any(f'"city": "{city}"' in call.arguments for city in CITIES)


def test_messages(server: RunningServer, client: Client) -> None:
    sdk = Anthropic(base_url=server.http_url, api_key="none", max_retries=0, timeout=WAIT_S)
    model = sdk.models.list().data[0].id
    turns: Any = [{"role": "user", "content": QUESTION}]
    expected = client.chat(QUESTION, **GREEDY)
    asked: Any = {"model": model, "max_tokens": 200, "messages": turns}
    whole: Any = sdk.messages.create(**asked, extra_body=GREEDY)
    assert (whole.content[0].text, whole.stop_reason) == (expected.text, "end_turn")
    usage = whole.usage
    assert usage.input_tokens + usage.cache_read_input_tokens == expected.usage.prompt_tokens
    assert sdk.messages.count_tokens(model=model, messages=turns).input_tokens == expected.usage.prompt_tokens
    with sdk.messages.stream(**asked, extra_body=GREEDY) as stream:
        assert "".join(stream.text_stream) == expected.text
        assert stream.get_final_message().usage.output_tokens == expected.usage.completion_tokens
    word = expected.text.split()[3]
    stopped = sdk.messages.create(**asked, stop_sequences=[word], extra_body=GREEDY)
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", word)
    tool: Any = {"name": "weather", "input_schema": SCHEMA}
    # Free to make several calls, the demonstration might go on until its tokens end.
    one: Any = {"type": "any", "disable_parallel_tool_use": True}
    called: Any = sdk.messages.create(**asked, tools=[tool], tool_choice=one)
    assert called.stop_reason == "tool_use"
    assert called.content[-1].input["city"] in CITIES


def test_the_example_of_the_docs(server: RunningServer) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(from anthropic.*?)```", page, re.DOTALL)
    said = io.StringIO()
    with redirect_stdout(said):
        exec(code.replace("http://localhost:8080", server.http_url), {})
    assert said.getvalue().strip()
