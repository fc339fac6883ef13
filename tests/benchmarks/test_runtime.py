"""`make runtime` in a tiny shape on a real server, and what its page says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from youtu_client import Piece

from benchmarks import runtime, runtime_page
from benchmarks.engine_steps import PASSAGE, Quotes
from benchmarks.measuring import NotMeasured
from build.random_gguf import SHAPES, parameters
from tests.benchmarks.conftest import ran
from tests.limits import START_S


@pytest.mark.load
@pytest.mark.slow
def test_a_runtime_is_measured_and_its_page_can_be_drawn_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = ran(
        "benchmarks.runtime", "--shape", "tiny-youtu", "--runtimes", "openvino", "--rounds", "1",
        "--long", "100", "--context", "1024", "--minutes", "0.1",
        "--data-dir", str(tmp_path / "data"), "--out", str(out),
        timeout=2 * START_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["runtimes"]["openvino"]
    (one,) = found["rounds"]
    assert 0 < one["up_s"] < one["first_answer_s"]
    assert set(one["system_prompt"]) >= {"cold", "shared", "without", "ratio", "ratio_beside_its_reader"}
    assert one["gaps"]["alone"] > 0
    assert one["gaps"]["beside"] <= one["gaps"]["most"] <= one["gaps"]["read"]
    assert 5e7 < found["memory"]["tokens_300"]["engine"] < 1e9
    assert sum(found["mixed_load"]["asked"].values()) > 0
    steps = found["steps"]
    assert set(steps["decode_s"]) == {"1", "2", "4", "8"}
    assert all(each["same_text"] for each in steps["speculation"].values())
    page = (out / "runtime.md").read_text()
    assert "ANOTHER TEXT" not in page
    for label in ("shared ÷ without (at most 1.3)", "beside ÷ alone (at most 3)", "guesses, 50% quoted"):
        assert f"| {label}" in page
    (out / "runtime.md").unlink()
    runtime_page.draw(out)
    assert (out / "runtime.md").read_text() == page


def test_an_answer_is_made_to_quote() -> None:
    """Wholly, or every second passage; the other ones are the model's own."""
    text = list(range(100, 100 + 2 * PASSAGE))
    whole, half = Quotes(text, 1.0, 256), Quotes(text, 0.5, 256)
    for at, token in enumerate(text):
        assert np.flatnonzero(whole.allowed()).tolist() == [token]
        allowed = half.allowed()
        assert (allowed.sum() == 1 and allowed[token]) if at < PASSAGE else allowed.all()
        whole.take(token)
        half.take(token)


def test_an_untied_embedding_is_not_read_through(tmp_path: Path) -> None:
    weights = tmp_path / "model.bin"
    weights.write_bytes(b"0" * 1000)
    assert runtime.read_per_token("youtu-2b", weights) == 1000
    shape = SHAPES["qwen1.5-1.8b"]
    table = shape.vocab_size * shape.hidden_size
    assert runtime.read_per_token("qwen1.5-1.8b", weights) == 1000 * (1 - table / parameters(shape))


def test_gaps_are_those_between_neighbours() -> None:
    assert runtime._between([1.0, 1.5, 3.5]) == [0.5, 2.0]


@pytest.mark.timeout(30)
def test_an_answer_with_too_few_pieces_is_not_waited_for() -> None:
    """The fault: answers had fewer pieces once several tokens shared one, and the benchmark never ended."""
    reading = runtime.Reading([Piece("a"), Piece("b")])  # type: ignore[arg-type]
    reading.wait(2)
    with pytest.raises(NotMeasured, match="2 pieces, 3 were expected"):
        reading.wait(3)
