"""The pictures of the page in the READMEs: `make picture` writes docs/page.png and docs/page.zh.png.

They show the real server with the demonstration, asked in Chromium; nothing is drawn or pasted in.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from tests.e2e.running import RunningServer

from .conftest import CHROMIUM, FLAGS, answers, ask, facts, ready

QUESTIONS = {
    "page.png": ("en-US", "light", ["How do I return an item?", "How do I read a CSV file in Python?"]),
    "page.zh.png": ("zh-CN", "light", ["怎么退货？", "用 Python 写一个判断素数的函数"]),
}


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as data, sync_playwright() as playwright:
        server = RunningServer(Path(data))
        try:
            server.wait_until_up()
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            for name, (language, colours, questions) in QUESTIONS.items():
                page = browser.new_page(
                    locale=language,
                    color_scheme=colours,  # type: ignore[arg-type]
                    viewport={"width": 1180, "height": 720},
                )
                page.goto(server.http_url)
                ready(page)
                for question in questions:
                    page.click("#fresh")
                    expect(page.locator(".turn")).to_have_count(0)
                    ask(page, question, wait=True)
                expect(facts(page)).to_have_count(1)
                expect(answers(page).locator(".block").first).to_be_visible()
                page.mouse.move(700, 300)
                page.wait_for_timeout(1000)  # the last of the rendering
                page.screenshot(path=folder / name)
            server.end()
        finally:
            server.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
