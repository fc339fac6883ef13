"""`/v1/responses` under the official SDK: what goes in, what comes out, whole and streamed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, NotFoundError, OpenAI
from pydantic import BaseModel

from frontend.keys import add
from tests.client.fake_triton import FakeTriton

from ..conftest import Frontend, script
from ..test_description import application

MODEL = "youtu-demo"
TOOL: Any = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}
CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


def ask(sdk: OpenAI, input: Any = "q", **options: Any) -> Any:
    return sdk.responses.create(model=MODEL, input=input, **options)


def pieces(*texts: str, **orders: Any) -> str:
    return script(pieces=list(texts), **orders)


def text(text: str, kind: str = "input_text") -> dict[str, Any]:
    return {"type": kind, "text": text}


def refused(sdk: OpenAI, **options: Any) -> dict[str, Any]:
    with pytest.raises(APIStatusError) as refusal:
        ask(sdk, **options)
    error: dict[str, Any] = refusal.value.response.json()["error"]
    assert refusal.value.status_code == 400
    return error


def messages(fake: FakeTriton) -> list[dict[str, Any]]:
    """What the model was last asked."""
    found: list[dict[str, Any]] = fake.calls[-1].inputs["messages"]
    return found


def test_a_response(sdk: OpenAI, fake: FakeTriton) -> None:
    response = ask(sdk, "你好", instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=9)
    assert (response.object, response.status, response.model) == ("response", "completed", MODEL)
    assert response.output_text == "You said: 你好"
    (message,) = response.output
    assert (message.type, message.role, message.status) == ("message", "assistant", "completed")
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert (response.error, response.incomplete_details, response.store) == (None, None, True)
    assert (response.temperature, response.top_p, response.max_output_tokens) == (0.7, 0.9, 9)
    assert response.usage.input_tokens + response.usage.output_tokens == response.usage.total_tokens
    assert response.timings["total_s"] >= 0
    assert messages(fake) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "你好"},
    ]
    assert fake.calls[-1].inputs["max_tokens"] == 9


def test_usage(sdk: OpenAI) -> None:
    response = ask(sdk, script(tokens=5, cached=1), max_output_tokens=3)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert response.output[0].status == "incomplete"
    assert (response.usage.output_tokens, response.usage.input_tokens_details.cached_tokens) == (3, 1)


def test_the_options_reach_the_model(sdk: OpenAI, fake: FakeTriton) -> None:
    ask(
        sdk,
        temperature=0.5,
        top_p=0.25,
        top_logprobs=2,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}},
        extra_body={
            "top_k": 40,
            "seed": 7,
            "enable_thinking": True,
            "stop": ["x"],
            "logit_bias": {"7": 1},
        },
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
        service_tier="auto",
        truncation="disabled",
        max_tool_calls=3,
        include=["reasoning.encrypted_content", "message.output_text.logprobs"],
    )
    inputs = dict(fake.calls[-1].inputs)
    assert json.loads(inputs.pop("guided_decoding_guide")) == {"type": "object"}
    assert json.loads(inputs.pop("logit_bias")) == {"7": 1}
    expected: dict[str, Any] = {"temperature": 0.5, "top_p": 0.25, "top_k": 40, "seed": 7, "top_log_probs": 2}
    expected |= {"stop_words": ["x"], "guided_decoding_guide_type": "json_schema"}
    expected |= {"chat_template_kwargs": '{"enable_thinking":true}', "return_log_probs": True}
    assert {name: inputs[name] for name in expected} == expected


def test_log_probabilities(sdk: OpenAI) -> None:
    response = ask(sdk, pieces("a", "b"), top_logprobs=2)
    scored = response.output[0].content[0].logprobs
    assert [(token.token, token.logprob, len(token.top_logprobs)) for token in scored] == [
        ("a", -0.5, 2),
        ("b", -0.5, 2),
    ]


def test_every_kind_of_item_becomes_chat_messages(sdk: OpenAI, fake: FakeTriton) -> None:
    ask(
        sdk,
        [
            {"role": "developer", "content": "Rules."},
            {"role": "user", "content": [text("a"), text("b")]},
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [text("hm", "reasoning_text")]},
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "status": "completed",
                "content": [{"type": "output_text", "text": "So:", "annotations": [], "logprobs": []}],
            },
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": '{"a": 1}'},
            {"type": "function_call", "id": "fc_2", "call_id": "c2", "name": "g", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "function_call_output", "call_id": "c2", "output": [text("two")]},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "user", "content": "c"},
        ],
    )
    call = {"type": "function", "id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}
    other = {"type": "function", "id": "c2", "function": {"name": "g", "arguments": {}}}
    thought = {"role": "assistant", "content": "So:", "reasoning_content": "hm", "tool_calls": [call, other]}
    assert messages(fake) == [
        {"role": "system", "content": "Rules."},
        {"role": "user", "content": "ab"},
        thought,
        {"role": "tool", "content": "one", "tool_call_id": "c1"},
        {"role": "tool", "content": "two", "tool_call_id": "c2"},
        {"role": "assistant", "content": "No."},
        {"role": "user", "content": "c"},
    ]


def test_thinking(sdk: OpenAI, fake: FakeTriton) -> None:
    question = pieces("hm ", "so</think>", "yes", thinking=True)
    response = ask(sdk, question)
    thought, message = response.output
    assert (thought.type, thought.content[0].text, thought.summary) == ("reasoning", "hm so", [])
    assert message.content[0].text == response.output_text == "yes"
    (summary, _) = ask(sdk, question, reasoning={"summary": "auto"}).output
    assert (summary.summary[0].text, summary.content) == ("hm so", [])
    # Where nothing is stored, the thinking comes back as what it was given as.
    back = [{"role": "user", "content": "q"}, {**thought.model_dump(), "content": None}, message.model_dump()]
    ask(sdk, [*back, {"role": "user", "content": "next"}], store=False)
    assert messages(fake)[1] == {"role": "assistant", "content": "yes", "reasoning_content": "hm so"}
    for foreign in ("gAAAA=", "é", "aG0=", "youtu:é", "youtu:/w=="):
        item = {"type": "reasoning", "id": "rs_9", "summary": [], "encrypted_content": foreign}
        ask(sdk, [item, {"role": "user", "content": "next"}])
        assert messages(fake) == [{"role": "user", "content": "next"}]


def test_thinking_that_is_cut_off(sdk: OpenAI) -> None:
    response = ask(sdk, script(tokens=9, thinking=True), max_output_tokens=3)
    (thought,) = response.output
    assert (thought.type, thought.status, response.status) == ("reasoning", "incomplete", "incomplete")


def test_calls_of_tools(sdk: OpenAI, fake: FakeTriton) -> None:
    response = ask(sdk, pieces("Let me see. ", CALL), tools=[TOOL])
    message, call = response.output
    assert message.content[0].text == "Let me see."
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "f", {"a": 1})
    (only,) = ask(sdk, pieces(CALL), tools=[TOOL]).output
    assert only.type == "function_call"
    told = json.loads(fake.calls[-1].inputs["chat_template_kwargs"])["tools"]
    assert told[0]["function"]["name"] == "f"
    ask(
        sdk,
        [{"type": "function_call_output", "call_id": call.call_id, "output": "42"}],
        previous_response_id=response.id,
        tools=[TOOL],
    )
    calls = messages(fake)[1]["tool_calls"]
    assert [each["id"] for each in calls] == [call.call_id]
    assert messages(fake)[2] == {"role": "tool", "content": "42", "tool_call_id": call.call_id}


def test_a_tool_can_be_forced(sdk: OpenAI, fake: FakeTriton) -> None:
    named: Any = {"type": "function", "name": "f"}
    for choice, expected in (("required", "required"), (named, "function:f")):
        ask(sdk, tools=[{**TOOL, "strict": True}], tool_choice=choice, parallel_tool_calls=False)
        assert fake.calls[-1].inputs["tool_choice"] == expected
        assert fake.calls[-1].inputs["parallel_tool_calls"] is False


def test_the_effort_decides_whether_the_model_thinks(sdk: OpenAI, fake: FakeTriton) -> None:
    efforts: list[Any] = ["none", "high"]
    for effort, thinks in zip(efforts, (False, True), strict=True):
        ask(sdk, reasoning={"effort": effort})
        assert json.loads(fake.calls[-1].inputs["chat_template_kwargs"]) == {"enable_thinking": thinks}
    error = refused(sdk, reasoning={"effort": "utmost"})
    assert error["param"] == "reasoning.effort"


def test_only_allowed_tools_are_offered(sdk: OpenAI, fake: FakeTriton) -> None:
    other = {**TOOL, "name": "g"}
    choice: Any = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]}
    ask(sdk, tools=[TOOL, other], tool_choice=choice)
    told = json.loads(fake.calls[-1].inputs["chat_template_kwargs"])["tools"]
    assert [tool["function"]["name"] for tool in told] == ["g"]


ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.reasoning_text.delta",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "response.output_item.added",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.output_item.done",
    "response.completed",
]


def test_the_order_of_events(sdk: OpenAI) -> None:
    question = pieces("hm", " so</think>", "a", "b", CALL, CALL, thinking=True)
    events = list(ask(sdk, question, tools=[TOOL], stream=True))
    assert [event.type for event in events] == ORDER
    assert [event.sequence_number for event in events] == list(range(len(ORDER)))
    whole = events[-1].response
    assert [item.type for item in whole.output] == ["reasoning", "message", "function_call", "function_call"]
    done = [event for event in events if event.type == "response.output_item.done"]
    assert [(event.output_index, event.item) for event in done] == list(enumerate(whole.output))
    for event in events:
        if hasattr(event, "item_id"):
            assert event.item_id == whole.output[event.output_index].id
    assert events[0].response.id == whole.id
    assert (events[0].response.status, events[0].response.usage) == ("in_progress", None)
    assert whole.usage.output_tokens == 6
    assert whole.usage.output_tokens_details.reasoning_tokens == 2
    assert sdk.responses.retrieve(whole.id).output == whole.output


def test_a_summary_is_streamed_under_its_own_names(sdk: OpenAI) -> None:
    question = pieces("hm</think>", "a", thinking=True)
    events = list(ask(sdk, question, reasoning={"summary": "auto"}, stream=True))
    assert [event.type for event in events][2:8] == [
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
    ]
    assert events[7].item.summary[0].text == "hm"


def test_the_sdk_puts_the_stream_together(sdk: OpenAI) -> None:
    with sdk.responses.stream(model=MODEL, input=pieces("a", "b", CALL), tools=[TOOL]) as stream:
        for _ in stream:
            pass
        response = stream.get_final_response()
    assert response.output_text == "ab"
    assert response.output[1].type == "function_call"


def test_a_stream_that_is_cut_off(sdk: OpenAI) -> None:
    *_, last = ask(sdk, script(tokens=9), max_output_tokens=2, stream=True)
    assert (last.type, last.response.incomplete_details.reason) == (
        "response.incomplete",
        "max_output_tokens",
    )
    assert last.response.output[0].content[0].text == "t0 t1 "


def test_a_stream_that_fails(sdk: OpenAI, frontend: Frontend) -> None:
    options = {"stream": True, "extra_headers": {"X-Request-ID": "failing"}}
    *_, closed, last = ask(sdk, script(tokens=3, fail_at=2), **options)
    assert (closed.type, closed.item.status) == ("response.output_item.done", "incomplete")
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert (last.response.error.code, last.response.output) == ("server_error", [closed.item])
    assert frontend.line("failing")["error"] == "ServerError"
    with pytest.raises(NotFoundError):
        sdk.responses.retrieve(last.response.id)


def test_an_answer_of_nothing_is_an_empty_message(sdk: OpenAI) -> None:
    (message,) = ask(sdk, pieces("")).output
    assert message.content[0].text == ""
    events = list(ask(sdk, pieces(""), stream=True))
    assert [item.type for item in events[-1].response.output] == ["message"]


class Person(BaseModel):
    name: str


def test_the_sdk_parses_what_is_held_to_a_schema(sdk: OpenAI, fake: FakeTriton) -> None:
    response = sdk.responses.parse(model=MODEL, input=pieces('{"name": "Ann"}'), text_format=Person)
    assert response.output_parsed == Person(name="Ann")
    assert fake.calls[-1].inputs["guided_decoding_guide_type"] == "json_schema"


def test_conversations_go_on(sdk: OpenAI, fake: FakeTriton) -> None:
    first = ask(sdk, "one", instructions="Once.")
    second = ask(sdk, "two", previous_response_id=first.id)
    ask(sdk, "three", previous_response_id=second.id)
    said = [message["content"] for message in messages(fake)]
    assert said == ["one", "You said: one", "two", "You said: two", "three"]
    listed: list[Any] = list(sdk.responses.input_items.list(second.id, order="asc"))
    assert [item.content[0].text for item in listed] == ["one", "You said: one", "two"]
    newest: Any = sdk.responses.input_items.list(second.id, limit=1)
    assert (newest.data[0].content[0].text, newest.has_more) == ("two", True)
    assert len(list(newest)) == 3  # the SDK asks for the pages that follow
    sdk.responses.delete(first.id)
    with pytest.raises(NotFoundError, match=f"continues another response, .*{first.id}"):
        ask(sdk, "four", previous_response_id=second.id)


def test_items_are_referred_to(sdk: OpenAI, fake: FakeTriton) -> None:
    """As Vercel's AI SDK does it, with the items that were given out."""
    first = ask(sdk, pieces("hm</think>", "yes", thinking=True))
    references = [{"type": "item_reference", "id": item.id} for item in first.output]
    second = ask(sdk, [{"role": "user", "content": "one"}, *references, {"role": "user", "content": "two"}])
    assert messages(fake)[1] == {"role": "assistant", "content": "yes", "reasoning_content": "hm"}
    sdk.responses.delete(first.id)
    third = [references[1], {"role": "user", "content": "three"}]
    ask(sdk, third, store=False)  # the second response has it, too
    sdk.responses.delete(second.id)
    with pytest.raises(NotFoundError, match=r"input\[0\]\.id: item msg_.* does not exist or has expired"):
        ask(sdk, third)


