"""The GPU engine as a setting: its repository, its Triton, and what is refused before anything starts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from build.catalogue import resolve
from build.errors import BuildError
from build.tensorrt_llm.engine import engine_to_serve, plan
from build.tensorrt_llm.info import TensorRTEngineInfo
from serve import preflight, triton
from serve.repository import COMMITTED, render
from serve.run_folder import RunFolder
from serve.settings import Settings
from tests.tensorrt_llm.machines import StandIn, an_engine

GPU = Settings(engine="tensorrt_llm")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path / "machine").use(monkeypatch)


@pytest.fixture
def engine(stand_in: StandIn, tmp_path: Path) -> Callable[..., TensorRTEngineInfo]:
    def made(profile: str = "8gb", **changes: object) -> TensorRTEngineInfo:
        demo = resolve("demo").path
        assert demo is not None
        return an_engine(plan("demo", tmp_path / "data", profile), demo, **changes)

    return made


def config_of(folder: Path, model: str) -> Any:
    text = (folder / model / "config.pbtxt").read_text(encoding="utf-8")
    return text_format.Parse(text, model_config_pb2.ModelConfig())


@pytest.mark.parametrize(
    ("profile", "batch", "parameters"),
    [
        ("8gb", 8, {"kv_cache_free_gpu_mem_fraction": "0.55", "enable_kv_cache_reuse": "true"}),
        ("24gb", 32, {"kv_cache_free_gpu_mem_fraction": "0.9", "enable_chunked_context": "true"}),
        ("int8-kv", 16, {"enable_kv_cache_reuse": "false", "enable_chunked_context": "false"}),
    ],
)
def test_the_repository_has_the_engines_and_the_profiles_values(
    engine: Callable[..., TensorRTEngineInfo],
    tmp_path: Path,
    profile: str,
    batch: int,
    parameters: dict[str, str],
) -> None:
    made = engine(profile)
    settings = Settings(engine="tensorrt_llm", profile=profile, queue=5, slots=3)
    target = render(settings, made, tmp_path / "rendered")
    assert {path.name for path in target.iterdir()} == {"tensorrt_llm", "youtu_llm"}
    config = config_of(target, "tensorrt_llm")
    told = {name: value.string_value for name, value in config.parameters.items()}
    assert told["gpt_model_path"] == str(made.path / "tensorrt_llm")
    assert told.items() >= parameters.items()
    assert told["tokenizer_dir"] == "${tokenizer_dir}"
    assert config.max_batch_size == batch
    assert list(config.dynamic_batching.preferred_batch_size) == [batch]
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 5
    assert (target / "tensorrt_llm" / "1").is_dir()

    text = {n: v.string_value for n, v in config_of(target, "youtu_llm").parameters.items()}
    expected = {
        "engine_model": "tensorrt_llm",
        "slots": str(batch),
        "queue": "5",
        "tokens_per_block": "32",
        "guided_decoding": "true",
        "guide_python": sys.executable,
        "top_log_probs": "0",
        "prompt_log_probs": "false",
        "engine_dir": str(made.path),
    }
    assert text.items() >= expected.items()
    inputs = text["engine_inputs"].split(",")
    assert {"input_ids", "stop_words_list", "min_tokens"} <= set(inputs)
    assert "guided_decoding_guide" in inputs
    assert not {"probe", "min_p", "num_top_log_probs"} & set(inputs)
    assert told["guided_decoding_backend"] == "xgrammar"
    assert told["xgrammar_tokenizer_info_path"] == str(made.path / "xgrammar_tokenizer_info.json")


def test_only_what_is_filled_in_differs_from_what_is_committed(
    engine: Callable[..., TensorRTEngineInfo], tmp_path: Path
) -> None:
    target = render(GPU, engine(), tmp_path / "rendered")
    ours, theirs = config_of(target, "tensorrt_llm"), config_of(COMMITTED, "tensorrt_llm")
    assert set(ours.parameters) == set(theirs.parameters)
    for config in (ours, theirs):
        config.ClearField("parameters")
    assert ours == theirs  # the defaults are the default profile's


def test_both_engines_know_what_youtu_llm_sends() -> None:
    """Every tensor of the GPU engine's that the CPU engine has too is of the same type and size."""
    cpu, gpu = (config_of(COMMITTED, name) for name in ("youtu_engine", "tensorrt_llm"))
    for of_cpu, of_gpu in ((cpu.input, gpu.input), (cpu.output, gpu.output)):
        known = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in of_cpu}
        shared = [tensor for tensor in of_gpu if tensor.name in known]
        assert len(shared) > 8
        for tensor in shared:
            assert known[tensor.name] == (tensor.data_type, list(tensor.dims)), tensor.name


