"""The process that renders Markdown: start, end, limits, and what callers see when it is busy or dies."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from flask.testing import FlaskClient
from youtu_client import Client

from frontend import create_app, renderer
from frontend.render import RATE
from frontend.render_worker import CPU_S
from frontend.renderer import WAITING, WAITING_EACH, Broken, Busy, Renderer
from serve.settings import Settings
from tests.client.fake_triton import FakeTriton

from .conftest import Frontend, Reply

SLOW = "- a\n" * 200_000
"""Far more than the budget, in one list; the route would refuse it for its length."""


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def post(frontend: Frontend, text: str, **headers: str) -> Reply:
    body = json.dumps({"text": text}).encode()
    return frontend.send("POST", "/render", body, **{"Content-Type": "application/json", **headers})


def workers(frontend: Frontend) -> list[psutil.Process]:
    children = psutil.Process(frontend.process.pid).children(recursive=True)
    return [one for one in children if "frontend.render_worker" in " ".join(one.cmdline())]


@pytest.fixture
def rendering() -> Iterator[Renderer]:
    one = Renderer()
    yield one
    one._end("the test is over")


def process(rendering: Renderer) -> psutil.Process:
    assert rendering._process is not None
    return psutil.Process(rendering._process.pid)


def test_it_starts_when_the_page_is_opened_and_not_before(another: Any) -> None:
    frontend: Frontend = another(api_key="secret-key")
    assert frontend.get("/health").status == 200
    assert workers(frontend) == []
    assert frontend.get("/").status == 200
    until(lambda: len(workers(frontend)) == 1, "no process was started")
    (worker,) = workers(frontend)
    assert not [name for name in worker.environ() if name.startswith("YOUTU_")]
    until(lambda: worker.nice() > psutil.Process(frontend.process.pid).nice(), "it has no lower priority")
    assert post(frontend, "x", Authorization="Bearer secret-key").json["blocks"] == [
        {"line": 0, "html": "<p>x</p>\n"}
    ]
    assert workers(frontend) == [worker]


def test_it_does_not_import_the_server(rendering: Renderer) -> None:
    rendering.render("x", "a")
    names = " ".join(one.path for one in process(rendering).memory_maps())
    assert "nh3" in names
    assert "grpc" not in names


def test_no_app_and_no_import_starts_it(fake: FakeTriton) -> None:
    before = set(psutil.Process().children())
    app = create_app(Settings.load({"YOUTU_GRPC_PORT": str(fake.port)}), Client(fake.address, timeout=10))
    assert app.test_client().get("/health/live").status_code == 200
    assert set(psutil.Process().children()) == before


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_the_frontend(another: Any, how: int) -> None:
    frontend: Frontend = another()
    assert post(frontend, "x").status == 200
    (worker,) = workers(frontend)
    frontend.stop(how)
    until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, "it is an orphan")


def test_a_dead_one_is_replaced_and_nobody_notices(another: Any) -> None:
    frontend: Frontend = another()
    assert post(frontend, "x").status == 200
    (first,) = workers(frontend)
    first.kill()
    assert post(frontend, "x").status == 200
    (second,) = workers(frontend)
    assert second.pid != first.pid


def test_a_text_that_it_dies_of(rendering: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with pytest.raises(Broken):
        rendering.render("x", "a")
    monkeypatch.undo()
    assert b"<p>x</p>" in rendering.render("x", "a")[0]


def test_one_that_hangs_is_replaced(rendering: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    rendering.render("x", "a")
    hung = process(rendering)
    hung.suspend()
    monkeypatch.setattr(renderer, "ANSWER_S", 0.2)
    with pytest.raises(Broken):
        rendering.render("x", "a")
    monkeypatch.undo()
    assert not hung.is_running()
    assert b"<p>x</p>" in rendering.render("x", "a")[0]


def test_a_caller_gets_an_error_when_it_broke(
    fake: FakeTriton, monkeypatch: pytest.MonkeyPatch, app: FlaskClient
) -> None:
    def broken(*_args: object) -> None:
        raise Broken

    monkeypatch.setattr(Renderer, "render", broken)
    reply = app.post("/render", json={"text": "x"})
    assert (reply.status_code, reply.json["error"]["code"]) == (503, "render_failed")  # type: ignore[index]
    assert reply.headers["Retry-After"]


def test_the_time_of_a_text_is_bounded(rendering: Renderer) -> None:
    """The fault: 16,000 characters could cost a second of the interpreter that serves the answers."""
    answer, took = rendering.render("first\n\n" + SLOW + "\nlast", "a")
    blocks = json.loads(answer)["blocks"]
    assert [block["line"] for block in blocks] == [0, 2, 200_003]
    assert blocks[1]["html"].startswith("<p>- a<br>\n- a<br>\n")
    assert blocks[2]["html"] == "<p>last</p>\n"
    assert took < 8 * CPU_S
    answer, _ = rendering.render("**after**", "a")  # The budget is of each text.
    assert b"<strong>after</strong>" in answer


def test_half_characters_and_nothing(rendering: Renderer) -> None:
    assert json.loads(rendering.render("", "a")[0]) == {"blocks": []}
    assert b"<p>a?</p>" in rendering.render("a\ud800", "a")[0]


def test_few_threads_wait(rendering: Renderer) -> None:
    """Whoever comes when all places are taken is refused at once, and so is a third text of one caller."""
    rendering.render("x", "a")
    with rendering._turn, ThreadPoolExecutor(WAITING + 1) as pool:
        waiting = [pool.submit(rendering.render, "x", client) for client in ("a", "a", "b")]
        until(lambda: rendering._waiting.total() == 3, "nobody waits")
        assert rendering._waiting["a"] == WAITING_EACH
        with pytest.raises(Busy):
            rendering.render("x", "a")
        waiting.append(pool.submit(rendering.render, "x", "c"))
        until(lambda: rendering._waiting.total() == WAITING, "nobody waits")
        with pytest.raises(Busy):
            rendering.render("x", "d")
        # The turn does not come: they give up.
        for one in waiting:
            with pytest.raises(Busy):
                one.result(60)
    assert not rendering._waiting
    assert b"<p>x</p>" in rendering.render("x", "a")[0]


def test_a_caller_gets_an_error_when_it_is_busy(another: Any) -> None:
    frontend: Frontend = another()
    assert post(frontend, "x").status == 200
    (worker,) = workers(frontend)
    worker.suspend()
    replies: list[Reply] = []
    threads = [threading.Thread(target=lambda: replies.append(post(frontend, "x"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    until(lambda: len(replies) >= 4, "who comes too many is not refused")
    worker.resume()
    for thread in threads:
        thread.join()
    busy = [reply for reply in replies if reply.status != 200]
    assert 4 <= len(busy) <= 5
    for reply in busy:
        assert (reply.status, reply.error["code"]) == (429, "render_busy")
        assert reply.headers["Retry-After"] == "1"


def test_it_has_a_rate_of_its_own(fake: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the model's, and per caller."""
    monkeypatch.setattr("frontend.render.RATE", "5/hour")
    settings = Settings.load({"YOUTU_GRPC_PORT": str(fake.port), "YOUTU_RATE_LIMIT": "2/hour"})
    app = create_app(settings, Client(fake.address, timeout=10)).test_client()

    def ask(path: str, address: str = "192.0.2.1", **body: str) -> Any:
        return app.post(path, json=body, environ_base={"REMOTE_ADDR": address})

    assert [ask("/render", text="x").status_code for _ in range(6)] == [200] * 5 + [429]
    assert [ask("/chat", prompt="q").status_code for _ in range(3)] == [200, 200, 429]
    over = ask("/render", text="x")
    assert over.json["error"]["code"] == "rate_limited"
    assert int(over.headers["Retry-After"]) > 60
    assert ask("/render", "192.0.2.2", text="x").status_code == 200


def test_its_rate_is_enough_for_readers() -> None:
    """Eight updates a second of one reader, for a few of them at one address."""
    times, _, seconds = RATE.removesuffix(" seconds").partition(" per ")
    assert int(times) / int(seconds) >= 5 * 8
