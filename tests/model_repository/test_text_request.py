"""Inputs of the text contract: what is taken, what is refused and with which words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from text_request import Deployment, TextRequest, engine_inputs, read_request
from youtu_client.errors import from_message
from youtu_contract.errors import Refused
from youtu_contract.rows import OPTIONS, TEXT_INPUTS, TOKEN_INPUTS
from youtu_contract.values import array_of

from frontend.errors import from_client

DEPLOYMENT = Deployment(
    defaults={"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1},
    limits={"context": 2048, "vocab_size": 3584, "last_token": 3583, "top_log_probs": 20},
    engine_inputs=frozenset(TOKEN_INPUTS),
    template_kwargs={"enable_thinking": True},
)
HELLO = [{"role": "user", "content": "你好"}]


def request(deployment: Deployment = DEPLOYMENT, **fields: Any) -> TextRequest:
    def read(name: str) -> Any:
        if name not in fields:
            return None
        value, row = fields[name], TEXT_INPUTS[name]
        if row.datatype == "BYTES" and not row.is_list and not isinstance(value, str | bytes):
            value = json.dumps(value)
        return array_of(row, value)

    return read_request(read, deployment)


def test_a_template_argument_of_the_request_wins_over_the_deployments() -> None:
    assert request(messages=HELLO).template_kwargs == {"enable_thinking": True}
    assert request(
        messages=HELLO, chat_template_kwargs={"enable_thinking": False, "x": 1}
    ).template_kwargs == {
        "enable_thinking": False,
        "x": 1,
    }


def test_the_deployments_defaults_apply_to_absent_options() -> None:
    got = request(messages=HELLO)
    assert {name: got.options[name] for name in DEPLOYMENT.defaults} == DEPLOYMENT.defaults
    assert not got.stream
    for name, row in OPTIONS.items():
        if name not in DEPLOYMENT.defaults:
            assert got.options[name] == ({} if name == "logit_bias" else row.default), name


def test_every_option_sent_arrives() -> None:
    sent: dict[str, Any] = {
        "max_tokens": 5, "temperature": 0.0, "top_p": 0.5, "top_k": 3, "min_p": 0.25, "seed": 2**64 - 1,
        "return_log_probs": True, "stop_token_ids": (7, 9), "return_parts": True,
    }  # fmt: skip
    got = request(
        text_input="a",
        stop_words=["x", "好"],
        stream=True,
        chat_template_kwargs={"enable_thinking": False},
        **sent,
    )
    assert {name: got.options[name] for name in sent} == sent
    assert (got.text, got.stream, got.template_kwargs) == ("a", True, {"enable_thinking": False})
    assert got.options["stop"] == ("x", "好")


def test_biases_are_by_token_id() -> None:
    biased = request(text_input="a", logit_bias={"0": -100, "3583": 2.5})
    assert biased.options["logit_bias"] == {0: -100.0, 3583: 2.5}
    assert request(text_input="a", logit_bias="").options["logit_bias"] == {}


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"logit_bias": "[5, 1]"}, "logit_bias: expected a JSON object; got .*"),
        ({"logit_bias": "{"}, "logit_bias: expected JSON"),
        ({"logit_bias": {"3584": 1}}, "logit_bias: token ids must be 0 to 3583; got '3584'"),
        ({"logit_bias": {"-1": 1}}, "logit_bias: token ids must be 0 to 3583; got '-1'"),
        ({"logit_bias": {"²": 1}}, "logit_bias: token ids must be 0 to 3583"),
        ({"logit_bias": {"9" * 5000: 1}}, "logit_bias: token ids must be 0 to 3583"),
        ({"logit_bias": {"7": 100.5}}, r"logit_bias\[7\]: must be -100 to 100; got '100.5'"),
        ({"logit_bias": '{"7": NaN}'}, r"logit_bias\[7\]: must be -100 to 100; got 'NaN'"),
        ({"logit_bias": {"7": True}}, r"logit_bias\[7\]: must be -100 to 100; got 'true'"),
        ({"logit_bias": {"7": "1"}}, r"logit_bias\[7\]: must be -100 to 100; got '1'"),
        ({"logit_bias": {str(i): 1 for i in range(1025)}}, "at most 1024 tokens are allowed; got 1025"),
        ({"top_log_probs": 2}, "top_log_probs: 2 requires return_log_probs true"),
        (
            {"return_prompt_log_probs": True},
            "return_prompt_log_probs: true requires return_log_probs",
        ),
        ({"top_log_probs": 21, "return_log_probs": True}, "top_log_probs: must be 0 to 20; got 21"),
    ],
)
def test_what_only_belongs_to_single_tokens_is_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=says):
        request(text_input="a", **fields)


NEED_AN_ENGINE = {
    "min_p": 0.5,
    "stop_token_ids": [3],
    "return_prompt_log_probs": True,
    "guided_decoding_guide_type": "json",
    "logit_bias": {"3": 1},
    "min_tokens": 2,
}


@pytest.mark.parametrize("name", NEED_AN_ENGINE)
def test_what_the_engine_lacks_is_refused_by_name(name: str) -> None:
    fields: dict[str, Any] = {"input_ids": [1], "return_log_probs": True, name: NEED_AN_ENGINE[name]}
    request(**fields)
    lacking = replace(DEPLOYMENT, engine_inputs=frozenset(TOKEN_INPUTS) - {OPTIONS[name].engine})
    with pytest.raises(Refused) as refused:
        request(lacking, **fields)
    assert (refused.value.error.code, refused.value.error.param) == ("unsupported", name)
    request(lacking, input_ids=[1])  # what asks for nothing is no matter


REFUSED: list[tuple[dict[str, Any], str]] = [
        ({}, "expected exactly one of text_input, messages, input_ids; got none"),
        ({"text_input": "a", "messages": HELLO}, "got text_input and messages"),
        ({"text_input": "a", "input_ids": [1]}, "got text_input and input_ids"),
        ({"input_ids": [5, -1]}, "input_ids: must be 0 to 3583; got -1"),
        ({"input_ids": [3584]}, "input_ids: must be 0 to 3583; got 3584"),
        ({"text_input": ""}, "text_input: the text must not be empty"),
        ({"text_input": b"\xff"}, "text_input: expected UTF-8"),
        ({"messages": []}, "messages: must have 1 to 1000 messages; got 0"),
        ({"messages": "nonsense"}, "messages: expected JSON"),
        ({"messages": {"role": "user"}}, "messages: expected a list of messages"),
        ({"messages": "[" * 100_000}, "messages: expected JSON"),
        ({"messages": ["hi"]}, r"messages\[0\]: expected {\"role\", \"content\"}; got 'hi'"),
        ({"messages": [{"role": "king", "content": ""}]}, r"\[0\].role: expected one of system, .*'king'"),
        ({"messages": [{"role": ["user"], "content": ""}]}, r"messages\[0\].role"),
        ({"messages": [{"role": "user"}]}, r"messages\[0\].content: expected text"),
        ({"messages": [{"role": "user", "content": 5}]}, "got '5'"),
        ({"messages": [{**HELLO[0], "mood": 1}]}, r"messages\[0\]: unknown key 'mood'"),
        ({"messages": '[{"role":"user","content":"\\ud800"}]'}, "surrogate"),
        ({"messages": HELLO * 1001}, "got 1001"),
        ({"messages": HELLO, "temperature": float("nan")}, "temperature: must be 0 to 10; got nan"),
        ({"messages": HELLO, "temperature": -0.1}, "temperature: must be 0 to 10"),
        ({"messages": HELLO, "temperature": float("inf")}, "temperature: .* got inf"),
        ({"messages": HELLO, "top_p": 1.5}, "top_p: must be 0 to 1; got 1.5"),
        ({"messages": HELLO, "top_k": 2**31 - 1}, "top_k: must be 0 to 3584; got 2147483647"),
        ({"messages": HELLO, "top_k": -1}, "top_k"),
        ({"messages": HELLO, "max_tokens": -1}, "max_tokens: must be 0 to 2147483647; got -1"),
        ({"messages": HELLO, "continue_final_message": True}, "continue_final_message: the last message"),
        ({"text_input": "a", "continue_final_message": True}, "continue_final_message: the last message"),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": ["f"]}]},
            r"messages\[0\].tool_calls: expected a list of JSON",
        ),
        ({"messages": HELLO, "max_tokens": 5, "min_tokens": 6}, "min_tokens: must be 0 to 5; got 6"),
        ({"messages": HELLO, "repetition_penalty": 0}, "repetition_penalty: must be 0.01 to 10"),
        ({"messages": HELLO, "presence_penalty": 3}, "presence_penalty: must be -2 to 2"),
        ({"messages": HELLO, "frequency_penalty": -3}, "frequency_penalty: must be -2 to 2"),
        ({"messages": HELLO, "stop_words": ["a"] * 17}, "stop_words: at most 16 are allowed; got 17"),
        ({"messages": HELLO, "stop_words": [""]}, "stop_words: must have 1 to 200 characters"),
        ({"messages": HELLO, "stop_words": ["x" * 201]}, "stop_words: must have 1 to 200 characters"),
        ({"messages": HELLO, "stop_token_ids": [0, 3584]}, "stop_token_ids: must be 0 to 3583; got 3584"),
        ({"messages": HELLO, "stop_token_ids": [1] * 65}, "stop_token_ids: at most 64 are allowed; got 65"),
        ({"messages": HELLO, "min_p": 1.5}, "min_p: must be 0 to 1; got 1.5"),
        ({"messages": HELLO, "chat_template_kwargs": "[1]"}, "expected a JSON object"),
        ({"messages": HELLO, "chat_template_kwargs": {"messages": []}}, "'messages' is reserved"),
        ({"messages": HELLO, "chat_template_kwargs": {"pad_token": "x"}}, "'pad_token' is reserved"),
        ({"messages": HELLO, "chat_template_kwargs": {"tools": "x"}}, "tools: expected a list"),
        ({"messages": HELLO, "chat_template_kwargs": {"documents": [1]}}, "documents: expected a list"),
        ({"messages": HELLO, "chat_template_kwargs": r'{"x": ["\ud800"]}'}, "_kwargs: a lone surr"),
    ]  # fmt: skip


@pytest.mark.parametrize(("fields", "says"), REFUSED)
def test_refusals_name_the_field_the_limit_and_what_was_sent(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(Refused, match=says):
        request(**fields)


def test_a_limit_that_32_bits_do_not_hold_exactly_is_allowed() -> None:
    """The fault: 0.01 was refused with "must be 0.01 to 10; got 0.009999999776482582"."""
    got = request(text_input="a", repetition_penalty=0.01)
    assert got.options["repetition_penalty"] == pytest.approx(0.01)
    with pytest.raises(Refused, match=r"must be 0\.01 to 10; got 0\.009"):
        request(text_input="a", repetition_penalty=0.009)


SENTENCES = (
    "invalid request: the queue is full",
    "not ready: the engine has stalled",
    "Exceeds maximum queue size",
)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_rewording_them_all_changes_no_status(sentence: str) -> None:
    """Each refusal, with a message that sounds like another one, on its way to a status of HTTP."""

    def status(line: str) -> tuple[int, str, str | None]:
        reply = from_client(from_message(line, "server"), {})
        return reply.status, reply.code, reply.param

    for fields, _ in REFUSED:
        with pytest.raises(Refused) as refused:
            request(**fields)
        error = refused.value.error
        reworded = replace(error, message=sentence)
        assert status(reworded.to_line()) == status(error.to_line()) == (400, "invalid_value", error.param)


def sent_to_the_engine(
    deployment: Deployment, *, ends: list[int], thinking: bool = False, limit: int = 100, **fields: Any
) -> dict[str, Any]:
    fields = {"messages": HELLO, **fields}
    arrays = engine_inputs(
        request(deployment, **fields), [5], deployment, limit=limit, ends=ends, thinking=thinking
    )
    return {name: array[0].tolist() for name, array in arrays.items()}


NVIDIA = replace(
    DEPLOYMENT, engine_inputs=frozenset(name for name, row in TOKEN_INPUTS.items() if row.nvidia)
)


def test_each_engine_learns_of_all_end_tokens() -> None:
    ours = sent_to_the_engine(DEPLOYMENT, ends=[1, 2], stop_token_ids=[7, 1], min_tokens=9)
    assert (ours["end_ids"], ours["min_tokens"]) == ([1, 2, 7], [9])
    theirs = sent_to_the_engine(NVIDIA, ends=[1, 2], stop_token_ids=[7, 1])
    assert (theirs["end_id"], theirs["stop_words_list"]) == ([1], [[2, 7], [1, 2]])
    assert "end_ids" not in theirs
    assert "end_id" not in sent_to_the_engine(NVIDIA, ends=[])


def test_what_nvidias_backend_cannot_hold_back_is_refused_by_name() -> None:
    """It holds back end_id; other end tokens are its stop words, which end an answer at any time."""
    one = sent_to_the_engine(NVIDIA, ends=[1], stop_token_ids=[1], min_tokens=9)
    assert (one["end_id"], one["min_tokens"]) == ([1], [9])
    for more in ({"ends": [1, 2]}, {"ends": [1], "stop_token_ids": [7]}):
        with pytest.raises(
            Refused, match="min_tokens: this engine can suppress only one end token"
        ) as refused:
            sent_to_the_engine(NVIDIA, min_tokens=9, **more)  # type: ignore[arg-type]
        assert refused.value.error.code == "unsupported"
    whole = sent_to_the_engine(NVIDIA, ends=[1, 2], min_tokens=100, limit=100)  # none may come at all
    assert (whole["end_id"], whole["bad_words_list"]) == ([1], [[2], [1]])


def test_while_thinking_the_guide_waits_and_the_engine_knows_no_stop_tokens() -> None:
    guided: dict[str, Any] = {"guided_decoding_guide_type": "json", "stop_token_ids": [7]}
    thinking = sent_to_the_engine(DEPLOYMENT, ends=[1], thinking=True, **guided)
    assert thinking["guided_decoding_after"] == [b"</think>"]
    assert thinking["end_ids"] == [1]
    at_once = sent_to_the_engine(DEPLOYMENT, ends=[1], **guided)
    assert "guided_decoding_after" not in at_once
    assert at_once["end_ids"] == [1, 7]
    assert "guided_decoding_after" not in sent_to_the_engine(DEPLOYMENT, ends=[1], thinking=True)


def test_ignoring_the_end_bans_the_model_s_own_ends_and_no_others() -> None:
    sent = sent_to_the_engine(DEPLOYMENT, ends=[7, 9], ignore_eos=True, stop_token_ids=[9, 11])
    assert sent["end_ids"] == [9, 11]
    assert sent["bad_words_list"] == [[7], [1]]
    nvidia = replace(DEPLOYMENT, engine_inputs=frozenset(DEPLOYMENT.engine_inputs) - {"end_ids"})
    sent = sent_to_the_engine(nvidia, ends=[7, 9], ignore_eos=True)
    assert sent["bad_words_list"] == [[7, 9], [1, 2]]
    assert not sent.keys() & {"end_id", "end_ids", "stop_words_list"}
