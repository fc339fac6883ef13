"""The engine folder for OpenVINO: what is refused, what is in it, and when it is made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from build.engine import make_engine
from build.errors import BuildError
from build.openvino_model.convert import convert
from build.openvino_model.engine import make_openvino_engine
from tests.build.checkpoints import edit_json, write


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("checkpoint"))


def test_it_stands_beside_the_gguf_engine_and_is_made_once(checkpoint: Path, tmp_path: Path) -> None:
    gguf = make_engine(str(checkpoint), tmp_path)
    engine = make_openvino_engine(str(checkpoint), tmp_path)
    assert (gguf.runtime, engine.runtime) == ("llama_cpp", "openvino")
    assert gguf.path.parent == engine.path.parent
    assert gguf.path != engine.path
    assert {path.name for path in engine.path.iterdir()} == {
        "engine.json",
        "model.xml",
        "model.bin",
        "tokenizer.json",
        "chat_template.jinja",
    }
    before = (engine.path / "model.bin").stat().st_mtime_ns
    assert make_openvino_engine(str(checkpoint), tmp_path) == engine
    assert (engine.path / "model.bin").stat().st_mtime_ns == before
    assert json.loads((engine.path / "engine.json").read_text())["runtime"] == "openvino"


def test_a_damaged_engine_is_made_again(checkpoint: Path, tmp_path: Path) -> None:
    engine = make_openvino_engine(str(checkpoint), tmp_path)
    with (engine.path / "model.bin").open("ab") as file:
        file.write(b"more")
    assert make_openvino_engine(str(checkpoint), tmp_path).model_bytes == engine.model_bytes
    assert (engine.path / "model.bin").stat().st_size == engine.model_bytes


def test_a_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(BuildError, match=r"\.gguf file"):
        make_openvino_engine(str(tmp_path / "model.gguf"), tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "gelu"),
        ("attention_bias", True),
        ("quantization_config", {"bits": 4}),
        ("num_hidden_layers", 26),
        ("rope_parameters", {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
        ("architectures", ["GPT2LMHeadModel"]),
    ],
)
def test_what_gguf_refuses_is_refused(tmp_path: Path, key: str, value: object) -> None:
    folder = write(tmp_path / "checkpoint")
    edit_json(folder / "config.json", lambda config: config.update({key: value}))
    with pytest.raises(BuildError, match=key):
        convert(folder, tmp_path / "model")
    assert not (tmp_path / "model" / "model.xml").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_sliding_window", True),
        ("num_key_value_heads", 3),
        ("rope_scaling", {"type": "yarn", "factor": 4}),
    ],
)
def test_a_qwen2_that_is_not_computed_rightly_is_refused(tmp_path: Path, key: str, value: object) -> None:
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_theta": 1e6,
        key: value,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BuildError, match=key):
        convert(tmp_path, tmp_path / "model")
