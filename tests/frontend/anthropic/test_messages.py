"""`/v1/messages` under Anthropic's SDK: what goes in, what comes out, how it fails, whole and streamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from anthropic import (
    Anthropic,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    RateLimitError,
)
from flask.testing import FlaskClient

from frontend.keys import add
from tests.client.fake_triton import FakeTriton

from ..conftest import Frontend, script
from ..test_description import application

MODEL = "youtu-demo"
TOOL: Any = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


def ask(sdk: Anthropic, content: Any = "q", **options: Any) -> Any:
    given: dict[str, Any] = {
        "model": MODEL,
        "max_tokens": 100,
        "messages": [{"role": "user", "content": content}],
    }
    return sdk.messages.create(**given | options)


def pieces(*texts: str, **orders: Any) -> str:
    return script(pieces=list(texts), **orders)


def messages(fake: FakeTriton) -> list[dict[str, Any]]:
    """What the model was last asked."""
    found: list[dict[str, Any]] = fake.calls[-1].inputs["messages"]
    return found


def refused(sdk: Anthropic, **options: Any) -> dict[str, Any]:
    with pytest.raises(BadRequestError) as refusal:
        ask(sdk, **options)
    error: dict[str, Any] = refusal.value.response.json()
    assert error["error"]["type"] == "invalid_request_error"
    return error


def test_a_message(sdk: Anthropic, fake: FakeTriton) -> None:
    message = ask(sdk, "你好", system="Be brief.", metadata={"user_id": "u"}, service_tier="auto")
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert [block.to_dict() for block in message.content] == [{"type": "text", "text": "You said: 你好"}]
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.timings["total_s"] >= 0
    assert messages(fake) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "你好"},
    ]
    assert fake.calls[-1].inputs["max_tokens"] == 100


def test_usage_tells_what_the_cache_had(sdk: Anthropic) -> None:
    content = f"one two three {script(tokens=5, cached=2)}"
    usage = ask(sdk, content).usage
    assert usage.input_tokens + usage.cache_read_input_tokens == len(content.split())
    assert (usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (2, 0)
    assert usage.output_tokens == 5


def test_the_options_reach_the_model(sdk: Anthropic, fake: FakeTriton) -> None:
    ask(
        sdk,
        stop_sequences=["x", "y"],
        output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
        cache_control={"type": "ephemeral"},
        extra_body={"temperature": 0.5, "top_p": 0.25, "top_k": 40, "seed": 7, "logit_bias": {"7": 1}},
    )
    inputs = fake.calls[-1].inputs
    assert json.loads(inputs["logit_bias"]) == {"7": 1}
    expected = {"temperature": 0.5, "top_p": 0.25, "top_k": 40, "seed": 7, "stop_words": ["x", "y"]}
    expected |= {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": '{"type": "object"}'}
    assert {name: inputs[name] for name in expected} == expected


def test_every_kind_of_block_becomes_chat_messages(sdk: Anthropic, fake: FakeTriton) -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    turns: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", **cached}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "?"},
                {"type": "text", "text": "So:"},
                {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": "é"}},
                {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "one"}]},
                {"type": "tool_result", "tool_use_id": "c2", "content": "broken", "is_error": True},
                {"type": "text", "text": "c"},
            ],
        },
        {"role": "system", "content": "More."},
        {"role": "user", "content": "d"},
    ]
    system: Any = [{"type": "text", "text": "Rules. ", **cached}, {"type": "text", "text": "All."}]
    ask(sdk, messages=turns, system=system)
    call = {"type": "function", "id": "c1", "function": {"name": "f", "arguments": {"a": "é"}}}
    other = {"type": "function", "id": "c2", "function": {"name": "g", "arguments": {}}}
    assert messages(fake) == [
        {"role": "system", "content": "Rules. All."},
        {"role": "user", "content": "ab"},
        {"role": "assistant", "content": "So:", "reasoning_content": "hm", "tool_calls": [call, other]},
        {"role": "tool", "content": "one", "tool_call_id": "c1"},
        {"role": "tool", "content": "Error: broken", "tool_call_id": "c2"},
        {"role": "user", "content": "c"},
        {"role": "system", "content": "More."},
        {"role": "user", "content": "d"},
    ]


def kwargs(fake: FakeTriton) -> dict[str, Any]:
    """What the chat template was last given."""
    found: dict[str, Any] = json.loads(fake.calls[-1].inputs["chat_template_kwargs"])
    return found


def test_the_model_thinks_only_for_those_who_ask(sdk: Anthropic, fake: FakeTriton) -> None:
    ask(sdk)
    assert kwargs(fake) == {"enable_thinking": False}
    for kind, thinks in (("disabled", False), ("adaptive", True)):
        ask(sdk, thinking={"type": kind})
        assert kwargs(fake) == {"enable_thinking": thinks}
    question = pieces("hm ", "so</think>", "yes", thinking=True)
    thinking: dict[str, Any] = {"type": "enabled", "budget_tokens": 1024}
    thought, text = ask(sdk, question, thinking=thinking).content
    assert kwargs(fake) == {"enable_thinking": True}
    assert (thought.type, thought.thinking, text.text) == ("thinking", "hm so", "yes")
    assert thought.signature
    hidden, _ = ask(sdk, question, thinking={**thinking, "display": "omitted"}).content
    assert (hidden.type, hidden.thinking, hidden.signature) == ("thinking", "", thought.signature)
    ask(sdk, extra_body={"chat_template_kwargs": {"enable_thinking": True}})
    assert kwargs(fake) == {"enable_thinking": True}


def test_calls_of_tools(sdk: Anthropic, fake: FakeTriton) -> None:
    message = ask(sdk, pieces("Let me see. ", CALL), tools=[TOOL], tool_choice={"type": "auto"})
    text, call = message.content
    assert (text.text, message.stop_reason) == ("Let me see.", "tool_use")
    assert (call.type, call.name, call.input) == ("tool_use", "f", {"a": 1})
    told = kwargs(fake)["tools"][0]["function"]
    assert told == {"name": "f", "description": "d", "parameters": {"type": "object"}}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "42"}
    turns = [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    ask(sdk, messages=[{"role": "user", "content": "q"}, *turns], tools=[TOOL])
    assert messages(fake)[-1] == {"role": "tool", "content": "42", "tool_call_id": call.id}
    ask(sdk, tools=[TOOL], tool_choice={"type": "none"})
    assert "tools" not in kwargs(fake)


def test_why_it_stopped(sdk: Anthropic) -> None:
    assert ask(sdk, script(tokens=9), max_tokens=3).stop_reason == "max_tokens"
    assert ask(sdk, script(tokens=9, finish="length")).stop_reason == "model_context_window_exceeded"


def test_the_stop_sequence_that_ended_it(sdk: Anthropic) -> None:
    question = script(tokens=2, stopped_by="END")
    message = ask(sdk, question, stop_sequences=["END"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")
    *_, end, _ = ask(sdk, question, stop_sequences=["END"], stream=True)
    assert (end.delta.stop_reason, end.delta.stop_sequence) == ("stop_sequence", "END")
    assert ask(sdk, script(tokens=2, stopped_by=7)).stop_reason == "end_turn"


def test_a_tool_can_be_forced(sdk: Anthropic, fake: FakeTriton) -> None:
    other = {**TOOL, "name": "g", "strict": True}
    for choice, expected in (
        ({"type": "any"}, "required"),
        ({"type": "tool", "name": "g", "disable_parallel_tool_use": True}, "function:g"),
    ):
        ask(sdk, tools=[TOOL, other], tool_choice=choice)
        assert fake.calls[-1].inputs["tool_choice"] == expected
    assert fake.calls[-1].inputs["parallel_tool_calls"] is False
    error = refused(sdk, tools=[TOOL], tool_choice={"type": "tool", "name": "h"})
    assert "tool_choice names h, which is not in tools" in error["error"]["message"]


def test_a_last_message_of_the_assistant_is_continued(sdk: Anthropic, fake: FakeTriton) -> None:
    ask(sdk, messages=[{"role": "user", "content": "q"}, {"role": "assistant", "content": "It is"}])
    assert fake.calls[-1].inputs["continue_final_message"] is True
    ask(sdk)
    assert "continue_final_message" not in fake.calls[-1].inputs


ORDER = [
    ("message_start", None),
    ("content_block_start", 0),
    ("content_block_delta", 0),
    ("content_block_delta", 0),
    ("content_block_delta", 0),
    ("content_block_stop", 0),
    ("content_block_start", 1),
    ("content_block_delta", 1),
    ("content_block_delta", 1),
    ("content_block_stop", 1),
    ("content_block_start", 2),
    ("content_block_delta", 2),
    ("content_block_stop", 2),
    ("message_delta", None),
    ("message_stop", None),
]


def test_the_order_of_events(sdk: Anthropic) -> None:
    question = pieces("hm", " so</think>", "a", "b", CALL, thinking=True)
    events = list(ask(sdk, question, tools=[TOOL], stream=True))
    assert [(event.type, getattr(event, "index", None)) for event in events] == ORDER
    deltas = [event.delta.type for event in events if event.type == "content_block_delta"]
    assert deltas == ["thinking_delta"] * 2 + ["signature_delta"] + ["text_delta"] * 2 + ["input_json_delta"]
    start, end = events[0].message, events[-2]
    assert (start.content, start.stop_reason, start.usage.output_tokens) == ([], None, 0)
    assert start.usage.input_tokens == len(question)  # the fake's tokens at the start are its characters
    assert (end.delta.stop_reason, end.usage.output_tokens) == ("tool_use", 5)
    assert end.usage.output_tokens_details.thinking_tokens == 2
    assert end.usage.input_tokens == len(question.split())


def test_a_stream_begins_with_a_ping(app: FlaskClient) -> None:
    body = {"max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "q"}]}
    text = app.post("/v1/messages", json=body).text
    assert [line for line in text.splitlines() if line.startswith("event")][:2] == [
        "event: message_start",
        "event: ping",
    ]


def test_the_sdk_puts_the_stream_together(sdk: Anthropic) -> None:
    question = pieces("hm</think>", "a", "b", CALL, thinking=True)
    asked: Any = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": question}]}
    with sdk.messages.stream(**asked, tools=[TOOL]) as stream:
        assert list(stream.text_stream) == ["a", "b"]
        message = stream.get_final_message()
    whole = ask(sdk, question, tools=[TOOL])
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    said: list[Any] = [message.content[0], message.content[1]]
    assert [said[0].thinking, said[1].text] == [whole.content[0].thinking, whole.content[1].text]
    assert message.content[2].input == {"a": 1}  # type: ignore[union-attr]
    assert (message.usage.input_tokens, message.stop_reason) == (len(question.split()), "tool_use")


def test_hidden_thinking_is_not_streamed(sdk: Anthropic) -> None:
    thinking = {"type": "adaptive", "display": "omitted"}
    events = list(ask(sdk, pieces("hm</think>", "a", thinking=True), thinking=thinking, stream=True))
    deltas = [event.delta.type for event in events if event.type == "content_block_delta"]
    assert deltas == ["signature_delta", "text_delta"]


def test_a_stream_that_fails_is_raised(sdk: Anthropic, frontend: Frontend) -> None:
    options = {"stream": True, "extra_headers": {"X-Request-ID": "broken"}}
    with pytest.raises(APIStatusError, match="failed while generating the answer") as failure:
        list(ask(sdk, script(tokens=3, fail_at=2), **options))
    assert failure.value.body == {
        "type": "error",
        "error": {"type": "api_error", "message": "The inference server failed while generating the answer."},
        "code": "engine_error",
        "param": None,
        "request_id": "broken",
    }
    assert frontend.line("broken")["error"] == "ServerError"


def test_a_count_of_tokens(sdk: Anthropic, fake: FakeTriton) -> None:
    turns: Any = [{"role": "user", "content": "one two"}]
    count = sdk.messages.count_tokens(model=MODEL, messages=turns, system="Be brief.", tools=[TOOL])
    assert count.input_tokens > 0
    assert [message["content"] for message in messages(fake)] == ["Be brief.", "one two"]
    assert set(kwargs(fake)) == {"tools", "enable_thinking"}


def test_keys_as_anthropic_s_clients_send_them(fake: FakeTriton, tmp_path: Path) -> None:
    key = add(tmp_path / "keys", "one")
    app = application(fake, keys_file=str(tmp_path / "keys")).test_client()
    body = {"max_tokens": 9, "messages": [{"role": "user", "content": "q"}]}

    def status(**headers: str) -> int:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        code: int = app.post("/v1/messages", json=body, headers=named).status_code
        return code

    assert status(x_api_key=key) == status(authorization=f"Bearer {key}") == 200
    assert status() == status(x_api_key="wrong") == status(authorization=f"Basic {key}") == 401
    assert status(x_api_key=key, authorization="Bearer wrong") == 401  # one that is given is not passed over
    assert app.post("/chat", json={"prompt": "q"}, headers={"X-API-Key": key}).status_code == 200


def test_errors_have_anthropic_s_shape(another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another(api_key="right", rate_limit="4/minute")
    url = f"http://127.0.0.1:{frontend.port}"
    with pytest.raises(AuthenticationError) as wrong:
        ask(Anthropic(base_url=url, api_key="wrong", max_retries=0))
    assert wrong.value.response.json()["error"]["type"] == "authentication_error"
    sdk = Anthropic(base_url=url, api_key="right", max_retries=0)
    with pytest.raises(NotFoundError, match=r"does not exist; available: ") as unknown:
        ask(sdk, model="claude")
    assert unknown.value.response.json()["error"]["type"] == "not_found_error"
    assert unknown.value.request_id == unknown.value.response.headers["X-Request-ID"]
    with pytest.raises(RateLimitError) as full:
        ask(sdk, script(queue_full=True))
    assert full.value.response.json()["error"]["type"] == "overloaded_error"
    assert int(full.value.response.headers["Retry-After"]) >= 1
    with pytest.raises(APIStatusError) as absent:
        ask(sdk, script(not_ready=True))
    assert absent.value.status_code == 503
    assert absent.value.response.json()["error"]["type"] == "overloaded_error"
    ask(sdk)
    with pytest.raises(RateLimitError) as much:
        ask(sdk)
    assert much.value.response.json()["error"]["type"] == "rate_limit_error"


def test_below_the_route_all_errors_have_its_shape(app: FlaskClient) -> None:
    for method, path, status, kind in (
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("GET", "/v1/messages/batches", 404, "not_found_error"),
        ("POST", "/v1/messages", 400, "invalid_request_error"),
    ):
        reply = app.open(path, method=method)
        error: Any = reply.json
        assert (reply.status_code, error["type"], error["error"]["type"]) == (status, "error", kind)
        assert error["request_id"] == reply.headers["X-Request-ID"]
    assert list(app.get("/v1/message").json["error"]) == ["message", "type", "param", "code"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        (
            {"content": [{"type": "image", "source": {"type": "url", "url": "x"}}]},
            "messages[0].content[0]",
            'unsupported type "image": the model reads text only',
        ),
        (
            {"content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
            "messages[0]",
            "a tool_use block at content[0]; only assistant messages may have one",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, "tools[0]", "web_search_20250305"),
        ({"tools": [TOOL, {**TOOL, "name": ""}]}, "tools[1].name", "at least 1"),
        ({"container": "c"}, "container", "this server has no containers"),
        ({"extra_body": {"what": 1}}, "what", "expected one of model, messages, "),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"speed": "fast"}, "speed", "standard"),
        ({"messages": []}, "messages", "at least 1"),
    ],
)
def test_refusals_name_the_field(sdk: Anthropic, options: dict[str, Any], param: str, words: str) -> None:
    error = refused(sdk, **options)
    assert error["param"] == param
    assert words in error["error"]["message"]


def test_a_fault_that_the_model_finds_is_told_of_the_message(sdk: Anthropic) -> None:
    """The system text stands before the messages; their own places are told all the same."""
    fault = {"fail_at": 0, "fail_code": "invalid_value", "fail_message": "is odd"}
    turns = [
        {"role": "user", "content": "x"},
        {"role": "user", "content": script(**fault, fail_param="messages[2]")},
    ]
    assert refused(sdk, messages=turns, system="Be brief.")["param"] == "messages[1]"


def test_leaving_frees_the_slot(sdk: Anthropic, fake: FakeTriton, frontend: Frontend) -> None:
    stream = ask(sdk, script(unending=True, delay=0.02), stream=True)
    for event in stream:
        if event.type == "content_block_delta":
            break
    stream.close()
    fake.calls[-1].wait_cancelled()
    frontend.wait_gauges(running=0, waiting=0)
