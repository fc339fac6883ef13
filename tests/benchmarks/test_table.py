"""The comparison table: the whole way in tiny shapes, and what it says of figures that cannot be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import table, table_drawing
from benchmarks.table import Row
from build.random_gguf import SHAPES, parameters
from tests.benchmarks.conftest import ran
from tests.e2e.running import RunningServer
from tests.limits import START_S


def test_the_rows_are_the_article_s() -> None:
    assert [(row.name, row.runtime) for row in table.rows()] == [
        ("Youtu-LLM-2B", "llama_cpp"),
        ("Youtu-LLM-2B", "openvino"),
        ("Qwen-1.5-1.8B", "llama_cpp"),
        ("Qwen-1.5-1.8B", "openvino"),
        ("ChatGLM3-6B-Int4", "llama_cpp"),
        ("Baichuan-13B-Int8", "llama_cpp"),
    ]
    for row in table.rows():
        assert row.shape in SHAPES
        assert row.weights == ("q4_0" if "Int4" in row.name else "q8_0")
        assert set(row.article) == {"memory", "response", "chinese", "code", "maths"}


@pytest.mark.slow
@pytest.mark.load
def test_one_model_after_the_other(tmp_path: Path) -> None:
    """Plain attention on both runtimes, and ALiBi: built, served, loaded, stopped and removed."""
    out = tmp_path / "table"
    kept_from_before = tmp_path / "server" / "engines" / "before"
    kept_from_before.mkdir(parents=True)
    with (kept_from_before / "model.gguf").open("wb") as file:
        file.truncate(1 << 30)  # of another model, and no part of this one's size
    done = ran(
        "benchmarks.table", "--shape-prefix", "tiny-", "--out", str(out),
        "--models", "Qwen-1.5-1.8B,Baichuan-13B-Int8", "--data-dir", str(tmp_path / "server"),
        "--slots", "2",
        "--load", "--users 1,2 --requests 3 --requests-each 2 --input-tokens 32 --output-tokens 8",
        timeout=2 * START_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert [(row["name"], row["runtime"]) for row in found["rows"]] == [
        ("Qwen-1.5-1.8B", "llama_cpp"), ("Qwen-1.5-1.8B", "openvino"), ("Baichuan-13B-Int8", "llama_cpp"),
    ]  # fmt: skip
    for row in found["rows"]:
        assert row["output_tokens"] == 8
        assert row["answers"] == 7
        assert [step["name"] for step in row["steps"]] == ["1 user", "2 users"]
        assert 2e7 < row["memory_at_rest"]["engine"] <= row["memory_after"]["peak"] < 1e9
        assert row["memory_at_rest"]["engine"] < row["memory_at_rest"]["all"]
    assert len({row["file_bytes"] for row in found["rows"]}) == 3
    assert len({row["folder"] for row in found["rows"]}) == 3
    assert not list((tmp_path / "server").glob("models/*"))
    assert not (tmp_path / "server" / "engines").exists()
    page = (out / "table.md").read_text()
    assert "| Qwen-1.5-1.8B | OpenVINO | INT8 |" in page
    assert "tiny shapes" in page
    assert "KV pool fixed at 2 slots of 512 tokens, f16" in page
    # drawn again from what the run left
    kept = {name: (out / name).read_bytes() for name in ("table.md", "table.json", "table.svg")}
    for name in kept:
        (out / name).unlink()
    table_drawing.draw(out)
    assert {name: (out / name).read_bytes() for name in kept} == kept


def row(name: str, memory: float, seconds: float, article: dict[str, float], **more: Any) -> dict[str, Any]:
    return {
        "name": name, "runtime": "llama_cpp", "weights": "q8_0", "article": article, "memory": memory * 1e9,
        "response": {"mean": seconds}, "parameters": 2e9, **more,
    }  # fmt: skip


def contradictions(one: dict[str, Any], base: dict[str, Any]) -> list[str]:
    one = one | {"ratios": table_drawing._ratios(one, base)}
    return list(table_drawing._contradictions(one, base))


def test_weights_that_do_not_fit_the_article_s_memory_are_called_impossible() -> None:
    impossible = next(r for r in table.rows() if r.name.startswith("Baichuan"))
    count = parameters(SHAPES[impossible.shape])
    found = contradictions(
        row(impossible.name, 16, 2.3, impossible.article, parameters=count),
        row("Youtu-LLM-2B", 12, 1.1, {"memory": 5.8, "response": 1.1}),
    )
    assert found[0] == (
        "the article's 7.5 GB cannot be right: 13.3 billion weights of 8 bits alone are 13.3 GB"
    )


def test_only_ratios_that_differ_by_more_than_a_quarter_are_named() -> None:
    base = row("Youtu-LLM-2B", 4, 1.0, {"memory": 5.0, "response": 1.0})
    near = row("near", 4.4, 2.2, {"memory": 5.0, "response": 2.0})
    far = row("far", 4.0, 3.0, {"memory": 5.0, "response": 2.0})
    assert contradictions(near, base) == []
    assert contradictions(far, base) == [
        "mean response: 3.00 times Youtu-LLM-2B's here, 2.00 times in the article"
    ]
    assert contradictions(base, base) == []


def test_models_are_compared_on_one_runtime() -> None:
    usual = row("Youtu-LLM-2B", 4, 1.0, {"memory": 5.0, "response": 1.0})
    other = row("Qwen-1.5-1.8B", 4, 1.0, {"memory": 5.0, "response": 1.0}) | {"runtime": "openvino"}
    assert not table_drawing._is_base(usual, other)
    assert table_drawing._is_base({**usual, "runtime": "openvino"}, other)


def test_what_was_not_measured_says_why(tmp_path: Path) -> None:
    """On a machine without the disk for it, and for weights that nobody here can convert."""
    done = ran(
        "benchmarks.table", "--weights", "published", "--models", "Baichuan-13B-Int8",
        "--out", str(tmp_path / "table"), "--data-dir", str(tmp_path / "server"),
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    (found,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert "give a file of them, --gguf Baichuan-13B-Int8=PATH" in found["not_measured"]
    assert "not measured: this project cannot convert" in (tmp_path / "table" / "table.md").read_text()


@pytest.mark.load
def test_a_deployment_that_runs_is_measured_as_it_is(server: RunningServer, tmp_path: Path) -> None:
    """The way to a table of GPU deployments: their memory is NVML's, which this machine may not have."""
    done = ran(
        "benchmarks.table", "--models", "Youtu-LLM-2B",
        "--out", str(tmp_path / "table"), "--running", f"Youtu-LLM-2B={server.http_url},{server.grpc_url}",
        "--load", "--users 1 --requests 3 --requests-each 1 --output-tokens 8",
        "--weights", "published", "--quality=--limit 2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert found["answers"] == 3
    assert (found["memory"] is None) == (found["gpus_after"] == [])
    assert found["ratios"] == {"article_memory": 1, "article_response": 1, "response": 1}
    assert found["quality"]["n"] == {"chinese": 2, "code": 2, "maths": 2}
    assert "| 0.0 · 0% · 0% (9.2 · 85 % · 78 %) |" in (tmp_path / "table" / "table.md").read_text()


def test_memory_is_the_gpu_s_where_there_is_one() -> None:
    gpu = {"name": "RTX 3070", "used": 5.5e9, "processes": {"7": 5.0e9}}
    measured = {"gpus_after": [gpu], "gpus_at_rest": [{**gpu, "used": 5.2e9}], "memory_after": {"peak": 1e9}}
    assert table_drawing._memory(measured) == 5.5e9
    assert table_drawing._memory_cell({**measured, "memory": 5.5e9}) == "5.20 / 5.50"


def test_the_former_name_of_the_endpoint_is_still_read(tmp_path: Path) -> None:
    """`--door`, and "door" in recorded runs."""
    assert table._parse(["--door", "v1", "--data-dir", str(tmp_path)]).endpoint == "v1"
    assert table._parse(["--data-dir", str(tmp_path)]).endpoint == "grpc"
    recorded = Path(table.__file__).parent / "results" / "table-two-cores"
    assert '"door": "grpc"' in (recorded / table_drawing.RUN).read_text(encoding="utf-8")
    summary = table_drawing.summarise(recorded)
    assert summary["endpoint"] == "grpc"
    assert "at the endpoint `grpc`" in " ".join(table_drawing.markdown(summary).split())


def test_an_unknown_model_is_refused_by_name() -> None:
    done = ran("benchmarks.table", "--models", "GPT")
    assert done.returncode == 2
    assert "there is no model GPT" in done.stderr


def test_a_row_needs_all_its_fields() -> None:
    with pytest.raises(TypeError, match="shape"):
        Row(name="x", weights="q8_0", article={})  # type: ignore[call-arg]
