"""A tokenizer folder that the transformers in NVIDIA's container (4.57) can load.

That version does not know the model type youtu nor the class names and list forms that transformers 5 writes,
so tokenizer_config.json is rewritten with the few facts that matter, and no config.json is beside it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from build.errors import BuildError
from build.tokenizer import has_tokenizer, load_tokenizer_facts


def write_tokenizer(source: Path, folder: Path, vocab_size: int) -> None:
    """Write tokenizer.json as it is, tokenizer_config.json and, if the model has one, chat_template.jinja.

    BuildError when `source` has no tokenizer.json, or one that is not byte-level BPE.
    """
    if not has_tokenizer(source):
        raise BuildError(f"{source} has no tokenizer.json: an engine without one cannot be served")
    facts = load_tokenizer_facts(source, vocab_size)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "tokenizer.json", folder / "tokenizer.json")
    pad = facts.eos_token if facts.pad_token_id is None else facts.tokens[facts.pad_token_id]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": facts.bos_token,
        "eos_token": facts.eos_token,
        "pad_token": pad,
        "clean_up_tokenization_spaces": False,
    }
    text = json.dumps({key: value for key, value in config.items() if value is not None}, indent=1)
    (folder / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")
    facts.templates.write(folder)
