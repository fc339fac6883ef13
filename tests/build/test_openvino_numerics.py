"""The OpenVINO model of a checkpoint computes what transformers computes.

The f32 build takes the same greedy token every time and gives the same log-probabilities to 1e-3, over random
models of several shapes. The int8 build rounds weights: there the distance is measured, and bounded at about
twice what was seen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from build.openvino_model.constants import WeightFormat, quantized
from build.openvino_model.convert import convert
from tests.build.openvino_model import OpenVino
from tests.build.youtu_models import CASES, PROMPT, STEPS, Case, reference


def plain(architecture: str, **given: object) -> PreTrainedModel:
    """A random Qwen2 or Llama whose norms and biases are no ones and zeros."""
    torch.manual_seed(0)
    numbers = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.15,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        **given,
    }
    model: PreTrainedModel = (
        Qwen2ForCausalLM(Qwen2Config(**numbers))
        if architecture == "qwen2"
        else LlamaForCausalLM(LlamaConfig(**numbers))
    )
    model.train(False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.copy_(torch.rand_like(parameter) + (0.5 if "norm" in name else -0.5))
    return model


PLAIN = {
    "qwen2": plain("qwen2"),
    "qwen2, tied, as many key as query heads": plain(
        "qwen2", tie_word_embeddings=True, num_key_value_heads=4
    ),
    "qwen2, one key head": plain("qwen2", num_key_value_heads=1),
    "llama, heads of another size": plain("llama", head_dim=24),
    "llama, epsilon 1e-2": plain("llama", rms_norm_eps=1e-2, tie_word_embeddings=True),
}


def converted(model: PreTrainedModel, folder: Path, weights: WeightFormat) -> OpenVino:
    model.save_pretrained(folder / "checkpoint")
    convert(folder / "checkpoint", folder / weights, weights=weights)
    return OpenVino(folder / weights)


def check_exact(model: PreTrainedModel, folder: Path) -> None:
    """Over 96 greedy tokens, and over 128 random ones, since a random model soon repeats itself."""
    tokens, found = converted(model, folder, "f32").greedy(PROMPT, STEPS)
    wanted = reference(model, PROMPT + tokens)[len(PROMPT) - 1 : -1]
    assert tokens == wanted.argmax(axis=1).tolist()
    assert np.abs(found - wanted).max() < 1e-3

    forced = torch.randint(3, 300, (128,)).tolist()
    found = OpenVino(folder / "f32").log_probs(forced)
    wanted = reference(model, forced)
    assert found.argmax(axis=1).tolist() == wanted.argmax(axis=1).tolist()
    assert np.abs(found - wanted).max() < 1e-3
    assert len(set(wanted.argmax(axis=1).tolist())) > 12, "always the same token would prove little"
    assert wanted.std() > 0.5, "a flat distribution would prove little"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_youtu_in_f32_is_transformers(tmp_path: Path, case: Case) -> None:
    check_exact(case.model(), tmp_path)


@pytest.mark.parametrize("model", PLAIN.values(), ids=PLAIN.keys())
def test_qwen2_and_llama_in_f32_are_transformers(tmp_path: Path, model: PreTrainedModel) -> None:
    check_exact(model, tmp_path)


def test_int8_stays_near_f32(tmp_path: Path) -> None:
    """Random models are the hard case: near ties decide the top token."""
    rms, agree = [], []
    for seed, case in enumerate((Case(hidden=128), Case(hidden=128, q_lora_rank=None))):
        model = case.model(seed)
        tokens = torch.randint(3, 300, (200,)).tolist()
        wanted = reference(model, tokens)
        folder = tmp_path / str(seed)
        folder.mkdir()
        found = converted(model, folder, "int8").log_probs(tokens)
        rms.append(float(np.sqrt(((found - wanted) ** 2).mean())))
        agree.append(float((found.argmax(axis=1) == wanted.argmax(axis=1)).mean()))
    # measured: rms 0.044, 0.043; same top token 98, 98 %
    assert max(rms) < 0.1
    assert min(agree) > 0.9


@pytest.mark.parametrize(("group", "expected"), [(0, 1), (64, 2), (32, 4)])
def test_a_group_of_weights_shares_a_scale(group: int, expected: int) -> None:
    """The largest weight of each group is exact, and none is off by more than half a step."""
    rows = np.random.default_rng(0).standard_normal((3, 128)).astype(np.float32)
    values, scales = quantized(rows, group or 128)
    assert scales.shape == (3, expected)
    steps = scales.astype(np.float32).repeat(128 // expected, axis=1)
    assert np.abs(values * steps - rows).max() <= steps.max() * 0.51
    assert np.abs(values.reshape(3, expected, -1)).max(axis=2).min() == 127


def test_a_group_of_zeros_stays_zero() -> None:
    values, scales = quantized(np.zeros((1, 64), np.float32), 32)
    assert not values.any()
    assert not scales.any()
