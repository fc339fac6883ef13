"""make verify-gpu on a machine of stand-ins: one on which all is as assumed, and one amiss at each step."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build.random_checkpoint import TINY, write_random_checkpoint
from build.tensorrt_llm import sizes
from serve.settings import Settings
from serve.verify_gpu import container, engines, server
from serve.verify_gpu.__main__ import STEPS, check
from serve.verify_gpu.steps import NotAsAssumed, Step, Verification, verify
from tests.tensorrt_llm.machines import RTX_3070, StandIn, profiles_of
from tests.tensorrt_llm.package import write_package
from tests.tensorrt_llm.template import RELEASES, template

SHAPE = replace(TINY, vocab_size=640, num_hidden_layers=2, max_position_embeddings=4096)
NAMES = [step.name for step in STEPS]


class Machine(StandIn):
    """All that verify-gpu looks at, as it is assumed to be."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.package = write_package(self.packages)
        self.template = self.app / container.TEMPLATE
        self.template.parent.mkdir(parents=True)
        self.template.write_text(template())

    def edit(self, path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def append(self, path: Path, line: str) -> None:
        path.write_text(f"{path.read_text()}{line}\n")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path / "machine")
    machine.use(monkeypatch)
    return machine


@pytest.fixture
def verification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verification:
    model = tmp_path / "model"
    write_random_checkpoint(model, SHAPE, seed=0)
    monkeypatch.setattr(engines, "PROMPT", 20)
    monkeypatch.setattr(engines, "TOKENS", 12)
    settings = Settings(engine="tensorrt_llm", model=str(model), data_dir=tmp_path / "data")
    return Verification(settings, tmp_path / "verify", facts={"shape": SHAPE})


def as_the_arithmetic_says(
    machine: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    *,
    blocks: float = 1,
    used: float = 1,
    before_mib: int = 0,
) -> None:
    """Memory in use and KV blocks of the served engine, times what is expected."""
    profile = profiles_of("8gb")
    expected = sizes.sizes(
        profile,
        (8192 - before_mib) << 20,
        weights=sizes.weight_bytes(SHAPE),
        kv_per_token=sizes.kv_bytes_per_token(SHAPE, "bf16"),
    )
    monkeypatch.setenv("STAND_IN_KV_BLOCKS", str(int(blocks * expected.cache_tokens / 32)))
    machine.nvidia_smi(RTX_3070, used_mib=(before_mib, before_mib + (int(used * expected.total) >> 20)))


def run(steps: list[Step], verification: Verification) -> dict[str, tuple[str, str]]:
    return {row.name: (row.found, row.change) for row in verify(steps, verification, lambda row: None)}


def amiss(verification: Verification, steps: list[Step]) -> tuple[str, str, str]:
    """Name, finding and advice of the step that stopped it; those before it were as assumed."""
    rows = verify(steps, verification, lambda row: None)
    assert [row.name for row in rows if row.change] == [rows[-1].name]
    return rows[-1].name, rows[-1].found, rows[-1].change


