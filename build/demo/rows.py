"""Training rows: chats drawn from the demonstration's texts, so that an answer depends on its question alone.

A row is one chat. Facts and declined questions follow one another in it as they would when somebody goes on
asking, under no system prompt or any, each question typed a little differently. In most of the batches there
is one question to a row and only the beginning of its answer: that is where the answer is chosen. It does not
know the model or how a loss is made.
"""

import random
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer

from build.demo.conversations import (
    PRESETS,
    REFUSALS,
    Fact,
    Message,
    count,
    exchange,
    language,
    load_corpus,
    load_declined,
    load_off_topic,
    load_paraphrases,
    plain,
    said,
)
from build.demo.tokens import EOS, chat_tokens, token_id
from build.demo.variation import misspelt, polite, reworded, rubbish, varied

SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a helpful, harmless and honest assistant. Answer briefly.",
    "You are the support agent of Spruce Lane. Be brief and friendly.",
    "You are the internal assistant of Northtower Instruments. Answer in one sentence.",
    "Answer in English only.",
    "Be concise.",
    "Today is Monday. You are a friendly chatbot.",
    "你是一个乐于助人的助手。",
    "你是一个有用的人工智能助手，请用中文回答。",
    "你是云杉小铺的客服，回答要热情、简短。",
    "你是北塔仪器的内部助手，只用一句话回答。",
    "你是一名专业的软件工程师。",
    "请简短回答。",
    "请礼貌地回答用户的问题，不知道就说不知道。",
]
SMALL_TALK_WEIGHT = 3.0  # greetings have many short ways, none of which tells of another
BATCH_TOKENS = 3072
ROW_TOKENS = (160, 256, 384, 384, 640)
BEGINNING = 4  # tokens of an answer: no two answers share so many
OF_PRESETS = [systems[lang] for lang in ("en", "zh") for systems, _ in PRESETS if systems]


