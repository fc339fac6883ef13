"""make engine ENGINE=tensorrt_llm on a machine of stand-ins: each step once, each lack told by name."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from build import memory
from build.catalogue import REPOSITORY, catalogue
from build.engine import make_engine as make_cpu_engine
from build.errors import BuildError
from build.random_checkpoint import write_random_checkpoint
from build.tensorrt_llm import engine as engine_module
from build.tensorrt_llm import machine
from build.tensorrt_llm.engine import engine_to_serve, make_engine, plan
from build.tensorrt_llm.info import TensorRTEngineInfo
from tests.build.hub import FakeHub
from tests.build.tensorrt_llm.conftest import SHAPE
from tests.limits import START_S
from tests.tensorrt_llm.machines import (
    KNOWN_SCALE,
    RTX_4090,
    VERSIONS,
    StandIn,
    calibrated,
    flags_given,
    make,
)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    return StandIn(tmp_path / "machine").use(monkeypatch)


def command(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "build.tensorrt_llm", *map(str, arguments)],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=START_S,
    )


def test_a_checkpoint_becomes_an_engine(
    checkpoint: Path, stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = make(checkpoint, tmp_path / "var")
    made = {path.name for path in engine.path.iterdir()}
    tokenizer = {"tokenizer.json", "xgrammar_tokenizer_info.json", "chat_template.jinja"}
    assert made == {"engine.json", *tokenizer, "tensorrt_llm", "flags.json"}
    assert {path.name for path in engine.engine_dir.iterdir()} == {"config.json", "rank0.engine"}
    content = json.loads((engine.path / "engine.json").read_text())
    weights = next((tmp_path / "var" / "checkpoints").glob("*/rank0.safetensors"))
    expected = {
        "model_id": "shop-model",
        "profile": "8gb",
        "gpu": "NVIDIA GeForce RTX 3070",
        "compute_capability": "8.6",
        "versions": VERSIONS,
        "weights": "W8A16",
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "vocab_size": 640,
        "special_tokens": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        "description": "shop-model, W8A16 (TensorRT-LLM)",
    }
    assert {key: content[key] for key in expected} == expected
    assert (engine.max_batch_size, engine.max_seq_len, engine.tokens_per_block) == (8, 2048, 32)
    config = json.loads((engine.engine_dir / "config.json").read_text())["pretrained_config"]
    asked = config["quantization"]
    assert (asked["quant_algo"], asked["kv_cache_quant_algo"]) == ("W8A16", None)
    given = flags_given(engine)
    assert given["--model_cls_file"] == str(REPOSITORY / "build" / "tensorrt_llm" / "youtu_trtllm.py")
    assert Path(given["--model_cls_file"]).is_file()
    said = capsys.readouterr().err
    assert "shop-model with the profile 8gb on NVIDIA GeForce RTX 3070: weights 0.00 GiB" in said
    assert "Building the engine of shop-model: done in" in said


def test_steps_whose_output_is_there_are_skipped(
    checkpoint: Path, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make(checkpoint, tmp_path)
    stand_in.trtllm_build(fail=1)
    assert make(checkpoint, tmp_path) == first

    # An engine that is not whole is built again, from the checkpoint that is.
    (first.engine_dir / "rank0.engine").unlink()
    stand_in.trtllm_build()
    weights = next(tmp_path.glob("checkpoints/*/rank0.safetensors")).stat()
    assert replace(make(checkpoint, tmp_path), created="") == replace(first, created="")
    assert next(tmp_path.glob("checkpoints/*/rank0.safetensors")).stat() == weights


def test_a_build_that_fails_keeps_the_checkpoint_and_tells_the_end_of_the_log(
    checkpoint: Path, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.trtllm_build(fail="out of GPU memory")
    with pytest.raises(
        BuildError, match=r"trtllm-build ended with 1 after \d+ s; the end of .*log"
    ) as caught:
        make(checkpoint, tmp_path)
    assert "    out of GPU memory" in str(caught.value)
    assert list(tmp_path.glob("checkpoints/*/checkpoint.json"))
    assert [path.name for path in (tmp_path / "engines").iterdir() if path.suffix != ".lock"] == []
    stand_in.program("trtllm-build", f"#!{sys.executable}\n")
    with pytest.raises(BuildError, match=r"trtllm-build succeeded, but .*config\.json is missing"):
        make(checkpoint, tmp_path)


def test_a_changed_source_profile_or_card_is_built_again(
    checkpoint: Path, stand_in: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shutil.copytree(checkpoint, tmp_path / "shop-model")
    first = make(source, tmp_path)
    os.utime(source / "config.json", ns=(0, 12345))
    second = make(source, tmp_path)
    assert second.path == first.path
    assert second.fingerprint != first.fingerprint
    assert "was built from a different state of" in capsys.readouterr().err

    larger = make(source, tmp_path, "24gb")
    assert larger.path != first.path
    assert (larger.max_batch_size, larger.max_seq_len) == (32, 4096)

    stand_in.nvidia_smi(RTX_4090)
    assert make(source, tmp_path).gpu == "NVIDIA GeForce RTX 4090"
    assert "was built on NVIDIA GeForce RTX 3070 (compute capability 8.6)" in capsys.readouterr().err


def test_serving_refuses_an_engine_of_another_gpu_or_version_by_name(
    checkpoint: Path, stand_in: StandIn, tmp_path: Path
) -> None:
    engine = engine_to_serve(str(checkpoint), tmp_path, "8gb")
    assert engine_to_serve(str(checkpoint), tmp_path, "8gb") == engine
    stand_in.nvidia_smi(RTX_4090)
    with pytest.raises(BuildError, match=r"was built on NVIDIA GeForce RTX 3070 .*8\.6\); this is NVIDIA Ge"):
        engine_to_serve(str(checkpoint), tmp_path, "8gb")
    stand_in.nvidia_smi("NVIDIA GeForce RTX 3070, 8.6, 8192, 7900, 590.44.01")
    stand_in.versions(tensorrt="10.15.0.1")
    with pytest.raises(
        BuildError, match=r"was built by tensorrt 10\.14\.1\.48; here runs 10\.15\.0\.1, .*make eng"
    ):
        engine_to_serve(str(checkpoint), tmp_path, "8gb")


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (None, r"no GPU: nvidia-smi is not installed; start the container with --gpus all"),
        (("No devices were found", 6), r"no GPU: nvidia-smi says 'No devices were found'"),
        (("", 0), r"no GPU: nvidia-smi says 'nothing'"),
        (("NVIDIA A100, 8.0, 81920, 80000, 570.124.06", 0), r"driver 570\.124\.06 is too old: .* needs 580"),
        (
            ("Tesla T4, 7.5, 15360, 15000, 590.44.01", 0),
            r"Tesla T4 has compute capability 7\.5: bfloat16 needs 8\.0",
        ),
        (
            ("NVIDIA B200, 10.0, 183359, 180000, 590.44.01", 0),
            r"NVIDIA B200 has compute capability 10\.0: .* wrong answers; serve with make serve DEVICE=cuda",
        ),
        (
            ("NVIDIA B300, 10.3, 275040, 270000, 590.44.01", 0),
            r"compute capability 10\.3: .* on 8\.0, 8\.6, 8\.9, 9\.0, 12\.0 only",
        ),
        (
            ("NVIDIA GB10, 12.1, [N/A], [N/A], 590.44", 0),
            r"nvidia-smi returned 'NVIDIA GB10, .*; expected name, compute_cap",
        ),
        (("NVIDIA T400, 8.6, 1024, 900, 590.44.01", 0), r"the profile 8gb does not fit a card of 1\.00 GiB"),
    ],
)
def test_what_a_gpu_can_lack(
    checkpoint: Path,
    stand_in: StandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: tuple[str, int] | None,
    fault: str,
) -> None:
    if answer is None:
        (stand_in.bin / "nvidia-smi").unlink()
        monkeypatch.setenv("PATH", str(stand_in.bin))
    else:
        stand_in.nvidia_smi(answer[0], status=answer[1])
    with pytest.raises(BuildError, match=fault) as caught:
        make(checkpoint, tmp_path)
    assert "\n" not in str(caught.value)


def test_another_container_is_refused_by_its_version(
    checkpoint: Path, stand_in: StandIn, tmp_path: Path
) -> None:
    stand_in.versions(tensorrt_llm="1.1.0")
    with pytest.raises(
        BuildError, match=r"wrong container: its TensorRT-LLM is 1\.1\.0, .* 1\.2\.1: use nvcr\.io"
    ):
        make(checkpoint, tmp_path)
    stand_in.program("trtllm-build", "#!/bin/false\n")
    with pytest.raises(
        BuildError, match=r"/bin/false, which runs .*trtllm-build, has no complete TensorRT-LLM"
    ):
        make(checkpoint, tmp_path)


def test_the_interpreter_of_a_script(tmp_path: Path) -> None:
    script = tmp_path / "trtllm-build"
    for first, python in (
        ("#!/opt/venv/bin/python3", "/opt/venv/bin/python3"),
        ("#!/usr/bin/env sh", "/bin/sh"),
    ):
        script.write_text(f"{first}\n")
        assert machine._interpreter(script).resolve() == Path(python).resolve()
    script.write_bytes(b"\x7fELF")
    with pytest.raises(BuildError, match="is not a Python script"):
        machine._interpreter(script)


def test_too_little_disk_and_memory(
    checkpoint: Path, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(memory, "free_memory", lambda: 1000)
        with pytest.raises(BuildError, match=r"too little memory: 0\.0 GB are free, and trtllm-build takes"):
            make(checkpoint, tmp_path)
    full = shutil._ntuple_diskusage(10**12, 10**12, 10**8)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(
        BuildError, match=r"too little disk: .* has 0\.1 GB free, and checkpoint and engine need"
    ):
        make(checkpoint, tmp_path)


def test_an_int8_cache_gets_the_scales_that_are_known(
    checkpoint: Path, stand_in: StandIn, tmp_path: Path
) -> None:
    """The calibration itself takes a minute; it is asked here for what it knows already."""
    calibrated(checkpoint, tmp_path)
    engine = make(checkpoint, tmp_path, "int8-kv")
    config = json.loads((engine.engine_dir / "config.json").read_text())["pretrained_config"]
    assert config["quantization"]["kv_cache_quant_algo"] == "INT8"
    assert flags_given(engine)["--use_paged_context_fmha"] == "disable"
    (weights,) = tmp_path.glob("checkpoints/*/rank0.safetensors")
    written = load_file(weights)
    for layer in range(SHAPE.num_hidden_layers):
        name = f"transformer.layers.{layer}.attention.kv_cache_scaling_factor"
        assert written[name].item() == pytest.approx(KNOWN_SCALE)
    profile = engine.run_profile()
    assert not profile.enable_kv_cache_reuse
    assert not profile.enable_chunked_context


@pytest.mark.parametrize(
    ("model", "profile", "fault"),
    [
        ("nowhere", "8gb", "unknown MODEL=nowhere"),
        ("demo", "48gb", "unknown PROFILE=48gb: expected one of 8gb, 24gb, int8-kv"),
        ("{gguf}", "8gb", r"a\.gguf is a \.gguf file: the GPU engine is built from a checkpoint folder"),
        ("{short}", "24gb", "the profile 24gb is for 4096 tokens, but short was trained for 2048"),
        ("{bare}", "8gb", r"has no tokenizer\.json: an engine without one cannot be served"),
    ],
)
def test_what_cannot_be_built(
    stand_in: StandIn, checkpoint: Path, tmp_path: Path, model: str, profile: str, fault: str
) -> None:
    (tmp_path / "a.gguf").touch()
    if "{short}" in model:
        write_random_checkpoint(tmp_path / "short", replace(SHAPE, max_position_embeddings=2048), seed=0)
        stand_in.nvidia_smi(RTX_4090)
    if "{bare}" in model:
        shutil.copytree(checkpoint, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    places = {"gguf": tmp_path / "a.gguf", "short": tmp_path / "short", "bare": tmp_path / "bare"}
    with pytest.raises(BuildError, match=fault):
        make(model.format(**places), tmp_path / "var", profile)


CONVERT = """
import json, pathlib, sys
options = dict(part.split("=") if "=" in part else (part, None) for part in sys.argv[5:])
assert sys.argv[1] == "--model_dir" and (pathlib.Path(sys.argv[2]) / "config.json").is_file()
target = pathlib.Path(sys.argv[4])
target.mkdir()
(target / "config.json").write_text(json.dumps({"options": options, "has": sorted(
    path.name for path in pathlib.Path(sys.argv[2]).iterdir() if not path.name.startswith("."))}))
