"""The page under a finger, on an app's icon, behind a proxy's path; and what it says while one waits."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import Frontend, script
from tests.limits import WAIT_S

from .conftest import Visits, answers, ask, facts, fits, questions, reload, tool

pytestmark = pytest.mark.browser

FINGER: dict[str, Any] = {"has_touch": True, "is_mobile": True}
LEAST = 44


def too_small(page: Page) -> list[Any]:
    found: list[Any] = page.locator(
        "button:visible, select:visible, textarea:visible, input:visible"
    ).evaluate_all(
        """(nodes) => nodes
            .filter((node) => !node.closest(".unseen") && node.type !== "checkbox" && node.id !== "draft")
            .map((node) => [node.id || node.className || node.textContent, node.getBoundingClientRect()])
            .filter(([, { width, height }]) => width < 44 || height < 43.5)
            .map(([name, { width, height }]) => [name, width, height])"""
    )
    return found


@pytest.mark.parametrize("language", ["zh-CN", "en-US"])
def test_under_a_finger(visit: Visits, shots: Path, language: str) -> None:
    """The faults: Enter sent half a question from a keyboard without Shift; controls of 30 pixels."""
    page = visit(language, 360, **FINGER)
    page.fill("#draft", "one")
    page.press("#draft", "Enter")
    page.locator("#draft").press_sequentially("two")
    expect(page.locator("#draft")).to_have_value("one\ntwo")
    expect(page.locator(".turn")).to_have_count(0)
    expect(page.locator(".by-key")).to_be_hidden()
    page.locator("#send").tap()
    expect(questions(page)).to_have_text("one\ntwo")
    expect(page.locator("#stop")).to_be_hidden()
    assert not too_small(page)
    assert fits(page)
    tops = page.locator(".composer-foot > :visible").evaluate_all("(all) => all.map((one) => one.offsetTop)")
    assert max(tops) - min(tops) < 20  # one line
    page.screenshot(path=shots / f"finger-{language}.png")
    page.locator("#open-sidebar").tap()
    page.locator("#sessions .more").tap()
    assert not too_small(page)
    page.screenshot(path=shots / f"finger-sidebar-{language}.png")
    page.locator("#open-settings").tap()
    assert not too_small(page)
    page.keyboard.press("Escape")
    page.locator("#to-bench").tap()
    page.fill("#b-paste", "a\nb\n")
    page.locator("#b-create").tap()
    page.locator(".b-row").first.tap()
    assert not too_small(page)
    assert fits(page)
    page.screenshot(path=shots / f"finger-bench-{language}.png")


def test_the_banner_is_folded_away_and_comes_back(visit: Visits) -> None:
    page = visit("zh-CN", 360, **FINGER)
    expect(page.locator("#about-text")).to_contain_text("这是演示")
    page.locator("#close-about").tap()
    expect(page.locator("#about")).to_be_hidden()
    page.locator("#demo").tap()
    expect(page.locator("#about")).to_be_visible()


def test_the_key_is_remembered_where_the_person_says_so(visit: Visits, another: Any) -> None:
    server = another(api_key="a-key-of-sixteen")
    page = visit(at=server)
    address = page.url
    page.fill("#key", "a-key-of-sixteen")
    ask(page, "hello", wait=True)
    expect(page.locator("#key-line")).to_be_hidden()
    expect(visit.tab(page.context, address).locator("#key")).to_have_value("")
    page.click("#open-key")
    page.check("#key-remember")
    second = visit.tab(page.context, address)
    expect(second.locator("#key")).to_have_value("a-key-of-sixteen")
    expect(second.locator("#key-line")).to_be_hidden()
    ask(second, "again", wait=True)
    second.click("#open-key")
    second.uncheck("#key-remember")
    expect(visit.tab(page.context, address).locator("#key")).to_have_value("")


def test_thinking_is_switched_where_one_asks(visit: Visits, fake: FakeTriton) -> None:
    page = visit("zh-CN")
    page.select_option("#thinking", "true")
    ask(page, "一", wait=True)
    reload(page)
    expect(page.locator("#thinking option:checked")).to_have_text("思考：开启")
    page.select_option("#thinking", "false")
    ask(page, "二", wait=True)
    page.click("#fresh")
    expect(page.locator("#thinking")).to_have_value("")
    ask(page, "三", wait=True)
    given = [json.loads(call.inputs.get("chat_template_kwargs") or "{}") for call in fake.calls]
    assert [one.get("enable_thinking") for one in given] == [True, False, None]


def test_the_place_in_the_queue_is_said(visit: Visits, fake: FakeTriton, another: Any) -> None:
    server: Frontend = another(slots=1, queue=5)
    pages = [visit("zh-CN", at=server) for _ in range(3)]
    fake.silent_from = 0
    for number, page in enumerate(pages):
        ask(page, script(pieces=["x"], prefill=0.01, at=number))
        if not number:
            fake.wait_calls(1)
        else:
            expect(facts(page)).to_contain_text(f"正在排队，前面还有 {number - 1} 个请求；同时回答 1 个")
    expect(facts(pages[0])).to_have_text("模型正在阅读问题")
    fake.silent_from = None
    for page in pages:
        expect(answers(page)).to_have_text("x")
        expect(facts(page)).to_contain_text("已完成")


def refusal(status: int, error: dict[str, Any]) -> Callable[[Route], None]:
    """What answers a request so."""
    return lambda route: route.fulfill(status=status, json={"error": error})


def test_the_server_speaks_the_language_of_the_page(visit: Visits) -> None:
    page = visit("zh-CN")
    message = (
        "This model's maximum context length is 2048 tokens. However, your prompt is too long: "
        "it has 2100 tokens; at most 2047 leave room for an answer."
    )
    replies: list[tuple[int, dict[str, Any], str]] = [
        (400, {"message": message, "code": "context_length_exceeded", "param": "messages"}, "2,100"),
        (
            400,
            {"message": "temperature: no", "code": "invalid_value", "param": "temperature"},
            "“温度”的值不被接受",
        ),
        (400, {"message": "no", "code": "unsupported", "param": "top_k"}, "当前部署不支持“top_k”"),
        (413, {"message": "too large", "code": "body_too_large", "param": None}, "对话已超出"),
    ]
    for status, error, words in replies:
        page.route("**/chat", refusal(status, {**error, "type": "x"}))
        ask(page, "问")
        expect(page.locator("#notice-text")).to_contain_text(words)
        if status == 413 or "context" in str(error["code"]):
            expect(page.get_by_role("button", name="略去最早的几轮")).to_be_visible()
        page.unroute("**/chat")
        page.fill("#draft", "")


def test_an_answer_that_broke_off_offers_its_rest(visit: Visits, fake: FakeTriton) -> None:
    page = visit("zh-CN")
    ask(page, script(pieces=["half"], fail_at=1))
    expect(page.locator("#stop")).to_be_hidden()
    expect(tool(page, "继续")).to_be_visible()


def test_the_tab_is_called_as_its_conversation(visit: Visits) -> None:
    page = visit("zh-CN")
    expect(page).to_have_title("youtu-demo")
    ask(page, "怎么退货？", wait=True)
    expect(page).to_have_title("怎么退货？ · youtu-demo")
    page.click("#to-bench")
    expect(page).to_have_title("模板工作台 · youtu-demo")
    page.click("#to-chat")
    expect(page).to_have_title("youtu-demo")


class Proxy(BaseHTTPRequestHandler):
    """Serves a frontend under /shop/llm/, as a proxy does that takes the path away."""

    protocol_version = "HTTP/1.0"
    port = 0

    def do_GET(self) -> None:
        if not self.path.startswith("/shop/llm/"):
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        inner = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT_S)
        headers = {name: value for name, value in self.headers.items() if name not in ("Connection", "Host")}
        inner.request(self.command, self.path.removeprefix("/shop/llm"), body, headers)
        reply = inner.getresponse()
        self.send_response(reply.status)
        for name, value in reply.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.end_headers()
        while piece := reply.read1():
            self.wfile.write(piece)
        inner.close()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def proxy(frontend: Frontend) -> Iterator[str]:
    handler = type("ForThis", (Proxy,), {"port": frontend.port})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/shop/llm/"
    server.shutdown()
    server.server_close()


def test_the_page_works_under_a_path_of_a_proxy(visit: Visits, proxy: str) -> None:
    """The fault: styles and scripts were asked for at the root of the proxy."""
    visit.url = proxy.removesuffix("/")
    page = visit("zh-CN")
    ask(page, "**粗**", wait=True)
    expect(answers(page).locator("strong")).to_have_text("粗")
    page.click("#to-bench")
    expect(page.locator("#b-source")).to_be_visible()
    assert all(url.startswith(proxy) for url in visit.asked), visit.asked


def test_it_can_be_put_on_a_home_screen(visit: Visits) -> None:
    page = visit()
    manifest = page.evaluate(
        """async () => {
            const link = document.querySelector("link[rel=manifest]");
            const manifest = await (await fetch(link.href)).json();
            const sizes = await Promise.all(manifest.icons.map(async ({ src, type, sizes }) => {
                const picture = await createImageBitmap(await (await fetch(new URL(src, link.href))).blob());
                return [`${picture.width}x${picture.height}`, sizes, type];
            }));
            const start = new URL(manifest.start_url, link.href).pathname;
            return { ...manifest, sizes, start, scope: new URL(manifest.scope, link.href).pathname };
        }"""
    )
    assert manifest["start"] == manifest["scope"] == "/"
    assert manifest["display"] == "standalone"
    assert [made for made, _, _ in manifest["sizes"]] == [said for _, said, _ in manifest["sizes"]]
    assert {said for _, said, _ in manifest["sizes"]} == {"192x192", "512x512"}
    expect(page.locator("meta[name=theme-color]")).to_have_count(2)
