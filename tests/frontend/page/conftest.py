"""The page in Debian's Chromium, in front of the fake Triton: `visit()` opens it, `ask(page, text)` asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.frontend.conftest import Frontend
from tests.limits import START_S, WAIT_S

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT_MS = 1000 * WAIT_S


@pytest.fixture(scope="package")
def chromium() -> Iterator[Callable[[], Browser]]:
    """The running Chromium, started by the first call, and again once it has crashed or did not start."""
    started: list[Browser] = []

    def running() -> Browser:
        if not started or not started[-1].is_connected():
            launch = playwright.chromium.launch
            started.append(launch(executable_path=CHROMIUM, args=FLAGS, timeout=1000 * START_S))
        return started[-1]

    # Not for the whole session: other tests run event loops of their own.
    with sync_playwright() as playwright:
        expect.set_options(timeout=WAIT_MS)
        yield running


@pytest.fixture
def browser(chromium: Callable[[], Browser]) -> Browser:
    return chromium()


@pytest.fixture
def shots(tmp_path: Path) -> Path:
    """Where pictures of the page go: `SHOTS` of the environment, or a folder that pytest cleans up."""
    folder = Path(os.environ.get("SHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


class Visits:
    """Opens pages and listens to what they say on the console: nothing may be said but failed requests."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser = browser
        self.url = url
        self.contexts: list[Any] = []
        self.said: list[str] = []
        self.asked: list[str] = []
        """The addresses of all requests."""

    def __call__(
        self,
        language: str = "en-US",
        width: int = 1280,
        *,
        at: Frontend | None = None,
        path: str = "/",
        counting: bool = False,
        **context: Any,
    ) -> Page:
        """`counting`: what is typed is counted in tokens, which takes calls to the model."""
        self.contexts.append(
            self.browser.new_context(
                locale=language, viewport={"width": width, "height": 740}, accept_downloads=True, **context
            )
        )
        if not counting:
            self.contexts[-1].route("**/tokenize", lambda route: route.abort())
        return self.tab(self.contexts[-1], f"http://127.0.0.1:{at.port}{path}" if at else self.url + path)

    def tab(self, context: Any, url: str) -> Page:
        """Another page of the same browser profile."""
        context.set_default_timeout(WAIT_MS)
        page: Page = context.new_page()
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(f"{error} {error.stack}"))
        page.on("request", lambda request: self.asked.append(request.url))
        page.goto(url)
        ready(page)
        return page


@pytest.fixture
def visit(browser: Browser, frontend: Frontend) -> Iterator[Visits]:
    visits = Visits(browser, f"http://127.0.0.1:{frontend.port}")
    yield visits
    for context in visits.contexts:
        context.close()
    # A refused request is what some tests are about; Chromium writes it down by itself.
    assert [text for text in visits.said if not text.startswith("Failed to load resource")] == []


def ready(page: Page) -> None:
    """Wait until the page has loaded what it keeps."""
    page.wait_for_selector("body[data-ready]", state="attached")


def reload(page: Page) -> None:
    page.reload()
    ready(page)


def ask(page: Page, question: str, *, wait: bool = False) -> None:
    """Type a question and press Enter; with `wait`, until the answer has ended."""
    count = page.locator(".turn.assistant").count()
    page.fill("#draft", question)
    page.press("#draft", "Enter")
    if wait:
        expect(page.locator(".turn.assistant")).to_have_count(count + 1)
        expect(page.locator(".turn.assistant").last).not_to_have_class("turn assistant open")
        expect(page.locator(".turn.assistant .facts").last).not_to_be_empty()
        expect(page.locator("#stop")).to_be_hidden()


def answers(page: Page) -> Any:
    """The texts of the answers shown."""
    return page.locator(".turn.assistant > .text")


def questions(page: Page) -> Any:
    return page.locator(".turn.user > .text")


def facts(page: Page) -> Any:
    return page.locator(".turn.assistant > .facts")


def tool(page: Page, name: str, turn: int = -1, role: str = "assistant") -> Any:
    """A button of a turn, by its name."""
    return page.locator(f".turn.{role}").nth(turn).get_by_role("button", name=name, exact=True)


def wait_until(page: Page, there: Callable[[], bool], what: str) -> None:
    """Until it is so; the page goes on meanwhile."""
    until = time.monotonic() + WAIT_S
    while not there():
        assert time.monotonic() < until, f"waited {WAIT_S} s for {what}"
        page.wait_for_timeout(50)


def wait_kept(page: Page, store: str, *texts: str) -> None:
    """Until the browser keeps exactly these drafts, or messages that contain these texts, in any order."""

    def there() -> bool:
        kept = page.evaluate(
            """async (name) => {
                const store = await import("/static/store.js");
                return (await store.all(name)).map(({ text, content }) => text ?? content ?? "");
            }""",
            store,
        )
        if store == "drafts":
            return sorted(kept) == sorted(texts)
        return all(any(text in one for one in kept) for text in texts)

    wait_until(page, there, f"{store} to be kept: {texts}")


def hold_disk(page: Page, *stores: str) -> None:
    """Until `free_disk`, what the page reads or writes of these stores has to wait."""
    page.evaluate(
        """(stores) => new Promise((resolve) => {
            const opening = indexedDB.open("youtu");
            opening.onsuccess = () => {
                const held = opening.result.transaction(stores, "readwrite").objectStore(stores[0]);
                window.diskHeld = true;
                const hold = () => { if (window.diskHeld) held.count().onsuccess = hold; };
                held.count().onsuccess = () => (hold(), resolve());
            };
        })""",
        list(stores),
    )


def free_disk(page: Page) -> None:
    page.evaluate("window.diskHeld = false")


def fits(page: Page) -> bool:
    """Whether nothing of the page lies outside its width."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))
