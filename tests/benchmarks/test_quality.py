"""Marks: what is read out of an answer, the project's own items, and the whole way through a real server."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import run, scoring
from benchmarks.quality.scoring import SCORES
from build.engine import make_engine
from tests.benchmarks.conftest import ran
from tests.e2e.running import RunningServer


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("答案：B", "B"),
        ("答案是（C）。", "C"),
        ("**答案：** **D**", ""),
        ("答案：**A**", "A"),
        ("Answer: b", "B"),
        ("先看 A，不对；再看 C。所以选C", "C"),
        ("B", "B"),
        ("B. 有始无终", "B"),
        ("(D) 方向", "D"),
        ("一开始答案：A，检查后答案：B", "B"),
        ("A demonstration cannot say.", ""),
        ("请用 MODEL=tencent/Youtu-LLM-2B 启动。", ""),
        ("答案：Beijing", ""),
        ("", ""),
    ],
)
def test_which_letter_is_read(answer: str, letter: str) -> None:
    assert scoring.chinese(answer, {"answer": "A"}) == (letter == "A", letter)


@pytest.mark.parametrize(
    ("answer", "wanted", "right"),
    [
        ("3 × 4 = 12\n答案：12", "12", True),
        ("答案：12 元，不是 15", "12", True),
        ("Answer: $1,275", "1275", True),
        ("#### 22.10", "22.1", True),
        ("so \\boxed{7} it is, step 3", "7", True),
        ("it takes 2 hours", "2", True),
        ("Answer: 1/2", "0.5", True),
        ("Answer: -3", "3", False),
        ("Answer: 1/0", "1", False),
        ("no idea", "0", False),
        ("答案：20", "2", False),
    ],
)
def test_which_number_is_read(answer: str, wanted: str, right: bool) -> None:
    assert scoring.maths(answer, {"answer": wanted})[0] is right


def test_code_is_taken_out_of_its_block() -> None:
    item = {"tests": "assert f(2) == 4"}
    good = (
        "Here it is:\n```python\ndef f(x):\n    return x * x\n```\nIt squares.\n```python\nprint(f(3))\n```"
    )
    assert scoring.code(good, item) == (True, "")
    assert scoring.code("def f(x):\n    return x * x", item)[0]
    cut = "```python\ndef f(x):\n    return x * x"
    assert scoring.code(cut, item)[0]
    right, why = scoring.code("```python\ndef f(x):\n    return x\n```", item)
    assert (right, why) == (False, "AssertionError:")
    assert scoring.code("I cannot.", item)[1].startswith("SyntaxError")


def test_wilson() -> None:
    """The example of Wilson's interval in Brown, Cai and DasGupta (2001) has these limits for 0 of 10."""
    assert scoring.wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    low, high = scoring.wilson(15, 30)
    assert low == pytest.approx(1 - high)
    assert scoring.wilson(30, 30)[1] == 1
    assert scoring.wilson(0, 0) == (0, 1)


@pytest.mark.parametrize("kind", SCORES)
def test_there_are_thirty_items_of_each_kind(kind: str) -> None:
    items = run.read_items(kind, run.ITEMS / f"{kind}.jsonl")
    assert len(items) == 30
    assert len({item["id"] for item in items}) == 30
    assert len({run.prompt(kind, item) for item in items}) == 30


def test_always_the_same_letter_gives_no_mark_above_chance() -> None:
    items = run.read_items("chinese", run.ITEMS / "chinese.jsonl")
    for letter in "ABCD":
        assert 5 <= sum(item["answer"] == letter for item in items) <= 9
    for item in items:
        assert len(set(item["choices"])) == 4


def test_every_code_item_has_a_solution_that_passes_and_tests_that_can_fail() -> None:
    for item in run.read_items("code", run.ITEMS / "code.jsonl"):
        assert scoring.code(item["solution"], item) == (True, ""), item["id"]
        hollow = f"{item['name']} = lambda *a, **k: None"
        assert not scoring.code(hollow, item)[0], item["id"]


def test_every_number_is_one() -> None:
    for item in run.read_items("maths", run.ITEMS / "maths.jsonl"):
        assert scoring.maths(f"答案：{item['answer']}", item) == (True, item["answer"])


