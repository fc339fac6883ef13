"""`make check-model MODEL=…`: does the engine compute the model? For the first server of published weights.

Runs the engine's runtime in this process, without Triton: the numbers of config.json, the tokenizer
against those of transformers and llama.cpp, how well the model predicts texts it has not seen, whether it
recognises what it has just read, simple questions, the chat template. Prints a table and, last, one line of
JSON to report back. Exit status 1 when a check fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import math
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import gguf
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from build.catalogue import HUBS, Source, resolve
from build.check_texts import PARAGRAPHS, QUESTIONS
from build.config import read_json
from build.downloads import folder_of
from build.engine_info import TOKENIZER, EngineInfo
from build.errors import BuildError
from build.gguf_intake import SAMPLES
from build.model_modules import make_importable
from build.progress import TerminalProgress
from build.runtimes import RUNTIMES, CpuEngine, make_chosen_engine

if TYPE_CHECKING:
    from llama import Llama
    from runtime import Runtime

CONTEXT = 1024
PIECE = 256
LANGUAGES = ("zh", "en", "code")
# Bits per byte of text, which any vocabulary can be compared by; guessing bytes takes 8. SmolLM2-135M,
# which is as small as models come, needs 1.07 for the English and 0.55 for the code, larger ones less;
# with swapped tensors, a lost norm or RoPE pairs it needs 1.2 to 9 (tests/smollm2). The bound for Chinese
# is an estimate: no model that speaks it was at hand. Below 0.1 a text was memorised, which these
# cannot be.
BITS = {"zh": (0.1, 1.7), "en": (0.1, 1.35), "code": (0.1, 0.9)}
# What a list of words costs when it is read again, as a share of the first time. Looking words up takes exact
# positions: SmolLM2 pays 0.13, with RoPE pairs or heads in another order 0.9 and more.
AGAIN = 0.25
WORDS = 60
NUMBERS = {
    "rope.freq_base": "rope_theta",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.head_count": "num_attention_heads",
    "block_count": "num_hidden_layers",
}
RIGHT = 0.6  # share of the questions; chance is 0.25
ANSWER_TOKENS = 400


@dataclass(frozen=True)
class Check:
    """One line of the table. `passed` is None for what could not be checked here."""

    name: str
    passed: bool | None
    found: str
    expected: str


class Model:
    """An engine folder, loaded: texts to ids, and what the model says of ids."""

    def __init__(self, engine: CpuEngine) -> None:
        self.engine = engine
        self.tokenizer = Tokenizer.from_file(str(engine.path / TOKENIZER))
        make_importable("youtu_engine", "youtu_llm")
        from loading import load
        from runtime import ComputeError

        self._runtime: Runtime
        try:
            self._runtime = load(
                {
                    "runtime": engine.runtime,
                    "model": str(engine.model),
                    "library": "",
                    "slots": "1",
                    "context": str(CONTEXT),
                    "threads": "0",
                    "prefill_chunk": str(PIECE),
                    "kv_type": "f16",
                }
            )
        except ComputeError as error:
            raise BuildError(str(error)) from None

    def close(self) -> None:
        self._runtime.close()

    def llama_ids(self, text: str) -> list[int]:
        """By the vocabulary in the .gguf file, of an engine for llama.cpp."""
        return cast("Llama", self._runtime).tokenize(text)

    def _logits(self, ids: Sequence[int], start: int, *, all_rows: bool) -> list[npt.NDArray[np.float32]]:
        """Read the next tokens, the first at `start`: what follows each of them, or the last one."""
        from runtime import Piece

        wanted = list(range(len(ids))) if all_rows else [len(ids) - 1]
        return self._runtime.step([Piece(0, start, list(ids), 0, wanted)])[0]

    def ids(self, text: str, *, special: bool = True) -> list[int]:
        """Of a raw text, with what the tokenizer puts before one."""
        found: list[int] = self.tokenizer.encode(text, add_special_tokens=special).ids
        return found

    @cached_property
    def start(self) -> list[int]:
        """What a scored text begins with, so that its first token is predicted too."""
        if self.engine.bos_token_id is not None:
            return [self.engine.bos_token_id]
        return self.engine.eos_token_ids[:1]

    def nats(self, ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """What each token after the first costs, given those before it [len(ids) - 1]."""
        if len(ids) > CONTEXT:
            raise BuildError(f"a text of {len(ids)} tokens is longer than {CONTEXT}")
        self._runtime.forget(0, 0)
        costs: list[float] = []
        for begin in range(0, len(ids) - 1, PIECE):
            rows = self._logits(ids[begin : begin + PIECE], begin, all_rows=True)
            for token, row in zip(ids[begin + 1 :], rows, strict=False):
                logits = row.astype(np.float64)
                top = logits.max()
                costs.append(float(top + np.log(np.exp(logits - top).sum()) - logits[token]))
        return np.array(costs)

    def answer(self, ids: list[int], most: int) -> tuple[list[int], bool]:
        """The greedy answer to a prompt, and whether it ended by itself."""
        self._runtime.forget(0, 0)
        made: list[int] = []
        step, place = list(ids), 0
        while len(made) < most:
            for begin in range(0, len(step), PIECE):
                part = step[begin : begin + PIECE]
                (row,) = self._logits(part, place, all_rows=False)
                place += len(part)
            token = int(row.argmax())
            if token in self.engine.eos_token_ids:
                return made, True
            made.append(token)
            step = [token]
        return made, False


def tokenizer_checks(model: Model, source: Path | None) -> Iterator[Check]:
    texts = [*SAMPLES, *PARAGRAPHS.values()]
    own = [model.ids(text, special=False) for text in texts]
    name = "tokenizer, llama.cpp"
    if not isinstance(model.engine, EngineInfo):
        yield Check(name, None, "the runtime is OpenVINO", "the ids of llama.cpp")
    elif model.engine.architecture in ("YoutuForCausalLM", "deepseek2"):
        # it takes upper and lower case for one there; the engine reads tokenizer.json
        yield Check(name, None, "llama.cpp splits Youtu's text in a way of its own", "the ids of llama.cpp")
    else:
        yield _same(name, texts, own, [model.llama_ids(text) for text in texts])
    name = "tokenizer, transformers"
    if source is None or not (source / TOKENIZER).is_file():
        yield Check(name, None, "the source is a .gguf file", "the ids of transformers")
    elif importlib.util.find_spec("transformers") is None:
        yield Check(name, None, "transformers is not installed", "the ids of transformers")
    else:
        from transformers import AutoTokenizer

        reference: Any = AutoTokenizer.from_pretrained(str(source))
        yield _same(name, texts, own, [reference.encode(text, add_special_tokens=False) for text in texts])


def _same(name: str, texts: list[str], own: list[list[int]], theirs: list[list[int]]) -> Check:
    other = [text for text, one, two in zip(texts, own, theirs, strict=True) if one != two]
    found = f"{len(texts) - len(other)} of {len(texts)} texts" + (f", not {other[0][:20]!r}" if other else "")
    return Check(name, not other, found, "the same ids")


def template_checks(model: Model) -> Iterator[Check]:
    if not model.engine.chat_template:
        yield Check("chat template", None, "there is none", "")
        return
    prompts = _prompt_builder(model.engine.path)
    messages = [{"role": "user", "content": "What is two plus two? Answer with one word."}]
    source = (model.engine.path / "chat_template.jinja").read_text(encoding="utf-8")
    thinks = "think" in source
    for thinking in (True, False) if thinks else (None,):
        options = {} if thinking is None else {"enable_thinking": thinking}
        text = prompts.render(messages, options)
        made, ended = model.answer(prompts.encode(text, add_special_tokens=False), ANSWER_TOKENS)
        said = model.tokenizer.decode(made, skip_special_tokens=False)
        name = "chat ends" if thinking is None else f"chat ends, thinking {'on' if thinking else 'off'}"
        yield Check(name, ended, f"{len(made)} tokens: {_short(said)!r}", f"an end within {ANSWER_TOKENS}")
        if thinking is not None:
            whole = text[text.rfind(messages[0]["content"]) :] + said
            inside = whole.rpartition("</think>")[0].rpartition("<think>")[2].strip()
            # the demonstration thinks before some of its answers only
            right = None if thinking and model.engine.demo else bool(inside) is thinking
            found = f"{len(inside)} characters"
            yield Check(
                f"thinks, thinking {'on' if thinking else 'off'}",
                right,
                found,
                "some" if thinking else "none",
            )


def _prompt_builder(folder: Path) -> Any:
    """youtu_llm's own, whose folder is no package."""
    from prompt import PromptBuilder

    return PromptBuilder(folder)


