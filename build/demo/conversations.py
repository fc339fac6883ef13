"""The demonstration's texts: what it recites, what it declines, and the sentence it declines with.

Plain data and plain Python: no torch, no tokenizer, so that tests of other rooms can ask for the questions.
It does not know how the model is trained on them.

`corpus/*.toml` holds the facts: an answer, and the ways of asking for it. A way is a text with alternatives
in brackets, `[how do I|how can I] return [it|an item]`; the first way is plain and is what examples show.
"""

import itertools
import json
import math
import random
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tomllib

HERE = Path(__file__).parent
Message = dict[str, str]
Parts = list[list[str]]

REFUSALS = {
    "zh": "这是一个演示模型，只会背诵示例问题的答案；真实模型请用 MODEL=tencent/Youtu-LLM-2B 启动。",
    "en": "This is a demonstration model that only recites answers to its sample questions; "
    "for the real model, start with MODEL=tencent/Youtu-LLM-2B.",
}

# The page's presets (frontend/static/presets.js, strings.js): system prompt by language, and sampling.
PRESETS: list[tuple[dict[str, str], dict[str, float]]] = [
    ({}, {}),
    (
        {
            "zh": "你是本店的客服，回答要热情、简短。",
            "en": "You are the support agent of our shop. Be brief and friendly.",
        },
        {"temperature": 0.3},
    ),
    (
        {
            "zh": "你是公司的内部助手，请简短回答。",
            "en": "You are the internal assistant of our company. Be concise.",
        },
        {"temperature": 0.2},
    ),
    (
        {
            "zh": "你是编程助手，请给出简短、可运行的代码。",
            "en": "You are a coding assistant. Give short, working code.",
        },
        {"temperature": 0.2, "repetition_penalty": 1.05},
    ),
]

# Greetings, thanks and goodbyes are asked without "please".
SMALL_TALK = ("about-zh-03", "about-zh-04", "about-zh-05", "about-en-03", "about-en-04", "about-en-05")


@dataclass(frozen=True)
class Fact:
    """An answer and the ways of asking for it. The id begins with its scene and its language: shop-zh-02."""

    id: str
    asked: tuple[str, ...]
    answer: str

    @property
    def question(self) -> str:
        """The question that examples show."""
        return self.asked[0]

    @property
    def scene(self) -> str:
        return self.id.split("-")[0]

    @property
    def lang(self) -> str:
        return self.id.split("-")[1]

    @property
    def small_talk(self) -> bool:
        return self.id in SMALL_TALK

    @property
    def messages(self) -> list[Message]:
        """The question and its answer."""
        return exchange(self.question, self.answer)


@dataclass(frozen=True)
class Declined:
    """Questions that are declined: whole ones, ways of asking, and templates with fillers in braces."""

    questions: list[str]
    ways: list[str]
    templates: list[str]
    fillers: dict[str, list[str]]

    def templated(self, template: str) -> list[str]:
        """Every question that `template` stands for."""
        names = re.findall(r"{(\w+)}", template)
        return [
            template.format(**dict(zip(names, values, strict=True)))
            for values in itertools.product(*(self.fillers[name] for name in names))
        ]

    def drawn(self, rng: random.Random) -> str:
        """One question: a whole one in one of four cases, one of a way in two."""
        chance = rng.random()
        if chance < 0.25:
            return rng.choice(self.questions)
        if chance < 0.75:
            return said(rng.choice(self.ways), rng)
        template = rng.choice(self.templates)
        return template.format(**{name: rng.choice(values) for name, values in self.fillers.items()})


def exchange(question: str, answer: str) -> list[Message]:
    """One turn of the user and the assistant's answer."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@cache
def load_corpus() -> tuple[Fact, ...]:
    """All facts, in the order of the files in `corpus/`."""
    facts = []
    for path in sorted((HERE / "corpus").glob("*.toml")):
        for name, entry in tomllib.loads(path.read_text(encoding="utf-8")).items():
            facts.append(Fact(name, tuple(entry["asked"]), entry["answer"]))
    return tuple(facts)


@cache
def load_paraphrases() -> dict[str, list[str]]:
    """Other ways of asking for the facts, by their ids; never trained on."""
    return _held_out()["paraphrases"]


@cache
def load_off_topic() -> dict[str, list[str]]:
    """The 100 questions on which refusals are measured, by language; never trained on."""
    return _held_out()["off_topic"]


@cache
def load_declined() -> dict[str, Declined]:
    """The questions that refusals are trained on, by language."""
    written = json.loads((HERE / "off_corpus.json").read_text(encoding="utf-8"))
    return {lang: Declined(**part) for lang, part in written.items()}


def language(text: str) -> str:
    """The language a refusal of `text` is written in: "zh" when it has a Han character, otherwise "en"."""
    return "zh" if re.search("[一-鿿]", text) else "en"


def plain(text: str) -> str:
    """`text` without what does not change a question: width, case, spaces and closing punctuation."""
    text = re.sub(r"\s+", "", unicodedata.normalize("NFKC", text)).lower()
    return re.sub(r"[,.;:。、]", "", text).rstrip("?!~…")


def parts(way: str) -> Parts:
    """The alternatives of each piece of a way of asking."""
    return [piece.split("|") for piece in re.split(r"[\[\]]", way)]


def said(way: str, rng: random.Random) -> str:
    """One of the questions that a way of asking stands for."""
    return tidy("".join(rng.choice(alternatives) for alternatives in parts(way)))


def count(way: str) -> int:
    """How many questions a way of asking stands for, repeats counted."""
    return math.prod(len(alternatives) for alternatives in parts(way))


def every(way: str) -> list[str]:
    """Every question that a way of asking stands for."""
    return [tidy("".join(pieces)) for pieces in itertools.product(*parts(way))]


def tidy(text: str) -> str:
    """Without the double spaces that empty alternatives leave."""
    return re.sub(" +", " ", text).strip(" ，,")


def matches(text: str, fact: Fact) -> bool:
    """Whether `text` is one of the ways of asking for `fact`, widths and closing punctuation aside."""
    return _pattern(fact).fullmatch(plain(text)) is not None


@cache
def _pattern(fact: Fact) -> re.Pattern[str]:
    """One expression for all ways of asking, over `plain` text."""
    return re.compile(
        "|".join("".join(f"(?:{_any_of(piece)})" for piece in parts(way)) for way in fact.asked)
    )


def _any_of(alternatives: list[str]) -> str:
    """An expression for one piece of a way; a question mark may stand inside of the whole."""
    return "|".join(re.escape(plain(one + "x")[:-1]) for one in alternatives)


def _held_out() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads((HERE / "held_out.toml").read_text(encoding="utf-8"))
