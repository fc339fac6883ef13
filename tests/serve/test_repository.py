"""The rendered model repository: the committed one with values, and errors when the two drift apart."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]
from youtu_contract.rows import TOKEN_INPUTS

from serve.repository import COMMITTED, RepositoryError, render
from serve.settings import Settings
from tests.serve.engines import an_engine


def config_of(folder: Path, model: str) -> Any:
    text = (folder / model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_every_parameter_has_the_deployments_value(tmp_path: Path) -> None:
    engine = an_engine(tmp_path / "engine")
    settings = Settings(slots=3, queue=5, context=1024, threads=7, prefill_chunk=32, kv_type="q8_0",
                        temperature=0.25, top_p=0.5, repetition_penalty=1.0, thinking="off",
                        stream_interval_ms=40)  # fmt: skip
    target = render(settings, engine, tmp_path / "rendered")
    llama = {name: value.string_value for name, value in config_of(target, "youtu_engine").parameters.items()}
    assert llama == {
        "library": "",
        "tokenizer": str(tmp_path / "engine" / "tokenizer.json"),
        "runtime": "llama_cpp",
        "model": str(tmp_path / "engine" / "model.gguf"),
        "context": "1024",
        "slots": "3",
        "queue": "5",
        "threads": "7",
        "prefill_chunk": "32",
        "kv_type": "q8_0",
        "tokens_per_block": "1",
        "stream_interval_ms": "40",
    }
    text = {name: value.string_value for name, value in config_of(target, "youtu_llm").parameters.items()}
    assert text == {
        "guided_decoding": "true",
        "guide_python": "",
        "enable_thinking": "false",
        "tools": "true",
        "describe_tools": "false",
        "top_log_probs": "20",
        "prompt_log_probs": "true",
        "model_id": "a-model",
        "demo": "false",
        "description": 'A model, "so called": 模型',
        "context": "1024",
        "slots": "3",
        "queue": "5",
        "temperature": "0.25",
        "top_p": "0.5",
        "repetition_penalty": "1.0",
        "engine_dir": str(tmp_path / "engine"),
        "engine_model": "youtu_engine",
        "engine_url": "127.0.0.1:8001",
        "tokens_per_block": "1",
        "engine_inputs": ",".join(TOKEN_INPUTS),
        "hang_timeout": "15.0",
        "stream_interval_ms": "20.0",
    }


def test_a_card_gets_the_library_that_was_compiled_for_it(tmp_path: Path) -> None:
    (tmp_path / "var" / "cuda" / "sm_89").mkdir(parents=True)
    (tmp_path / "var" / "cuda" / "current").symlink_to("sm_89")
    settings = Settings(device="cuda", data_dir=tmp_path / "var")
    target = render(settings, an_engine(tmp_path / "engine"), tmp_path / "rendered")
    library = config_of(target, "youtu_engine").parameters["library"].string_value
    assert library == str(tmp_path / "var" / "cuda" / "sm_89")


def test_the_engine_chooses_its_threads_unless_they_are_set(tmp_path: Path) -> None:
    target = render(Settings(), an_engine(tmp_path / "engine"), tmp_path / "rendered")
    assert config_of(target, "youtu_engine").parameters["threads"].string_value == "0"


def test_everything_but_the_parameters_is_as_committed(tmp_path: Path) -> None:
    target = render(Settings(), an_engine(tmp_path / "engine"), tmp_path / "rendered")
    for model in ("youtu_engine", "youtu_llm"):
        ours, theirs = config_of(target, model), config_of(COMMITTED, model)
        assert set(ours.parameters) == set(theirs.parameters)
        for config in (ours, theirs):
            config.ClearField("parameters")
        assert ours == theirs
        assert (target / model / "1" / "youtu_contract" / "rows.py").is_file()
        for file in (COMMITTED / model / "1").glob("*.py"):
            assert (target / model / "1" / file.name).read_bytes() == file.read_bytes()
        assert not list(target.rglob("__pycache__"))


def test_an_older_rendering_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "rendered"
    (target / "youtu_engine" / "1").mkdir(parents=True)
    (target / "youtu_engine" / "1" / "gone.py").write_text("")
    render(Settings(), an_engine(tmp_path / "engine"), target)
    assert not (target / "youtu_engine" / "1" / "gone.py").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda text: text + 'parameters { key: "new" value { string_value: "1" } }', "new is unknown"),
        (lambda text: text.replace('"kv_type"', '"tokens_per_block"'), "kv_type is missing"),
        (lambda text: text + "parameters {", "config.pbtxt"),
    ],
)
def test_a_config_out_of_step_is_refused_by_name(tmp_path: Path, change: Any, fault: str) -> None:
    committed = tmp_path / "committed"
    shutil.copytree(COMMITTED, committed)
    config = committed / "youtu_engine" / "config.pbtxt"
    config.write_text(change(config.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(RepositoryError, match=fault):
        render(Settings(), an_engine(tmp_path / "engine"), tmp_path / "rendered", committed)
    assert not (tmp_path / "rendered").exists()