def test_what_is_not_there_is_a_404(sdk: OpenAI) -> None:
    unkept = ask(sdk, store=False)
    assert unkept.store is False
    for call in (sdk.responses.retrieve, sdk.responses.delete, sdk.responses.input_items.list):
        with pytest.raises(NotFoundError, match=unkept.id):
            call(unkept.id)
    with pytest.raises(NotFoundError) as missing:
        ask(sdk, previous_response_id=unkept.id)
    error = missing.value.response.json()["error"]
    assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")
    with pytest.raises(NotFoundError, match="does not exist"):
        sdk.responses.create(model="gpt-5", input="q")


def test_keys_do_not_see_each_other_s_responses(fake: FakeTriton, tmp_path: Path) -> None:
    keys = {name: add(tmp_path / "keys", name) for name in ("one", "two")}
    app = application(fake, keys_file=str(tmp_path / "keys"), stored_responses="2").test_client()

    def send(name: str, method: str, path: str, **json: Any) -> Any:
        headers = {"Authorization": f"Bearer {keys[name]}"}
        return app.open(f"/v1/responses{path}", method=method, headers=headers, json=json or None)

    kept = send("one", "POST", "", input="q").json
    path = f"/{kept['id']}"
    assert send("one", "GET", path).json == kept
    assert [send("two", method, path).status_code for method in ("GET", "DELETE")] == [404, 404]
    assert send("two", "GET", f"{path}/input_items").status_code == 404
    assert send("two", "POST", "", input="q", previous_response_id=kept["id"]).status_code == 404
    assert send("two", "POST", "", input=[{"id": kept["output"][0]["id"]}]).status_code == 404
    for _ in range(2):  # as many as are kept of each
        send("one", "POST", "", input="q")
        send("two", "POST", "", input="q")
    assert send("one", "GET", path).status_code == 404


