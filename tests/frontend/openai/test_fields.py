"""What the routes do with fields that OpenAI does not have, and with those that ask for nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import APIStatusError, OpenAI

from frontend.openai.labels import (
    LABELS,
    LABELS_OF_CHAT,
    LACKING_ANYWHERE,
    LACKING_IN_CHAT,
    LACKING_IN_COMPLETIONS,
)
from frontend.openai.schema import EFFORTS
from tests.client.fake_triton import FakeTriton

from ..conftest import Frontend, Reply, script

ASKED = {"messages": [{"role": "user", "content": "q"}]}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def chat(frontend: Frontend, **body: Any) -> Reply:
    return post(frontend, "/v1/chat/completions", ASKED | body)


def complete(frontend: Frontend, **body: Any) -> Reply:
    return post(frontend, "/v1/completions", {"prompt": "q"} | body)


def post(frontend: Frontend, path: str, body: dict[str, Any]) -> Reply:
    return frontend.send("POST", path, json.dumps(body).encode(), **{"Content-Type": "application/json"})


def told(fake: FakeTriton, *names: str) -> list[Any]:
    """What the last call to the model was told by these inputs."""
    return [fake.calls[-1].inputs.get(name) for name in names]


def test_all_that_asks_for_nothing_is_accepted_at_once(frontend: Frontend, fake: FakeTriton) -> None:
    examples = {"list[Text]": ["x"], "<class 'bool'>": True}
    nothing: dict[str, Any] = {}
    for name, type_ in LABELS.items():
        nothing[name] = examples.get(str(type_), 1 if "float" in str(type_) else "left")
    nothing["dry_sequence_breakers"] = nothing["preserved_tokens"] = ["x"]
    for one in (False, -1):
        lacking = {name: lack.allowed[one] for name, lack in LACKING_ANYWHERE.items()}
        both = nothing | lacking
        chats = both | {name: lack.allowed[one] for name, lack in LACKING_IN_CHAT.items()}
        chats |= {"store": False, "service_tier": "priority", "verbosity": "low", "metadata": {"a": "b"}}
        assert chat(frontend, **chats).status == 200
        texts = both | {name: lack.allowed[one] for name, lack in LACKING_IN_COMPLETIONS.items()}
        assert complete(frontend, **texts).status == 200
    assert set(fake.calls[0].inputs) == {"messages", "stream", "return_parts"}
    assert set(fake.calls[1].inputs) == {"text_input", "stream"}
    assert LABELS_OF_CHAT.keys() >= {"metadata", "verbosity"}


@pytest.mark.parametrize("name", [*LACKING_ANYWHERE, *LACKING_IN_CHAT])
def test_what_is_lacking_is_refused_by_name(frontend: Frontend, fake: FakeTriton, name: str) -> None:
    what = {**LACKING_ANYWHERE, **LACKING_IN_CHAT}[name].what
    reply = chat(frontend, **{name: 7})
    assert (reply.status, reply.error["param"]) == (400, name)
    assert f"{name} requests {what}" in reply.error["message"]
    assert fake.calls == []


def test_true_is_not_one(frontend: Frontend) -> None:
    assert chat(frontend, length_penalty=1).status == 200
    assert chat(frontend, length_penalty=True).status == 400


@pytest.mark.parametrize(
    ("body", "kind", "guide"),
    [
        ({"response_format": {"type": "json_object"}}, "json", None),
        ({"response_format": {"type": "json_object", "schema": SCHEMA}}, "json_schema", SCHEMA),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
            "json_schema",
            SCHEMA,
        ),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}, "json", None),
        ({"structured_outputs": {"json": SCHEMA}}, "json_schema", SCHEMA),
        ({"structured_outputs": {"json": json.dumps(SCHEMA)}}, "json_schema", SCHEMA),
        ({"structured_outputs": {"json_object": True}}, "json", None),
        ({"structured_outputs": {"regex": "a+", "disable_fallback": True}}, "regex", "a+"),
        ({"structured_outputs": {"choice": ["a", "b"]}}, "choice", ["a", "b"]),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, "grammar", 'root ::= "a"'),
        ({"structured_outputs": {}}, None, None),
        ({"guided_json": SCHEMA}, "json_schema", SCHEMA),
        ({"guided_regex": "a+"}, "regex", "a+"),
        ({"guided_choice": ["a"]}, "choice", ["a"]),
        ({"guided_grammar": "g"}, "grammar", "g"),
        ({"json_schema": SCHEMA}, "json_schema", SCHEMA),
        ({"grammar": "g"}, "grammar", "g"),
        ({"grammar": "", "response_format": {"type": "text"}}, None, None),
    ],
)
def test_guides_of_every_name_on_both_routes(
    frontend: Frontend, fake: FakeTriton, body: dict[str, Any], kind: str | None, guide: Any
) -> None:
    for send in (chat, complete):
        reply = send(frontend, **body)
        assert reply.status == 200, reply.body
        got_kind, got = told(fake, "guided_decoding_guide_type", "guided_decoding_guide")
        if isinstance(guide, dict | list):
            got = json.loads(got)
        assert (got_kind, got) == (kind, guide)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        (
            {"structured_outputs": {"regex": "a", "choice": ["a"]}},
            "structured_outputs",
            "may have only one of",
        ),
        (
            {"structured_outputs": {"regexp": "a"}},
            "structured_outputs.regexp",
            "one of json, json_object, regex, choice",
        ),
        (
            {"stream": True, "stream_options": {"x": 1}},
            "stream_options.x",
            "expected one of include_usage, continuous_usage",
        ),
        (
            {"structured_outputs": {"structural_tag": "x"}},
            "structured_outputs.structural_tag",
            "structural tags",
        ),
        (
            {"response_format": {"type": "json_schema", "schema": {}}},
            "response_format",
            "type json_schema and the field json_schema require",
        ),
    ],
)
def test_nested_fields_are_named_with_those_of_their_own_object(
    frontend: Frontend, body: dict[str, Any], param: str | None, words: str
) -> None:
    reply = chat(frontend, **body)
    assert (reply.status, reply.error["param"]) == (400, param)
    assert words in reply.error["message"]


def test_a_message_s_unknown_key_is_named_with_those_of_a_message(frontend: Frontend) -> None:
    reply = chat(frontend, messages=[{"role": "user", "content": "q", "contents": "x"}])
    assert reply.error["param"] == "messages[0].contents"
    assert "expected one of role, content, name, reasoning, " in reply.error["message"]
    assert "thinking_blocks" not in reply.error["message"]
    part = {"type": "text", "text": "a", "texts": ""}
    reply = chat(frontend, messages=[{"role": "user", "content": [part]}])
    assert reply.error["param"] == "messages[0].content[0].texts"
    assert "expected one of type, text, refusal, annotations, cache_control" in reply.error["message"]


@pytest.mark.parametrize(
    ("body", "thinks"),
    [
        *(({"reasoning_effort": effort}, thinks) for effort, thinks in EFFORTS.items()),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "auto"}}, None),
        ({"thinking": {"type": "disabled"}, "reasoning_effort": "high"}, False),
        ({"enable_thinking": True, "reasoning_effort": "none"}, True),
        ({"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "none"}, True),
    ],
)
def test_whether_to_think_in_every_form(
    frontend: Frontend, fake: FakeTriton, body: dict[str, Any], thinks: bool | None
) -> None:
    assert chat(frontend, **body).status == 200
    (kwargs,) = told(fake, "chat_template_kwargs")
    assert kwargs == (
        None if thinks is None else json.dumps({"enable_thinking": thinks}, separators=(",", ":"))
    )


def test_reasoning_can_be_left_out(frontend: Frontend) -> None:
    asked = {"role": "user", "content": script(pieces=["<think>a</think>", "b"])}
    message = chat(frontend, messages=[asked], include_reasoning=False).json["choices"][0]["message"]
    assert (message["content"], "reasoning_content" in message) == ("b", False)


@pytest.mark.parametrize(
    ("body", "length"),
    [
        ({"max_tokens": 9, "max_completion_tokens": 5}, 5),
        ({"max_tokens": 9}, 9),
        ({"n_predict": 4}, 4),
        ({"max_tokens": -1}, None),
        ({"n_predict": -1}, None),
        ({"max_tokens": 100_000}, 100_000),
    ],
)
def test_the_length(frontend: Frontend, fake: FakeTriton, body: dict[str, Any], length: int | None) -> None:
    assert chat(frontend, **body).status == 200
    assert told(fake, "max_tokens") == [length]


def test_names_of_llama_server_and_the_rest(frontend: Frontend, fake: FakeTriton) -> None:
    complete(
        frontend, repeat_penalty=1.5, n_predict=0, min_p=0.5, ignore_eos=True, stop_token_ids=[7], seed=-1
    )
    names = ("repetition_penalty", "max_tokens", "min_p", "ignore_eos", "stop_token_ids", "seed")
    assert told(fake, *names) == [1.5, 0, 0.5, True, [7], None]
    chat(frontend, documents=[{"title": "t"}], add_special_tokens=True, temperature=9.5, ignore_eos=False)
    assert told(fake, "chat_template_kwargs", "add_special_tokens", "temperature", "ignore_eos") == [
        '{"documents":[{"title":"t"}]}', True, 9.5, None,
    ]  # fmt: skip
    assert len(chat(frontend, n_cmpl=2).json["choices"]) == 2


def test_a_prefill(frontend: Frontend, fake: FakeTriton) -> None:
    last = {"role": "assistant", "content": "Once"}
    chat(frontend, messages=[*ASKED["messages"], last], continue_final_message=True)
    assert told(fake, "continue_final_message") == [True]
    chat(frontend, messages=[*ASKED["messages"], last | {"prefix": True}])
    assert told(fake, "continue_final_message") == [True]
    chat(frontend, messages=[*ASKED["messages"], last], add_generation_prompt=False)
    assert told(fake, "continue_final_message", "add_generation_prompt") == [None, False]


@pytest.mark.parametrize("stopped_by", ["x", 7, None])
def test_what_ended_an_answer(frontend: Frontend, stopped_by: str | int | None) -> None:
    prompt = script(pieces=["a"], stopped_by=stopped_by)
    asked = [{"role": "user", "content": prompt}]
    assert chat(frontend, messages=asked).json["choices"][0]["stop_reason"] == stopped_by
    assert complete(frontend, prompt=prompt).json["choices"][0]["stop_reason"] == stopped_by


def test_ids_and_scores_of_the_prompt(sdk: OpenAI, frontend: Frontend) -> None:
    asked = "ab" + script(pieces=["x", "y"])
    reply = chat(
        frontend, messages=[{"role": "user", "content": asked}], return_token_ids=True, prompt_logprobs=2
    )
    assert reply.json["choices"][0]["token_ids"] == [ord("x"), ord("y")]
    assert reply.json["prompt_token_ids"] == [ord(character) for character in asked]
    first, second = reply.json["prompt_logprobs"][:2]
    assert first is None
    assert second == {
        str(ord("b")): {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
        "1": {"logprob": -1.5, "rank": 2, "decoded_token": "<other 1>"},
    }
    (choice,) = complete(frontend, prompt=asked, return_tokens=True, prompt_logprobs=0).json["choices"]
    assert (choice["token_ids"], choice["prompt_token_ids"][:2]) == ([ord("x"), ord("y")], [97, 98])
    assert choice["prompt_logprobs"][1] == {"98": {"logprob": -0.5, "rank": None, "decoded_token": "b"}}
    assert choice["logprobs"] is None


def test_ids_and_usage_along_a_stream(sdk: OpenAI) -> None:
    asked = script(pieces=["x", "y"])
    options: Any = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    messages: Any = [{"role": "user", "content": asked}]
    body = {"return_token_ids": True}
    *chunks, last = sdk.chat.completions.create(
        model="youtu-demo", messages=messages, **options, extra_body=body
    )
    assert [getattr(chunk.choices[0], "token_ids", None) for chunk in chunks] == [None, [120], [121], None]
    assert chunks[0].prompt_token_ids == [ord(character) for character in asked]
    made = [(chunk.usage.prompt_tokens, chunk.usage.completion_tokens) for chunk in chunks]
    assert made == [(len(asked), 1), (len(asked), 1), (len(asked), 2), (len(asked), 2)]
    assert last.choices == []
    *chunks, last = sdk.completions.create(model="youtu-demo", prompt=asked, **options, extra_body=body)
    assert [getattr(chunk.choices[0], "token_ids", None) for chunk in chunks] == [None, [120], [121], None]
    assert chunks[0].choices[0].prompt_token_ids == [ord(character) for character in asked]


def test_more_prompts_than_slots_run_a_few_at_a_time(sdk: OpenAI, fake: FakeTriton) -> None:
    prompts = [f"{at} " + script(stepped=True, pieces=["a"]) for at in range(40)]
    with sdk.completions.create(model="youtu-demo", prompt=prompts, stream=True) as stream:
        for number in range(40):
            calls = fake.wait_calls(min(40, number + 4))
            assert len(fake.calls) == len(calls)
            calls[number].step()
            assert calls[number].over.wait(60)
        texts = dict.fromkeys(range(40), "")
        for chunk in stream:
            texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == dict.fromkeys(range(40), "a")


def test_too_many_prompts(sdk: OpenAI) -> None:
    with pytest.raises(APIStatusError, match="1024 answers, not 1026"):
        sdk.completions.create(model="youtu-demo", prompt=["a"] * 513, n=2)


def test_other_names_of_the_model(another: Any) -> None:
    frontend = another(served_model_name="shop, gpt-4o")
    assert chat(frontend, model="gpt-4o").json["model"] == "shop"
    assert [one["id"] for one in frontend.get("/v1/models").json["data"]] == ["shop", "gpt-4o"]
    assert frontend.get("/v1/models/gpt-4o").json["id"] == "gpt-4o"
    reply = chat(frontend, model="youtu-demo")
    assert (reply.status, reply.error["code"]) == (404, "model_not_found")
    assert '"shop" and "gpt-4o"' in reply.error["message"]
    assert frontend.get("/health").json["model"] == "shop"