def test_a_bad_file_is_refused_by_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"question": "1+1", "answer": "2"}\n{"question": "?"}\n')
    with pytest.raises(ValueError, match="line 2: field answer is missing"):
        run.read_items("maths", path)
    path.write_text("{")
    with pytest.raises(ValueError, match="line 1: not JSON"):
        run.read_items("maths", path)


class Knowing(BaseHTTPRequestHandler):
    """Knows the right answer to whatever is asked, but for the items it is told to get wrong."""

    wrong: frozenset[str] = frozenset()
    bodies: list[dict[str, Any]]

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send({"status": "healthy", "model": "knows-all"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.bodies.append(body)
        for kind in SCORES:
            for item in run.read_items(kind, run.ITEMS / f"{kind}.jsonl"):
                if body["messages"][0]["content"] == run.prompt(kind, item):
                    text = (
                        f"```python\n{item['solution']}\n```" if kind == "code" else f"答案：{item['answer']}"
                    )
                    text = "不知道" if item["id"] in self.wrong else text
                    choice = {"message": {"content": text}, "finish_reason": "stop"}
                    self._send({"choices": [choice], "usage": {"completion_tokens": 3}})
                    return
        self.send_error(400)

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def knowing() -> Iterator[tuple[str, type[Knowing]]]:
    class Handler(Knowing):
        bodies: list[dict[str, Any]] = []  # noqa: RUF012
        wrong = frozenset({"zh-01", "zh-02", "zh-03", "code-01"})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_model_that_knows_nearly_all(
    knowing: tuple[str, type[Knowing]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url, handler = knowing
    out = tmp_path / "run"
    assert run.main(["--url", url, "--thinking", "--seed", "7", "--out", str(out)]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "knows-all"
    assert {kind: each["right"] for kind, each in result["sets"].items()} == {
        "chinese": 27,
        "code": 29,
        "maths": 30,
    }
    assert result["out_of_ten"] == 9
    assert result["sets"]["chinese"]["low"] < 0.9 < result["sets"]["chinese"]["high"]
    assert all(body["temperature"] == 0 and body["seed"] == 7 for body in handler.bodies)
    assert all(body["chat_template_kwargs"] == {"enable_thinking": True} for body in handler.bodies)
    # scored again without asking
    asked = len(handler.bodies)
    assert run.main(["--again", str(out)]) == 0
    assert json.loads(capsys.readouterr().out) == result
    assert len(handler.bodies) == asked == 90


@pytest.mark.load
def test_the_demonstration_says_that_it_cannot(
    server: RunningServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real answers from a real server: none of them right, none of them missing."""
    assert run.main(["--url", server.http_url, "--limit", "4", "--out", str(tmp_path / "run")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "youtu-demo"
    for each in result["sets"].values():
        assert (each["answered"], each["right"], each["cut_off"]) == (4, 0, 0)


def test_the_template_is_the_model_s_own_whatever_was_built_after_it(tmp_path: Path) -> None:
    engine = make_engine("demo", tmp_path)
    later = tmp_path / "engines" / "later"
    later.mkdir()
    (later / "chat_template.jinja").write_text("of another model")
    wanted = hashlib.sha256((engine.path / "chat_template.jinja").read_bytes()).hexdigest()
    assert run._template_hash("demo", tmp_path) == wanted


def test_a_server_that_refuses_leaves_holes_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = tmp_path / "maths.jsonl"
    items.write_text('{"question": "1+1", "answer": "2"}\n')

    class Handler(Knowing):
        bodies: list[dict[str, Any]] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    status = run.main(
        ["--url", url, "--sets", "maths", "--items", f"maths={items}", "--out", str(tmp_path / "run")]
    )
    server.shutdown()
    server.server_close()
    assert status == 3
    result = json.loads(capsys.readouterr().out)
    assert result["sets"]["maths"]["answered"] == 0
    assert result["errors"][0].startswith("400:")


def test_an_unknown_set_is_refused_by_name() -> None:
    done = ran("benchmarks.quality.run", "--sets", "poetry")
    assert done.returncode == 2
    assert "there is no set 'poetry'" in done.stderr
