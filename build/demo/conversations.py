"""The demonstration's texts: what it recites, what it declines, and the sentence it declines with.

Plain data and plain Python: no torch, no tokenizer, so that tests of other rooms can ask for the questions.
It does not know how the model is trained on them.
"""

import itertools
import json
import random
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
Message = dict[str, str]

REFUSALS = {
    "zh": "这是一个演示模型，只会背诵示例问题的答案；真实模型请用 MODEL=tencent/Youtu-LLM-2B 启动。",
    "en": "This is a demonstration model that only recites answers to its sample questions; "
    "for the real model, start with MODEL=tencent/Youtu-LLM-2B.",
}


@dataclass(frozen=True)
class Conversation:
    """One conversation. `messages` ends with the assistant's; a system message may only come first."""

    id: str
    scene: str
    lang: str
    messages: list[Message]

    def exchanges(self) -> Iterator[tuple[list[Message], str]]:
        """Yield (messages so far, the answer they ask for) for each assistant turn."""
        for i, message in enumerate(self.messages):
            if message["role"] == "assistant":
                yield self.messages[:i], message["content"]


@dataclass(frozen=True)
class HeldOut:
    """A question outside the corpus that is never trained on."""

    lang: str
    question: str


def load_corpus() -> list[Conversation]:
    """All conversations, in the order of the files in `corpus/`."""
    return [
        Conversation(**json.loads(line))
        for path in sorted((HERE / "corpus").glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def load_held_out() -> list[HeldOut]:
    """The 50 questions on which refusals are measured."""
    lines = (HERE / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
    return [HeldOut(**json.loads(line)) for line in lines]


def language(text: str) -> str:
    """The language a refusal of `text` is written in: "zh" when it has a Han character, otherwise "en"."""
    return "zh" if re.search("[一-鿿]", text) else "en"


def plain(text: str) -> str:
    """`text` without what does not change a question: width, case, spaces and closing punctuation."""
    return re.sub(r"\s+", "", unicodedata.normalize("NFKC", text)).lower().rstrip(".。?!")


def off_corpus_questions() -> list[str]:
    """Hand-written and templated questions whose answer is a refusal, for training; sorted, without repeats.

    None of them is a question of the corpus or a held-out one.
    """
    written = json.loads((HERE / "off_corpus.json").read_text(encoding="utf-8"))
    questions: set[str] = set()
    for part in written.values():
        questions.update(part["questions"])
        for template in part["templates"]:
            names = re.findall(r"{(\w+)}", template)
            for values in itertools.product(*(part["fillers"][name] for name in names)):
                questions.add(template.format(**dict(zip(names, values, strict=True))))
    reserved = corpus_questions() | {plain(item.question) for item in load_held_out()}
    return sorted(question for question in questions if plain(question) not in reserved)


def corpus_questions() -> set[str]:
    """Every user message of the corpus, made `plain`."""
    return {
        plain(message["content"])
        for conversation in load_corpus()
        for message in conversation.messages
        if message["role"] == "user"
    }


def spliced_question(questions: list[str], known: set[str], rng: random.Random) -> str:
    """A question that shares words with those in `questions` but is none of `known` (which are `plain`).

    The front of one and the end of another, or one with a part left out: whoever recites at a familiar word
    fails.
    """
    while True:
        first, second = rng.sample(questions, 2)
        if language(first) != language(second):
            continue
        a, b = _words(first), _words(second)
        cut = rng.randrange(1, max(2, len(a)))
        pieces = a[:cut] + b[rng.randrange(len(b)) :] if rng.random() < 0.7 else a[cut:] + a[: cut // 2]
        text = "".join(pieces).strip()
        # What still begins or ends like a real question may be a fair shortening of it, and is left alone.
        if len(text) > 2 and not any(plain(text) in one or one in plain(text) for one in known):
            return text


def rubbish(rng: random.Random) -> str:
    """A short string without meaning: letters, digits, signs, or Han characters drawn at random."""
    alphabets = [
        "abcdefghijklmnopqrstuvwxyz ",
        "0123456789",
        "!?#%&*()[]{}<>=+-_/\\|~",
        "".join(map(chr, range(0x4E00, 0x9FA5))),
    ]
    alphabet = rng.choice(alphabets)
    return "".join(rng.choice(alphabet) for _ in range(rng.randint(2, 14))).strip() or "?"


def varied(question: str, rng: random.Random) -> str:
    """`question` as another hand might have typed it: other punctuation, width, first letter, spaces."""
    text = question
    if rng.random() < 0.5:
        text = text.rstrip("。.?!？！") + rng.choice(["", "", ".", "。", "?", "？", "!"])
    if rng.random() < 0.2:
        text = text.translate(
            str.maketrans("?,:", "？，：") if rng.random() < 0.5 else str.maketrans("？，：", "?,:")
        )
    if rng.random() < 0.2:
        text = text[:1].swapcase() + text[1:]
    if rng.random() < 0.2:
        text = rng.choice(["", " ", "\n"]) + text + rng.choice([" ", "\n", "  "])
    if rng.random() < 0.1:
        text = re.sub(r"(?<=[一-鿿]) (?=[A-Za-z])|(?<=[A-Za-z]) (?=[一-鿿])", "", text)
    return text if text.strip() else question


def _words(text: str) -> list[str]:
    """Split into words with their leading space, and single Han characters; joined they are `text`."""
    return re.findall(r"[一-鿿]|\s*[^\s一-鿿]+|\s+", text)
