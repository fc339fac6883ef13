"""Random Youtu models of several shapes, and what transformers computes with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedModel, YoutuConfig, YoutuForCausalLM

PROMPT = [5, 9, 33, 120, 250, 7, 7, 31]
STEPS = 96


@dataclass(frozen=True)
class Case:
    """One random model; the names are those of YoutuConfig."""

    q_lora_rank: int | None = 48
    tied: bool = True
    interleave: bool = True
    eps: float = 1e-6
    hidden: int = 64
    heads: int = 4
    kv_lora_rank: int = 32
    nope: int = 32
    rope: int = 16
    v: int = 32
    layers: int = 3
    theta: float = 10_000.0

    def model(self, seed: int = 0, **config: Any) -> YoutuForCausalLM:
        """Random weights, and norm weights between 0.5 and 1.5, so that a norm in the wrong place shows.

        config: further values of YoutuConfig.
        """
        torch.manual_seed(seed)
        settings = YoutuConfig(
            hidden_size=self.hidden,
            intermediate_size=self.hidden * 3 // 2,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            kv_lora_rank=self.kv_lora_rank,
            q_lora_rank=self.q_lora_rank,
            qk_rope_head_dim=self.rope,
            v_head_dim=self.v,
            qk_nope_head_dim=self.nope,
            max_position_embeddings=512,
            rms_norm_eps=self.eps,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=self.tied,
            rope_parameters={"rope_type": "default", "rope_theta": self.theta},
            rope_interleave=self.interleave,
            **({"vocab_size": 300} | config),
        )
        model = YoutuForCausalLM(settings)
        model.train(False)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter.copy_(torch.rand_like(parameter) + 0.5)
        return model


CASES = {
    "as published, small": Case(),
    "full-rank query": Case(q_lora_rank=None),
    "untied": Case(tied=False),
    "untied, full-rank query": Case(tied=False, q_lora_rank=None),
    "rope in halves": Case(interleave=False),
    "rope in halves, full-rank query": Case(interleave=False, q_lora_rank=None, tied=False),
    "epsilon 1e-5": Case(eps=1e-5),
    "epsilon 1e-2": Case(eps=1e-2, q_lora_rank=40),
    "rope wider than nope": Case(rope=64, nope=16),
    "narrow rope, many heads, large theta": Case(rope=2, heads=8, theta=1_600_000.0),
    "one head": Case(heads=1),
    "odd sizes": Case(hidden=72, heads=3, kv_lora_rank=20, nope=12, rope=6, v=10, q_lora_rank=28),
    "value wider than key": Case(v=80, nope=8, rope=8),
    "26 layers with a full-rank query": Case(layers=26, q_lora_rank=None, hidden=32, heads=2),
}


def reference(model: PreTrainedModel, tokens: list[int]) -> npt.NDArray[np.float64]:
    """Next-token log-probabilities of transformers after each token [n, vocab]."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    rows: npt.NDArray[np.float64] = torch.log_softmax(logits, dim=-1).numpy()
    return rows