def test_nothing_is_kept_where_the_operator_says_so(fake: FakeTriton) -> None:
    app = application(fake, stored_responses="0").test_client()
    response = app.post("/v1/responses", json={"input": "q"}).json
    assert response["store"] is False
    assert app.get(f"/v1/responses/{response['id']}").status_code == 404


def test_a_count_of_tokens(sdk: OpenAI, fake: FakeTriton) -> None:
    kept = ask(sdk, "one")
    options: dict[str, Any] = {"instructions": "Be brief.", "tools": [TOOL]}
    alone = sdk.responses.input_tokens.count(model=MODEL, input="two", **options)
    asked = [message["content"] for message in messages(fake)]
    assert (alone.object, asked) == ("response.input_tokens", ["Be brief.", "two"])
    longer = sdk.responses.input_tokens.count(model=MODEL, input="two", previous_response_id=kept.id)
    assert [message["content"] for message in messages(fake)] == ["one", "You said: one", "two"]
    assert alone.input_tokens > 0
    assert longer.input_tokens > 0


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]", 'unsupported type "web_search"'),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input[0]", "an item of type message, "),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
            "input[0].content[0]",
            "the model reads text only",
        ),
        ({"extra_body": {"conversation": "c"}}, "conversation", "this server stores no conversations"),
        ({"background": True}, "background", "does not run responses in the background"),
        ({"extra_body": {"what": 1}}, "what", "expected one of model, input, "),
        ({"max_output_tokens": 0}, "max_output_tokens", "greater than or equal to 1"),
        ({"tools": [TOOL, {**TOOL, "name": ""}]}, "tools[1].name", "at least 1"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format", "needs name and schema"),
        ({"input": [{"type": "message", "role": "user"}]}, "input[0].content", "is missing"),
    ],
)
def test_refusals_name_the_callers_field(
    sdk: OpenAI, options: dict[str, Any], param: str, words: str
) -> None:
    error = refused(sdk, **options)
    assert error["param"] == param
    assert words in error["message"]


