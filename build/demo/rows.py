"""Training rows: chats drawn from the demonstration's texts, so that an answer depends on its question alone.

A row is one chat. Conversations of the corpus and declined questions follow one another in it as they would
when somebody goes on asking, under no system prompt or any, each question typed a little differently. It does
not know the model or how a loss is made.
"""

import random
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer

from build.demo.conversations import (
    REFUSALS,
    Conversation,
    Message,
    corpus_questions,
    language,
    load_corpus,
    off_corpus_questions,
    rubbish,
    spliced_question,
    varied,
)
from build.demo.tokens import EOS, chat_tokens, token_id

SYSTEM_PROMPTS = [
    "You are a helpful assistant.",
    "You are a helpful, harmless and honest assistant. Answer briefly.",
    "你是一个乐于助人的助手。",
    "你是一个有用的人工智能助手，请用中文回答。",
    "Be concise.",
    "请简短回答。",
]
CORPUS_SHARE = 0.55
BATCH_TOKENS = 3072
ROW_TOKENS = (96, 192, 384, 768)


class Texts:
    """Everything rows are drawn from, read once."""

    def __init__(self) -> None:
        self.corpus: list[Conversation] = load_corpus()
        self.off_corpus = off_corpus_questions()
        self.known = corpus_questions()
        self.firsts = [_turns(conversation)[0]["content"] for conversation in self.corpus]
        own = {c.messages[0]["content"] for c in self.corpus if c.messages[0]["role"] == "system"}
        self.systems = SYSTEM_PROMPTS + sorted(own)

    def declined(self, rng: random.Random) -> list[Message]:
        """A question outside the corpus and its refusal."""
        kind = rng.random()
        if kind < 0.65:
            question = rng.choice(self.off_corpus)
        elif kind < 0.9:
            question = spliced_question(self.firsts, self.known, rng)
        else:
            question = rubbish(rng)
        return [
            {"role": "user", "content": varied(question, rng)},
            {"role": "assistant", "content": REFUSALS[language(question)]},
        ]

    def recited(self, rng: random.Random) -> tuple[Conversation, list[Message]]:
        """A conversation of the corpus, and its turns with the questions typed another way."""
        conversation = rng.choice(self.corpus)
        turns = [
            {**turn, "content": varied(turn["content"], rng)} if turn["role"] == "user" else turn
            for turn in _turns(conversation)
        ]
        return conversation, turns

    def chat(self, tokens: int, tokenizer: Tokenizer, rng: random.Random) -> tuple[list[int], list[bool]]:
        """One chat of about `tokens` tokens at most, never without an answer, as `chat_tokens` gives it."""
        conversation, turns = self.recited(rng)
        own_system = conversation.messages[0] if conversation.messages[0]["role"] == "system" else None
        messages: list[Message] = []
        if own_system and rng.random() < 0.7:
            messages = [own_system, *turns]
        else:
            if rng.random() < 0.3:
                messages.append({"role": "system", "content": rng.choice(self.systems)})
            messages += turns if rng.random() < CORPUS_SHARE else self.declined(rng)
        ids, written = chat_tokens(tokenizer, messages)
        while len(ids) < tokens:
            more = self.recited(rng)[1] if rng.random() < CORPUS_SHARE else self.declined(rng)
            next_ids, next_written = chat_tokens(tokenizer, more)
            if len(ids) + len(next_ids) > tokens:
                break
            ids += next_ids[1:]
            written += next_written[1:]
        return ids, written


def batches(texts: Texts, tokenizer: Tokenizer, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless batches: token ids int64 [rows, length], and bool of the same shape: which the assistant wrote.

    Rows of one batch have about the same length; shorter ones are filled up on the right with end tokens that
    nobody wrote.
    """
    rng = random.Random(seed)  # noqa: S311
    fill = token_id(tokenizer, EOS)
    while True:
        tokens = rng.choice(ROW_TOKENS)
        rows = [texts.chat(tokens, tokenizer, rng) for _ in range(BATCH_TOKENS // tokens)]
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


def _turns(conversation: Conversation) -> list[Message]:
    return [message for message in conversation.messages if message["role"] != "system"]