def number_checks(model: Model, source: Path | None) -> Iterator[Check]:
    """What llama.cpp computes with, against config.json: another RoPE base shows in long texts only."""
    path = None if source is None else source / "config.json"
    if path is None or not path.is_file():
        yield Check("numbers", None, "the source has no config.json", "those of config.json")
        return
    config = read_json(path)
    config |= config.get("rope_parameters") or {}
    if not isinstance(model.engine, EngineInfo):
        yield Check("numbers", None, "the runtime is OpenVINO", "those of config.json")
        return
    reader = gguf.GGUFReader(model.engine.gguf)
    other, compared = [], 0
    for key, name in NUMBERS.items():
        field = next((field for each, field in reader.fields.items() if each.partition(".")[2] == key), None)
        if field is not None and isinstance(config.get(name), (int, float)):
            compared += 1
            if not math.isclose(field.contents(), config[name], rel_tol=1e-6):
                other.append(f"{name} {field.contents():g}, not {config[name]:g}")
    yield Check("numbers", not other, ", ".join(other) or f"{compared} equal", "those of config.json")


def text_checks(model: Model, languages: Sequence[str]) -> Iterator[Check]:
    for language in languages:
        text = PARAGRAPHS[language]
        bits = float(model.nats([*model.start, *model.ids(text, special=False)]).sum()) / math.log(2)
        share, (low, high) = bits / len(text.encode()), BITS[language]
        yield Check(f"text, {language}", low <= share <= high, f"{share:.2f} bits a byte", f"{low} to {high}")


