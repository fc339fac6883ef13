"""Free text of a real model through the real server: turns, stops, seeds, schemas, cancelling, its name.

What it says is often wrong; nothing here depends on one answer being right.
"""

from __future__ import annotations

import json
import urllib.request
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from openai import OpenAI
from youtu_client import Client

from tests.e2e.running import RunningServer
from tests.limits import WAIT_S

NAME = "SmolLM2-135M-Instruct"
# No penalty: the deployment's default also counts the question's words, which a small model needs to repeat.
GREEDY: dict[str, Any] = {"temperature": 0.0, "repetition_penalty": 1.0}
FREE: dict[str, Any] = {"temperature": 1.0, "repetition_penalty": 1.0, "top_p": 1.0}
SLOTS = 4


def post(server: RunningServer, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(
        server.http_url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=WAIT_S) as response:
        return json.load(response)


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_it_is_called_what_it_is(server: RunningServer, openai: OpenAI) -> None:
    assert [model.id for model in openai.models.list()] == [NAME]
    with urllib.request.urlopen(f"{server.http_url}/health", timeout=WAIT_S) as response:
        health = json.load(response)
    assert (health["model"], health["demo"]) == (NAME, False)
    assert health["description"].endswith("It is not Youtu-LLM-2B.")
    assert f"{NAME}: " in server.log


def test_it_answers_in_english_and_ends_by_itself(client: Client) -> None:
    ended = 0
    for question in ("What is two plus two?", "How many days are in a week?", "Say hello.", "Who are you?"):
        answer = client.chat(question, max_tokens=200, **GREEDY)
        letters = [c for c in answer.text if c.isalpha()]
        assert len(letters) >= 10, answer.text
        assert sum(c.isascii() for c in letters) >= 0.9 * len(letters)
        assert "<|im_" not in answer.text
        ended += answer.finish_reason == "stop"
    assert ended >= 2


def test_a_conversation_of_five_turns(client: Client, openai: OpenAI) -> None:
    """Each turn sees those before: they are cached, and the name said first is chosen out of four."""
    names = ["Rex", "Bella", "Max", "Luna"]
    remembered = 0
    for name in names:
        messages = [user(f"My dog is called {name}. Please remember the name {name}.")]
        usage = []
        for question in (
            "He is brown.",
            "He likes to run.",
            "He is three years old.",
            "What is my dog called?",
        ):
            answer = client.chat(messages, max_tokens=25, **GREEDY)
            usage.append(answer.usage)
            messages += [{"role": "assistant", "content": answer.text}, user(question)]
        for before, after in pairwise(usage):
            assert after.prompt_tokens > before.prompt_tokens
            assert after.cached_tokens >= before.prompt_tokens - 1
        create: Any = openai.chat.completions.create
        told = create(
            model=NAME,
            messages=messages,
            temperature=0,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "dog", "schema": {"enum": names}},
            },
            extra_body={"repetition_penalty": 1.0},
        )
        remembered += json.loads(told.choices[0].message.content) == name
    assert remembered >= 3


@pytest.mark.parametrize("stop", [".", " is", "the", "\n"])
@pytest.mark.parametrize("stream", [False, True])
def test_stop_words_cut_the_same_answer_short(client: Client, stop: str, stream: bool) -> None:
    prompt = "Describe the sea in three short sentences. Write each sentence on its own line."
    whole = client.chat(prompt, max_tokens=60, **GREEDY).text
    if stream:
        with client.stream(prompt, max_tokens=60, stop=[stop], **GREEDY) as pieces:
            text = "".join(piece.text for piece in pieces)
        answer = pieces.answer
    else:
        answer = client.chat(prompt, max_tokens=60, stop=[stop], **GREEDY)
        text = answer.text
    assert text == whole.split(stop)[0]
    assert answer.finish_reason == "stop" or stop not in whole


def test_stop_words_on_openais_routes(openai: OpenAI) -> None:
    more = {"repetition_penalty": 1.0}
    text = openai.completions.create(
        model=NAME,
        prompt="One, two, three, four,",
        temperature=0,
        max_tokens=30,
        stop=[" six"],
        extra_body=more,
    ).choices[0]
    assert " six" not in text.text
    assert text.finish_reason == "stop"
    said = openai.chat.completions.create(
        model=NAME, messages=[{"role": "user", "content": "Say hello."}], temperature=0, max_tokens=60,
        stop=["!", "."], extra_body=more,
    ).choices[0]  # fmt: skip
    assert not {"!", "."} & set(said.message.content or "!")


def test_a_seed_reproduces_its_answer_and_seeds_differ(client: Client) -> None:
    prompt = "Invent a name for a ship and say why."
    first, again = (
        [client.chat(prompt, max_tokens=24, seed=seed, **FREE).text for seed in range(6)] for _ in range(2)
    )
    assert first == again
    assert len(set(first)) >= 5


SCHEMAS: dict[str, dict[str, Any]] = {
    "a person": {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    },
    "a choice": {"enum": ["red", "green", "blue"]},
    "a list": {
        "type": "array",
        "items": {"type": "string", "maxLength": 12},
        "minItems": 2,
        "maxItems": 4,
    },
    "nested": {
        "type": "object",
        "properties": {
            "city": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}},
                     "required": ["name"], "additionalProperties": False},
            "rainy": {"type": "boolean"},
        },
        "required": ["city", "rainy"],
        "additionalProperties": False,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_answer_keeps_to_its_schema_at_any_temperature(openai: OpenAI, name: str) -> None:
    for temperature, seed in ((0.0, 0), (0.7, 1), (1.5, 2)):
        chosen: Any = openai.chat.completions.create(
            model=NAME,
            messages=[{"role": "user", "content": f"Answer with {name} as JSON."}],
            temperature=temperature,
            seed=seed,
            max_tokens=200,
            response_format={"type": "json_schema", "json_schema": {"name": "it", "schema": SCHEMAS[name]}},
        )
        answer = chosen.choices[0]
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.message.content), SCHEMAS[name])


def test_a_call_that_is_left_frees_its_slot(client: Client) -> None:
    """The next in line begins before any of the other answers has ended."""
    long: dict[str, Any] = {"min_tokens": 200, "max_tokens": 200, "seed": 1, **FREE}
    with ExitStack() as opened:
        left, *others = (opened.enter_context(client.stream("Tell a story.", **long)) for _ in range(SLOTS))
        for stream in (left, *others):
            next(stream)
        waiting = opened.enter_context(client.stream("Say hello.", max_tokens=3, **GREEDY))
        assert waiting.poll(0.2) is None
        left.close()
        list(waiting)
        for stream in others:
            list(stream)
        assert {stream.answer.usage.completion_tokens for stream in others} == {200}
        first = waiting.answer.timings.first_token_ns
        assert first < min(stream.answer.timings.last_token_ns for stream in others)
