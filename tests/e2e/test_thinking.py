"""A model that thinks, on the real server: stop words, stop tokens and schemas apply behind its thinking.

Its weights are random; a bias on one token makes it write that one wherever it may.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from tokenizers import Tokenizer
from youtu_client import Client

from build.random_checkpoint import TINY, write_random_checkpoint
from tests.e2e.running import KeptServer, RunningServer
from tests.limits import WAIT_S

SCHEMA = {
    "$defs": {"地址": {"enum": ["北京", "上海"]}},
    "type": "object",
    "properties": {"city": {"$ref": "#/$defs/地址"}, "sure": {"type": "boolean"}},
    "required": ["city", "sure"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "thinker"
    write_random_checkpoint(folder, replace(TINY, vocab_size=640, num_hidden_layers=2))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text()
        renamed = text.replace("<|reserved_0|>", "<think>").replace("<|reserved_1|>", "</think>")
        (folder / name).write_text(renamed)
    template = folder / "chat_template.jinja"
    opened = "<|assistant|>{{ '' if enable_thinking is false else '<think>\\n' }}"
    text = template.read_text()
    assert "{{ '<|assistant|>' }}" in text
    template.write_text(text.replace("{{ '<|assistant|>' }}", opened))
    return folder


@pytest.fixture(scope="module")
def kept_server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[KeptServer]:
    with KeptServer(tmp_path_factory.mktemp("thinking") / "data", model=str(model)) as kept:
        yield kept


@pytest.fixture(scope="module")
def ids(model: Path) -> dict[str, int]:
    vocab: dict[str, int] = Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab()
    return vocab


def asked(server: RunningServer, **fields: Any) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 60, "temperature": 0, **fields}
    answer = httpx.post(f"{server.http_url}/v1/chat/completions", json=body, timeout=WAIT_S)
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def form(schema: Any = SCHEMA) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def test_a_schema_begins_behind_the_thinking(server: RunningServer, ids: dict[str, int]) -> None:
    """The fault: the schema masked the thinking's end away, or there was no content."""
    for fields in ({"logit_bias": {str(ids["</think>"]): 100}}, {"enable_thinking": False}):
        for temperature in (0, 1):
            choice = asked(server, response_format=form(), temperature=temperature, **fields)
            assert set(json.loads(choice["message"]["content"])) == {"city", "sure"}
            assert choice["finish_reason"] == "stop"
            assert "reasoning_content" not in choice["message"]


def test_an_end_within_the_thinking_is_held_back_where_a_schema_waits(
    server: RunningServer, ids: dict[str, int]
) -> None:
    end = {str(ids["<|end_of_text|>"]): 100}
    assert asked(server, logit_bias=end)["finish_reason"] == "stop"
    choice = asked(server, logit_bias=end, response_format=form(), max_tokens=20)
    assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "")
    assert choice["message"]["reasoning_content"]


def test_stop_words_and_stop_tokens_count_behind_the_thinking(client: Client, ids: dict[str, int]) -> None:
    letter, mark = ids["a"], ids["</think>"]
    fixed: dict[str, Any] = {"temperature": 0.0, "repetition_penalty": 1.0, "max_tokens": 20}
    thinking = client.chat(
        "hi", logit_bias={letter: 100}, stop=["a"], stop_token_ids=[letter], return_parts=True, **fixed
    )
    assert (thinking.text, thinking.reasoning, thinking.finish_reason) == ("a" * 20, "a" * 20, "length")
    for stop in ({"stop": ["</think>"]}, {"stop_token_ids": [mark]}):
        answer = client.chat("hi", logit_bias={mark: 100}, **stop, **fixed)
        assert (answer.text, answer.finish_reason) == ("</think>", "stop")
    off = client.chat(
        "hi", logit_bias={letter: 100}, stop=["aa"], chat_template_kwargs={"enable_thinking": False}, **fixed
    )
    assert (off.text, off.finish_reason) == ("", "stop")


@pytest.mark.parametrize("name", ["<|user|>", "<|end_of_turn|>", "<|reserved_7|>", "<|end_of_text|>"])
def test_the_name_of_a_special_token_stops(server: RunningServer, client: Client, name: str) -> None:
    """The fault: decoding leaves these tokens out, and the stop word was looked for in what is left."""
    token = Tokenizer.from_file(str(Path(server.settings.model) / "tokenizer.json")).token_to_id(name)
    assert token is not None
    for prompt in ("x" * 3, "好"):
        answer = client.complete(prompt, logit_bias={token: 100}, stop=[name], max_tokens=9)
        assert (answer.text, answer.finish_reason, answer.usage.completion_tokens) == ("", "stop", 1)
        by_id = client.complete(prompt, logit_bias={token: 100}, stop_token_ids=[token], max_tokens=9)
        assert (by_id.text, by_id.finish_reason, by_id.usage.completion_tokens) == ("", "stop", 1)


def test_min_tokens_holds_back_every_end(client: Client, ids: dict[str, int]) -> None:
    for name in ("<|end_of_text|>", "<|user|>", "a"):
        answer = client.complete(
            "x", logit_bias={ids[name]: 100}, stop_token_ids=[ids[name]], min_tokens=5, max_tokens=9, seed=1
        )
        assert (answer.usage.completion_tokens, answer.finish_reason) == (6, "stop")
        assert "a" not in answer.text
    counted = client.complete("x", logit_bias={ids["a"]: 100}, stop=["a"], min_tokens=5, max_tokens=9)
    assert (counted.text, counted.finish_reason) == ("a" * 5, "stop")
