"""`/v1/completions` under the official SDK."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from openai import APIStatusError, OpenAI
from youtu_client import Answer, Timings, Token, Usage

from frontend.openai import completions
from frontend.openai.replies import Head
from frontend.openai.schema import Completion
from tests.client.fake_triton import FakeTriton

from ..conftest import script

MODEL = "youtu-demo"


def complete(sdk: OpenAI, prompt: Any = "q", **options: Any) -> Any:
    return sdk.completions.create(model=MODEL, prompt=prompt, **options)


def test_an_answer(sdk: OpenAI, fake: FakeTriton) -> None:
    answer = complete(sdk, "你好", extra_headers={"X-Request-ID": "abc"}, max_tokens=9)
    assert (answer.id, answer.object) == ("cmpl-abc", "text_completion")
    (choice,) = answer.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == ("You said: 你好", "stop", None)
    assert answer.usage.completion_tokens == 3
    assert fake.calls[0].inputs == {"text_input": "你好", "stream": True, "max_tokens": 9}


def test_several_prompts_and_n(sdk: OpenAI) -> None:
    answer = complete(sdk, ["a", "b b"], n=2, echo=True)
    assert [choice.text for choice in answer.choices] == ["aYou said: a"] * 2 + ["b bYou said: b b"] * 2
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1 + 2, 3 + 3 + 4 + 4)


def test_a_stream(sdk: OpenAI) -> None:
    *chunks, last = complete(
        sdk, script(pieces=["a", "", "b"]), stream=True, stream_options={"include_usage": True}
    )
    assert [chunk.choices[0].text for chunk in chunks] == ["a", "b", ""]
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
def test_log_probs(sdk: OpenAI, stream: bool) -> None:
    answer = complete(sdk, script(pieces=["我", "bc", "d"]), logprobs=2, stream=stream)
    found = [answer] if not stream else [chunk for chunk in answer if chunk.choices[0].logprobs]
    parts = [one.choices[0].logprobs for one in found]
    assert [token for part in parts for token in part.tokens] == ["我", "bc", "d"]
    assert [value for part in parts for value in part.token_logprobs] == [-0.5] * 3
    assert [at for part in parts for at in part.text_offset] == [0, 1, 3]
    assert parts[0].top_logprobs[0] == {"我": -0.5, "<other 1>": -1.5}


@pytest.mark.parametrize("prompt", ["a好", [97, 0x597D]])
def test_token_ids_are_a_prompt_too_and_echoed_ones_are_scored(
    sdk: OpenAI, fake: FakeTriton, prompt: Any
) -> None:
    """As harnesses ask for the likelihood of a text: by the number of its tokens, so none may be missing."""
    answer = complete(sdk, [prompt, prompt], echo=True, logprobs=1, max_tokens=1, n=2)
    assert len(answer.choices) == 4
    for choice in answer.choices:
        assert choice.text == "a好You"
        scores = choice.logprobs
        assert scores.tokens == ["a", "好", "You"]
        assert scores.token_logprobs == [None, -0.5, -0.5]
        assert scores.top_logprobs == [None, {"好": -0.5}, {"You": -0.5}]
        assert scores.text_offset == [0, 1, 2]
    assert answer.usage.completion_tokens == 4
    key = "text_input" if isinstance(prompt, str) else "input_ids"
    assert fake.calls[0].inputs[key] == prompt
    assert complete(sdk, prompt, logprobs=0).choices[0].logprobs.top_logprobs is None


@pytest.mark.parametrize("stream", [False, True])
def test_token_ids_are_echoed_as_their_text(sdk: OpenAI, stream: bool) -> None:
    answer = complete(sdk, [97, 0x597D], echo=True, max_tokens=1, stream=stream)
    chunks = answer if stream else [answer]
    assert "".join(chunk.choices[0].text for chunk in chunks) == "a好You"


def test_what_the_tokenizer_puts_before_a_text_stands_before_its_first_character() -> None:
    told = Token(b"<s>", math.nan), Token(b"ab", -1.0), Token(b"c", -2.0)
    answer = Answer(
        "d", "stop", Usage(3, 2), Timings(0, 0, 0, 2), "x", tokens=(Token(b"d", -3.0), Token(b"", -4.0))
    )
    request = Completion(prompt=["abc"], echo=True, logprobs=0)
    head: Head = {"id": "cmpl-x", "created": 0, "model": MODEL}
    (choice,) = completions.whole(request, head, [replace(answer, prompt_tokens=told)], ["abc"]).choices
    assert choice.text == "abcd"
    assert choice.logprobs is not None
    assert choice.logprobs["tokens"] == ["<s>", "ab", "c", "d", ""]
    assert choice.logprobs["text_offset"] == [0, 0, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "param", "words"),
    [
        ({"prompt": []}, "prompt", "at least 1"),
        ({"prompt": ""}, "prompt[0]", "1 character"),
        ({"prompt": [[]]}, "prompt[0]", "at least 1"),
        ({"prompt": [1, -2]}, "prompt[0][1]", "0"),
        ({"prompt": [1, "a"]}, "prompt[0][1]", "integer"),
        ({"suffix": "x"}, "suffix", ""),
        ({"best_of": 2}, None, "best_of"),
        ({"logprobs": 21}, "logprobs", "20"),
        ({"logprobs": 1, "echo": True, "stream": True}, None, "echo"),
        ({"extra_body": {"messages": []}}, "messages", "unknown field `messages`"),
    ],
)
def test_refusals_name_the_field(
    sdk: OpenAI, fake: FakeTriton, options: dict[str, Any], param: str | None, words: str
) -> None:
    with pytest.raises(APIStatusError) as refused:
        complete(sdk, **{"prompt": "q"} | options)
    assert (refused.value.status_code, refused.value.param) == (400, param)
    assert words in refused.value.message
    assert fake.calls == []


def test_a_token_id_that_the_model_has_not_is_refused_in_the_caller_s_words(sdk: OpenAI) -> None:
    with pytest.raises(APIStatusError) as refused:
        complete(sdk, [[97], [97, 2**31 - 1]])
    assert (refused.value.status_code, refused.value.param) == (400, "prompt")
    assert "prompt: must be 0 to 55295; got 2147483647" in refused.value.message