def test_tritons_command_in_the_container(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.tritonserver()
    found = triton.find(GPU)
    assert found.server == stand_in.bin / "tritonserver"
    backends = triton.lay_out_backend(found, tmp_path / "laid-out")
    assert backends == stand_in.bin.parent / "backends"
    assert not (tmp_path / "laid-out").exists()
    run = RunFolder(tmp_path / "data")
    command = triton.command(found, GPU, run, tmp_path / "models", backends)
    assert command[0] == str(found.server)
    assert "--model-control-mode=none" in command
    assert not [option for option in command if option.startswith("--load-model")]
    assert not [option for option in command if "cuda-memory" in option or "gpu-metrics" in option]
    assert set(triton.environment(found, run)) == {"PATH"}  # the container's libraries stay as they are
    run.close()


def test_outside_the_container_serving_says_how_to_get_in(stand_in: StandIn) -> None:
    settings = Settings(engine="tensorrt_llm", model="tencent/Youtu-LLM-2B", profile="24gb")
    (fault,) = (f for f in preflight.before_build(settings) if not f.startswith("port "))
    assert fault.startswith("the engine tensorrt_llm is served inside NVIDIA's container")
    assert fault.endswith("; make serve ENGINE=tensorrt_llm MODEL=tencent/Youtu-LLM-2B PROFILE=24gb'")
    assert "\n" not in fault


def test_a_container_with_another_python_or_without_a_stub(stand_in: StandIn) -> None:
    stand_in.tritonserver()
    stub = stand_in.bin.parent / "backends" / "python" / triton.STUB
    stub.unlink()
    stub.write_bytes(b"...libpython3.13.so.1.0...")
    with pytest.raises(triton.TritonMissing, match=r"in Python 3\.13, but this is .* PYTHON=python3\.13"):
        triton.find(GPU)
    stub.unlink()
    with pytest.raises(triton.TritonMissing, match="triton_python_backend_stub is missing"):
        triton.find(GPU)


@pytest.mark.parametrize(
    ("settings", "changes", "fault"),
    [
        ({"context": 4096}, {}, "YOUTU_CONTEXT is 4096, but the engine was built for 2048 tokens"),
        ({}, {"tokenizer_json": False}, r"youtu-demo has no tokenizer\.json, which youtu_llm needs"),
        ({}, {"engine_bytes": 7 << 30}, r"too little GPU memory: youtu-demo needs 9\.1 GB and its KV cache"),
        ({}, {}, None),
    ],
)
def test_what_does_not_fit_is_refused_before_the_start(
    engine: Callable[..., TensorRTEngineInfo],
    settings: dict[str, Any],
    changes: dict[str, Any],
    fault: str | None,
) -> None:
    made = replace(engine(), **changes)
    faults = preflight.before_start_on_gpu(GPU.model_copy(update=settings), made)
    assert len(faults) == (fault is not None)
    if fault is not None:
        assert re.search(fault, faults[0])


def test_an_engine_is_not_served_where_fused_attention_is_missing(
    engine: Callable[..., TensorRTEngineInfo], stand_in: StandIn, tmp_path: Path
) -> None:
    """Reused prompts got wrong answers there, and nothing said so."""
    engine()
    stand_in.nvidia_smi("NVIDIA B200, 10.0, 183359, 180000, 590.44.01")
    with pytest.raises(BuildError, match=r"B200 has compute capability 10\.0: TensorRT-LLM has fused"):
        engine_to_serve("demo", tmp_path / "data", "8gb")


def test_a_gpu_engine_of_a_checkpoint_is_no_cpu_engine_of_it(
    engine: Callable[..., TensorRTEngineInfo], tmp_path: Path
) -> None:
    """The room that the CPU engine will need was not counted, because an engine.json named its source."""
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    with (checkpoint / "model.safetensors").open("wb") as file:
        file.truncate(1_000_000)
    engine(source=str(checkpoint))
    cpu = Settings(model=str(checkpoint), data_dir=tmp_path / "data")
    assert preflight._disk_needed(cpu) == preflight.SPARE_DISK + 600_000
    assert preflight._disk_needed(cpu.model_copy(update={"engine": "tensorrt_llm"})) == 0


def test_the_settings_engine_and_profile() -> None:
    assert Settings.load({}).engine == "youtu_engine"
    assert Settings.load({"YOUTU_ENGINE": "llama_cpp"}).engine == "youtu_engine"  # its earlier name
    chosen = Settings.load({"YOUTU_ENGINE": "tensorrt_llm", "YOUTU_PROFILE": "24gb"})
    assert (chosen.engine, chosen.profile) == ("tensorrt_llm", "24gb")
