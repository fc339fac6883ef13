"""The page against Triton with the demonstration's engine, as `make serve` starts them."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.running import KeptServer, RunningServer
from tests.limits import WAIT_S

from .conftest import Visits, answers, ask, facts, reload

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def kept_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeptServer]:
    with KeptServer(tmp_path_factory.mktemp("page"), context="256") as kept:
        yield kept


@pytest.fixture
def server(kept_server: KeptServer) -> RunningServer:
    return kept_server.running()


@pytest.fixture
def visit_real(browser: Browser, server: RunningServer) -> Iterator[Visits]:
    visits = Visits(browser, server.http_url)
    yield visits
    for context in visits.contexts:
        context.close()
    assert [text for text in visits.said if not text.startswith("Failed to load resource")] == []


@pytest.mark.parametrize(
    ("language", "width", "parts"),
    [
        ("zh-CN", 1280, {"support": "签收后七天内", "documents": "人事系统", "coding": "functools.wraps"}),
        ("en-US", 360, {"support": "within 30 days", "documents": "Four things", "coding": "csv.DictReader"}),
    ],
)
def test_the_three_scenes(
    visit_real: Visits, shots: Path, language: str, width: int, parts: dict[str, str]
) -> None:
    """The examples that the page offers are answered by the demonstration, with their presets."""
    page = visit_real(language, width)
    expect(page.locator("#model")).to_have_text("youtu-demo")
    for at, (preset, part) in enumerate(parts.items()):
        if at:
            if width < 860:
                page.click("#open-sidebar")
            page.click("#fresh")
            expect(page.locator(".turn")).to_have_count(0)
        page.locator(".scene").nth(at).click()
        expect(page.locator("#preset")).to_have_value(preset)
        page.press("#draft", "Enter")
        expect(answers(page)).to_contain_text(part)
        expect(page.locator("#stop")).to_be_hidden()
    expect(answers(page).locator("pre .k").first).to_be_visible()
    page.screenshot(path=shots / f"real-{language}-{width}.png")
    reload(page)
    expect(answers(page)).to_contain_text(parts["coding"])


def test_the_context_fills_and_the_oldest_turns_are_left_out(visit_real: Visits) -> None:
    page = visit_real()
    expect(page.locator("#gauge-text")).to_have_text("0 / 256")
    offer = page.get_by_role("button", name="Leave the oldest turns out")
    finished = page.locator(".turn.assistant:not(.open) > .facts:not(:empty)")
    for asked in range(12):
        ask(page, "How do I read a CSV file in Python?")
        expect(offer.or_(finished.nth(asked)).first).to_be_visible()
        expect(page.locator("#stop")).to_be_hidden()
        if offer.is_visible():
            break
    expect(page.locator("#notice-text")).to_contain_text("the model's context holds 256")
    count = answers(page).count()
    offer.click()
    expect(page.locator(".divider")).to_be_visible()
    expect(page.locator("#notice")).to_be_hidden()
    if page.locator("#draft").input_value():
        page.press("#draft", "Enter")
    elif answers(page).count() == count:
        ask(page, "How do I read a CSV file in Python?")
    expect(answers(page)).to_have_count(count + 1)
    expect(facts(page).last).to_contain_text("finished")
    expect(answers(page).last).to_contain_text("csv.DictReader")


def engine_requests(server: RunningServer) -> int:
    """Requests that the engine has finished, by Triton's own count."""
    url = f"{server.triton_http_url}/v2/models/youtu_llm/stats"
    with urllib.request.urlopen(url, timeout=WAIT_S) as reply:
        stats: Any = json.load(reply)
    return int(stats["model_stats"][0]["inference_count"])


def test_the_bench_answers_with_the_engine(visit_real: Visits, server: RunningServer, shots: Path) -> None:
    before = engine_requests(server)
    page = visit_real("zh-CN", path="/#/bench")
    rows = ["你好，在吗？", "怎么退货？", "退货的运费谁来承担？"]
    table = "question\n" + "".join(f"{row}\n" for row in rows * 5)
    page.set_input_files(
        "#b-file", {"name": "客户问题.csv", "mimeType": "text/csv", "buffer": table.encode()}
    )
    page.click("#b-create")
    page.select_option("#b-preset", "support")
    page.click("#b-run")
    expect(page.locator("#b-counts")).to_contain_text("已回答 15 / 15")
    page.locator(".b-row").nth(1).click()
    expect(page.locator("#b-answer")).to_have_value(re.compile("签收后七天内"))
    page.screenshot(path=shots / "real-bench-zh-CN-1280.png")
    assert engine_requests(server) - before >= 15
