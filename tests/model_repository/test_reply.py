"""An answer as it grows: what each response carries, and that the tokens it lists are the text."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reply import Outputs, Reply, Vocabulary, engine_outputs
from text_request import TextRequest
from youtu_contract.rows import OPTIONS, TEXT_OUTPUTS
from youtu_contract.values import array_of

END = 256
NAMED = 257
# Every byte is a token; then the end, a special token, and one of several characters.
VOCABULARY = Vocabulary(
    [*(bytes([b]) for b in range(256)), b"", b"", b"stop!"], {END: b"<|end|>", NAMED: b"<|x|>"}, {END}
)
NOTHING_ASKED = {name: row.default for name, row in OPTIONS.items()} | {"logit_bias": {}}
REQUEST = TextRequest(
    text="a", messages=None, input_ids=None, stream=True, template_kwargs={}, options=NOTHING_ASKED
)


def request_with(**options: Any) -> TextRequest:
    """One that asks for log-probabilities and these options."""
    return replace(REQUEST, options={**NOTHING_ASKED, "return_log_probs": True, **options})


def answer(
    ids: list[int],
    *,
    cuts: int = 1,
    thinking: bool = False,
    chat: bool = False,
    limit: int = 9999,
    **options: Any,
) -> list[dict[str, Any]]:
    """The responses to an engine that sends `cuts` tokens at once; each a flat list, log-prob -id."""
    request = request_with(**options)
    if chat:
        request = replace(request, text=None, messages=[{"role": "user", "content": "a"}])
    reply = Reply(request, VOCABULARY, prompt=[1], limit=limit, thinking=thinking)
    responses = []
    for at in range(0, len(ids), cuts):
        part = ids[at : at + cuts]
        top = (
            [i for token in part for i in (token, NAMED)][: 2 * len(part)]
            if request.options["top_log_probs"]
            else []
        )
        reply.take(
            {
                "output_ids": part,
                "output_log_probs": [-float(token) for token in part],
                "top_log_prob_ids": top,
                "top_log_probs": [-float(i) for i in top],
            }
        )
        if reply.reason:
            break
        if reply.has_news:
            responses.append(reply.news())
    reply.finish()
    end = reply.ending(prompt_tokens=1, arrival_ns=0, tokens_per_block=1)
    responses.append(reply.news(last=True) | end)
    return [flat(response) for response in responses]


def flat(outputs: Outputs) -> dict[str, list[Any]]:
    """As a client gets them."""
    return {name: array_of(TEXT_OUTPUTS[name], value).reshape(-1).tolist() for name, value in outputs.items()}


def whole(responses: list[dict[str, Any]], name: str) -> list[Any]:
    return [value for response in responses for value in response.get(name, [])]


@given(st.text(), st.integers(1, 7), st.sampled_from([(), ("b",), ("好的", "aa"), ("0123",)]), st.booleans())
def test_the_tokens_in_a_row_are_the_text(
    text: str, cuts: int, stop_words: tuple[str, ...], end: bool
) -> None:
    ids = [*text.encode(), *([END] if end else [])]
    responses = answer(ids, cuts=cuts, stop=stop_words)
    shown = b"".join(whole(responses, "text_output"))
    assert b"".join(whole(responses, "output_tokens")) == shown
    values = whole(responses, "output_log_probs")
    assert values == [-float(i) for i in ids[: len(values)]]
    assert len(values) == responses[-1]["num_output_tokens"][0]


def test_a_token_goes_out_with_the_character_that_it_begins() -> None:
    first, *others = answer(list("好a".encode()))
    assert first["text_output"] == ["好".encode()]
    assert first["output_tokens"] == [bytes([b]) for b in "好".encode()]
    assert [other["output_tokens"] for other in others] == [[b"a"], []]


def test_what_a_stop_word_swallows_counts_but_has_no_bytes() -> None:
    responses = answer([*b"ab", 258, *b"never"], stop=("op",))
    assert whole(responses, "text_output") == [b"a", b"b", b"st"]
    assert whole(responses, "output_tokens") == [b"a", b"b", b"st"]
    responses = answer([*b"abs", *b"top", *b"never"], stop=("stop",))
    assert b"".join(whole(responses, "text_output")) == b"ab"
    assert whole(responses, "output_tokens") == [b"a", b"b", b"", b"", b"", b""]
    assert responses[-1]["finish_reason"] == [b"stop"]


def test_a_token_does_not_wait_for_the_one_that_a_stop_word_holds_back() -> None:
    first, *_ = answer([*b"a", 258, *b"z"], cuts=2, stop=("stop!x",))
    assert first["output_tokens"] == [b"a"]


def test_all_tokens_of_a_stop_word_have_no_bytes() -> None:
    assert whole(answer([*b"ab", 258], stop=("bstop!",)), "output_tokens") == [b"a", b"", b""]


def test_the_end_token_keeps_its_log_prob_and_is_no_text() -> None:
    responses = answer([*b"a", NAMED, END])
    assert whole(responses, "output_tokens") == [b"a", b"", b""]
    assert whole(responses, "output_log_probs")[-1] == -END


def test_the_likeliest_are_named_even_where_they_are_no_text() -> None:
    responses = answer([*b"a", END], top_log_probs=2, cuts=2)
    assert whole(responses, "top_tokens") == [b"a", b"<|x|>", b"<|end|>", b"<|x|>"]
    assert whole(responses, "top_output_log_probs") == [-97.0, -257.0, -256.0, -257.0]


def test_the_first_response_tells_of_the_prompt() -> None:
    reply = Reply(
        request_with(return_prompt_log_probs=True, top_log_probs=1),
        VOCABULARY,
        prompt=[NAMED, 97, END],
        limit=9,
        thinking=False,
    )
    prompt = {
        "prompt_log_probs": [-1.0, -2.0],
        "top_prompt_log_prob_ids": [98, END],
        "top_prompt_log_probs": [-0.5, -2.0],
    }
    made: dict[str, Any] = {
        "output_ids": [99],
        "output_log_probs": [-3.0],
        "top_log_prob_ids": [99],
        "top_log_probs": [-3.0],
    }
    reply.take(made | prompt)
    reply.take(made)
    first, then = reply.news(), reply.news()
    assert first["prompt_tokens"] == [b"<|x|>", b"a", b"<|end|>"]
    assert first["prompt_log_probs"] == [-1.0, -2.0]
    assert first["top_prompt_tokens"] == [b"b", b"<|end|>"]
    assert first["top_prompt_log_probs"] == [-0.5, -2.0]
    assert "top_prompt_token_ids" not in first
    assert not [name for name in then if "prompt" in name]
    asked = request_with(return_prompt_log_probs=True, top_log_probs=1, return_token_ids=True)
    reply = Reply(asked, VOCABULARY, prompt=[97], limit=9, thinking=False)
    reply.take(made | prompt)
    assert reply.news()["top_prompt_token_ids"] == [98, END]


@pytest.mark.parametrize("cuts", [1, 3, 99])
def test_the_parts_come_in_outputs_of_their_own_and_the_text_stays_raw(cuts: int) -> None:
    call = '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
    text = f"hm </think>\n\n好{call}"
    responses = answer([*text.encode(), END], cuts=cuts, thinking=True, return_parts=True)
    assert b"".join(whole(responses, "text_output")).decode() == text
    assert b"".join(whole(responses, "reasoning_output")) == b"hm"
    assert b"".join(whole(responses, "content_output")).decode() == f"好{call}"  # no tools were offered
    assert whole(responses, "tool_calls_output") == []


def test_calls_of_tools_come_apart_where_tools_were_offered() -> None:
    text = 'so <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>'
    request = replace(request_with(return_parts=True), template_kwargs={"tools": [{}]})
    reply = Reply(request, VOCABULARY, prompt=[1], limit=99, thinking=False)
    reply.take({"output_ids": [*text.encode(), END], "output_log_probs": []})
    outputs = reply.news(last=True)
    assert (outputs["content_output"], outputs["text_output"]) == ("so", text)
    [made] = json.loads(outputs["tool_calls_output"])
    assert (made["name"], json.loads(made["arguments"])) == ("f", {"x": 1})


def test_a_stop_token_ends_the_answer_and_adds_no_text() -> None:
    responses = answer([*b"ab", 258, *b"never"], stop_token_ids=(258,))
    assert b"".join(whole(responses, "text_output")) == b"ab"
    assert whole(responses, "output_tokens") == [b"a", b"b", b""]
    assert responses[-1]["finish_reason"] == [b"stop"]


def test_nothing_about_tokens_unless_asked() -> None:
    responses = answer([*b"ab", END], return_log_probs=False)
    assert not {"output_tokens", "output_log_probs", "top_tokens"} & {name for r in responses for name in r}


@pytest.mark.parametrize("stream", [True, False])
def test_the_first_and_the_last_response_say_that_it_starts_in_thinking(stream: bool) -> None:
    responses = answer([*b"abc", END], thinking=True, cuts=1 if stream else 9)
    values = [response.get("starts_in_thinking") for response in responses]
    assert values == ([[True], None, None, [True]] if stream else [[True]])
    assert whole(answer([*b"abc"]), "starts_in_thinking") == []


def test_length_only_when_the_limit_was_reached_without_an_end() -> None:
    assert answer([*b"ab"], limit=2)[-1]["finish_reason"] == [b"length"]
    assert answer([*b"a", END], limit=2)[-1]["finish_reason"] == [b"stop"]
    assert answer([*b"ab"], limit=2, stop=("b",))[-1]["finish_reason"] == [b"stop"]


def test_an_engine_of_nvidias_kind() -> None:
    """It pads, repeats all log-probs each time, and counts time from another beginning than 1970."""
    reply = Reply(request_with(), VOCABULARY, prompt=[1], limit=9, thinking=False)
    before = time.time_ns()
    ids = list(b"abc")
    for i, token in enumerate(ids):
        log_probs = [-float(id) for id in ids[: i + 1]]
        reply.take({"output_ids": [token, -1], "sequence_length": [1], "output_log_probs": log_probs})
    reply.take(
        {
            "output_ids": [-1],
            "sequence_length": [0],
            "output_log_probs": [-float(id) for id in ids],
            "arrival_time_ns": [1_000],
            "first_token_time_ns": [2_000],
            "last_token_time_ns": [5_000],
            "acceptance_rate": [0.0],
        }
    )
    reply.finish()
    outputs = reply.news(last=True) | reply.ending(prompt_tokens=1, arrival_ns=0, tokens_per_block=32)
    assert (outputs["text_output"], outputs["finish_reason"]) == ("abc", "stop")
    assert outputs["output_log_probs"] == [-97, -98, -99]
    first, last = (outputs[name] for name in ("first_token_time_ns", "last_token_time_ns"))
    assert abs(first - before) < 10**9
    assert last - first == 3_000


def ids_of(*parts: str | int) -> list[int]:
    return [token for part in parts for token in ([part] if isinstance(part, int) else part.encode())]


def ending(ids: list[int], **options: Any) -> tuple[str, str]:
    """The text and why it ended, which are the same however many tokens come at once."""
    found = set()
    for cuts in (1, 2, 3, 999):
        responses = answer(ids, cuts=cuts, **options)
        text = b"".join(whole(responses, "text_output"))
        assert b"".join(whole(responses, "output_tokens")) == text
        found.add((text.decode(), responses[-1]["finish_reason"][0].decode()))
    [one] = found
    return one


@pytest.mark.parametrize(
    ("ids", "stop", "text"),
    [
        (ids_of("a stop b</think>\n\nc stop d"), ("stop",), "a stop b</think>\n\nc "),
        (ids_of("a\nb\n</think>\n\nc\nd"), ("\n",), "a\nb\n</think>\n\nc"),
        (ids_of("a</think>\n\nc d"), ("k>\n", "</think>", "\n\n"), "a</think>\n\nc d"),
        (ids_of("a</think>stop"), ("stop",), "a</think>"),
        (ids_of("a</think>st"), ("stop",), "a</think>st"),
        (ids_of("never ends stop"), ("stop",), "never ends stop"),
        (ids_of("a <|x|>", NAMED, "</think>b", NAMED, "c"), ("<|x|>",), "a <|x|></think>b"),
        (ids_of("好</th", "ink>好的"), ("的",), "好</think>好"),
        (ids_of("a </thi"), ("<",), "a </thi"),
        (ids_of("a</think>\n", 258), ("sto",), "a</think>\n"),
    ],
)
def test_stop_words_count_after_the_thinking(ids: list[int], stop: tuple[str, ...], text: str) -> None:
    """The fault: a stop word ended the answer within its thinking, and there was no content at all."""
    assert ending(ids, chat=True, thinking=True, stop=stop)[0] == text
    begun_by_the_model = ending([*b"\n<think>", *ids], chat=True, stop=stop)[0]
    assert begun_by_the_model == "\n<think>" + text


def test_a_raw_text_has_no_thinking_for_its_stop_words() -> None:
    assert ending(ids_of("<think>a stop"), stop=("stop",)) == ("<think>a ", "stop")
    assert ending(ids_of("<b> a stop"), chat=True, stop=("stop",)) == ("<b> a ", "stop")
    for text in ("<", " <thi", "<b"):
        assert ending(ids_of(text), chat=True, stop=("<",)) == (text.partition("<")[0], "stop")


@pytest.mark.parametrize(
    ("ids", "stop", "least", "text"),
    [
        (ids_of("abcabc"), ("b",), 3, "abca"),
        (ids_of("abcabc"), ("b",), 2, "abca"),
        (ids_of("abcabc"), ("b",), 1, "a"),
        (ids_of("ab", 258, "stop!x"), ("stop!",), 3, "abstop!"),
        (ids_of("abstop"), ("stop",), 5, "ab"),  # complete only after five
        (ids_of("aaaa"), ("aa",), 2, "a"),
        (ids_of("abx ab"), ("ab", "abcd"), 2, "abx "),
        (ids_of("ab"), ("b",), 9, "ab"),
    ],
)
def test_stop_words_count_from_min_tokens_on(
    ids: list[int], stop: tuple[str, ...], least: int, text: str
) -> None:
    assert ending(ids, stop=stop, min_tokens=least)[0] == text


@pytest.mark.parametrize(
    ("ids", "stop", "text"),
    [
        (ids_of("ab", NAMED, "c"), ("<|x|>",), "ab"),
        (ids_of("ab<|x|>c"), ("<|x|>",), "ab"),
        (ids_of("ab", NAMED, "c"), ("b<|x|>",), "a"),
        (ids_of("ab", NAMED, "cd"), ("<|x|>c",), "ab"),
        (ids_of("ab", NAMED, "dd"), ("<|x|>c",), "abdd"),
        (ids_of("ab", NAMED, NAMED, "c"), ("<|x|><|x|>",), "ab"),
        (ids_of("好"[:1], NAMED, "c"), ("<|y|>",), "好c"),
        (ids_of("ab", END, "c"), ("<|end|>",), "ab"),
    ],
)
def test_the_name_of_a_special_token_is_a_stop_word(ids: list[int], stop: tuple[str, ...], text: str) -> None:
    """The fault: decoding leaves special tokens out, and their names were looked for in what is left."""
    assert ending(ids, stop=stop)[0] == text


@pytest.mark.parametrize("token", [ord("b"), NAMED, 258, END])
def test_any_token_ends_the_answer_by_its_id(token: int) -> None:
    assert ending(ids_of("a", token, "c"), stop_token_ids=(token,)) == ("a", "stop")


def test_stop_tokens_count_after_the_thinking_and_from_min_tokens_on() -> None:
    ids = ids_of("a", NAMED, "b</think>\n", "c", NAMED, "d")
    assert ending(ids, chat=True, thinking=True, stop_token_ids=(NAMED,)) == ("ab</think>\nc", "stop")
    newline = ids_of("a\nb</think>\n\nc\nd")
    text = "a\nb</think>\n\nc"
    assert ending(newline, chat=True, thinking=True, stop_token_ids=(10,)) == (text, "stop")
    for least in (1, 2):
        assert ending(ids_of("abab"), stop_token_ids=(97,), min_tokens=least) == ("ab", "stop")
    reply = Reply(
        replace(request_with(stop_token_ids=(NAMED,)), messages=[]),
        VOCABULARY,
        prompt=[1],
        limit=99,
        thinking=True,
    )
    assert not reply.stopped
    reply.take({"output_ids": ids_of("a", NAMED)})
    assert not reply.stopped
    reply.take({"output_ids": ids_of("</think>b", NAMED)})
    assert reply.stopped  # by a token of which the engine was not told


def test_thinking_that_takes_all_of_the_length_leaves_no_content() -> None:
    responses = answer(ids_of("abc"), chat=True, thinking=True, limit=3, return_parts=True, stop=("b",))
    assert b"".join(whole(responses, "reasoning_output")) == b"abc"
    assert b"".join(whole(responses, "content_output")) == b""
    assert responses[-1]["finish_reason"] == [b"length"]


def test_a_guided_text_is_no_call_of_a_tool() -> None:
    text = '{"a": "<tool_call>{\\"name\\": \\"f\\"}</tool_call>"}'
    request = replace(
        request_with(return_parts=True, guided_decoding_guide_type="json"), template_kwargs={"tools": [{}]}
    )
    reply = Reply(request, VOCABULARY, prompt=[1], limit=999, thinking=False)
    reply.take({"output_ids": list(text.encode())})
    reply.finish()
    assert flat(reply.news(last=True))["content_output"] == [text.encode()]


def test_a_character_cut_by_the_limit_is_in_no_output() -> None:
    cut = list("退货".encode()[:-1])
    for parts in (False, True):
        responses = answer(cut, limit=len(cut), return_parts=parts)
        assert "".join(text.decode() for text in whole(responses, "text_output")) == "退"
        assert "".join(text.decode() for text in whole(responses, "content_output")) == "退" * parts
        assert b"".join(whole(responses, "output_tokens")).decode() == "退"
        assert responses[-1]["finish_reason"] == [b"length"]
        assert responses[-1]["num_output_tokens"] == [len(cut)]


def test_what_ended_it_is_told() -> None:
    assert answer([*b"abc"], stop=("z", "bc"))[-1]["stop_word"] == [b"bc"]
    assert answer([*b"ab", ord("c")], stop_token_ids=(ord("c"),))[-1]["stop_token_id"] == [ord("c")]
    for ids in ([*b"ab", END], [*b"ab"]):
        last = answer(ids, stop=("z",), stop_token_ids=(END,))[-1]
        assert not last.keys() & {"stop_word", "stop_token_id"}


def test_token_ids_are_told_of_the_prompt_first_and_of_every_token_made() -> None:
    responses = answer([*"好a".encode(), END], return_token_ids=True)
    assert [response.get("prompt_token_ids") for response in responses] == [[1], None, None]
    assert whole(responses, "output_token_ids") == [*"好a".encode(), END]
    assert "output_token_ids" not in answer([*b"a"])[-1]


def test_an_answer_of_no_tokens_is_none_although_the_engine_makes_one() -> None:
    last = answer([*b"ab"], limit=0)[-1]
    assert (last["text_output"], last["output_tokens"], last["num_output_tokens"]) == ([b""], [], [0])
    assert last["finish_reason"] == [b"length"]


def test_after_the_one_call_that_there_may_be_the_answer_ends() -> None:
    text = b'Hm <tool_call>{"name": "a"}</tool_call><tool_call>{"name": "b"}</tool_call> x'
    request = replace(
        request_with(return_parts=True, parallel_tool_calls=False), template_kwargs={"tools": [{"name": "a"}]}
    )
    reply = Reply(request, VOCABULARY, prompt=[1], limit=99, thinking=False)
    reply.take({"output_ids": [*text], "output_log_probs": [0.0] * len(text)})
    assert (reply.reason, reply.stopped) == ("stop", True)
    reply.finish()
    news = reply.news(last=True)
    assert [call["name"] for call in json.loads(news["tool_calls_output"])] == ["a"]
    assert news["content_output"] == "Hm"


def test_several_calls_of_tools_may_come() -> None:
    text = '<tool_call>{"name": "北"}</tool_call><tool_call>{"name": "b"}</tool_call> x <tool'
    request = replace(request_with(return_parts=True), template_kwargs={"tools": [{"name": "b"}]})
    reply = Reply(request, VOCABULARY, prompt=[1], limit=999, thinking=False)
    reply.take({"output_ids": [*text.encode()]})
    assert (reply.reason, reply.stopped) == ("", False)
    reply.finish()
    news = reply.news(last=True)
    assert [call["name"] for call in json.loads(news["tool_calls_output"])] == ["北", "b"]
    assert "北" in news["tool_calls_output"]  # not escaped
    assert news["content_output"] == "x <tool"  # what was held back is text in the end


@pytest.mark.parametrize(
    ("sent", "first", "last"),
    [
        ({}, 200, 200),
        ({"arrival_time_ns": [70]}, 200, 200),
        ({"first_token_time_ns": [75], "last_token_time_ns": [90]}, 200, 200),
        ({"arrival_time_ns": [70], "first_token_time_ns": [75], "last_token_time_ns": [90]}, 105, 120),
    ],
)
def test_times_count_from_the_handing_over_and_are_now_where_the_engine_tells_none(
    monkeypatch: pytest.MonkeyPatch, sent: dict[str, list[int]], first: int, last: int
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 100)
    reply = Reply(REQUEST, VOCABULARY, prompt=[1], limit=9, thinking=False)
    monkeypatch.setattr(time, "time_ns", lambda: 200)
    reply.take({"output_ids": [*b"a"], **sent})
    end = reply.ending(prompt_tokens=1, arrival_ns=0, tokens_per_block=32)
    assert (end["first_token_time_ns"], end["last_token_time_ns"]) == (first, last)


def test_cached_blocks_are_told_as_tokens() -> None:
    for sent, tokens in (({}, 0), ({"kv_cache_reused_blocks": [3]}, 96)):
        reply = Reply(REQUEST, VOCABULARY, prompt=[1], limit=9, thinking=False)
        reply.take({"output_ids": [*b"a"], **sent})
        end = reply.ending(prompt_tokens=99, arrival_ns=0, tokens_per_block=32)
        assert end["num_cached_tokens"] == tokens


def test_the_engine_is_asked_only_for_what_the_request_wants() -> None:
    always = {
        *("output_ids", "sequence_length", "output_log_probs", "kv_cache_reused_blocks"),
        *("arrival_time_ns", "first_token_time_ns", "last_token_time_ns"),
    }
    top, of_prompt = {"top_log_prob_ids", "top_log_probs"}, {"prompt_log_probs"}
    both = top | of_prompt | {"top_prompt_log_prob_ids", "top_prompt_log_probs"}
    for count, prompt, more in ((0, False, set()), (2, False, top), (0, True, of_prompt), (2, True, both)):
        asked = engine_outputs(request_with(top_log_probs=count, return_prompt_log_probs=prompt))
        assert set(asked) == always | more


def test_a_vocabulary_has_no_text_for_ends_and_ids_outside_its_table() -> None:
    vocabulary = Vocabulary([b"a", b"end", b"b"], {1: b"<end>"}, {1})
    assert [vocabulary.data(token) for token in (0, 1, 2, 3, 4, -1)] == [b"a", b"", b"b", b"", b"", b""]
    assert [vocabulary.name(token) for token in (0, 1, 3)] == [b"a", b"<end>", b""]