def test_a_fault_that_the_model_finds_is_told_of_the_item(sdk: OpenAI, fake: FakeTriton) -> None:
    """Instructions and earlier turns stand before the input; its own places are told all the same."""
    kept = ask(sdk, "one")
    input: Any = [
        {"role": "user", "content": "x"},
        {
            "role": "user",
            "content": script(
                fail_at=0, fail_code="invalid_value", fail_param="messages[4].content", fail_message="is odd"
            ),
        },
    ]
    error = refused(sdk, input=input, previous_response_id=kept.id, instructions="Be brief.")
    assert error["param"] == "input[1].content"


def test_a_kept_response_is_not_streamed_once_more(sdk: OpenAI) -> None:
    kept = ask(sdk)
    with pytest.raises(APIStatusError, match="cannot be streamed again"):
        sdk.responses.retrieve(kept.id, stream=True)
    with pytest.raises(APIStatusError, match="limit should be an integer from 1 to 100, not"):
        sdk.responses.input_items.list(kept.id, limit=101)
    with pytest.raises(APIStatusError, match="order should be asc or desc"):
        sdk.responses.input_items.list(kept.id, order="up")  # type: ignore[arg-type]


def test_leaving_frees_the_slot(sdk: OpenAI, fake: FakeTriton, frontend: Frontend) -> None:
    stream = ask(sdk, script(unending=True, delay=0.02), stream=True)
    for event in stream:
        if event.type == "response.output_text.delta":
            break
    stream.close()
    fake.calls[-1].wait_cancelled()
    frontend.wait_gauges(running=0, waiting=0)