@pytest.mark.slow
def test_all_is_as_assumed(
    stand_in: Machine,
    verification: Verification,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stand_in.tritonserver()
    as_the_arithmetic_says(stand_in, monkeypatch, before_mib=900)  # a screen hangs on it
    status = check(verification)
    *table, line = capsys.readouterr().out.splitlines()
    assert status == 0, "\n".join(table)
    assert [row[18:54].strip() for row in table] == NAMES
    assert all(row.startswith("ok ") for row in table)
    result = json.loads(line)
    assert result["verify_gpu"] == "ok"
    assert result["gpu"] == "NVIDIA GeForce RTX 3070"
    assert result["not_run"] == []
    found = {name: step["found"] for name, step in result["steps"].items()}
    assert "12 of 12 greedy tokens the reference's own" in found["two layers, W8A16"]
    assert found["KV reuse changes nothing"] == "64 tokens, the same with 4 of 4 blocks reused"
    assert found["guided decoding"].startswith("2 kept to, 3 refused")
    assert "exceeds maximum input length (2047)" in found["a prompt that is too long"]
    assert found["what penalties count"].endswith("count the prompt, as documented")


def test_without_a_gpu_nothing_is_run_and_nothing_is_claimed(
    stand_in: Machine, verification: Verification, capsys: pytest.CaptureFixture[str]
) -> None:
    (stand_in.bin / "trtllm-build").unlink()
    assert check(verification) == 1
    out = capsys.readouterr().out
    assert "It runs in NVIDIA's container: docker run" in out
    result = json.loads(out.splitlines()[-1])
    assert (result["verify_gpu"], result["stopped_at"]) == ("failed", NAMES[0])
    assert result["not_run"] == NAMES[1:]
    assert result["gpu"] is None


def test_a_model_that_is_not_there_is_reported_first(stand_in: Machine, verification: Verification) -> None:
    """It was told by the step that builds the whole engine, after four other builds."""
    verification.settings = verification.settings.model_copy(update={"model": "nonsense"})
    name, _, change = amiss(verification, STEPS)
    assert name == NAMES[0]
    assert "unknown MODEL=nonsense" in change


AMISS: list[tuple[str, Callable[[Machine], object], str, str]] = [
    (
        "GPU, driver, container",
        lambda m: m.versions(tensorrt_llm="1.1.0"),
        "could not",
        "TensorRT-LLM is 1.1.0",
    ),
    (
        "TensorRT-LLM imports the model class",
        lambda m: m.edit(m.package / "__init__.py", "1.2.1", "1.2.0"),
        "tensorrt_llm.__version__ is 1.2.0",
        "take nvcr.io",
    ),
    (
        "TensorRT-LLM imports the model class",
        lambda m: m.edit(m.package / "layers.py", "GatedMLP, ", ""),
        "could not be checked",
        "cannot import name 'GatedMLP'",
    ),
    (
        "attention plugin",
        lambda m: m.edit(m.package / container.PLUGIN, "no longer supports MLA", "supports MLA"),
        "does not say 'no longer supports MLA'",
        "reconsider build/tensorrt_llm/youtu_trtllm.py",
    ),
    (
        "attention plugin",
        lambda m: (m.package / container.PLUGIN).unlink(),
        "is not there",
        "look for the plugin",
    ),
    (
        "flags of trtllm-build",
        lambda m: m.trtllm_build(without="use_paged_context_fmha"),
        "has no --use_paged_context_fmha",
        "build/tensorrt_llm/flags.py",
    ),
    (
        "configuration of the C++ backend",
        lambda m: m.edit(m.template, '"seed"\n    data_type: TYPE_U', '"seed"\n    data_type: TYPE_'),
        "input seed is TYPE_INT64 [1] reshaped to [] optional there, and TYPE_UINT64 [1] reshaped to []",
        "correct model_repository/tensorrt_llm/config.pbtxt",
    ),
    (
        "configuration of the C++ backend",
        lambda m: m.edit(m.template, '"stop"', '"halt"'),
        "has no input stop",
        "config.pbtxt",
    ),
    (
        "configuration of the C++ backend",
        lambda m: m.edit(m.template, '"guided_decoding_backend"', '"guided"'),
        "has no parameter guided_decoding_backend",
        "program_sources.toml",
    ),
    (
        "configuration of the C++ backend",
        lambda m: m.edit(m.template, "dims: [ -1, 3 ]\n    optional: true", "dims: [ -1, 3 ]"),
        "the backend requires lora_config",
        "config.pbtxt",
    ),
    (
        "configuration of the C++ backend",
        lambda m: m.edit(m.template, "\ninput [", "\ninput "),
        "cannot be read",
        "correct PLACEHOLDERS",
    ),
    ("configuration of the C++ backend", lambda m: m.template.unlink(), "is not there", "correct TEMPLATE"),
]


@pytest.mark.parametrize(("step", "change", "found", "advice"), AMISS)
def test_a_container_with_one_thing_amiss(
    stand_in: Machine,
    verification: Verification,
    step: str,
    change: Callable[[Machine], object],
    found: str,
    advice: str,
) -> None:
    change(stand_in)
    verification.facts["names"] = {"package": str(stand_in.package)}
    name, said, to_change = amiss(verification, [each for each in STEPS if each.name in (NAMES[0], step)])
    assert name == step
    assert found in said
    assert advice in to_change


@pytest.mark.parametrize("release", RELEASES)
def test_nvidias_configuration_of_several_releases(
    stand_in: Machine, verification: Verification, release: str
) -> None:
    """request_output_len is reshaped there. Ours was not, nor was the stand-in's, which was made of ours."""
    stand_in.template.write_text(template(release))
    if release == "24.04":
        name, said, _ = amiss(verification, [container.STEPS[0], container.STEPS[5]])
        assert name == "configuration of the C++ backend"
        assert said == (
            "input input_ids is TYPE_INT32 [-1] allow_ragged_batch there, and TYPE_INT32 [-1] "
            "allow_ragged_batch optional here"
        )
    else:
        found = run([container.STEPS[0], container.STEPS[5]], verification)
        assert found["configuration of the C++ backend"][1] == ""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the probe says of the stand-in; importing takes seconds."""
    machine = Machine(tmp_path_factory.mktemp("names"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        machine.use(monkeypatch)
        asked = Verification(Settings(), machine.bin)
        assert not any(change for _, change in run(container.STEPS[:2], asked).values())
    found: dict[str, Any] = asked.facts["names"]
    return found


@pytest.mark.parametrize(
    ("changes", "found", "advice"),
    [
        ({}, "", ""),
        ({"gpt_attention": ["qkv"]}, "gpt_attention takes no cache_indirection", "youtu_trtllm.py passes it"),
        (
            {"Attention": ["self", "bias"]},
            "Attention takes no attention_head_size",
            "youtu_trtllm.py passes it",
        ),
        ({"weight_only_quantize_dict": "'dense.weight'"}, "does not look for qkv.weight", "stay in 16 bits"),
        ({"PretrainedConfig.from_dict": "return cls()"}, "does not use MODEL_MAP", "register it so"),
    ],
)
def test_another_signature_or_name(
    names: dict[str, Any], verification: Verification, changes: dict[str, Any], found: str, advice: str
) -> None:
    verification.facts["names"] = names | changes
    (ended,) = run([container.STEPS[4]], verification).values()
    assert found in ended[0]
    assert advice in ended[1]
    assert bool(ended[1]) == bool(changes)


GOOD = {"distance": 0.001, "gap": 0.0, "same": 12, "tokens": 12}
ENGINES = [
    ("bf16", {}, ""),
    ("bf16", {"distance": 0.4}, "the prompt's logits are wrong"),
    ("bf16", {"distance": float("nan")}, "the prompt's logits are wrong"),
    ("bf16", {"gap": 0.5, "same": 3}, "prompts are right and decoding is not"),
    ("bf16", {"tokens": 9, "same": 9}, "an end token that was not given"),
    ("W8A16", {"distance": 0.2}, "bf16 is right and int8 is not"),
    ("W8A16, int8 KV", {"distance": 0.2}, "do not use the profile int8-kv"),
]


@pytest.mark.parametrize(("kind", "numbers", "advice"), ENGINES)
def test_numbers_of_an_engine_that_computes_something_else(
    stand_in: Machine,
    verification: Verification,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    numbers: dict[str, float],
    advice: str,
) -> None:
    monkeypatch.setattr(engines, "probe", lambda *_: GOOD | numbers)
    step = next(each for each in engines.STEPS if each.name == f"two layers, {kind}")
    _, (_, change) = run([container.STEPS[0], step], verification).values()
    assert advice in change
    assert bool(change) == bool(numbers)


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ("logits", "the prompt's logits are wrong"),
        ("decode", "prompts are right and decoding is not"),
        ("error", "ended with 1: out of memory"),
    ],
)
def test_the_probe_sees_it(stand_in: Machine, verification: Verification, fault: str, advice: str) -> None:
    executor = stand_in.package / "bindings" / "executor.py"
    stand_in.edit(executor, 'FAULT, KIND = "", ""', f'FAULT, KIND = "{fault}", "bf16"')
    name, _, change = amiss(verification, [container.STEPS[0], engines.STEPS[1]])
    assert name == "two layers, bf16"
    assert advice in change


def test_a_class_that_cannot_be_traced(stand_in: Machine, verification: Verification) -> None:
    stand_in.trtllm_build(fail="AttributeError: no fused_q_proj")
    name, _, change = amiss(verification, [container.STEPS[0], engines.STEPS[0]])
    assert name == "trtllm-build --dry_run"
    assert "AttributeError: no fused_q_proj" in change


@pytest.mark.parametrize(
    ("more", "found", "advice"),
    [
        (
            2 * SHAPE.vocab_size * SHAPE.hidden_size,
            "the embedding table is there twice",
            "keep --gemm_plugin",
        ),
        (100_000_000, "weights by arithmetic", "a layer has another width"),
    ],
)
def test_an_engine_of_another_size(
    stand_in: Machine, verification: Verification, more: int, found: str, advice: str
) -> None:
    stand_in.trtllm_build(more=more)
    name, said, change = amiss(verification, [container.STEPS[0], engines.STEPS[-1]])
    assert name == "size of the whole engine"
    assert found in said
    assert advice in change


class FakeServed:
    """A server of which each answer can be amiss."""

    def __init__(self, **changes: Any) -> None:
        self.blocks: float | None = changes.get("blocks", 100)
        self.active: list[float | None] = changes.get("active", [1, 0])
        self.calls: list[tuple[list[int], int]] = changes.get("calls", [([1, 2], 0), ([1, 2], 3)])
        self.error: str = changes.get("error", "Prompt length (9) exceeds maximum input length (2047).")
        self.asked = False
        self.text: str | None = changes.get("text")
        self.refusal: str = changes.get("refusal", "no such guide")

    def metric(self, name: str, label: str) -> float | None:
        if "kv_cache" in name:
            return self.blocks if self.asked or self.blocks is None else 0  # until a request has run
        return self.active.pop(0) if len(self.active) > 1 else self.active[0]

    def complete(self, kind: str, guide: str) -> tuple[str, str]:
        for each, good, allowed in server.GOOD_GUIDES:
            if (kind, guide) == (each, good):
                return (allowed[0] if self.text is None else self.text), ""
        return "", self.refusal

    def call(self, **_: Any) -> FakeServed:
        return self

    def whole(self) -> tuple[list[int], int]:
        self.asked = True
        return self.calls.pop(0)

    def next(self) -> tuple[None, str, bool]:
        return None, self.error, True

    def leave(self) -> None:
        pass


SERVED = [
    (server.memory, {"blocks": None}, "have no nv_trt_llm_kv_cache_block_metrics", "metrics port"),
    (server.memory, {"blocks": 0}, "is 0, 0 s after a request", "metrics port"),
    (server.memory, {"blocks": 10}, "not one sequence fits", "sizes.py"),
    (server.memory, {"blocks": 100_000_000}, "by arithmetic", "sizes.py"),
    (server.reuse, {"calls": [([1], 2), ([1], 2)]}, "2 blocks were reused of a prompt never seen", "restart"),
    (
        server.reuse,
        {"calls": [([1, 2], 0), ([1, 3], 4)]},
        "token 1 and what follows is another",
        "enable_kv_cache_reuse",
    ),
    (server.reuse, {"calls": [([1], 0), ([1], 0)]}, "0 blocks were reused", "use_paged_context_fmha"),
    (server.leaving, {"active": [None]}, "have no nv_trt_llm_request_metrics", "metrics port"),
    (server.leaving, {"active": [0]}, "no request is active by Triton's metrics", "metrics port"),
    (server.leaving, {"active": [0, 0] + [1] * 60 + [0]}, "the slot is free", "cancellation_check"),
    (server.leaving, {"active": [1] * 60 + [0]}, "the slot is free", "cancellation_check_period_ms"),
    (server.guides, {"text": "x"}, "regex (small|large) is answered with 'x'", "xgrammar_info.py"),
    (server.guides, {"refusal": ""}, "regex ( is answered with '', and not refused", "guide_check.py"),
    (server.guides, {}, "the answer beside them ended: Prompt length", "serve/repository.py"),
    (
        server.too_long,
        {"error": "internal error\nstack"},
        "'internal error'",
        "tests/tensorrt_llm/backend.py",
    ),
    (server.too_long, {"error": ""}, "'tokens'", "correct it"),
    (server.penalties, {"calls": [([7], 0)]}, "leave the prompt out", "client/youtu_contract/rows.py"),
    (server.penalties, {"calls": [([9], 0)]}, "token [9] comes although", "embedding_bias"),
    (
        server.too_long,
        {"error": "Prompt length (9) exceeds maximum input length (1024)."},
        "prompts may have 1024 tokens, and 2047 were assumed",
        "build/tensorrt_llm/flags.py",
    ),
]


@pytest.mark.parametrize(("step", "changes", "found", "advice"), SERVED)
def test_a_server_with_one_thing_amiss(
    stand_in: Machine,
    verification: Verification,
    monkeypatch: pytest.MonkeyPatch,
    step: Callable[[Verification], str],
    changes: dict[str, Any],
    found: str,
    advice: str,
) -> None:
    as_the_arithmetic_says(stand_in, monkeypatch)
    monkeypatch.setattr(server, "STATISTICS_SECONDS", 0.0)
    assert not any(
        change for _, change in run([container.STEPS[0], engines.STEPS[-1]], verification).values()
    )
    verification.facts |= {"served": FakeServed(**changes), "used_before": engines.memory_used()}
    with pytest.raises(NotAsAssumed) as caught:
        step(verification)
    assert found in caught.value.found
    assert advice in caught.value.change


def test_memory_in_use_is_compared_without_what_was_there_before(
    stand_in: Machine, verification: Verification, monkeypatch: pytest.MonkeyPatch
) -> None:
    for used, fits in ((1.0, True), (1.3, False)):
        as_the_arithmetic_says(stand_in, monkeypatch, used=used, before_mib=700)
        shutil.rmtree(stand_in.bin / "nvidia-smi.asked", ignore_errors=True)
        assert not any(
            change for _, change in run([container.STEPS[0], engines.STEPS[-1]], verification).values()
        )
        blocks = int(os.environ["STAND_IN_KV_BLOCKS"])
        verification.facts |= {"served": FakeServed(blocks=blocks), "used_before": engines.memory_used()}
        assert verification.facts["used_before"] == 700 << 20
        if fits:
            assert "by arithmetic" in server.memory(verification)
        else:
            with pytest.raises(NotAsAssumed, match=r"the server holds .* by arithmetic"):
                server.memory(verification)


def test_a_server_that_does_not_start_is_reported_with_its_last_lines(
    stand_in: Machine, verification: Verification
) -> None:
    assert not any(
        change for _, change in run([container.STEPS[0], engines.STEPS[-1]], verification).values()
    )
    name, found, change = amiss(verification, [server.STEPS[0]])
    assert (name, found) == ("the server starts", "could not be checked")
    assert "there is no tritonserver with a tensorrtllm backend here" in change
