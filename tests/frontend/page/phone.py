"""What an answer costs a weak phone: `python -m tests.frontend.page.phone`.

Chromium with its processor slowed down sixfold shows an answer of 40 tokens a second. Printed is the share of
the time in which scripts, styles and layouts are computed. Painting is left out: there is no graphics card.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

from tests.client.fake_triton import FakeTriton
from tests.frontend.conftest import Frontend, script

from .conftest import CHROMIUM, FLAGS, WAIT_MS, Visits, ask
from .test_answers import PIECES

RUNS, SLOWER, DELAY_S = 5, 6, 0.025
KINDS = ("ScriptDuration", "LayoutDuration", "RecalcStyleDuration")


def share(browser: Browser, frontend: Frontend) -> float:
    """Of one answer."""
    page = Visits(browser, f"http://127.0.0.1:{frontend.port}")(width=360)
    ask(page, "warm", wait=True)
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    session.send("Performance.enable")

    def busy() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return float(sum(metric["value"] for metric in metrics if metric["name"] in KINDS))

    before, begun = busy(), time.monotonic()
    ask(page, script(pieces=PIECES, delay=DELAY_S), wait=True)
    found = (busy() - before) / (time.monotonic() - begun)
    page.context.close()
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, FakeTriton() as fake, sync_playwright() as playwright:
        expect.set_options(timeout=WAIT_MS)
        frontend = Frontend(fake.port, Path(folder) / "log").start()
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            shares = [share(browser, frontend) for _ in range(RUNS)]
        finally:
            frontend.stop()
    median, least, most = (
        round(100 * value, 1) for value in (statistics.median(shares), min(shares), max(shares))
    )
    print(f"{len(PIECES)} pieces, {RUNS} runs: busy {median} % ({least} to {most})")
    print(json.dumps({"busy_percent": {"median": median, "min": least, "max": most, "n": RUNS}}))


if __name__ == "__main__":
    main()
