"""A question as others would type it: politeness, punctuation, width, case, spaces, one wrong character.

It does not know which questions there are.
"""

import random
import re

from build.demo.conversations import language

POLITE = {
    "zh": (
        [
            "请问",
            "请问一下，",
            "请问",
            "你好，",
            "您好，",
            "您好，请问",
            "你好，请问",
            "想问一下，",
            "想问下",
            "麻烦问一下，",
            "问一下，",
            "问下",
            "我想知道",
            "我想问",
            "请教一下，",
            "那",
            "那么",
            "请告诉我，",
            "亲，",
            "想了解一下，",
            "我想咨询一下，",
            "咨询一下，",
            "我想了解",
            "能告诉我",
            "帮我看看",
            "麻烦",
        ],
        [
            "呢",
            "呀",
            "啊",
            "哦",
            "吧",
            "啦",
            "，谢谢",
            "，谢谢",
            "谢谢",
            "，谢谢啦",
            "，麻烦了",
            "，急",
            "，请告诉我",
            "，多谢",
            " 谢谢",
        ],
    ),
    "en": (
        [
            "Hi, ",
            "Hello, ",
            "Please, ",
            "Please ",
            "Excuse me, ",
            "Could you tell me: ",
            "Can you tell me: ",
            "Could you please tell me: ",
            "Quick question: ",
            "I would like to know: ",
            "I'd like to know: ",
            "Hey, ",
            "Please tell me: ",
            "So, ",
            "Tell me: ",
            "Hi there, ",
            "I have a question: ",
            "Sorry, ",
            "Ok, ",
            "Now: ",
        ],
        [
            " please",
            ", please",
            ", thanks",
            " Thanks",
            ". Thank you",
            " thank you",
            ", thank you",
            " asap",
            " for me",
        ],
    ),
}
ENDS = ["", "", "", "?", "？", "。", ".", "!", "！", "??", "？？", "~", "…", "？！", " ?", " ？"]
WIDE = str.maketrans("?,:!.", "？，：！。")
NARROW = str.maketrans("？，：！。", "?,:!.")
HAN = re.compile("[一-鿿]")


def varied(question: str, rng: random.Random) -> str:
    """`question` with other punctuation, width, case and spaces; every letter of it stays."""
    text = question
    if rng.random() < 0.6:
        text = text.rstrip("。.?!？！") + rng.choice(ENDS)
    chance = rng.random()
    if chance < 0.15:
        text = text.translate(WIDE)
    elif chance < 0.3:
        text = text.translate(NARROW)
    elif chance < 0.4:
        text = re.sub("[，,：:]", " ", text)
    chance = rng.random()
    if chance < 0.2:
        text = text.lower()
    elif chance < 0.26:
        text = text.upper()
    elif chance < 0.35:
        text = text[:1].swapcase() + text[1:]
    chance = rng.random()
    if chance < 0.12:
        text = re.sub(r"(?<=[一-鿿]) (?=[A-Za-z0-9])|(?<=[A-Za-z0-9]) (?=[一-鿿])", "", text)
    elif chance < 0.24:
        text = re.sub(r"(?<=[一-鿿])(?=[A-Za-z0-9])|(?<=[A-Za-z0-9])(?=[一-鿿])", " ", text)
    if rng.random() < 0.1:
        text = rng.choice(["", " ", "\n"]) + text + rng.choice([" ", "\n", "  "])
    return text if text.strip() else question


def polite(question: str, rng: random.Random) -> str:
    """`question` with words of politeness before it, behind it or both."""
    before, behind = POLITE[language(question)]
    where = rng.random()
    text = question.rstrip("。.?!？！")
    mark = question[len(text) :]
    if where > 0.65:
        mark = "" if rng.random() < 0.5 else mark
        text += rng.choice(behind)
    if where < 0.75:
        first = rng.choice(before)
        if language(question) == "en" and rng.random() < 0.7 and not text.startswith("I "):
            text = text[:1].lower() + text[1:]
        text = first + text
    return text + mark


def misspelt(question: str, rng: random.Random) -> str:
    """`question` with one character wrong; unchanged when it is too short to be understood then."""
    han = [match.start() for match in HAN.finditer(question)]
    letters = [i for i, char in enumerate(question) if char.isascii() and char.isalpha()]
    if len(han) >= 4:
        at = rng.choice(han)
        kind = rng.random()
        if kind < 0.75:
            return question[:at] + some_han(rng) + question[at + 1 :]
        if kind < 0.85:
            return question[:at] + question[at + 1 :]
        if kind < 0.93 and at + 1 < len(question):
            return question[:at] + question[at + 1] + question[at] + question[at + 2 :]
        return question[:at] + question[at] + question[at:]
    if len(letters) >= 6:
        at = rng.choice(letters)
        kind = rng.random()
        if kind < 0.4:
            return question[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + question[at + 1 :]
        if kind < 0.6:
            return question[:at] + question[at + 1 :]
        if kind < 0.8 and at + 1 < len(question):
            return question[:at] + question[at + 1] + question[at] + question[at + 2 :]
        return question[:at] + question[at] + question[at:]
    return question


def some_han(rng: random.Random) -> str:
    """A Han character: of the common ones of GB 2312's first level."""
    row, cell = rng.randrange(16, 56), rng.randrange(1, 90)
    return bytes([0xA0 + row, 0xA0 + cell]).decode("gb2312", errors="replace").replace("\ufffd", "的")


def rubbish(rng: random.Random) -> str:
    """A short string without meaning: letters, digits, signs, or Han characters drawn at random."""
    kind = rng.randrange(4)
    length = rng.randint(2, 14)
    if kind == 3:
        return "".join(some_han(rng) for _ in range(length))
    alphabet = ["abcdefghijklmnopqrstuvwxyz ", "0123456789", "!?#%&*()[]{}<>=+-_/\\|~"][kind]
    return "".join(rng.choice(alphabet) for _ in range(length)).strip() or "?"
