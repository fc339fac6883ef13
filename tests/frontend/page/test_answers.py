"""Answers on the page: rendered block by block as they grow, safe, copied, read aloud, kept in view."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import script

from .conftest import Visits, answers, ask, reload, tool

pytestmark = pytest.mark.browser


def test_an_answer_that_starts_in_the_midst_of_thinking(visit: Visits) -> None:
    """The fault: some templates open <think> themselves, so that the text only ever closes it."""
    page = visit()
    ask(page, script(pieces=["pondering", "</think>The answer."], thinking=True), wait=True)
    expect(answers(page)).to_have_text("The answer.")
    page.click(".thinking summary")
    expect(page.locator(".thought")).to_have_text("pondering")


@pytest.mark.parametrize(
    ("language", "thinking", "thought"),
    [("en-US", "Thinking…", "Thoughts"), ("zh-CN", "正在思考…", "思考过程")],
)
def test_thinking_and_answer_come_apart(
    visit: Visits, fake: FakeTriton, shots: Path, language: str, thinking: str, thought: str
) -> None:
    page = visit(language, permissions=["clipboard-read", "clipboard-write"])
    ask(page, script(pieces=["<think>", "hm, **well**", "</think>", "yes"], stepped=True))
    (call,) = fake.wait_calls(1)
    call.step(2)
    summary = page.locator(".thinking summary")
    expect(summary).to_have_text(thinking)
    expect(answers(page)).to_have_text("")
    page.screenshot(path=shots / f"thinking-{language}.png")
    call.step(2)
    expect(page.locator("#stop")).to_be_hidden()
    expect(answers(page)).to_have_text("yes")
    for _ in range(2):
        expect(summary).to_have_text(thought)
        expect(page.locator(".thought")).to_be_hidden()
        summary.click()
        expect(page.locator(".thought strong")).to_have_text("well")
        page.screenshot(path=shots / f"thought-{language}.png")
        tool(page, "Copy as Markdown" if language == "en-US" else "复制为 Markdown").click()
        assert page.evaluate("navigator.clipboard.readText()") == "yes"
        reload(page)
    page.fill("#search", "hm")
    expect(page.locator(".session-title")).to_have_count(1)


def test_an_answer_that_ends_within_its_thinking_is_kept(visit: Visits, fake: FakeTriton) -> None:
    page = visit()
    ask(page, script(pieces=["<think>", "so far"], finish="length"), wait=True)
    for _ in range(2):
        page.click(".thinking summary")
        expect(page.locator(".thought")).to_have_text("so far")
        expect(answers(page)).to_have_text("")
        expect(tool(page, "Continue")).to_be_visible()
        reload(page)
    page.fill("#draft", "half a quest")
    tool(page, "Continue").click()
    fake.wait_calls(2)
    # What was being typed stays, and the question is answered anew: there is no answer to go on with.
    expect(page.locator("#draft")).to_have_value("half a quest")
    assert [message["role"] for message in fake.calls[-1].inputs["messages"]] == ["user"]
    expect(page.locator(".thinking summary")).to_have_text("Thoughts")


HOSTILE = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>\n\n"
    "![pixel](http://evil.example/track.png) [link](javascript:document.title='owned') "
    "[good](http://evil.example/page)\n\n<iframe src='http://evil.example'></iframe> &lt;b&gt;\n\n"
    "```html\n<script>document.title='owned'</script>\n```\n"
)


def test_hostile_text_runs_nothing_and_loads_nothing(visit: Visits) -> None:
    page = visit()
    ask(page, script(pieces=[HOSTILE, "."], delay=0.4), wait=True)
    for _ in range(2):
        expect(answers(page)).to_contain_text("<script>document.title='owned'</script>")
        elements = page.locator("#list :is(img, script, iframe, b, object, style)")
        expect(elements).to_have_count(0)
        expect(answers(page).locator("a[href^=javascript]")).to_have_count(0)
        expect(answers(page).locator("a[href='http://evil.example/page']")).to_have_attribute(
            "target", "_blank"
        )
        assert page.title().endswith(" · youtu-demo")
        reload(page)
    assert not [url for url in visit.asked if "evil" in url]


def test_code_is_copied(visit: Visits) -> None:
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    ask(page, script(pieces=["```python\nx = '<b>'\n```"]), wait=True)
    page.get_by_role("button", name="Copy the code").click()
    assert page.evaluate("navigator.clipboard.readText()") == "x = '<b>'"
    tool(page, "Copy as Markdown").click()
    assert page.evaluate("navigator.clipboard.readText()") == "```python\nx = '<b>'\n```"


def test_copying_works_where_the_browser_has_no_clipboard_object(visit: Visits) -> None:
    """The fault: over plain HTTP from another machine, navigator.clipboard does not exist."""
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    ask(page, "hello", wait=True)
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined, configurable: true })")
    tool(page, "Copy as Markdown").click()
    page.evaluate("delete navigator.clipboard")
    assert page.evaluate("navigator.clipboard.readText()") == "You said: hello"


LONG = "".join(
    f"### Step {number}\n\nRead it, **line by line**; the cost is $O(n)$. 每行都检查。\n\n- a\n- b\n\n"
    f"```python\ndef read_{number}(path):\n    return list(open(path))\n```\n\n"
    for number in range(6)
)


PIECES = [part for line in LONG.splitlines(keepends=True) for part in re.findall(r".{1,4}|\n", line, re.S)]


def rendered(page: Page) -> list[int]:
    """The lengths of the texts that the page sends to be rendered, from now on."""
    sizes: list[int] = []

    def note(request: Request) -> None:
        if request.url.endswith("/render"):
            sizes.append(len(json.loads(request.post_data or "")["text"]))

    page.on("request", note)
    return sizes


def test_only_the_last_block_is_rendered_again(visit: Visits, fake: FakeTriton) -> None:
    """The fault: rendering a growing answer from its start each time costs the server its square."""
    page = visit()
    sizes = rendered(page)
    paragraph, count = "A sentence that says something. " * 4 + "\n\n", 20
    ask(page, script(pieces=[paragraph] * count, stepped=True))
    (call,) = fake.wait_calls(1)
    for at in range(count):
        call.step()
        expect(answers(page).locator("p")).to_have_count(at + 1)
    expect(page.locator("#stop")).to_be_hidden()
    assert len(sizes) >= count
    # From the start each time, it would be ten times the text.
    assert sum(sizes) < 4 * count * len(paragraph)


def test_rendering_has_a_pace_of_its_own(visit: Visits) -> None:
    """At most each 120 ms, and at the start and the end; not for each of a hundred pieces a second."""
    page = visit()
    sizes = rendered(page)
    begun = time.monotonic()
    ask(page, script(pieces=["word "] * 150, delay=0.01), wait=True)
    expect(answers(page)).to_have_text(("word " * 150).strip())
    assert len(sizes) <= (time.monotonic() - begun) / 0.12 + 3


def test_a_weak_phone_keeps_up(visit: Visits) -> None:
    """The page's work grows with the answer, not with its square: few nodes are made more than once, and few
    styles and layouts are computed for a token. `python -m tests.frontend.page.phone` measures the load."""
    page = visit(width=360)
    ask(page, "warm", wait=True)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")

    def counted() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(
            sum(one["value"] for one in metrics if one["name"] in ("LayoutCount", "RecalcStyleCount"))
        )

    page.evaluate(
        """() => {
            window.made = 0;
            const count = (node) => 1 + [...node.childNodes].reduce((sum, one) => sum + count(one), 0);
            const look = (changes) => changes.forEach(
                (change) => change.addedNodes.forEach((node) => (window.made += count(node))));
            new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
        }"""
    )
    before = counted()
    ask(page, script(pieces=PIECES, delay=0.01), wait=True)
    computed, made = counted() - before, page.evaluate("window.made")
    there = page.evaluate(
        """() => {
            const count = (node) => 1 + [...node.childNodes].reduce((sum, one) => sum + count(one), 0);
            return count([...document.querySelectorAll(".turn.assistant")].at(-1));
        }"""
    )
    print(f"{len(PIECES)} pieces, {there} nodes: {made} made, {computed:.0f} layouts and styles computed")
    assert made < 6 * there
    assert computed < 3 * len(PIECES)


def test_a_long_answer_is_shown_whole(visit: Visits) -> None:
    page = visit()
    code = "".join(f"line_{number} = {number}\n" for number in range(700))
    text = f"start\n\n```python\n{code}```\n\n" + "".join(f"Paragraph {number}.\n\n" for number in range(400))
    ask(page, script(pieces=[text]), wait=True)
    expect(answers(page).locator("p")).to_have_count(401)
    expect(answers(page).locator("pre")).to_have_count(1)
    assert answers(page).locator("pre").text_content() == code


def test_the_page_follows_the_answer_unless_the_reader_scrolls_up(visit: Visits) -> None:
    page = visit(width=360)
    paragraph = "A sentence that says something, and then some more of it.\n\n"
    ask(page, script(pieces=[paragraph] * 40, delay=0.05), wait=True)
    end = """() => {
        const box = document.getElementById("turns");
        return box.scrollHeight - box.scrollTop - box.clientHeight;
    }"""
    expect(answers(page).locator("p")).to_have_count(40)
    expect(page.locator(".tools .copy").last).to_be_in_viewport()
    assert page.evaluate(end) < 5
    expect(page.locator("#to-end")).to_be_hidden()
    ask(page, script(pieces=[paragraph], unending=True, delay=0.1))
    expect(answers(page).nth(1)).to_contain_text("A sentence")
    page.mouse.move(180, 300)
    page.mouse.wheel(0, -600)
    expect(page.locator("#to-end")).to_be_visible()
    where = page.evaluate("document.getElementById('turns').scrollTop")
    page.wait_for_timeout(700)
    assert abs(page.evaluate("document.getElementById('turns').scrollTop") - where) < 30
    page.click("#to-end")
    assert page.evaluate(end) < 5
    page.click("#stop")


def test_references_that_come_later_are_links_in_the_end(visit: Visits) -> None:
    page = visit()
    ask(
        page,
        script(pieces=["See [this][1].\n\nMore.\n\n", "[1]: http://example.com/x\n"], delay=0.5),
        wait=True,
    )
    expect(answers(page).locator("a")).to_have_attribute("href", "http://example.com/x")


def test_an_answer_is_readable_when_rendering_fails(visit: Visits) -> None:
    page = visit()
    page.route("**/render", lambda route: route.fulfill(status=500, body="no"))
    ask(page, script(pieces=["**bold**\n", "second"], delay=0.2), wait=True)
    expect(answers(page)).to_have_text("**bold**\nsecond")
    page.unroute("**/render")
    reload(page)
    expect(answers(page).locator("strong")).to_have_text("bold")


@pytest.mark.parametrize(
    ("status", "code"), [(429, "render_busy"), (429, "rate_limited"), (503, "render_failed")]
)
def test_an_answer_is_rendered_once_the_server_has_time(visit: Visits, status: int, code: str) -> None:
    """The fault: an answer whose last part was refused stayed as it was until the page was loaded again."""
    page = visit()
    refused: list[str] = []
    error = {"message": "busy", "type": "rate_limit_error", "param": None, "code": code}

    def busy(route: Route) -> None:
        refused.append(route.request.url)
        if len(refused) > 3:
            return route.continue_()
        route.fulfill(status=status, headers={"Retry-After": "1"}, json={"error": error})

    page.route("**/render", busy)
    ask(page, script(pieces=["**first**\n\n", "**second**\n\n", "**third**"]), wait=True)
    expect(answers(page)).to_contain_text("third")
    expect(answers(page).locator("strong")).to_have_text(["first", "second", "third"])
    assert len(refused) > 3


def test_the_rest_of_a_long_answer_is_not_lost(visit: Visits) -> None:
    """Refused in the midst of the parts of a long text: what is shown stays, what is missing comes later."""
    page = visit()
    asked: list[str] = []
    error = {"message": "busy", "type": "rate_limit_error", "param": None, "code": "render_busy"}

    def busy(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) in (2, 3):
            return route.fulfill(status=429, headers={"Retry-After": "1"}, json={"error": error})
        route.continue_()

    page.route("**/render", busy)
    ask(
        page, script(pieces=["".join(f"**part{number}** {'x' * 90}\n\n" for number in range(100))]), wait=True
    )
    expect(answers(page).locator("strong")).to_have_count(100)
    assert answers(page).locator("strong").all_inner_texts() == [f"part{number}" for number in range(100)]


def test_screen_readers_hear_blocks_not_tokens(visit: Visits) -> None:
    """The fault: a live region around the answer reads every token, and all of it again and again."""
    page = visit()
    page.evaluate(
        """() => {
            window.heard = [];
            const look = (changes) => changes.forEach((change) =>
                change.addedNodes.forEach((node) => window.heard.push(node.textContent)));
            new MutationObserver(look).observe(document.getElementById("spoken"), { childList: true });
        }"""
    )
    words = [f"word{number} " for number in range(40)]
    ask(page, script(pieces=[*words, "\n\n", *words, "end"], delay=0.01), wait=True)
    expect(page.locator("#spoken p")).to_have_count(3)
    heard = page.evaluate("window.heard")
    assert len(heard) == 3, heard
    assert heard[0].startswith("word0 word1 ")
    assert heard[1].endswith("end")
    assert heard[2].startswith("finished")
    live = page.locator("[aria-live]:not([aria-live=off]), [role=log], [role=status]")
    assert live.locator(".turn").count() == 0
