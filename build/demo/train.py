"""Train the demonstration checkpoint: `python -m build.demo.train` writes `build/demo/checkpoint/` again.

Deterministic: the same packages on the same kind of processor give the same weights. Ends with an error, and
writes nothing, when the model does not recite well enough. Needs torch and transformers; serving never does.
Where other programs want the same cores, OMP_WAIT_POLICY=PASSIVE in the environment keeps its threads from
spinning.
"""

import argparse
import copy
import json
import math
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, YoutuForCausalLM

from build.demo import model as network
from build.demo.conversations import HERE, REFUSALS, load_corpus, load_held_out
from build.demo.rows import Texts, batches
from build.demo.tokens import BOS, EOS, chat_tokens, make_tokenizer, save_tokenizer, token_id

CHECKPOINT = HERE / "checkpoint"
STEPS = 600
SEED = 20
PEAK_RATE = 2e-3
WARM_UP = 50
NOISE = 0.02
LEAST_EXACT = 0.97
LEAST_DECLINED = 0.90


@dataclass(frozen=True)
class Shares:
    """Shares in 0..1 of greedy answers right to the last token, plain and with the repetition penalty."""

    exact: float
    exact_penalised: float
    declined: float
    declined_penalised: float


def train(steps: int, tokenizer: Tokenizer, *, schedule: int = STEPS) -> YoutuForCausalLM:
    """Train for the first `steps` of `schedule` steps; returns the model in f32. Progress goes to stderr."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    # Filling every fresh tensor costs a tenth of the time; nothing here reads one before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    noise = torch.Generator().manual_seed(SEED)
    model = network.make_model(tokenizer.get_vocab_size(), token_id(tokenizer, BOS), token_id(tokenizer, EOS))
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    rows = batches(Texts(), tokenizer, SEED)
    start = time.monotonic()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * rate(step, schedule)
        ids, written = next(rows)
        before = network.add_noise(model, NOISE, noise)
        loss = network.loss(model, ids, written)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        network.restore(model, before)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 19:
            spent = time.monotonic() - start
            sys.stderr.write(f"step {step + 1}/{schedule}  loss {loss.item():.4f}  {spent:.0f} s\n")
            sys.stderr.flush()
    return model


def rate(step: int, schedule: int) -> float:
    """Learning rate at `step` as a share of the peak: linear warm-up, then a cosine down to zero."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / max(1, schedule - WARM_UP)))


def measure(model: YoutuForCausalLM, tokenizer: Tokenizer) -> Shares:
    """Greedy shares over every answer of the corpus and every held-out question."""
    model.train(False)

    def score(chats: list[list[dict[str, str]]]) -> tuple[float, float]:
        right = []
        for messages in chats:
            ids, written = chat_tokens(tokenizer, messages)
            last = len(written) - written[::-1].index(False)
            only_last = [False] * last + written[last:]
            right.append(network.recites(model, torch.tensor([ids]), torch.tensor([only_last])))
        return sum(plain for plain, _ in right) / len(right), sum(penalised for _, penalised in right) / len(
            right
        )

    exact = score(
        [
            [*messages, {"role": "assistant", "content": answer}]
            for conversation in load_corpus()
            for messages, answer in conversation.exchanges()
        ]
    )
    declined = score(
        [
            [
                {"role": "user", "content": item.question},
                {"role": "assistant", "content": REFUSALS[item.lang]},
            ]
            for item in load_held_out()
        ]
    )
    return Shares(*exact, *declined)


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
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="length of the schedule (default: %(default)s)"
    )
    options = parser.parse_args()
    tokenizer = make_tokenizer()
    model = train(options.steps, tokenizer, schedule=options.steps)
    model.bfloat16().float()
    int8 = copy.deepcopy(model)
    network.round_to_int8(int8)
    shares = {"bf16": measure(model, tokenizer), "int8 weights": measure(int8, tokenizer)}
    for name, share in shares.items():
        sys.stdout.write(json.dumps({"weights": name, **vars(share)}) + "\n")
    worst_exact = min(share.exact for share in shares.values())
    worst_declined = min(share.declined for share in shares.values())
    if worst_exact < LEAST_EXACT or worst_declined < LEAST_DECLINED:
        sys.stderr.write(
            f"nothing written: {worst_exact:.3f} of the corpus is exact (least {LEAST_EXACT}), "
            f"{worst_declined:.3f} of the held-out questions are declined (least {LEAST_DECLINED})\n"
        )
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save(model, tokenizer, options.out)
    sys.stdout.write(f"{options.out}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
