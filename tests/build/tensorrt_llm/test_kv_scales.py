"""Calibrating the int8 KV cache: its scales against transformers, and what is kept of a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import build.tensorrt_llm.kv_scales as module
from build.demo.conversations import load_corpus
from build.errors import BuildError
from build.tensorrt_llm.convert import convert, read_scales
from build.tensorrt_llm.kv_scales import calibrate
from build.tensorrt_llm.reference import Reference
from tests.build.checkpoints import SMALL, write

DEMO = Path(__file__).parents[3] / "build" / "demo" / "checkpoint"
SAMPLES = [fact.messages for fact in load_corpus()[::40]]


@torch.no_grad()
def reached(samples: list[list[dict[str, str]]]) -> list[float]:
    """Per layer of transformers' model: the largest of keys, values and lengths of rotated pairs."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    model = AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32)
    largest = [0.0] * len(model.model.layers)

    def see(number: int, values: torch.Tensor) -> None:
        largest[number] = max(largest[number], float(values.abs().max()))

    def watch(number: int, attention: Any) -> None:
        rope = model.config.qk_rope_head_dim
        attention.kv_b_proj.register_forward_hook(lambda _, __, output: see(number, output))
        # rotating does not change the length of a pair
        attention.kv_a_proj_with_mqa.register_forward_hook(
            lambda _, __, output: see(
                number, torch.hypot(output[..., -rope:][..., ::2], output[..., -rope:][..., 1::2])
            )
        )

    for number, layer in enumerate(model.model.layers):
        watch(number, layer.self_attn)
    for messages in samples:
        model(tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)["input_ids"])
    return largest


def test_scales_are_what_transformers_reaches(tmp_path: Path) -> None:
    scales = calibrate(DEMO, tmp_path / "scales.json", samples=SAMPLES)
    assert [scale * 127 for scale in scales] == pytest.approx(reached(SAMPLES), rel=1e-4)
    assert read_scales(tmp_path / "scales.json") == scales


def test_nothing_of_the_samples_is_cut_and_little_range_is_lost(tmp_path: Path) -> None:
    """Against the rotated keys and the values that the cache would hold."""
    scales = calibrate(DEMO, tmp_path / "scales.json", samples=SAMPLES[:1])
    checkpoint = convert(DEMO, tmp_path / "ckpt", max_positions=2048).path
    tokenizer = AutoTokenizer.from_pretrained(checkpoint / "tokenizer")
    ids = tokenizer.apply_chat_template(SAMPLES[0], return_dict=True)["input_ids"]
    _, past = Reference(checkpoint).logits(ids)
    for scale, (keys, values) in zip(scales, past, strict=True):
        largest = float(max(keys.abs().max(), values.abs().max()))
        assert largest <= scale * 127 * 1.0001
        assert scale * 127 <= largest * 1.42  # a pair is at most sqrt(2) longer than its larger half


def test_the_samples_decide(tmp_path: Path) -> None:
    """Guards against a calibration that does not look at its samples."""
    one = calibrate(DEMO, tmp_path / "one.json", samples=SAMPLES[:1])
    all_of_them = calibrate(DEMO, tmp_path / "all.json", samples=SAMPLES)
    assert one != all_of_them
    assert all(few <= many for few, many in zip(one, all_of_them, strict=True))


def test_scales_are_measured_once_for_a_state_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "load_corpus", lambda: load_corpus()[:2])
    source = tmp_path / "source"
    source.mkdir()
    for path in DEMO.iterdir():
        (source / path.name).symlink_to(path)
    output = tmp_path / "scales.json"
    first = calibrate(source, output)
    measured = []

    def measure(*_: object) -> list[float]:
        measured.append(1)
        return [1.0] * 5

    monkeypatch.setattr(module, "_measure", measure)
    assert calibrate(source, output) == first
    assert not measured
    (source / "config.json").unlink()
    (source / "config.json").write_bytes((DEMO / "config.json").read_bytes())
    os.utime(source / "config.json", (0, 0))
    assert calibrate(source, output) == [1.0] * 5
    output.write_text("{")
    assert calibrate(source, output) == [1.0] * 5
    assert len(measured) == 2


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "hf", SMALL)
    (source / "chat_template.jinja").unlink()
    with pytest.raises(BuildError, match="has no chat template"):
        calibrate(source, tmp_path / "scales.json", samples=SAMPLES[:1])


def test_a_file_that_holds_no_scales(tmp_path: Path) -> None:
    path = tmp_path / "scales.json"
    for text in ("", "[]", '{"scales": "x"}', '{"scales": ["a"]}'):
        path.write_text(text)
        with pytest.raises(BuildError, match="contains no scales"):
            read_scales(path)


def test_the_command_line(tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    samples.write_text(json.dumps({"messages": SAMPLES[0]}) + "\n")
    command = [sys.executable, "-m", "build.tensorrt_llm.kv_scales", str(DEMO), str(tmp_path / "scales.json")]
    done = subprocess.run([*command, "--samples", samples], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_scales(tmp_path / "scales.json") == calibrate(
        DEMO, tmp_path / "again.json", samples=SAMPLES[:1]
    )
    samples.write_text("not JSON\n")
    refused = subprocess.run([*command, "--samples", samples], check=False, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"error: {samples} must hold one")
