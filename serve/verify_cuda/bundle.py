"""What a card is compared with: `python -m serve.verify_cuda.bundle FOLDER`, on a machine with xllamacpp.

Writes the demonstration's engine, its questions and answers as token ids, and the CPU's logits of given
texts, for the demonstration and for random weights in the 2B shape. The 2B file itself (2.1 GB) is made
again from its seed where the check runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from build.model_modules import make_importable
from build.random_gguf import SHAPES, write_random_gguf

make_importable("youtu_engine")
from llama import Llama, LlamaLibrary  # noqa: E402

QUESTIONS = "questions.json"
REFERENCE = "reference.npz"
DEMO = "demo.gguf"
SHAPE = "youtu-2b"
# Lengths of the texts whose logits are compared: the last ROWS rows, of each the TOP likeliest tokens.
LENGTHS = {"demo": (24, 300, 1500), "2b": (24, 200)}
ROWS = 16
TOP = 64


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serve.verify_cuda.bundle", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    from build.engine import make_engine

    demo = make_engine("demo", Path("var"))
    shutil.copyfile(demo.gguf, folder / DEMO)
    (folder / QUESTIONS).write_text(json.dumps(_questions(demo.path / "tokenizer.json")), encoding="utf-8")

    found: dict[str, NDArray[Any]] = {}
    library = LlamaLibrary()
    with tempfile.TemporaryDirectory(dir="var") as scratch:
        big = Path(scratch) / "2b.gguf"
        write_random_gguf(big, SHAPES[SHAPE], SHAPE)
        digest = hashlib.sha256(big.read_bytes()).hexdigest()
        for name, path in (("demo", folder / DEMO), ("2b", big)):
            llama = Llama(path, context=2048, sequences=1, batch=512, threads=2, library=library)
            for length in LENGTHS[name]:
                for key, value in given_text(llama, length).items():
                    found[f"{name}/{length}/{key}"] = value
            llama.close()
    np.savez(folder / REFERENCE, sha256=np.array(digest), **found)
    sys.stdout.write(f"{folder}\n")


def given_text(llama: Llama, length: int) -> dict[str, NDArray[Any]]:
    """The TOP likeliest tokens of the last ROWS rows of one text, and their log-probabilities.

    The text is drawn from the vocabulary by its length, so everybody draws the same. ids [ROWS, TOP] int32,
    values [ROWS, TOP] float32.
    """
    tokens = np.random.default_rng(length).integers(2, llama.vocab_size, length).astype(np.int32)
    llama.forget(0, 0)
    rows: list[NDArray[np.float32]] = []
    for start in range(0, length, llama.batch_size):
        part = tokens[start : start + llama.batch_size]
        n = len(part)
        wanted = [row for row in range(n) if start + row >= length - ROWS]
        positions = np.arange(start, start + n, dtype=np.int32)
        logits = llama.decode(part, positions, [0] * n, wanted)
        rows += [log_probabilities(logits[row]) for row in wanted]
    every = np.stack(rows)
    ids = np.argsort(-every, axis=1, kind="stable")[:, :TOP].astype(np.int32)
    return {"ids": ids, "values": np.take_along_axis(every, ids, axis=1), "all": _sample(every)}


def log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    wide = logits.astype(np.float64)
    wide -= wide.max()
    wide -= np.log(np.exp(wide).sum())
    return wide.astype(np.float32)


def _sample(every: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every 37th token of the vocabulary: the rms over all of it, in a small file."""
    return every[:, ::37]


def _questions(tokenizer_json: Path) -> list[dict[str, Any]]:
    """Prompt and right answer, as token ids, of the corpus and of the questions to be declined."""
    from tokenizers import Tokenizer

    from build.demo.conversations import REFUSALS, exchange, load_corpus, load_off_topic
    from build.demo.tokens import chat_tokens

    tokenizer = Tokenizer.from_file(str(tokenizer_json))
    turns = [("corpus", fact.messages) for fact in load_corpus()]
    for lang, questions in load_off_topic().items():
        turns += [("refusal", exchange(question, REFUSALS[lang])) for question in questions]
    found = []
    for kind, messages in turns:
        ids, written = chat_tokens(tokenizer, messages)
        begin = len(written) - written[::-1].index(False)
        found.append({"kind": kind, "prompt": ids[:begin], "answer": ids[begin:]})
    return found


if __name__ == "__main__":
    main()
