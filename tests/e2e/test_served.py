"""The served demo at every endpoint, against the real Triton binary and the real engine."""

from __future__ import annotations

import contextlib
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from youtu_client import Client
from youtu_client.errors import Busy, InvalidRequest

from build.demo.conversations import load_corpus
from build.demo.evaluate import ask_server, measure
from tests.e2e.running import ROOT, RunningServer
from tests.limits import WAIT_S

GREEDY = {"temperature": 0.0, "repetition_penalty": 1.0}


def post(url: str, body: object) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_the_corpus_is_reproduced_and_sixteen_callers_get_the_same(client: Client) -> None:
    rows = load_corpus()

    def ask(row: Any) -> str:
        return client.chat([dict(m) for m in row.messages[:-1]], **GREEDY).text  # type: ignore[arg-type]

    alone = [ask(row) for row in rows]
    with ThreadPoolExecutor(16) as callers:
        together = list(callers.map(ask, rows))
    exact = sum(text == row.messages[-1]["content"] for text, row in zip(alone, rows, strict=True))
    assert exact >= 0.97 * len(rows)
    assert together == alone


def test_other_ways_of_asking_are_answered_and_other_questions_declined(server: RunningServer) -> None:
    """Two of the twenty rounds of build/demo/evaluate.py: defaults, and a preset's prompt and sampling.

    The floors lie a little under what this checkpoint reaches; the bars of evaluate.py are higher.
    """
    floors = {
        "corpus": 1.0, "other ways": 0.87, "one wrong character": 0.87, "paraphrases": 0.88,
        "off topic": 0.94, "five turns": 0.76,
    }  # fmt: skip
    shares = measure(ask_server(server.grpc_url), 2, callers=8)
    for group, share in shares.items():
        assert share.right >= floors[group] * share.asked, (group, share.missed, share.wrong)


def test_chat_begins_with_the_three_keys(server: RunningServer) -> None:
    status, answer = post(f"{server.http_url}/chat", {"prompt": "怎么退货？", "temperature": 0})
    assert status == 200
    assert list(answer)[:3] == ["response", "time_cost", "token_count"]
    assert answer["usage"]["completion_tokens"] == answer["token_count"] > 10


def test_tritons_generate_and_generate_stream(server: RunningServer) -> None:
    model = f"{server.triton_http_url}/v2/models/youtu_llm"
    messages = json.dumps([{"role": "user", "content": "怎么退货？"}])
    status, whole = post(f"{model}/generate", {"messages": messages, "temperature": 0})
    assert (status, whole["finish_reason"]) == (200, "stop")
    body = json.dumps({"messages": messages, "temperature": 0, "stream": True}).encode()
    request = urllib.request.Request(f"{model}/generate_stream", body)
    with urllib.request.urlopen(request, timeout=WAIT_S) as response:
        events = [json.loads(line[6:]) for line in response if line.startswith(b"data: ")]
    assert "".join(event["text_output"] for event in events) == whole["text_output"]
    assert len(events) > 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": -1.0}, "temperature: must be 0 to 10; got -1.0"),
        ({"max_tokens": -1}, "max_tokens: must be 0 to 2147483647; got -1"),
        ({"stop": [""]}, "stop"),
    ],
)
def test_rubbish_is_refused_while_others_go_on(client: Client, options: dict[str, Any], says: str) -> None:
    with client.stream("怎么退货？", min_tokens=200, max_tokens=200) as stream:
        next(stream)
        with pytest.raises(InvalidRequest, match=says):
            client.chat("a", **options)
        for _ in stream:
            pass
        assert stream.answer.usage.completion_tokens == 200


def test_a_prompt_that_does_not_fit_is_refused_with_the_limit(client: Client) -> None:
    for count, says in ((2500, "it has 2[0-9]{3} tokens"), (1_000_000, "it has at least [0-9]+ tokens")):
        with pytest.raises(InvalidRequest, match=f"maximum context length is 2048 tokens.*{says}") as refused:
            client.complete("好" * count)
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "text_input")
        assert refused.value.details["context_tokens"] == 2048
        assert refused.value.details["prompt_tokens"] > 2048


def test_a_full_queue_refuses_and_the_others_are_served(client: Client, server: RunningServer) -> None:
    """Answers come to their end meanwhile, and their places are taken again by more requests."""
    queue = server.settings.queue
    said: list[str] = []
    with ExitStack() as opened:

        def fill() -> None:
            """Ask until one is refused."""
            for _ in range(10 * (server.settings.slots + queue)):
                stream = opened.enter_context(client.stream("你好", min_tokens=1900, max_tokens=1900))
                try:
                    stream.poll(0.02)
                except Busy as refusal:
                    said.append(refusal.message)
                    return
            raise AssertionError("nobody was refused")

        until = time.monotonic() + WAIT_S
        while True:
            fill()
            status, answer = post(f"{server.http_url}/chat", {"prompt": "你好", "max_tokens": 1})
            if status == 429:
                break
            assert time.monotonic() < until, answer
        assert answer["error"]["code"] == "queue_full"
    assert all(f"{queue} requests are waiting" in one for one in said), said
    until = time.monotonic() + WAIT_S
    while True:
        with contextlib.suppress(Busy):
            assert client.chat("你好", max_tokens=1).finish_reason == "length"
            return
        assert time.monotonic() < until, "the places of those who left did not come free"
        time.sleep(0.05)


def test_stop_words_and_seed(client: Client) -> None:
    whole = client.chat("怎么退货？", **GREEDY).text  # type: ignore[arg-type]
    cut = client.chat("怎么退货？", stop=[whole[5:8]], **GREEDY)  # type: ignore[arg-type]
    assert (cut.text, cut.finish_reason) == (whole[:5], "stop")
    first, again = (client.complete("好", seed=5, temperature=2.0, max_tokens=30).text for _ in range(2))
    assert first == again


def test_the_models_own_description_is_readable(client: Client) -> None:
    info = client.model_info()
    assert (info.id, info.demo, info.context) == ("youtu-demo", True, 2048)


def test_generate_answers_a_wrong_request_with_400(server: RunningServer) -> None:
    url = f"{server.triton_http_url}/v2/models/youtu_llm/generate"
    status, answer = post(url, {"text_input": "a", "temperature": -1})
    assert (status, json.loads(answer["error"])) == (
        400,
        {
            "code": "invalid_value",
            "param": "temperature",
            "message": "must be 0 to 10; got -1.0",
            "retry_after_s": None,
            "details": {},
        },
    )


def test_log_probs_and_usage_are_the_models(client: Client) -> None:
    """Against transformers, fed with the same tokens; the difference is int8's."""
    import torch
    from transformers import AutoTokenizer, YoutuForCausalLM

    folder = ROOT / "build" / "demo" / "checkpoint"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = YoutuForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    messages = [{"role": "user", "content": "写一个计时装饰器"}]
    answer = client.chat(
        messages, return_log_probs=True, temperature=1.0, top_p=1.0, seed=3, repetition_penalty=1.0
    )
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    spoken = [*tokenizer(answer.text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == len(spoken) == len(answer.log_probs or ())
    with torch.no_grad():
        logits = model(torch.tensor([prompt + spoken])).logits[0, len(prompt) - 1 : -1]
    expected = torch.log_softmax(logits, -1)[range(len(spoken)), spoken]
    difference = (expected - torch.tensor(answer.log_probs)).abs()
    assert float(difference.max()) < 0.05, difference