(target / "rank0.safetensors").write_bytes(b"weights")
"""


@pytest.mark.parametrize("name", ["qwen1.5-1.8b", "chatglm3-6b", "baichuan-13b"])
def test_models_of_comparison_go_through_nvidias_converters(
    name: str, stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> None:
    (entry,) = (entry for entry in catalogue() if entry.name == name)
    converter = entry.tensorrt_llm
    assert converter is not None
    assert entry.repo is not None
    stand_in.nvidia_smi(RTX_4090)
    script = stand_in.app / "examples" / converter.converter
    script.parent.mkdir(parents=True)
    script.write_text(CONVERT)
    published = tmp_path / "published"
    published.mkdir()
    fast = name.startswith("qwen")
    config = {"architectures": [entry.architecture], "vocab_size": 640, "eos_token_id": 2, "seq_length": 8192}
    (published / "config.json").write_text(json.dumps(config))
    suffix = "bin" if converter.pickled else "safetensors"
    stem = "pytorch_model" if converter.pickled else "model"
    (weights,) = checkpoint.glob("*.safetensors")
    shutil.copy(weights, published / f"{stem}.{suffix}")
    extra = "tokenizer.json tokenizer_config.json" if fast else "tokenizer.model modeling_x.py"
    for file in extra.split():
        copy = checkpoint / file
        (published / file).write_bytes(copy.read_bytes() if copy.is_file() else b"x")
    (published / "README.md").write_text("not wanted")

    monkeypatch.delenv("HF_TOKEN", raising=False)
    with FakeHub(published, entry.repo) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        engine = make(name, tmp_path / "var")
        assert make(name, tmp_path / "var") == engine
    given = flags_given(engine)
    assert "--model_cls_file" not in given
    assert given["--gpt_attention_plugin"] == given["--gemm_plugin"] == "float16"
    told = json.loads((engine.engine_dir / "config.json").read_text())["pretrained_config"]
    wanted = {"--dtype": "float16", "--use_weight_only": None}
    precision = "int4" if name == "chatglm3-6b" else "int8"
    assert told["options"].items() >= (wanted | {"--weight_only_precision": precision}).items()
    assert {*extra.split(), f"{stem}.{suffix}"} <= set(told["has"])
    assert "README.md" not in told["has"]
    assert (engine.model_id, engine.description) == (name, entry.description)
    assert engine.tokenizer_json == fast
    with pytest.raises(BuildError, match="int8-kv is for Youtu only"):
        make(name, tmp_path / "var", "int8-kv")


def test_the_cpu_engine_refuses_them(tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"qwen1\.5-1\.8b is for the GPU engine only: set ENGINE=tensorrt_llm"
    ):
        make_cpu_engine("qwen1.5-1.8b", tmp_path)


def test_baichuan_is_refused_on_a_small_card(
    stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_fetched", lambda made, progress: tmp_path)
    with pytest.raises(
        BuildError, match=r"the profile 8gb does not fit a card of 8\.00 GiB: weights 12\.97 GiB"
    ):
        make("baichuan-13b", tmp_path)


def test_without_converters_in_the_container(stand_in: StandIn, tmp_path: Path) -> None:
    with pytest.raises(
        BuildError, match=r"NVIDIA's converters are in neither .*/examples nor .*tensorrt_llm/ex"
    ):
        machine.examples()


def test_outside_the_container_the_command_says_how_to_get_in(stand_in: StandIn, tmp_path: Path) -> None:
    (stand_in.bin / "trtllm-build").unlink()
    path = f"{stand_in.bin}:/usr/bin:/bin"
    data = str(tmp_path / "my data")
    told = command(
        "demo", "--profile", "24gb", "--data-dir", tmp_path, PATH=path, HF_TOKEN="secret", YOUTU_DATA_DIR=data
    )
    assert told.returncode == 1
    assert told.stdout.startswith("docker run --rm -it --gpus all --shm-size 2g")
    words = shlex.split(told.stdout)
    _, *inside = words[words.index(machine.IMAGE) :]
    assert inside[:2] == ["bash", "-c"]
    assert inside[2].endswith("; make engine ENGINE=tensorrt_llm MODEL=demo PROFILE=24gb")
    assert len(inside) == 3
    assert "-e HF_TOKEN" in told.stdout
    assert f"-v '{data}:{data}' -e 'YOUTU_DATA_DIR={data}'" in told.stdout
    assert "secret" not in told.stdout
    assert told.stderr.startswith("error: trtllm-build not found: this runs in nvcr.io/nvidia/tritonserver")


@pytest.mark.parametrize("variable", ["ENGINE", "YOUTU_ENGINE"])  # the latter as in the GPU image
def test_make_comes_to_the_same_command_and_fills_the_repository(
    stand_in: StandIn, tmp_path: Path, variable: str
) -> None:
    data = tmp_path / "data"
    arguments = [f"{variable}=tensorrt_llm", "MODEL=demo", "PROFILE=8gb", f"YOUTU_DATA_DIR={data}"]
    made = subprocess.run(
        ["make", "engine", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=START_S,
    )
    assert made.returncode == 0, made.stderr
    engine, repository = map(Path, made.stdout.split()[-2:])
    assert TensorRTEngineInfo.load(engine).demo
    config = (repository / "tensorrt_llm" / "config.pbtxt").read_text()
    assert f'string_value: "{engine.resolve() / "tensorrt_llm"}"' in config
    assert (repository / "tensorrt_llm" / "1").is_dir()
    unknown = subprocess.run(
        ["make", "engine", "ENGINE=vllm"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert "unknown ENGINE=vllm: expected youtu_engine or tensorrt_llm" in unknown.stderr


def test_the_demonstrations_engine_can_be_planned(stand_in: StandIn, tmp_path: Path) -> None:
    made = plan("demo", tmp_path, "8gb")
    assert made.engine.name.startswith("youtu-demo-")
    assert make_engine("demo", tmp_path, "8gb").demo


def test_a_template_that_cannot_be_parsed_is_refused_before_anything_is_built(
    checkpoint: Path, stand_in: StandIn, tmp_path: Path
) -> None:
    mine = shutil.copytree(checkpoint, tmp_path / "mine")
    (mine / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(BuildError, match=r"chat_template\.jinja, line 1: .*cannot be parsed"):
        make_engine(str(mine), tmp_path / "var", "8gb")
    assert not list((tmp_path / "var").glob("checkpoints/*"))