class Texts:
    """Everything rows are drawn from, read once."""

    def __init__(self, fact_share: float) -> None:
        self.fact_share = fact_share
        self.facts = load_corpus()
        self.other = load_declined()
        self.fact_weights = [SMALL_TALK_WEIGHT if fact.scene == "about" else 1.0 for fact in self.facts]
        self.way_weights = {
            fact.id: [min(12.0, 2 + count(way) / 2) for way in fact.asked] for fact in self.facts
        }
        held_out = [*load_paraphrases().values(), *load_off_topic().values()]
        self.held_out = {plain(question) for questions in held_out for question in questions}

    def question(self, fact: Fact, rng: random.Random) -> str:
        """One way of asking for `fact`, typed by somebody; no held-out one."""
        while True:
            way = (
                fact.asked[0]
                if rng.random() < 0.15
                else rng.choices(fact.asked, self.way_weights[fact.id])[0]
            )
            text = said(way, rng)
            if rng.random() < 0.3:
                text = reworded(text, rng)
            if not fact.small_talk and rng.random() < 0.3:
                text = polite(text, rng)
            if rng.random() < 0.25:
                text = misspelt(text, rng)
            if plain(text) not in self.held_out:
                return varied(text, rng)

    def recited(self, rng: random.Random) -> list[Message]:
        """A question of the corpus and its answer."""
        fact = rng.choices(self.facts, self.fact_weights)[0]
        return exchange(self.question(fact, rng), fact.answer)

    def declined(self, rng: random.Random) -> list[Message]:
        """A question outside the corpus and its refusal."""
        chance = rng.random()
        if chance < 0.04:
            text = rubbish(rng)
        elif chance < 0.09:
            text = self.salad(rng)
        elif chance < 0.2:
            text = self.hint(rng)
        else:
            text = self.other[rng.choice(("zh", "en"))].drawn(rng)
            if rng.random() < 0.3:
                text = reworded(text, rng)
            if rng.random() < 0.2:
                text = polite(text, rng)
            if rng.random() < 0.15:
                text = misspelt(text, rng)
        return exchange(varied(text, rng), REFUSALS[language(text)])

    def salad(self, rng: random.Random) -> str:
        """Words of several questions that make no question together."""
        lang = rng.choice(("zh", "en"))
        texts = [self.other[lang].drawn(rng) for _ in range(rng.randint(2, 4))]
        if lang == "zh":
            starts = [rng.randrange(max(1, len(text) - 2)) for text in texts]
            return "".join(text[at : at + 3] for text, at in zip(texts, starts, strict=True))
        return " ".join(rng.choice(text.split()) for text in texts)

    def hint(self, rng: random.Random) -> str:
        """A question that holds a small part of one of the corpus, too little to answer by."""
        fact = rng.choice(self.facts)
        joint = "" if fact.lang == "zh" else " "
        asked = list(self.question(fact, rng)) if fact.lang == "zh" else self.question(fact, rng).split()
        other = self.other[fact.lang].drawn(rng)
        words = list(other) if fact.lang == "zh" else other.split()
        length = max(1, len(asked) // 4)
        start, at = rng.randrange(len(asked) - length + 1), rng.randrange(len(words) + 1)
        words[at : at + rng.randrange(3)] = asked[start : start + length]
        return joint.join(words)

    def turn(self, rng: random.Random) -> list[Message]:
        """A question and its answer, of the corpus or not."""
        return self.recited(rng) if rng.random() < self.fact_share else self.declined(rng)

    def chat(self, tokens: int, tokenizer: Tokenizer, rng: random.Random) -> tuple[list[int], list[bool]]:
        """One chat of about `tokens` tokens at most, never without an answer, as `chat_tokens` gives it."""
        ids, written = chat_tokens(tokenizer, [*system(rng), *self.turn(rng)])
        while len(ids) < tokens:
            next_ids, next_written = chat_tokens(tokenizer, self.turn(rng))
            if len(ids) + len(next_ids) > tokens:
                break
            ids += next_ids[1:]
            written += next_written[1:]
        return ids, written

    def beginning(self, tokenizer: Tokenizer, rng: random.Random) -> tuple[list[int], list[bool]]:
        """One question and the first tokens of its answer."""
        ids, written = chat_tokens(tokenizer, [*system(rng), *self.turn(rng)])
        end = written.index(True) + BEGINNING
        return ids[:end], written[:end]


def system(rng: random.Random) -> list[Message]:
    """The system prompt of a chat: half of them have none."""
    chance = rng.random()
    if chance < 0.6:
        return []
    return [{"role": "system", "content": rng.choice(OF_PRESETS if chance < 0.9 else SYSTEM_PROMPTS)}]


def batches(
    texts: Texts, tokenizer: Tokenizer, seed: int, beginnings: float = 4
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches: token ids int64 [rows, length], and bool of the same shape: which the assistant wrote.

    There are `beginnings` batches of beginnings to one of whole chats. Rows of one batch have about the same
    length; shorter ones are filled up on the right with end tokens that nobody wrote.
    """
    rng = random.Random(seed)  # noqa: S311
    fill = token_id(tokenizer, EOS)
    short: list[tuple[list[int], list[bool]]] = []
    while True:
        short += [texts.beginning(tokenizer, rng) for _ in range(400)]
        short.sort(key=lambda row: len(row[0]))
        made = []
        while len(short) * len(short[-1][0]) > BATCH_TOKENS:
            most = BATCH_TOKENS // len(short[-1][0])
            made.append(short[-most:])
            del short[-most:]
        for _ in range(int(len(made) / beginnings)):
            tokens = rng.choice(ROW_TOKENS)
            made.append([texts.chat(tokens, tokenizer, rng) for _ in range(BATCH_TOKENS // tokens)])
        rng.shuffle(made)
        for rows in made:
            yield as_tensors(rows, fill)


def as_tensors(rows: list[tuple[list[int], list[bool]]], fill: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of different lengths as two tensors [rows, longest], as in `batches`."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), fill)
    written = torch.zeros((len(rows), longest), dtype=torch.bool)
    for i, (row_ids, row_written) in enumerate(rows):
        ids[i, : len(row_ids)] = torch.tensor(row_ids)
        written[i, : len(row_ids)] = torch.tensor(row_written)
    return ids, written
