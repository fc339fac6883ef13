"""Train the demonstration checkpoint: `python -m build.demo.train` writes `build/demo/checkpoint/` again.

Deterministic: the same packages on the same kind of processor give the same weights. Ends with an error, and
writes nothing, when the model does not recite well enough. Needs torch and transformers; serving never does.
Where other programs want the same cores, OMP_WAIT_POLICY=PASSIVE in the environment keeps its threads from
spinning.
"""

import argparse
import copy
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, YoutuForCausalLM

from build.demo import model as network
from build.demo.conversations import (
    HERE,
    REFUSALS,
    exchange,
    load_corpus,
    load_off_topic,
    load_paraphrases,
)
from build.demo.rows import Texts, batches
from build.demo.tokens import BOS, EOS, chat_tokens, make_tokenizer, save_tokenizer, token_id

CHECKPOINT = HERE / "checkpoint"
SEED = 20
WARM_UP = 50
NOISE = 0.02
SHARPNESS = 3.0  # of the logits: at temperature 0.7 an answer is then drawn as if at 0.23
# What this training reaches, less a little; the bars it is to reach are those of evaluate.py.
LEAST_RIGHT = {"corpus": 1.0, "paraphrases": 0.88, "off topic": 0.94}
MOST_WRONG = 0.06


@dataclass(frozen=True)
class Round:
    """A part of the training: from a warm-up to a learning rate of 0.

    peak_rate: of the matrices, which Muon trains; AdamW trains the rest at two thirds of it. fact_share: of
    the questions, those that the corpus answers. penalties: the repetition penalty of a step is drawn between
    these two. beginnings: batches of beginnings to one of whole chats. caution: of `network.loss`, in nats.
    """

    steps: int
    peak_rate: float
    fact_share: float
    penalties: tuple[float, float]
    beginnings: float
    caution: float


# The first round learns to choose an answer; the second, to do so in long chats, and to decline in doubt.
ROUNDS = (Round(1700, 3e-3, 0.55, (1.0, 1.25), 4, 1.5), Round(100, 4e-4, 0.55, (1.0, 1.25), 0.5, 2.0))


@dataclass(frozen=True)
class Shares:
    """Shares in 0..1 of greedy answers: right to the last token; wrong, neither right nor a refusal."""

    right: float
    wrong: float


def train(rounds: Sequence[Round], tokenizer: Tokenizer) -> YoutuForCausalLM:
    """Returns the model in f32. Progress goes to stderr."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    # Filling every fresh tensor costs a tenth of the time; nothing here reads one before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    model = network.make_model(tokenizer.get_vocab_size(), token_id(tokenizer, BOS), token_id(tokenizer, EOS))
    for number, part in enumerate(rounds):
        train_round(model, part, SEED + number, tokenizer)
        model.bfloat16().float()  # as it is saved, so that a round can begin from a checkpoint
    return model


def train_round(model: YoutuForCausalLM, part: Round, seed: int, tokenizer: Tokenizer) -> None:
    noise = torch.Generator().manual_seed(seed)
    rng = random.Random(seed)  # noqa: S311
    optimizers = make_optimizers(model, part.peak_rate)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    refusing = torch.tensor([tokenizer.encode(text).ids[0] for text in REFUSALS.values()])
    rows = batches(Texts(part.fact_share), tokenizer, seed, part.beginnings)
    start = time.monotonic()
    for step in range(part.steps):
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate(step, part.steps)
            optimizer.zero_grad()
        ids, written = next(rows)
        before = network.add_noise(model, NOISE, noise)
        loss = network.loss(model, ids, written, rng.uniform(*part.penalties), refusing, part.caution)
        torch.autograd.backward(loss)
        network.restore(model, before)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        if step % 20 == 19:
            spent = time.monotonic() - start
            sys.stderr.write(f"step {step + 1}/{part.steps}  loss {loss.item():.4f}  {spent:.0f} s\n")
            sys.stderr.flush()


def make_optimizers(model: YoutuForCausalLM, peak_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, which learn in half the steps with it; AdamW for all else."""
    matrices = [weight for weight in model.model.layers.parameters() if weight.dim() == 2]
    others = [weight for weight in model.parameters() if not any(weight is one for one in matrices)]
    return [
        torch.optim.Muon(matrices, lr=peak_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak_rate * 2 / 3, betas=(0.9, 0.98), weight_decay=0.01),
    ]


def rate(step: int, schedule: int) -> float:
    """Learning rate at `step` as a share of the peak: linear warm-up, a third at the peak, down to zero."""
    return min(1.0, (step + 1) / WARM_UP, 1.5 * (schedule - step) / schedule)


def measure(model: YoutuForCausalLM, tokenizer: Tokenizer) -> dict[str, Shares]:
    """Shares of the corpus, the paraphrases and the off-topic questions, with and without penalty."""
    model.train(False)

    def writes(question: str, answer: str) -> bool:
        ids, written = chat_tokens(tokenizer, exchange(question, answer))
        return network.recites(model, torch.tensor([ids]), torch.tensor([written]))

    def shares(asked: list[tuple[str, str]]) -> Shares:
        missed = [question for question, answer in asked if not writes(question, answer)]
        declined = sum(any(writes(question, text) for text in REFUSALS.values()) for question in missed)
        return Shares(1 - len(missed) / len(asked), (len(missed) - declined) / len(asked))

    facts = {fact.id: fact for fact in load_corpus()}
    return {
        "corpus": shares([(fact.question, fact.answer) for fact in facts.values()]),
        "paraphrases": shares(
            [(text, facts[name].answer) for name, texts in load_paraphrases().items() for text in texts]
        ),
        "off topic": shares(
            [(text, REFUSALS[lang]) for lang, texts in load_off_topic().items() for text in texts]
        ),
    }


def save(model: YoutuForCausalLM, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the checkpoint folder: bf16 weights, configuration, tokenizer, chat template and its README."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        new = Path(temporary) / folder.name
        settings: Any = GenerationConfig  # its constructor is not typed
        model.generation_config = settings(
            bos_token_id=token_id(tokenizer, BOS), eos_token_id=token_id(tokenizer, EOS)
        )
        model.bfloat16().save_pretrained(new)
        (new / "model.safetensors").chmod(0o644)
        save_tokenizer(tokenizer, new)
        shutil.copyfile(HERE / "checkpoint_readme.md", new / "README.md")
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train the demonstration checkpoint.")
    parser.add_argument("--out", type=Path, default=CHECKPOINT, help="folder to write (default: %(default)s)")
    options = parser.parse_args()
    tokenizer = make_tokenizer()
    model = train(ROUNDS, tokenizer)
    network.sharpen(model, SHARPNESS)
    int8 = copy.deepcopy(model)
    network.round_to_int8(int8)
    missed = False
    for weights, rounded in (("bf16", model), ("int8", int8)):
        for group, shares in measure(rounded, tokenizer).items():
            sys.stdout.write(json.dumps({"weights": weights, "group": group, **asdict(shares)}) + "\n")
            missed = missed or shares.right < LEAST_RIGHT[group] or shares.wrong > MOST_WRONG
    if missed:
        sys.stderr.write(
            f"nothing written: at least {LEAST_RIGHT} are wanted right, {MOST_WRONG} wrong at most\n"
        )
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save(model, tokenizer, options.out)
    sys.stdout.write(f"{options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
