"""Random Youtu models of transformers, with weights that fit bf16, and their converted checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import YoutuForCausalLM

from build.tensorrt_llm.convert import convert
from tests.build import youtu_models
from tests.build.checkpoints import SMALL, write

VOCABULARY = SMALL.vocab_size


@dataclass(frozen=True)
class Case(youtu_models.Case):
    """One shape. `nope` + `rope` is a head size of the attention plugin."""

    q_lora_rank: int = 48
    theta: float = 1_600_000.0

    def model(self, seed: int = 0, **config: Any) -> YoutuForCausalLM:
        """Random weights that fit bf16."""
        given = {"vocab_size": VOCABULARY, "initializer_range": 0.1, "embedding_initializer_range": 0.5}
        model = super().model(seed, **(given | config))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.bfloat16())
        return model


CASES = {
    "as published, small": Case(),
    "true head: 128 + 64 / 128": Case(nope=128, rope=64, v=128, heads=2, layers=2),
    "rope in halves": Case(interleave=False),
    "untied": Case(tied=False),
    "epsilon 1e-2": Case(eps=1e-2),
    "rope wider than nope": Case(nope=16, rope=32, v=24, theta=10_000.0),
    "value as wide as key": Case(v=48),
    "one head, odd ranks": Case(heads=1, q_lora_rank=37, kv_lora_rank=29, hidden=72),
}


def checkpoint_of(model: YoutuForCausalLM, folder: Path, kv_scales: list[float] | None = None) -> Path:
    """The converted checkpoint of a model, with the tokenizer of a random one."""
    tokenizer = write(folder / "tokenizer", SMALL)
    model.save_pretrained(folder / "hf")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tokenizer / name).rename(folder / "hf" / name)
    return convert(folder / "hf", folder / "ckpt", max_positions=512, kv_scales=kv_scales).path


@torch.no_grad()
def wanted_logits(model: YoutuForCausalLM, tokens: list[int]) -> torch.Tensor:
    """Logits of transformers after each token [tokens, vocabulary]."""
    logits: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return logits


def distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference of any logit, relative to the largest logit of its row."""
    return float(((found - wanted).abs().amax(-1) / wanted.abs().amax(-1)).max())


def random_tokens(count: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    tokens: list[int] = torch.randint(3, VOCABULARY, (count,), generator=generator).tolist()
    return tokens
