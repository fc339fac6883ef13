"""docs/tensorrt_llm.md says what is so: memory, profiles, models, steps, container."""

from __future__ import annotations

from build.catalogue import REPOSITORY, catalogue, profiles
from build.tensorrt_llm import machine, sizes
from serve.verify_gpu.__main__ import STEPS

PAGE = (REPOSITORY / "docs" / "tensorrt_llm.md").read_text(encoding="utf-8")


def test_the_table_of_memory_is_the_programs() -> None:
    assert sizes.table() in PAGE, "run python -m build.tensorrt_llm.sizes"


def test_every_profile_stands_there_with_its_numbers() -> None:
    for name, profile in profiles().items():
        (row,) = (line for line in PAGE.splitlines() if line.startswith(f"| `{name}`") and "GB |" in line)
        numbers = (
            f"{profile.card_gib} GB",
            f"| {profile.max_batch_size} |",
            f"| {profile.max_seq_len:,} |",
            f"| {profile.max_num_tokens:,} |",
            f"| {profile.kv_cache_free_gpu_mem_fraction} |",
            f"| {profile.kv_cache}",
            "on |" if profile.enable_kv_cache_reuse else "off:",
        )
        assert all(number in row for number in numbers), row


def test_every_model_of_comparison_and_every_step_stands_there() -> None:
    for entry in catalogue():
        if entry.tensorrt_llm is not None:
            assert f"| `{entry.name}` |" in PAGE
            assert f"{entry.tensorrt_llm.engine_bytes / 1e9:.1f} GB" in PAGE
    for step in STEPS:
        name = step.name.removeprefix("two layers, ")
        assert name in PAGE, name


def test_what_settles_an_assumption_is_a_step() -> None:
    page = (REPOSITORY / "docs" / "tensorrt_llm_assumptions.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| ") and line.count("|") == 5]
    settled = [step for row in rows for step in row.split("|")[4].strip().split("; ")]
    known = {step.name for step in STEPS} | {"", "settled by", "two layers"}
    said = {"such cards are refused", "never tried: `youtu_llm` keeps such guides away"}
    assert set(settled) - known - said - {"two layers, W8A16", "two layers, bf16"} == set()
    assert {step.name for step in STEPS} - set(settled) <= {"trtllm-build --dry_run"}


def test_the_container_and_the_driver_are_the_programs() -> None:
    assert machine.IMAGE in PAGE
    assert f"TensorRT-LLM {machine.TENSORRT_LLM}" in PAGE
    assert f"{machine.MIN_DRIVER} or newer" in PAGE
