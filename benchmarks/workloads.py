"""The prompts: an endless, seeded series of questions of one kind.

    fixed    every prompt of `input_tokens` and every answer of exactly `output_tokens`: for speed
    service  a shop's customers: short in, short out, one system prompt for all of them
    long     long prompts, short answers: what prefill costs
    PATH     a .jsonl file of one's own: {"prompt" or "messages", optionally "max_tokens"} a line, repeated

Each question begins with a number of its own, because a prompt that was read before is served from the prefix
cache and flatters the time to the first token; `unique=False` leaves it out, to measure just that. Lengths in
tokens are the server's business: `Filler.calibrated` asks it for its count twice and needs no tokenizer.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KINDS = ("fixed", "service", "long")
Messages = list[dict[str, str]]

WORDS = ("order", "快递", "refund", "尺码")  # of like length, so that n of them are of one length in tokens
SERVICE_SYSTEM = (
    "你是一家网上商店的客服。回答要简短、客气、准确；不知道的事就说不知道，并请顾客留下联系方式。"
    "You are the support desk of an online shop. Answer briefly, politely and exactly."
)
SERVICE_QUESTIONS = (
    "我的包裹三天没有更新了，能帮我看看到哪里了吗？",
    "这件外套可以换大一号吗？吊牌还在。",
    "发票抬头写错了，怎么重新开？",
    "优惠券显示已过期，可是我昨天才领的。",
    "充电器用了两天就坏了，保修怎么办理？",
    "能不能改收货地址？我周末不在家。",
    "付款成功了，订单还显示未支付。",
    "你们周日营业吗？门店可以自提吗？",
    "Where is my parcel? The tracking page has not changed since Monday.",
    "Can I return shoes that I tried on at home once?",
    "I was charged twice for the same order. What now?",
    "Do you ship to a parcel station, and what does it cost?",
    "The blue one is out of stock. When will it be back?",
    "How do I change the e-mail address of my account?",
    "My coupon is refused at checkout although it is still valid.",
    "The screen arrived with a scratch. Do I get a new one or my money back?",
)
SERVICE_MAX_TOKENS = 200


@dataclass(frozen=True)
class Question:
    """A conversation to be answered, in at most `max_tokens` tokens; in exactly so many, chosen as `sampling`
    says, when `exact`.
    """

    messages: Messages
    max_tokens: int
    exact: bool = False
    sampling: str = "greedy"


@dataclass(frozen=True)
class Filler:
    """How long a text of n words is in this model's tokens: `overhead` + `per_word` * n."""

    per_word: float
    overhead: float

    @classmethod
    def calibrated(cls, count_tokens: Callable[[Messages], int]) -> Filler:
        """Ask the server twice. `count_tokens` returns the length of the prompt that the messages become."""
        few, many = 4, 12
        short, long = (count_tokens(_asked(prose(random.Random(0), n))) for n in (few, many))  # noqa: S311
        per_word = (long - short) / (many - few)
        if per_word <= 0:
            raise ValueError(f"{many} words are {long} tokens and {few} are {short}: no length can be set")
        return cls(per_word, short - few * per_word)

    def words(self, tokens: int) -> int:
        """Words that make a prompt of about `tokens` tokens, template included; at least one."""
        return max(1, round((tokens - self.overhead) / self.per_word))


def prose(source: random.Random, words: int) -> str:
    """A number of five digits and so many words, in no order that means anything."""
    text = [word for word, _ in zip(itertools.cycle(WORDS), range(words), strict=False)]
    source.shuffle(text)
    return f"{source.randrange(10_000, 100_000)} {' '.join(text)}"


def fixed(
    filler: Filler,
    lengths: Iterator[tuple[int, int]],
    *,
    seed: str = "0",
    unique: bool = True,
    sampling: str = "greedy",
) -> Iterator[Question]:
    """Prompts and answers of so many tokens each (`shared_load.Rung.lengths`)."""
    for number, (input_tokens, output_tokens) in enumerate(lengths):
        source = random.Random(f"{seed} {number if unique else 0}")  # noqa: S311
        text = prose(source, filler.words(input_tokens))
        yield Question(_asked(text), output_tokens, exact=True, sampling=sampling)


def service(*, seed: int = 0, unique: bool = True) -> Iterator[Question]:
    """Customers' questions under one system prompt."""
    source = random.Random(seed)  # noqa: S311
    for number in itertools.count(10_000):
        text = source.choice(SERVICE_QUESTIONS)
        if unique:
            text = f"({number}) {text}"
        system = {"role": "system", "content": SERVICE_SYSTEM}
        yield Question([system, *_asked(text)], SERVICE_MAX_TOKENS)


def from_file(path: Path, *, max_tokens: int, unique: bool = True) -> Iterator[Question]:
    """The questions of a .jsonl file, again and again. ValueError names the line that is none."""
    questions = [_from_line(path, number, line, max_tokens) for number, line in _lines(path)]
    if not questions:
        raise ValueError(f"{path} holds no question")
    for number, question in enumerate(itertools.cycle(questions)):
        if unique:
            *before, last = question.messages
            last = {**last, "content": f"({number}) {last['content']}"}
            question = Question([*before, last], question.max_tokens)
        yield question


def _asked(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            yield number, line


def _from_line(path: Path, number: int, line: str, max_tokens: int) -> Question:
    try:
        value: Any = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path}, line {number}: not JSON: {error}") from None
    value = value if isinstance(value, dict) else {}
    messages: Any = value.get("messages")
    if messages is None and isinstance(value.get("prompt"), str):
        messages = _asked(value["prompt"])
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        raise ValueError(f"{path}, line {number}: neither a prompt nor a list of messages")
    limit = value.get("max_tokens", max_tokens)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise ValueError(f"{path}, line {number}: max_tokens must be a whole number above 0, not {limit!r}")
    return Question(messages, limit)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("content"), str) and "role" in value
