"""The tokenizer as the C++ backend's guided decoding reads it: one JSON file beside tokenizer.json.

The form is that of TensorRT-LLM's examples/generate_xgrammar_tokenizer_info.py. Written from the tokenizer's
own files, so that neither xgrammar nor a transformers that knows the model is needed.
"""

from __future__ import annotations

import json
from pathlib import Path

from build.engine_info import TOKENIZER
from build.tokenizer import CONTROL, UNUSED, TokenizerFacts

XGRAMMAR_INFO = "xgrammar_tokenizer_info.json"


def write_xgrammar_info(folder: Path, facts: TokenizerFacts) -> None:
    """Write it into `folder`, whose tokenizer.json it quotes.

    A special token that ends no answer is written as no text: as text it would count as its own name, and a
    guided answer could hold it where that name fits. All tokens that end an answer are named, not only one.
    """
    hidden = {
        token
        for token, kind in enumerate(facts.types)
        if kind in (CONTROL, UNUSED) and token not in facts.eos_token_ids
    }
    info = {
        "encoded_vocab": ["" if i in hidden else token for i, token in enumerate(facts.tokens)],
        "tokenizer_str": (folder / TOKENIZER).read_text(encoding="utf-8"),
        "stop_token_ids": facts.eos_token_ids,
    }
    (folder / XGRAMMAR_INFO).write_text(json.dumps(info), encoding="utf-8")
