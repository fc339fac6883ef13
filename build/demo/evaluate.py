"""How well the demonstration answers: `python -m build.demo.evaluate --server localhost:8001`.

Asks a running server, or the checkpoint in this process, in groups of questions, each of them once per seed;
prints a line of shares per group and ends with status 1 when a bar is missed. Each seed asks in the manner of
another of the page's presets: no system prompt with the served defaults, or a preset's system prompt with its
sampling. An answer is right when it is so to the last character, and wrong when it is neither right nor a
refusal. To this module a model is a callable from messages to text.
"""

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from build.demo.conversations import (
    PRESETS,
    REFUSALS,
    Fact,
    Message,
    exchange,
    language,
    load_corpus,
    load_off_topic,
    load_paraphrases,
    said,
)
from build.demo.variation import NARROW, WIDE, misspelt, polite, varied

Generate = Callable[..., str]
GREEDY: dict[str, Any] = {"temperature": 0.0, "repetition_penalty": 1.0}
MAX_TOKENS = 400
TURNS = 5

# Least share of right answers. Wrong ones: at most one in a hundred over all groups.
BARS = {
    "corpus": 1.0,
    "other ways": 0.98,
    "one wrong character": 0.9,
    "paraphrases": 0.9,
    "off topic": 0.97,
    "five turns": 0.98,
}
MOST_WRONG = 0.01


@dataclass
class Shares:
    """How many answers of a group were right and refused, and the questions with a wrong one."""

    asked: int = 0
    right: int = 0
    declined: int = 0
    wrong: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def count(self, question: str, answer: str, expected: list[str]) -> None:
        """Judge `answer`, which is right when it is one of `expected`."""
        self.asked += 1
        if answer in expected:
            self.right += 1
        elif answer in REFUSALS.values():
            self.declined += 1
            self.missed.append(question)
        else:
            self.wrong.append(question)


@dataclass(frozen=True)
class Chat:
    """Questions of one conversation, asked one after the other, and the answers that are right for each."""

    group: str
    questions: list[str]
    expected: list[list[str]]


def chats(seed: int, facts: tuple[Fact, ...] | None = None) -> Iterator[Chat]:
    """All that is asked under one seed; `facts` defaults to the corpus."""
    facts = load_corpus() if facts is None else facts
    rng = random.Random(seed)  # noqa: S311
    typings: list[Callable[[str], str]] = [
        str,
        lambda text: text.translate(WIDE),
        lambda text: text.translate(NARROW),
        lambda text: text.rstrip("。.?!？！"),
    ]
    typing = typings[seed // len(PRESETS) % len(typings)]
    ways: dict[str, str] = {}
    for fact in facts:
        yield Chat("corpus", [typing(fact.question)], [[fact.answer]])
        text = said(rng.choice(fact.asked), rng)
        if not fact.small_talk and rng.random() < 0.5:
            text = polite(text, rng)
        ways[fact.id] = varied(text, rng)
        yield Chat("other ways", [ways[fact.id]], [[fact.answer]])
        yield Chat("one wrong character", [misspelt(fact.question, rng)], [[fact.answer]])
    paraphrases, off_topic = load_paraphrases(), load_off_topic()
    for fact in facts:
        for text in paraphrases[fact.id]:
            yield Chat("paraphrases", [text], [[fact.answer]])
    refusals = list(REFUSALS.values())
    others = [text for texts in off_topic.values() for text in texts]
    for text in others:
        yield Chat("off topic", [text], [refusals])
    for lang in ("zh", "en"):
        own = [fact for fact in facts if fact.lang == lang]
        rng.shuffle(own)
        for i in range(0, len(own) - TURNS + 1, TURNS):
            questions = [ways[fact.id] for fact in own[i : i + TURNS]]
            expected = [[fact.answer] for fact in own[i : i + TURNS]]
            at = rng.randrange(2 * TURNS)  # in half of them one turn is off topic
            if at < TURNS:
                questions[at], expected[at] = rng.choice(off_topic[lang]), refusals
            yield Chat("five turns", questions, expected)


def measure(
    generate: Generate, seeds: int, *, callers: int = 1, facts: tuple[Fact, ...] | None = None
) -> dict[str, Shares]:
    """Ask everything once per seed, by `callers` threads; shares by group.

    `generate(messages, **sampling)` returns the answer's text to `messages` ({"role", "content"} each).
    """
    shares = {group: Shares() for group in BARS}

    def ask(chat: Chat, seed: int) -> list[str]:
        systems, sampling = PRESETS[seed % len(PRESETS)]
        messages: list[Message] = []
        if system := systems.get(language(chat.questions[0])):
            messages.append({"role": "system", "content": system})
        answers = []
        for question in chat.questions:
            messages += exchange(question, "")[:1]
            answers.append(generate(messages, seed=seed, **sampling))
            messages += exchange(question, answers[-1])[1:]
        return answers

    with ThreadPoolExecutor(callers) as pool:
        for seed in range(seeds):
            asked = list(chats(seed, facts))
            for chat, answers in zip(asked, pool.map(lambda one, s=seed: ask(one, s), asked), strict=True):
                for question, answer, expected in zip(chat.questions, answers, chat.expected, strict=True):
                    shares[chat.group].count(question, answer, expected)
    return shares


def report(shares: dict[str, Shares]) -> bool:
    """Print a line per group and one line of JSON; whether every bar is met."""
    met = True
    for group, share in shares.items():
        right, wrong = share.right / share.asked, len(share.wrong) / share.asked
        met = met and right >= BARS[group]
        sys.stdout.write(
            f"{group:20} {share.asked:6} asked  {right:8.2%} right (at least {BARS[group]:.0%})"
            f"  {share.declined / share.asked:7.2%} declined  {wrong:7.2%} wrong\n"
        )
    asked = sum(share.asked for share in shares.values())
    wrong = sum(len(share.wrong) for share in shares.values()) / asked
    met = met and wrong <= MOST_WRONG
    sys.stdout.write(f"{'all':20} {asked:6} asked  {wrong:.2%} wrong (at most {MOST_WRONG:.0%})\n")
    facts: dict[str, Any] = {"met": met, "asked": asked, "wrong": wrong}
    for group, share in shares.items():
        facts[group] = {
            "right": share.right / share.asked,
            "wrong": sorted(set(share.wrong)),
            "declined": sorted(set(share.missed)),
        }
    sys.stdout.write(json.dumps(facts, ensure_ascii=False) + "\n")
    return met


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
    parser = argparse.ArgumentParser(description="Measure how well the demonstration answers.")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", metavar="HOST:PORT", help="gRPC address of a running server")
    where.add_argument("--checkpoint", type=Path, help="folder of a checkpoint to run in this process")
    parser.add_argument("--seeds", type=int, default=20, help="rounds of questions (default: %(default)s)")
    options = parser.parse_args()
    generate = ask_server(options.server) if options.server else ask_checkpoint(options.checkpoint)
    return 0 if report(measure(generate, options.seeds, callers=8 if options.server else 1)) else 1


if __name__ == "__main__":
    sys.exit(main())
