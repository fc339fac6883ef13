"""OpenAI's routes before the real engine: forced calls, guides, counts, prefills, what ends an answer."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from .running import RunningServer

ASKED = [{"role": "user", "content": "你好"}]
WEATHER = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"unit": {"enum": ["celsius", "fahrenheit"]}},
        "required": ["unit"],
        "additionalProperties": False,
    },
}
TOOLS = [{"type": "function", "function": WEATHER}]


def post(server: RunningServer, path: str, **body: Any) -> Any:
    request = urllib.request.Request(
        server.http_url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as reply:
            return json.load(reply)
    except urllib.error.HTTPError as error:
        return json.load(error)


def chat(server: RunningServer, **body: Any) -> Any:
    return post(server, "/v1/chat/completions", **{"messages": ASKED, "seed": 1} | body)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_call_can_be_forced_on_a_model_whose_template_knows_no_tools(
    server: RunningServer, choice: Any
) -> None:
    reply = chat(server, tools=TOOLS, tool_choice=choice, parallel_tool_calls=False)
    (answer,) = reply["choices"]
    (call,) = answer["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"])["unit"] in ("celsius", "fahrenheit")
    assert answer["finish_reason"] == "tool_calls"
    # And its result comes back.
    history = [*ASKED, answer["message"], {"role": "tool", "tool_call_id": call["id"], "content": "20"}]
    assert chat(server, messages=history, tools=TOOLS, max_tokens=4)["usage"]["completion_tokens"] > 0


def test_a_count_is_the_prompt_of_the_answer(server: RunningServer) -> None:
    for body in ({"messages": ASKED}, {"messages": ASKED, "tools": TOOLS}):
        count = post(server, "/tokenize", **body)["count"]
        assert count == chat(server, max_tokens=1, **body)["usage"]["prompt_tokens"]
    tokens = post(server, "/tokenize", prompt="你好 hello")["tokens"]
    assert post(server, "/detokenize", tokens=tokens)["prompt"].endswith("你好 hello")


@pytest.mark.parametrize(
    ("guide", "allowed"),
    [
        ({"guided_choice": ["甲", "乙"]}, ("甲", "乙")),
        ({"structured_outputs": {"regex": "[ab]{2}"}}, ("aa", "ab", "ba", "bb")),
        ({"structured_outputs": {"grammar": 'root ::= "x" | "y"'}}, ("x", "y")),
        ({"grammar": 'start: "x" | "y"'}, ("x", "y")),
        ({"response_format": {"type": "json_object", "schema": {"const": 7}}}, ("7",)),
    ],
)
def test_guides_on_both_routes(
    server: RunningServer, guide: dict[str, Any], allowed: tuple[str, ...]
) -> None:
    assert chat(server, **guide)["choices"][0]["message"]["content"] in allowed
    assert post(server, "/v1/completions", prompt="你好", **guide)["choices"][0]["text"] in allowed


def test_a_prompt_is_scored_and_nothing_made(server: RunningServer) -> None:
    reply = post(
        server, "/v1/completions", prompt="你好", echo=True, logprobs=1, max_tokens=0, prompt_logprobs=2
    )
    (choice,) = reply["choices"]
    scores = choice["logprobs"]["token_logprobs"]
    assert scores[0] is None
    assert all(score <= 0 for score in scores[1:])
    assert (reply["usage"]["completion_tokens"], choice["finish_reason"]) == (0, "length")
    ranks = [{one["rank"] for one in place.values()} for place in choice["prompt_logprobs"][1:]]
    assert all({1, 2} <= places <= {1, 2, None} for places in ranks)
    told = [max(one["logprob"] for one in place.values()) for place in choice["prompt_logprobs"][1:]]
    assert told == pytest.approx([max(top.values()) for top in choice["logprobs"]["top_logprobs"][1:]])


def test_a_length_beyond_the_context_is_cut_and_the_end_can_be_ignored(server: RunningServer) -> None:
    assert chat(server, max_tokens=1_000_000)["choices"][0]["finish_reason"] == "stop"
    reply = chat(server, max_tokens=60, ignore_eos=True, return_token_ids=True)
    (choice,) = reply["choices"]
    assert (choice["finish_reason"], len(choice["token_ids"])) == ("length", 60)
    assert len(reply["prompt_token_ids"]) == reply["usage"]["prompt_tokens"]


def test_what_ended_the_answer_is_told(server: RunningServer) -> None:
    whole = chat(server, temperature=0, return_token_ids=True)["choices"][0]
    assert whole["stop_reason"] is None
    text, ids = whole["message"]["content"], whole["token_ids"]
    stopped = chat(server, temperature=0, stop=[text[3:5]])["choices"][0]
    assert (stopped["stop_reason"], stopped["message"]["content"]) == (
        text[3:5],
        text[: text.find(text[3:5])],
    )
    by_id = chat(server, temperature=0, stop_token_ids=[ids[2]])["choices"][0]
    assert by_id["stop_reason"] == ids[2]


def test_a_message_is_continued(server: RunningServer) -> None:
    """The demonstration has memorised its answers: half of one is continued by the other half."""
    text = chat(server, temperature=0)["choices"][0]["message"]["content"]
    half = {"role": "assistant", "content": text[: len(text) // 2]}
    reply = chat(server, temperature=0, messages=[*ASKED, half], continue_final_message=True)
    assert half["content"] + reply["choices"][0]["message"]["content"] == text


def test_tools_that_do_not_fit_are_counted(server: RunningServer) -> None:
    many = [{"type": "function", "function": WEATHER | {"name": f"tool_{at}"}} for at in range(120)]
    error = chat(server, tools=many)["error"]
    assert error["code"] == "context_length_exceeded"
    assert "The tools alone take " in error["message"]
    assert " more than fit: send fewer, or serve with a larger context" in error["message"]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/images/generations", "/v1/audio/speech"])
def test_what_is_not_offered_says_so(server: RunningServer, path: str) -> None:
    error = post(server, path, input="x")["error"]
    assert error["code"] == "not_offered"
    assert error["message"].startswith("This server does not offer ")


def test_a_slash_at_the_end_and_small_routes(server: RunningServer) -> None:
    assert post(server, "/v1/chat/completions/", messages=ASKED, max_tokens=1)["object"] == "chat.completion"
    for path, key in (("/version", "version"), ("/ping", "status"), ("/v1/models/", "data")):
        with urllib.request.urlopen(server.http_url + path, timeout=30) as reply:
            assert json.load(reply)[key]
