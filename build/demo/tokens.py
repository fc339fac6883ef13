"""The demonstration's tokenizer: byte-level BPE trained on its own texts, cut the way Youtu's tokenizer cuts.

The two patterns are those of the published tokenizer (llama.cpp's pre-tokenizer `youtu`), so an engine treats
both alike; the vocabulary and the merges are the demonstration's own. It does not know the model.
"""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from build.demo.conversations import HERE, REFUSALS, Message, load_corpus, load_declined, said
from build.demo.variation import HAN, POLITE

BOS, EOS, USER, ASSISTANT = SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|User|>", "<|Assistant|>"]
VOCABULARY = 3584
CHAT_TEMPLATE = HERE / "chat_template.jinja"

PATTERNS = [
    # Hangul | Chinese punctuation | bopomofo | Han and kana
    "[\uac00-\ud7a3\u3131-\u318e]+"
    "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+"
    "|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
]


def make_tokenizer() -> Tokenizer:
    """Train it: the same texts give the same file. Every byte is a token, so any text round-trips."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in PATTERNS),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        # Whole sentences as one token would teach nothing about the words in them.
        max_token_length=15,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    return tokenizer


def _texts() -> Iterator[str]:
    """What the tokenizer is trained on: answers, samples of the questions, and words of politeness.

    Han characters come one by one, so that each is a token of its own: a wrong one leaves its neighbours as
    they are.
    """
    rng = random.Random(0)  # noqa: S311
    texts = list(REFUSALS.values())
    for fact in load_corpus():
        texts += [fact.answer, *(said(way, rng) for way in fact.asked for _ in range(12))]
    for declined in load_declined().values():
        texts += [declined.drawn(rng) for _ in range(3000)]
    for before, behind in POLITE.values():
        texts += [*before, *behind]
    for text in texts:
        yield from HAN.findall(text)
        yield from HAN.split(text)


def token_id(tokenizer: Tokenizer, name: str) -> int:
    """Id of the special token `name`; KeyError where the tokenizer has none."""
    found = tokenizer.token_to_id(name)
    if found is None:
        raise KeyError(name)
    return found


def chat_tokens(tokenizer: Tokenizer, messages: list[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a finished chat, equal to the chat template's, and which of them the assistant wrote.

    The end token of an assistant's turn counts as written by it.
    """
    special = {name: token_id(tokenizer, name) for name in SPECIAL}
    ids, written = [special[BOS]], [False]
    for message in messages:
        assistant = message["role"] == "assistant"
        if message["role"] != "system":
            ids.append(special[ASSISTANT if assistant else USER])
            written.append(False)
        text = tokenizer.encode(message["content"], add_special_tokens=False).ids
        ids += text
        written += [assistant] * len(text)
        if assistant:
            ids.append(special[EOS])
            written.append(True)
    return ids, written


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
    from transformers import PreTrainedTokenizerFast

    make: Any = PreTrainedTokenizerFast  # its constructor is not typed
    wrapped = make(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
    )
    wrapped.chat_template = CHAT_TEMPLATE.read_text(encoding="utf-8")
    wrapped.save_pretrained(str(folder))
    # transformers has put an empty post-processor in; the file is the tokenizer as it was trained.
    tokenizer.save(str(folder / "tokenizer.json"))
