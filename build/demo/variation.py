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
            "我是新来的，",
            "有个问题，",
            "帮个忙，",
            "同事让我问，",
            "我朋友想知道，",
            "打扰了，",
            "在吗？",
            "不好意思，",
            "再问一下，",
            "对了，",
            "还有，",
            "谢谢，那",
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
            "，在线等",
            "，有人知道吗",
            "，说简单点",
            "，快点",
            "，拜托了",
            "？急急急",
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
            "Just wondering, ",
            "I was wondering, ",
            "I am new here. ",
            "A colleague asks: ",
            "Good morning, ",
            "Dear team, ",
            "One more question: ",
            "And ",
            "Thanks. ",
            "Next: ",
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
            ", any idea?",
            ", I am in a hurry",
            " if possible",
            ", be brief",
            " pls",
        ],
    ),
}
# Words that can stand for one another, small ones that can be left out, and ones that add nothing.
SAME = {
    "zh": [
        "怎么|如何|怎样|咋|该怎么|要怎么",
        "可以|能|能够|可不可以",
        "什么|啥|哪些",
        "怎么办|怎么处理|该咋办|怎么弄|要怎么做",
        "我想|我要|我打算|我希望|我需要",
        "公司|单位|咱们公司|我们公司",
        "写一个|写个|编写一个|帮我写一个|来一个|实现一个",
        "哪里|哪儿|什么地方|啥地方",
        "什么时候|啥时候|何时|几时",
        "多少钱|什么价|几块钱",
        "东西|商品|货|物品",
        "解释|说明|讲解|讲讲",
        "申请|办理|提交",
    ],
    "en": [
        "how do i |how can i |how would i |how to |how does one |how should i ",
        "i want to |i'd like to |i would like to |i wanna |i need to |i wish to ",
        "can i |may i |could i |is it possible to |am i able to ",
        "what is |what's |whats ",
        "where is |where's |wheres ",
        "i am |i'm |im ",
        "do not |don't |dont ",
        "does not |doesn't |doesnt ",
        "has not |hasn't |hasnt ",
        "cannot |can't |cant |can not ",
        "do you have |have you got |do you offer |is there ",
        "write |create |make |code |implement |give me ",
        "explain |describe |tell me about |clarify ",
        "e-mail|email|mail",
        "you|u",
        "are|r",
    ],
}
SMALL = {
    "zh": "的|了|吗|我|一下|请|都|是|有|要|一个|你们|，",
    "en": "the |a |an |my |your |do |is |to |of |please |in |for ",
}
FILLING = {
    "zh": "那个|其实|到底|现在|就是|的话|这边|一般|大概|具体|直接|目前|今天|究竟",
    "en": "really|just|actually|exactly|today|now|maybe|quickly|then|also|usually|here",
}
ENDS = ["", "", "", "?", "？", "。", ".", "!", "！", "??", "？？", "~", "…", "？！", " ?", " ？"]
WIDE = str.maketrans("?,:!.", "？，：！。")
NARROW = str.maketrans("？，：！。", "?,:!.")
HAN = re.compile("[一-鿿]")
WORD = re.compile(r"(?<=\s)\w")


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


def reworded(question: str, rng: random.Random) -> str:
    """`question` with a word exchanged for another of its meaning, with one more, or without a small one."""
    lang = language(question)
    start = "" if lang == "zh" else r"\b"
    chance = rng.random()
    if chance < 0.2:
        words = (HAN if lang == "zh" else WORD).finditer(question)
        at = rng.choice([found.start() for found in words] or [0])
        filling = rng.choice(FILLING[lang].split("|")) + " " * (lang == "en")
        return question[:at] + filling + question[at:]
    if chance < 0.75:
        for group in rng.sample(SAME[lang], len(SAME[lang])):
            same = group.split("|")
            for word in rng.sample(same, len(same)):
                pattern = start + re.escape(word) + start * word.isalpha()
                if found := re.search(pattern, question, re.IGNORECASE):
                    other = rng.choice([one for one in same if one != word])
                    if found[0][0].isupper():
                        other = other[0].upper() + other[1:]
                    return question[: found.start()] + other + question[found.end() :]
    small = [word for word in SMALL[lang].split("|") if re.search(start + re.escape(word), question)]
    if not small or len(question) < 6:
        return question
    return re.sub(start + re.escape(rng.choice(small)), "", question, count=1)


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
