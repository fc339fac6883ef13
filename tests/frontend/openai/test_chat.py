"""`/v1/chat/completions` under the official SDK: what goes in, what comes out, whole and streamed."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from openai import APIError, APIStatusError, AsyncOpenAI, OpenAI

from tests.client.fake_triton import PARAMETERS, FakeTriton

from ..conftest import Frontend, script

MODEL = "youtu-demo"


def ask(sdk: OpenAI, prompt: str = "q", **options: Any) -> Any:
    return sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": prompt}], **options)


def pieces(*texts: str, **orders: Any) -> str:
    return script(pieces=list(texts), **orders)


def test_an_answer(sdk: OpenAI, fake: FakeTriton) -> None:
    answer = ask(sdk, "你好", extra_headers={"X-Request-ID": "abc"})
    assert (answer.id, answer.object, answer.model) == ("chatcmpl-abc", "chat.completion", MODEL)
    (choice,) = answer.choices
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", "You said: 你好")
    assert (choice.finish_reason, choice.logprobs, choice.message.tool_calls) == ("stop", None, None)
    assert not hasattr(choice.message, "reasoning_content")
    assert fake.calls[0].id == "abc"
    assert set(fake.calls[0].inputs) == {
        "messages",
        "stream",
        "return_parts",
    }  # the rest is left to the deployment


def test_usage_and_timings(sdk: OpenAI) -> None:
    started = time.monotonic()
    answer = ask(sdk, script(tokens=5, delay=0.05, cached=2, prefill=0.1), max_tokens=3)
    waited = time.monotonic() - started + 0.001  # the facts are rounded
    assert answer.choices[0].finish_reason == "length"
    usage = answer.usage
    assert (usage.completion_tokens, usage.prompt_tokens_details.cached_tokens) == (3, 2)
    assert usage.total_tokens == usage.prompt_tokens + 3
    assert 0.1 <= answer.timings["ttft_s"] <= answer.timings["total_s"] - 0.099
    assert answer.timings["total_s"] <= waited
    assert 0 < answer.timings["tokens_per_second"] <= 21


def test_every_option_reaches_the_model(sdk: OpenAI, fake: FakeTriton) -> None:
    ask(
        sdk,
        max_completion_tokens=7,
        temperature=0.5,
        top_p=0.25,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        seed=-2,
        stop="x",
        logit_bias={"7": -100},
        logprobs=True,
        top_logprobs=2,
        user="somebody",
        extra_body={
            "top_k": 40,
            "min_tokens": 2,
            "repetition_penalty": 1.5,
            "chat_template_kwargs": {"custom": 1},
            "enable_thinking": True,
        },
    )
    inputs = fake.calls[0].inputs
    bias, kwargs = json.loads(inputs.pop("logit_bias")), json.loads(inputs.pop("chat_template_kwargs"))
    assert (bias, kwargs) == ({"7": -100.0}, {"custom": 1, "enable_thinking": True})
    assert inputs == {
        "messages": [{"role": "user", "content": "q"}],
        "stream": True,
        "return_parts": True,
        "max_tokens": 7,
        "min_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.25,
        "top_k": 40,
        "repetition_penalty": 1.5,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
        "seed": 2**64 - 2,
        "stop_words": ["x"],
        "return_log_probs": True,
        "top_log_probs": 2,
    }


def test_messages_of_every_kind(sdk: OpenAI, fake: FakeTriton) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    sdk.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": None, "tool_calls": [call]},  # type: ignore[list-item]
            {"role": "tool", "tool_call_id": "c1", "content": "5"},
        ],
    )
    assert fake.calls[0].inputs["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "ab"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
            ],
        },
        {"role": "tool", "content": "5", "tool_call_id": "c1"},
    ]


def test_an_answer_can_be_sent_back_as_it_came(sdk: OpenAI, fake: FakeTriton) -> None:
    """Agents append `message` of one answer to the next request, unknown keys, nulls and all."""
    first = ask(sdk, pieces("<think>a</think>", "b")).choices[0].message.model_dump()
    sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "q"}, first, first])
    assert fake.calls[1].inputs["messages"][1] == {
        "role": "assistant",
        "content": "b",
        "reasoning_content": "a",
    }


def test_a_stream(sdk: OpenAI) -> None:
    chunks = list(ask(sdk, pieces("He", "", "llo"), stream=True))
    assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {
        (chunks[0].id, "chat.completion.chunk", MODEL)
    }
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert (deltas[0].role, deltas[0].content) == ("assistant", "")
    assert [delta.content for delta in deltas[1:]] == ["He", "llo", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, None, "stop"]
    assert chunks[-1].timings["ttft_s"] >= 0
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_with_usage(sdk: OpenAI) -> None:
    *chunks, last = ask(sdk, script(tokens=3, cached=1), stream=True, stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert (last.usage.completion_tokens, last.usage.prompt_tokens_details.cached_tokens) == (3, 1)
    assert last.timings["total_s"] >= 0


@pytest.mark.parametrize("stream", [False, True])
def test_n_is_n_answers_with_seeds_of_their_own(sdk: OpenAI, fake: FakeTriton, stream: bool) -> None:
    answer = ask(sdk, pieces("a", "b"), n=3, seed=5, stream=stream)
    if stream:
        texts = dict.fromkeys(range(3), "")
        reasons = {}
        for chunk in answer:
            (choice,) = chunk.choices
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] = choice.finish_reason
        assert reasons == dict.fromkeys(range(3), "stop")
    else:
        texts = {choice.index: choice.message.content for choice in answer.choices}
        assert answer.usage.completion_tokens == 6
    assert texts == {0: "ab", 1: "ab", 2: "ab"}
    assert sorted(call.inputs["seed"] for call in fake.calls) == [5, 6, 7]
    assert len({call.id for call in fake.calls}) == 3


@pytest.mark.parametrize("stream", [False, True])
def test_log_probs(sdk: OpenAI, stream: bool) -> None:
    answer = ask(sdk, pieces("我", "b"), logprobs=True, top_logprobs=2, stream=stream)
    if stream:
        chunks = [chunk.choices[0].logprobs for chunk in answer if chunk.choices[0].logprobs]
        tokens = [token for chunk in chunks for token in chunk.content]
    else:
        tokens = answer.choices[0].logprobs.content
    assert [(token.token, token.logprob, bytes(token.bytes)) for token in tokens] == [
        ("我", -0.5, "我".encode()),
        ("b", -0.5, b"b"),
    ]
    assert [(top.token, top.logprob) for top in tokens[0].top_logprobs] == [("我", -0.5), ("<other 1>", -1.5)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "prompt",
    [
        pieces("<th", "ink>\nhm", " hm\n", "</thi", "nk>\n\n", "yes"),
        pieces("hm", " hm", "\n</think>", "yes", thinking=True),
    ],
)
def test_thinking_comes_apart(sdk: OpenAI, prompt: str, stream: bool) -> None:
    answer = ask(sdk, prompt, stream=stream)
    if stream:
        deltas = [chunk.choices[0].delta for chunk in answer]
        reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
        content = "".join(delta.content or "" for delta in deltas)
    else:
        message = answer.choices[0].message
        reasoning, content = message.reasoning_content, message.content
    assert (reasoning, content) == ("hm hm", "yes")


TOOLS: Any = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object"}}}]


@pytest.mark.parametrize("stream", [False, True])
def test_tools(sdk: OpenAI, fake: FakeTriton, stream: bool) -> None:
    prompt = pieces(
        "One mo", "ment.<tool", '_call>{"name": "w", "arguments"', ': {"city": "北京"}}</tool_call>'
    )
    answer = ask(sdk, prompt, tools=TOOLS, tool_choice="auto", stream=stream)
    if stream:
        chunks = [chunk.choices[0] for chunk in answer]
        (call,) = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
        assert call.index == 0
        content, reason = "".join(chunk.delta.content or "" for chunk in chunks), chunks[-1].finish_reason
    else:
        message = answer.choices[0].message
        (call,) = message.tool_calls
        content, reason = message.content, answer.choices[0].finish_reason
    assert (content, reason) == ("One moment.", "tool_calls")
    assert (call.type, call.function.name) == ("function", "w")
    assert json.loads(call.function.arguments) == {"city": "北京"}
    assert call.id.startswith("call_")
    assert json.loads(fake.calls[0].inputs["chat_template_kwargs"]) == {"tools": TOOLS}


def test_tools_that_are_not_to_be_used(sdk: OpenAI, fake: FakeTriton) -> None:
    answer = ask(sdk, pieces("<tool_call>{}</tool_call>"), tools=TOOLS, tool_choice="none")
    assert answer.choices[0].message.content == "<tool_call>{}</tool_call>"
    assert "chat_template_kwargs" not in fake.calls[0].inputs


def test_a_schema_becomes_a_guide(sdk: OpenAI, fake: FakeTriton) -> None:
    schema: Any = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    ask(sdk, response_format=form)
    ask(sdk, response_format={"type": "json_object"})
    ask(sdk, response_format={"type": "text"})
    first, second, third = (call.inputs for call in fake.calls)
    assert first["guided_decoding_guide_type"] == "json_schema"
    assert json.loads(first["guided_decoding_guide"]) == schema
    assert "chat_template_kwargs" not in first  # the guide begins behind the thinking
    assert second["guided_decoding_guide_type"] == "json"
    assert "guided_decoding_guide" not in second
    assert "guided_decoding_guide_type" not in third


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"extra_body": {"best": 1}}, "best", "unknown field `best`"),
        ({"reasoning_effort": "most"}, "reasoning_effort", "'xhigh'"),
        ({"store": True}, "store", "store requests stored answers"),
        ({"temperature": 10.1}, "temperature", "10"),
        ({"n": 17}, "n", "16"),
        ({"n": 0}, "n", "1"),
        ({"max_tokens": 0}, "max_tokens", "1"),
        ({"top_logprobs": 2}, None, "requires logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
        ({"logit_bias": {"x": 1}}, "logit_bias", ""),
        ({"logit_bias": {"1": 101}}, "logit_bias", "100"),
        ({"presence_penalty": -2.5}, "presence_penalty", "-2"),
        ({"stop": [""]}, "stop", "empty"),
        ({"stream_options": {"include_usage": True}}, None, "requires stream"),
        ({"response_format": {"type": "grammar"}}, "response_format.type", "json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role", "developer"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "needs content"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].type",
            "text",
        ),
    ],
)
def test_refusals_name_the_field(
    sdk: OpenAI, fake: FakeTriton, options: dict[str, Any], param: str | None, words: str
) -> None:
    given: Any = {"model": MODEL, "messages": [{"role": "user", "content": "q"}]} | options
    with pytest.raises(APIStatusError) as refused:
        sdk.chat.completions.create(**given)
    assert refused.value.status_code == 400
    assert (refused.value.param or "").startswith(param or "")
    assert (refused.value.param is None) == (param is None)
    assert words in refused.value.message
    assert fake.calls == []


def test_refusals_of_the_model_name_the_callers_fields(sdk: OpenAI) -> None:
    prompt = script(
        fail_at=0, fail_code="invalid_value", fail_param="max_tokens", fail_message="1 to 9, not 5000"
    )
    with pytest.raises(APIStatusError) as refused:
        ask(sdk, prompt, max_completion_tokens=5000)
    assert refused.value.param == "max_completion_tokens"
    assert "max_completion_tokens: 1 to 9, not 5000" in refused.value.message


def test_another_model(sdk: OpenAI, fake: FakeTriton) -> None:
    with pytest.raises(APIStatusError) as refused:
        sdk.chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "q"}])
    assert (refused.value.status_code, refused.value.code) == (404, "model_not_found")
    assert fake.calls == []


def test_what_this_engine_cannot_do(sdk: OpenAI, frontend: Frontend, monkeypatch: pytest.MonkeyPatch) -> None:
    cannot = {"tools": "false", "guided_decoding": "false", "top_log_probs": "0", "prompt_log_probs": "false"}
    for name, value in cannot.items():
        monkeypatch.setitem(PARAMETERS, name, value)
    # What is known of the model is forgotten when it was away.
    with pytest.raises(APIStatusError):
        ask(sdk, script(not_ready=True))
    for field, options in {
        "tools": {"tools": TOOLS},
        "response_format": {"response_format": {"type": "json_object"}},
        "top_logprobs": {"logprobs": True, "top_logprobs": 1},
    }.items():
        with pytest.raises(APIStatusError) as refused:
            ask(sdk, **options)
        assert (refused.value.status_code, refused.value.param) == (400, field)
    with pytest.raises(APIStatusError) as refused:
        sdk.completions.create(model=MODEL, prompt="q", echo=True, logprobs=0)
    assert (refused.value.status_code, refused.value.param) == (400, "echo")
    with pytest.raises(APIStatusError):
        ask(sdk, script(not_ready=True))


@pytest.mark.parametrize(
    ("orders", "status", "code"),
    [
        ({"queue_full": True}, 429, "queue_full"),
        ({"not_ready": True}, 503, "not_ready"),
        ({"fail_at": 0}, 502, "engine_error"),
        ({"fail_at": 0, "fail_code": "DEADLINE_EXCEEDED"}, 504, "deadline_exceeded"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_failures_have_their_status(
    sdk: OpenAI, orders: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    with pytest.raises(APIStatusError) as failed:
        ask(sdk, script(**orders), stream=stream)
    assert (failed.value.status_code, failed.value.code) == (status, code)
    assert ("retry-after" in failed.value.response.headers) == (status in (429, 503))


def test_a_failure_in_the_middle_is_raised(sdk: OpenAI) -> None:
    """The fault: half a text and an end that looks like any other."""
    stream = ask(sdk, script(tokens=5, fail_at=2, delay=0.01), stream=True)
    assert [next(stream).choices[0].delta.content for _ in range(3)] == ["", "t0 ", "t1 "]
    with pytest.raises(APIError) as failed:
        next(stream)
    assert failed.value.code == "engine_error"


def test_one_of_n_fails_and_the_others_are_given_up(sdk: OpenAI, fake: FakeTriton) -> None:
    with pytest.raises(APIStatusError) as failed:
        ask(sdk, script(fail_at=0, fail_times=1, unending=True, delay=0.05), n=3)
    assert failed.value.status_code == 502
    for call in fake.calls[1:]:
        call.wait_cancelled()


def test_leaving_a_stream_of_several(sdk: OpenAI, fake: FakeTriton) -> None:
    with ask(sdk, script(unending=True, delay=0.02), n=2, stream=True) as stream:
        next(stream)
    for call in fake.wait_calls(2):
        call.wait_cancelled()


def test_models(sdk: OpenAI) -> None:
    (model,) = sdk.models.list().data
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "youtu-triton")
    assert sdk.models.retrieve(MODEL) == model
    assert model.max_model_len == 2048  # type: ignore[attr-defined]
    with pytest.raises(APIStatusError) as refused:
        sdk.models.retrieve("a/b")
    assert (refused.value.status_code, refused.value.code) == (404, "model_not_found")


def test_the_asynchronous_sdk(frontend: Frontend) -> None:
    async def both() -> tuple[str | None, str]:
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{frontend.port}/v1", api_key="none") as client:
            given: Any = {"model": MODEL, "messages": [{"role": "user", "content": "q"}]}
            whole, stream = await asyncio.gather(
                client.chat.completions.create(**given), client.chat.completions.create(**given, stream=True)
            )
            streamed = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return whole.choices[0].message.content, "".join(streamed)

    assert asyncio.run(both()) == ("You said: q", "You said: q")
