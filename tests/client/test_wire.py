"""Arguments to tensors: what is sent, and what the wire cannot carry."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import youtu_client
from youtu_client import Client, InvalidRequest

from tests.client.fake_triton import FakeTriton


def sent(fake: FakeTriton) -> dict[str, Any]:
    return fake.calls[-1].inputs


def test_a_question_is_one_user_message(client: Client, fake: FakeTriton) -> None:
    client.chat("你好 😀")
    assert sent(fake) == {"messages": [{"role": "user", "content": "你好 😀"}], "stream": False}


def test_raw_prompt_goes_as_it_stands(client: Client, fake: FakeTriton) -> None:
    client.complete("Once upon\x00 a time\n")
    assert sent(fake)["text_input"] == "Once upon\x00 a time\n"
    assert "messages" not in sent(fake)


def test_every_option_reaches_its_tensor(client: Client, fake: FakeTriton) -> None:
    client.chat(
        [{"role": "system", "content": "s"}, {"role": "user", "content": "u", "name": "n"}],
        max_tokens=2**31 - 1,
        temperature=0,
        top_p=0.5,
        top_k=np.int64(7),  # type: ignore[arg-type]
        min_tokens=3,
        repetition_penalty=np.float32(1.5),  # type: ignore[arg-type]
        presence_penalty=-0.25,
        frequency_penalty=0.25,
        seed=2**64 - 1,
        stop=["。", "\n\n"],
        chat_template_kwargs={"enable_thinking": True},
        return_log_probs=True,
        return_prompt_log_probs=True,
        top_log_probs=5,
        logit_bias={7: -100, 8: 2.5},
        guided_decoding_guide_type="regex",
        guided_decoding_guide="[ab]+",
        request_id="mine",
    )
    assert sent(fake) == {
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u", "name": "n"}],
        "max_tokens": 2**31 - 1,
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 7,
        "min_tokens": 3,
        "repetition_penalty": 1.5,
        "presence_penalty": -0.25,
        "frequency_penalty": 0.25,
        "seed": 2**64 - 1,
        "stop_words": ["。", "\n\n"],
        "chat_template_kwargs": '{"enable_thinking":true}',
        "return_log_probs": True,
        "return_prompt_log_probs": True,
        "top_log_probs": 5,
        "logit_bias": '{"7":-100,"8":2.5}',
        "guided_decoding_guide_type": "regex",
        "guided_decoding_guide": "[ab]+",
        "stream": False,
    }
    assert fake.calls[-1].id == "mine"


def test_one_stop_word_and_none(client: Client, fake: FakeTriton) -> None:
    client.chat("x", stop="END")
    assert sent(fake)["stop_words"] == ["END"]
    client.chat("x", stop=[])
    assert "stop_words" not in sent(fake)


def test_none_is_absent(client: Client, fake: FakeTriton) -> None:
    client.chat("x", temperature=None, seed=None, stop=None, timeout=None, request_id=None)
    assert set(sent(fake)) == {"messages", "stream"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 2**64}, "seed: must be from 0 to 18446744073709551615, not 18446744073709551616"),
        ({"seed": -1}, "seed: must be from 0"),
        ({"seed": 1.0}, "seed: must be a whole number, not 1.0"),
        ({"seed": "1"}, "seed: must be a whole number"),
        ({"max_tokens": 2**31}, "max_tokens: must be from -2147483648 to 2147483647, not 2147483648"),
        ({"max_tokens": True}, "max_tokens: must be a whole number, not True"),
        ({"min_tokens": -(2**31) - 1}, "min_tokens"),
        ({"top_k": 2.5}, "top_k"),
        ({"temperature": "hot"}, "temperature: must be a number, not 'hot'"),
        ({"temperature": 1e39}, "temperature: does not fit a 32-bit float"),
        ({"temperature": 10**400}, "temperature: does not fit a 32-bit float"),
        ({"top_p": False}, "top_p"),
        ({"return_log_probs": 1}, "return_log_probs: must be True or False"),
        ({"stop": 5}, "stop: must be a string or a list of strings, not int"),
        ({"stop": ["a", b"b"]}, "stop[1]: must be a string, not bytes"),
        ({"stop": ["\ud800"]}, "stop[0]: is not valid text"),
        ({"chat_template_kwargs": "x"}, "chat_template_kwargs: must be a dict, not str"),
        ({"chat_template_kwargs": {"a": math.nan}}, "chat_template_kwargs: cannot be written as JSON"),
        ({"chat_template_kwargs": {"a": object()}}, "chat_template_kwargs: cannot be written as JSON"),
        ({"logit_bias": [1]}, "logit_bias: must be a dict, not list"),
        ({"logit_bias": {1: math.inf}}, "logit_bias: cannot be written as JSON"),
        ({"top_log_probs": 1.5}, "top_log_probs: must be a whole number, not 1.5"),
        ({"guided_decoding_guide": {}}, "guided_decoding_guide: must be a string, not dict"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, not 0"),
        ({"timeout": math.nan}, "timeout"),
        ({"timeout": "5"}, "timeout"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": 7}, "request_id"),
    ],
)
def test_what_the_wire_cannot_carry_is_refused_before_sending(
    client: Client, fake: FakeTriton, options: Any, says: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.stream("x", **options)
    assert str(caught.value).startswith(says)
    assert not fake.calls


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (None, "messages must be a string or a list of messages, not NoneType"),
        ({"role": "user"}, "messages must be a string or a list of messages, not dict"),
        (["x"], "messages[0] must be a dict with role and content, not str"),
        ([{"role": "user", "content": "\udfff"}], "messages: is not valid text"),
        ([{"role": "user", "content": {1, 2}}], "messages: cannot be written as JSON"),
    ],
)
def test_conversations_that_are_none(client: Client, fake: FakeTriton, messages: Any, says: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.stream(messages)
    assert str(caught.value).startswith(says)
    assert not fake.calls


def test_an_option_that_does_not_exist_is_a_type_error(client: Client) -> None:
    with pytest.raises(TypeError, match="unknown option 'temprature'"):
        client.chat("x", temprature=1)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("messages", "options", "says"),
    [
        ([], {}, "messages: must have 1 to 1000 messages; got 0"),
        ([{"role": "robot", "content": "x"}], {}, r"messages\[0\].role: 'robot' was sent"),
        ("x", {"temperature": math.nan}, "temperature: must be 0 to 10; got nan"),
        ("x", {"temperature": -1}, "temperature"),
        ("x", {"max_tokens": -1}, "max_tokens: must be 0 to"),
    ],
)
def test_what_values_mean_is_left_to_the_server(
    client: Client, messages: Any, options: Any, says: str
) -> None:
    with pytest.raises(InvalidRequest, match=says):
        client.chat(messages, **options)


def test_every_public_name_is_there() -> None:
    assert set(youtu_client.__all__) <= set(dir(youtu_client))
    for name in youtu_client.__all__:
        assert getattr(youtu_client, name) is not None
