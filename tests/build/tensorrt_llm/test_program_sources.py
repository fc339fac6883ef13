"""What NVIDIA's programs are given stands in program_sources.toml with its source, and nothing else does."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

from build.catalogue import profiles
from build.tensorrt_llm import flags as flags_module
from build.tensorrt_llm.flags import build_flags, longest_prompt
from serve.repository import COMMITTED
from tests.tensorrt_llm.machines import StandIn, calibrated, flags_given, make

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE: dict[str, dict[str, str]] = tomllib.loads(
    Path(flags_module.__file__).with_name("program_sources.toml").read_text(encoding="utf-8")
)


def test_every_source_says_something() -> None:
    for table in TABLE.values():
        assert all(len(source.split()) >= 2 for source in table.values())


@pytest.mark.parametrize("profile", list(profiles()))
def test_flags_of_trtllm_build(
    profile: str, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the program is really given."""
    StandIn(tmp_path / "machine").use(monkeypatch)
    calibrated(checkpoint, tmp_path / "var")
    engine = make(checkpoint, tmp_path / "var", profile)
    given = set(flags_given(engine))
    assert given == {f"--{name}" for name in TABLE["trtllm-build"]}


@pytest.mark.parametrize("profile", profiles().values(), ids=lambda profile: profile.name)
def test_values_that_belong_together(profile: Any) -> None:
    flags = build_flags(profile, dtype="bfloat16")
    longest = int(flags["max_seq_len"]) - 1  # of a prompt that youtu_llm lets through
    assert int(flags["max_input_len"]) == longest_prompt(profile) == longest
    small = replace(profile, max_num_tokens=64)
    assert longest_prompt(small) == (longest if profile.enable_chunked_context else 64)
    paged = flags["use_paged_context_fmha"] == "enable"
    assert paged == (profile.kv_cache == "bf16")
    assert paged or not (profile.enable_kv_cache_reuse or profile.enable_chunked_context)


def test_parameters_and_fields_of_the_configuration() -> None:
    text = (COMMITTED / "tensorrt_llm" / "config.pbtxt").read_text(encoding="utf-8")
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    assert set(config.parameters) == set(TABLE["config-parameters"])
    fields = {field.name for field, _ in config.ListFields()} - {"name", "input", "output", "parameters"}
    assert fields == set(TABLE["config-fields"])