def again_check(model: Model) -> Check:
    """Words in an order of chance, twice: the second time they can be looked up."""
    words = sorted(set(PARAGRAPHS["en"].replace(".", "").replace(",", "").lower().split()))
    random.Random(0).shuffle(words)  # noqa: S311  the same order each time
    listed = [model.ids(f" {word}", special=False) for word in words[:WORDS]]
    once = [token for word in listed for token in word]
    costs = model.nats([*model.start, *once, *once])
    share = float(costs[len(once) :].sum() / costs[: len(once)].sum())
    return Check("words read again", share <= AGAIN, f"{share:.2f} of the first time", f"at most {AGAIN}")


def question_checks(model: Model, languages: Sequence[str]) -> Iterator[Check]:
    for language in languages:
        right = 0
        for text, ends in QUESTIONS[language]:
            begin = [*model.start, *model.ids(text, special=False)]
            costs = []
            for end in ends:
                ids = model.ids(text + end, special=False)
                tail = [*model.start, *ids]
                same = next(
                    (i for i, (a, b) in enumerate(zip(begin, tail, strict=False)) if a != b), len(begin)
                )
                costs.append(float(model.nats(tail)[same - 1 :].sum()))
            right += costs.index(min(costs)) == 0
        share = right / len(QUESTIONS[language])
        found = f"{right} of {len(QUESTIONS[language])} right"
        yield Check(f"questions, {language}", share >= RIGHT, found, f"at least {RIGHT:.0%}")


def checks(engine: CpuEngine, source: Path | None, languages: Sequence[str]) -> Iterator[Check]:
    """All of them, one after the other. BuildError when the engine cannot be loaded."""
    model = Model(engine)
    try:
        yield from number_checks(model, source)
        yield from tokenizer_checks(model, source)
        yield from text_checks(model, languages)
        if "en" in languages:
            yield again_check(model)
        yield from question_checks(model, languages)
        yield from template_checks(model)
    finally:
        model.close()


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:40]} … {text[-15:]}"


def _folder(source: Source, data_dir: Path) -> Path | None:
    """Where the checkpoint lies that the engine was made of."""
    return folder_of(source.repo, data_dir) if source.repo is not None else source.path


@contextmanager
def _bar() -> Iterator[TerminalProgress]:
    progress = TerminalProgress()
    try:
        yield progress
    finally:
        progress.close()


def main() -> int:
    """The command line; exit status 0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m build.check_model", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="as MODEL= of make serve")
    parser.add_argument("--data-dir", type=Path, default=Path("var"))
    parser.add_argument("--hub", choices=HUBS, default=os.environ.get("YOUTU_HUB", "auto"))
    parser.add_argument("--runtime", choices=RUNTIMES, default=os.environ.get("YOUTU_RUNTIME", "auto"))
    parser.add_argument("--languages", help=f"what the model speaks: some of {','.join(LANGUAGES)}")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("httpx2").setLevel(logging.ERROR)
    try:
        source = resolve(arguments.model)
        of_model = source.entry.languages if source.entry else LANGUAGES
        languages = arguments.languages.split(",") if arguments.languages else of_model
        if unknown := set(languages) - set(LANGUAGES):
            raise BuildError(f"--languages must be some of {', '.join(LANGUAGES)}, found {min(unknown)!r}")
        with _bar() as progress:
            engine = make_chosen_engine(
                arguments.model,
                arguments.data_dir,
                runtime=arguments.runtime,
                hub=arguments.hub,
                progress=progress,
            )
        done = []
        for check in checks(engine, _folder(source, arguments.data_dir), languages):
            verdict = {True: "ok", False: "FAILED", None: "-"}[check.passed]
            sys.stdout.write(f"{verdict:<7} {check.name:<26} {check.found}; expected: {check.expected}\n")
            sys.stdout.flush()
            done.append(check)
    except BuildError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    failed = [check.name for check in done if check.passed is False]
    line = {
        "kind": "check-model",
        "model": engine.model_id,
        "source": engine.source,
        "fingerprint": engine.fingerprint,
        "weights": engine.weights,
        "runtime": engine.runtime,
        "sha256": engine.gguf_sha256 if isinstance(engine, EngineInfo) else engine.model_sha256,
        "sound": not failed,
        "failed": failed,
        "checks": [asdict(check) for check in done],
    }
    sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
