"""`/tokenize` and `/detokenize`, in vLLM's shapes, and how a chat request's tokens are counted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.client.fake_triton import FakeTriton

from ..conftest import Frontend, Reply, script

MESSAGES = [{"role": "system", "content": "s"}, {"role": "user", "content": "a好"}]
TOOLS = [{"type": "function", "function": {"name": "w", "parameters": {"type": "object"}}}]


def post(frontend: Frontend, path: str, **body: Any) -> Reply:
    kind = {"Content-Type": "application/json"}
    return frontend.send("POST", path, json.dumps(body).encode(), **kind)


def test_a_text(frontend: Frontend, fake: FakeTriton) -> None:
    reply = post(frontend, "/tokenize", model="youtu-demo", prompt="a好", add_special_tokens=False)
    assert reply.json == {"count": 2, "max_model_len": 2048, "tokens": [97, 0x597D], "token_strs": None}
    assert fake.calls[0].inputs["tokenize"] is True
    assert fake.calls[0].inputs["add_special_tokens"] is False
    assert post(frontend, "/tokenize", prompt="").json["tokens"] == []


def test_a_conversation_is_counted_as_the_prompt_of_an_answer(frontend: Frontend, fake: FakeTriton) -> None:
    reply = post(frontend, "/tokenize", messages=MESSAGES, tools=TOOLS, return_token_strs=True)
    assert (reply.json["count"], reply.json["token_strs"]) == (2, ["a", "好"])
    inputs = fake.calls[0].inputs
    assert inputs["messages"] == MESSAGES
    assert json.loads(inputs["chat_template_kwargs"]) == {"tools": TOOLS}
    last = [*MESSAGES, {"role": "assistant", "content": "b"}]
    post(frontend, "/tokenize", messages=last, continue_final_message=True, add_generation_prompt=False)
    assert fake.calls[1].inputs["continue_final_message"] is True
    assert fake.calls[1].inputs["add_generation_prompt"] is False


def test_token_ids_as_text(frontend: Frontend) -> None:
    assert post(frontend, "/detokenize", tokens=[97, 0x597D]).json == {"prompt": "a好"}
    assert post(frontend, "/detokenize", tokens=[]).json == {"prompt": ""}


@pytest.mark.parametrize(
    ("path", "body", "status", "param", "words"),
    [
        ("/tokenize", {}, 400, None, "exactly one of prompt and messages; got neither"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, 400, None, "got both"),
        ("/tokenize", {"prompt": "a", "model": "b"}, 404, "model", '"b" does not exist'),
        ("/tokenize", {"prompt": "a", "text": "b"}, 400, "text", "unknown field `text`"),
        ("/detokenize", {"tokens": [2**31 - 1]}, 400, "tokens", "got 2147483647"),
        ("/detokenize", {"tokens": ["a"]}, 400, "tokens[0]", 'not "a"'),
        ("/detokenize", {}, 400, "tokens", "missing"),
    ],
)
def test_refusals(
    frontend: Frontend, path: str, body: dict[str, Any], status: int, param: str | None, words: str
) -> None:
    reply = post(frontend, path, **body)
    assert (reply.status, reply.error["param"]) == (status, param)
    assert words in reply.error["message"]


def test_what_the_model_refuses_names_the_callers_field(frontend: Frontend) -> None:
    refused = script(fail_at=0, fail_code="invalid_value", fail_param="text_input", fail_message="no")
    reply = post(frontend, "/tokenize", prompt=refused)
    assert (reply.status, reply.error["message"]) == (400, "prompt: no")
