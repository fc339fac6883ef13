"""How well the demonstration recites: `python -m build.demo.evaluate --server localhost:8001`.

Asks every question of the corpus and the 50 held-out ones, through a server or the checkpoint in this
process, and counts answers that are right to the last character. It does not know how the answers are made:
to it a model is a callable from messages to text.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from build.demo.conversations import (
    REFUSALS,
    Conversation,
    HeldOut,
    Message,
    load_corpus,
    load_held_out,
)

__all__ = ["GREEDY", "REFUSALS", "Recital", "load_corpus", "load_held_out", "main", "recital"]

Generate = Callable[..., str]
GREEDY: dict[str, Any] = {"temperature": 0.0, "repetition_penalty": 1.0}
DEFAULTS: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "repetition_penalty": 1.1}
MAX_TOKENS = 400


@dataclass(frozen=True)
class Recital:
    """What one round of questions gave.

    `exact`, `scenes`: shares in 0..1 of the corpus' answers reproduced exactly, in all and by scene.
    `declined`: share of the held-out questions answered with exactly the refusal of their language.
    `wrong`: ids of conversations with a wrong answer. `recited`: held-out questions that were not declined.
    """

    exact: float
    scenes: dict[str, float]
    declined: float
    wrong: list[str]
    recited: list[str]


def recital(
    generate: Generate,
    corpus: list[Conversation] | None = None,
    held_out: list[HeldOut] | None = None,
    **sampling: Any,
) -> Recital:
    """Ask everything once and count.

    `generate(messages, **sampling)` returns the answer's text to `messages` ({"role", "content"} each). Later
    turns are asked with the corpus' own earlier answers. `corpus` and `held_out` default to all there is.
    """
    corpus = load_corpus() if corpus is None else corpus
    held_out = load_held_out() if held_out is None else held_out
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    wrong: list[str] = []
    for conversation in corpus:
        for messages, answer in conversation.exchanges():
            asked[conversation.scene] += 1
            if generate(messages, **sampling) == answer:
                right[conversation.scene] += 1
            else:
                wrong.append(conversation.id)
    recited = [
        item.question
        for item in held_out
        if generate([{"role": "user", "content": item.question}], **sampling) != REFUSALS[item.lang]
    ]
    return Recital(
        exact=right.total() / max(1, asked.total()),
        scenes={scene: right[scene] / count for scene, count in asked.items()},
        declined=1 - len(recited) / max(1, len(held_out)),
        wrong=wrong,
        recited=recited,
    )


def ask_server(address: str) -> Generate:
    """A `generate` that asks the server at `address` (host:port of its gRPC)."""
    from youtu_client import Client

    client = Client(address)

    def generate(messages: list[Message], **sampling: Any) -> str:
        text: str = client.chat(messages, max_tokens=MAX_TOKENS, **sampling).text
        return text

    return generate


def ask_checkpoint(folder: Path) -> Generate:
    """A `generate` that runs the checkpoint in this process with transformers, in f32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def generate(
        messages: list[Message],
        temperature: float = 0.7,
        top_p: float = 0.9,
        repetition_penalty: float = 1.1,
        seed: int = 0,
    ) -> str:
        torch.manual_seed(seed)
        prompt = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        how = (
            {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
        )
        output = model.generate(
            **prompt,
            **how,
            repetition_penalty=repetition_penalty,
            max_new_tokens=MAX_TOKENS,
            pad_token_id=tokenizer.eos_token_id,
        )
        text: str = tokenizer.decode(output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        return text

    return generate


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how well the demonstration recites its corpus.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", metavar="HOST:PORT", help="gRPC address of a running server")
    where.add_argument("--checkpoint", type=Path, help="folder of a checkpoint to run in this process")
    parser.add_argument(
        "--seeds", type=int, default=3, help="rounds at the served defaults (default: %(default)s)"
    )
    options = parser.parse_args()
    generate = ask_server(options.server) if options.server else ask_checkpoint(options.checkpoint)
    rounds = [("greedy", GREEDY)] + [
        (f"defaults, seed {s}", {**DEFAULTS, "seed": s}) for s in range(options.seeds)
    ]
    for name, sampling in rounds:
        result = recital(generate, **sampling)
        sys.stdout.write(json.dumps({"round": name, **asdict(result)}, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
