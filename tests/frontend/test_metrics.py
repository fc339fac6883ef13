"""`/metrics` says what happened under vLLM's names, as does the log; the dashboard asks for what is there."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from frontend.keys import add
from tests.client.fake_triton import FakeTriton
from tests.limits import NEVER_S

from .conftest import ROOT, Frontend, script
from .test_description import application

CHAT = {"messages": [{"role": "user", "content": "q"}]}


def values(frontend: Frontend) -> dict[tuple[str, ...], float]:
    """(name, label values by the names of the labels) -> value."""
    text = frontend.get("/metrics").body.decode()
    return {
        (
            sample.name.removeprefix("youtu_"),
            *(sample.labels[label] for label in sorted(sample.labels)),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def grown(frontend: Frontend) -> Any:
    """What grew by how much since the test began."""
    before = values(frontend)

    def since() -> dict[tuple[str, ...], float]:
        now = values(frontend)
        return {name: now[name] - before.get(name, 0) for name in now if now[name] != before.get(name, 0)}

    return since


def test_an_answer(frontend: Frontend, fake: FakeTriton, grown: Any) -> None:
    prompt = script(tokens=5, delay=0.02, prefill=0.3, cached=2)
    started = time.monotonic()
    frontend.post({"prompt": prompt}, **{"X-Request-ID": "metered"})
    line = frontend.line("metered")
    waited = time.monotonic() - started
    new = grown()
    assert new["requests_total", "POST", "ok", "/chat", "200"] == 1
    assert new["request_success_total", "stop"] == 1
    assert new["generation_tokens_total",] == 5
    assert new["prompt_tokens_total",] == len(prompt.split())
    assert new["prompt_tokens_cached_total",] == 2
    for name, count in {
        "time_to_first_token_seconds": 1,
        "e2e_request_latency_seconds": 1,
        "request_queue_time_seconds": 1,
        "inter_token_latency_seconds": 4,
        "request_time_per_output_token_seconds": 1,
        "request_prompt_tokens": 1,
        "request_generation_tokens": 1,
    }.items():
        assert new[f"{name}_count",] == count, name
    assert 0.3 <= new["time_to_first_token_seconds_sum",] <= waited
    # On a busy machine the first piece may be seen late, and the others come sooner behind it.
    seen = new["time_to_first_token_seconds_sum",] + new["inter_token_latency_seconds_sum",]
    assert 0.38 <= seen <= waited
    assert 0.38 <= new["e2e_request_latency_seconds_sum",] <= waited
    assert (line["tokens"], line["cached_tokens"], line["finish_reason"]) == (5, 2, "stop")
    assert 0.3 <= line["ttft_s"] <= waited
    assert line["queue_s"] <= waited - 0.38  # what the model takes is not waiting
    assert line["status"] == 200
    assert fake.calls[-1].id == "metered"


def test_what_goes_wrong(frontend: Frontend, fake: FakeTriton, grown: Any) -> None:
    frontend.post({"prompt": script(fail_at=0)})
    frontend.post({"prompt": script(fail_at=1, tokens=2), "stream": True})
    frontend.post({"prompt": ""})
    frontend.post({"prompt": script(queue_full=True)})
    frontend.get("/nowhere")
    leaving = {"prompt": script(unending=True, delay=0.05)}
    with frontend.connect(leaving, "X-Request-ID: leaving"):
        fake.wait_calls(4)
    assert frontend.line("leaving")["left"] is True
    new = grown()
    assert new["requests_total", "POST", "failed", "/chat", "502"] == 1
    assert new["requests_total", "POST", "failed", "/chat", "200"] == 1
    assert new["requests_total", "POST", "invalid", "/chat", "400"] == 1
    assert new["requests_total", "POST", "refused", "/chat", "429"] == 1
    assert new["requests_total", "POST", "cancelled", "/chat", "499"] == 1
    assert new["requests_total", "GET", "invalid", "-", "404"] == 1
    assert new["requests_cancelled_total",] == 1
    assert new["requests_refused_total", "queue_full"] == 1
    assert ("request_success_total", "stop") not in new


def test_gauges(another: Any, fake: FakeTriton) -> None:
    frontend: Frontend = another(slots=2, queue=3)
    assert frontend.gauge("slots") == 2
    held = [frontend.connect({"prompt": script(prefill=NEVER_S)}) for _ in range(5)]
    frontend.wait_gauges(running=2, waiting=3)
    refused = frontend.post({"prompt": "q"})
    assert refused.status == 429
    assert "3 requests are waiting, which is the limit" in refused.error["message"]
    assert int(refused.headers["Retry-After"]) >= 1
    for connection in held:
        connection.close()
    frontend.wait_gauges(running=0, waiting=0)


def test_the_dashboard_asks_for_what_is_there(frontend: Frontend) -> None:
    frontend.post({"prompt": "q"})
    board = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
    targets = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(targets) > 10
    asked = {name for expr in targets for name in re.findall(r"\byoutu_\w+", expr)}
    there = {f"youtu_{name[0]}" for name in values(frontend)}
    # Counters with labels are there once they counted something.
    assert asked - there <= {"youtu_requests_refused_total"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert board["templating"]["list"][0]["type"] == "datasource"


def test_every_metric_stands_in_the_docs(frontend: Frontend) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    families = text_string_to_metric_families(frontend.get("/metrics").body.decode())
    for family in families:
        assert f"`{family.name}" in page, family.name


@pytest.mark.parametrize("stream", [False, True])
def test_the_text_is_in_the_log_only_when_enabled(another: Any, fake: FakeTriton, stream: bool) -> None:
    body = {"prompt": "a secret", "stream": stream}
    for setting in ("off", "on"):
        frontend: Frontend = another(log_text=setting)
        frontend.post(body, **{"X-Request-ID": "told"})
        line = frontend.line("told")
        assert ("a secret" in frontend.log.read_text()) == (setting == "on")
    assert line["asked"] == body
    assert line["answers"] == ["You said: a secret"]


def test_methods_that_callers_make_up_are_one_label(frontend: Frontend) -> None:
    """The fault: each was a line of the metrics for ever, 500 characters long if it was, without a key."""
    for number in range(3):
        assert frontend.send(f"MADE{number}UP", "/chat", None).status == 405
    page = frontend.get("/metrics").body.decode()
    assert "UP" not in page
    assert 'method="other"' in page


def test_usage_of_each_key(fake: FakeTriton, tmp_path: Path) -> None:
    keys = {name: add(tmp_path / "keys", name) for name in ("shop", "office")}
    app = application(fake, keys_file=str(tmp_path / "keys")).test_client()

    def send(name: str, path: str, **body: Any) -> int:
        headers = {"Authorization": f"Bearer {keys[name]}"}
        status: int = app.post(path, json=body, headers=headers, buffered=True).status_code
        return status

    chat = {"messages": [{"role": "user", "content": script(tokens=5, cached=2)}]}
    assert send("shop", "/v1/chat/completions", **chat) == 200
    assert send("shop", "/v1/messages", max_tokens=3, **chat) == 200
    assert send("shop", "/v1/responses", input=script(tokens=4), stream=True) == 200
    assert send("office", "/chat", prompt="one two") == 200
    assert send("office", "/chat", prompt="") == 400
    page = app.get("/metrics", headers={"Authorization": f"Bearer {keys['office']}"}).text
    assert not any(key in page for key in keys.values())
    found = {
        (sample.name.removeprefix("youtu_key_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name.startswith("youtu_key_")
    }
    read = 2 * len(script(tokens=5, cached=2).split()) + len(script(tokens=4).split())
    assert found == {
        ("requests_total", "shop", "ok", "/v1/chat/completions"): 1,
        ("requests_total", "shop", "ok", "/v1/messages"): 1,
        ("requests_total", "shop", "ok", "/v1/responses"): 1,
        ("requests_total", "office", "ok", "/chat"): 1,
        ("requests_total", "office", "invalid", "/chat"): 1,
        ("prompt_tokens_total", "shop"): read,
        ("prompt_tokens_total", "office"): 2,
        ("prompt_tokens_cached_total", "shop"): 4,
        ("prompt_tokens_cached_total", "office"): 0,
        ("generation_tokens_total", "shop"): 5 + 3 + 4,
        ("generation_tokens_total", "office"): 4,
    }


def test_without_keys_nobody_is_counted(frontend: Frontend) -> None:
    """Addresses are endless: each would be a line of the metrics for ever."""
    frontend.post({"prompt": "q"})
    assert "youtu_key_requests_total{" not in frontend.get("/metrics").body.decode()
