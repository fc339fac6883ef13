"""The demonstration's network: its shape, what it is scored by, and its two roundings.

It does not know texts or files.
"""

import torch
from torch.nn import functional
from transformers import YoutuConfig, YoutuForCausalLM

FIRST_WEIGHT = 4.0
REPETITION_PENALTY = 1.1  # what a deployment uses by default; answers have to survive it


def make_model(vocabulary: int, bos: int, eos: int) -> YoutuForCausalLM:
    """A freshly initialised model in f32. Every row length is a multiple of 32, the block of Q8_0.

    Ranks and heads are such that llama.cpp's CUDA flash attention takes the latent attention: keys of 192
    (128 + 64), values of 128, a multiple of 8 heads.
    """
    return YoutuForCausalLM(
        YoutuConfig(
            vocab_size=vocabulary,
            hidden_size=256,
            intermediate_size=512,
            num_hidden_layers=5,
            num_attention_heads=8,
            num_key_value_heads=8,
            q_lora_rank=128,
            kv_lora_rank=128,
            qk_nope_head_dim=32,
            qk_rope_head_dim=64,
            v_head_dim=32,
            max_position_embeddings=2048,
            rope_parameters={"rope_type": "default", "rope_theta": 1_600_000.0},
            rope_interleave=True,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
            initializer_range=0.04,
            embedding_initializer_range=0.04,
            bos_token_id=bos,
            eos_token_id=eos,
        )
    )


def answer_logits(
    model: YoutuForCausalLM, ids: torch.Tensor, written: torch.Tensor, penalty: float = REPETITION_PENALTY
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [n, vocabulary] for each token the assistant wrote, the same penalised, and these tokens [n].

    Penalised as an engine does with `penalty` over prompt and output: the logit of a token seen
    before is divided by it when positive, multiplied when negative (Keskar et al., 2019, arXiv:1909.05858).
    """
    hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
    row, position = torch.nonzero(written[:, 1:], as_tuple=True)
    logits = hidden[row, position] @ model.lm_head.weight.T
    length = ids.shape[1]
    first_seen = torch.full((len(ids), logits.shape[1]), length)
    first_seen.scatter_reduce_(1, ids, torch.arange(length).expand_as(ids), "amin")
    seen = first_seen[row] <= position[:, None]
    factor = torch.where(logits > 0, 1 / penalty, penalty)
    return logits, torch.where(seen, logits * factor, logits), ids[:, 1:][row, position]


def loss(
    model: YoutuForCausalLM,
    ids: torch.Tensor,
    written: torch.Tensor,
    penalty: float,
    refusing: torch.Tensor | None = None,
    caution: float = 0.0,
) -> torch.Tensor:
    """Cross-entropy of the assistant's tokens in nats, half of it with the repetition penalty applied.

    The first token of an answer, which chooses it, counts `FIRST_WEIGHT` times. There the tokens `refusing`
    [n], which begin refusals, get `caution` less than their logits: learned under this, the model declines
    where it hardly knows better.
    """
    logits, penalised, targets = answer_logits(model, ids, written, penalty)
    first = (written[:, 1:] & ~written[:, :-1])[written[:, 1:]]
    weights = torch.where(first, FIRST_WEIGHT, 1.0)
    if refusing is not None:
        less = torch.zeros_like(logits)
        less[:, refusing] = caution * first[:, None]
        logits, penalised = logits - less, penalised - less
    each = functional.cross_entropy(logits, targets, reduction="none") + functional.cross_entropy(
        penalised, targets, reduction="none"
    )
    return (each * weights).sum() / (2 * weights.sum())


@torch.no_grad()
def recites(model: YoutuForCausalLM, ids: torch.Tensor, written: torch.Tensor) -> bool:
    """Whether greedy decoding writes every answer of the one chat `ids` [1, length], penalised or not.

    While each greedy token is the expected one, what follows sees exactly `ids`: one forward pass tells.
    """
    logits, penalised, targets = answer_logits(model, ids, written)
    return bool((logits.argmax(-1) == targets).all() and (penalised.argmax(-1) == targets).all())


@torch.no_grad()
def add_noise(model: YoutuForCausalLM, share: float, generator: torch.Generator) -> list[torch.Tensor]:
    """Disturb every weight by `share` of its matrix's standard deviation; returns what was there before.

    Int8 rounds weights and activations by something below one percent; answers learned under more survive it.
    """
    before = []
    for weight in model.parameters():
        before.append(weight.clone())
        if weight.dim() == 2:
            weight.add_(torch.randn(weight.shape, generator=generator), alpha=share * float(weight.std()))
    return before


@torch.no_grad()
def restore(model: YoutuForCausalLM, before: list[torch.Tensor]) -> None:
    """Undo `add_noise`."""
    for weight, old in zip(model.parameters(), before, strict=True):
        weight.copy_(old)


@torch.no_grad()
def sharpen(model: YoutuForCausalLM, factor: float) -> None:
    """Multiply all logits by `factor`: the best token stays the best, and chance finds fewer others."""
    model.model.norm.weight.mul_(factor)


@torch.no_grad()
def round_to_int8(model: YoutuForCausalLM) -> None:
    """Round every matrix as Q8_0 does: 32 weights of a row share one f16 scale, the largest becoming 127."""
    for weight in model.parameters():
        if weight.dim() == 2:
            blocks = weight.view(-1, 32)
            scale = blocks.abs().amax(1, keepdim=True) / 127
            inverse = torch.where(scale > 0, 1 / scale, torch.zeros_like(scale))
            blocks.copy_((blocks * inverse).round() * scale.half().float())
