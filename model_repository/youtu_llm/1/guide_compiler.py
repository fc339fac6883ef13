"""A separate process that checks guides, one after another, with TensorRT-LLM's xgrammar.

Run by the Python that has xgrammar, in NVIDIA's container its own. Arguments: the tokenizer's file and the
size of the vocabulary. Lines of JSON in, {"kind", "text"}; one line of JSON out for each, {"fault"}: null, or
what is wrong. Compiles as the C++ backend does (batch_manager/guidedDecoder.cpp): what throws here throws
there, in the middle of a step, and ends all answers. A guide that takes too long ends this process.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import resource
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np

VERSION = "0.1.25"  # of TensorRT-LLM 1.2's requirements.txt
CPU_SECONDS = 2  # for one guide; a little more, for the limit is in whole seconds
MORE_BYTES = 1 << 30  # that the process may take once it is ready
GRAMMAR_BYTES = 64 << 20
STEPS = 64  # that are tried: some guides are compiled at once, and take minutes for a step


def main() -> None:
    try:
        compiler = Compiler(Path(sys.argv[1]), int(sys.argv[2]))
    except Exception as error:  # whatever it is, the other end has to hear of it
        _say(f"{type(error).__name__}: {error}")
        return
    _limit_memory()
    _say(None)
    for line in sys.stdin:
        _limit_time()
        try:
            fault = compiler.fault(**json.loads(line))
        except Exception as error:
            fault = " ".join(str(error).split()) or type(error).__name__
        _say(fault)


class Compiler:
    """xgrammar's compiler for one tokenizer, with the backend's own settings."""

    def __init__(self, tokenizer_info: Path, vocab_size: int) -> None:
        self._core, self._vocab_size = _bindings(), vocab_size
        info = json.loads(tokenizer_info.read_text(encoding="utf-8"))
        kind = json.loads(self._core.TokenizerInfo._detect_metadata_from_hf(info["tokenizer_str"]))
        facts = json.dumps(kind | {"vocab_size": vocab_size, "stop_token_ids": info["stop_token_ids"]})
        self._stops = info["stop_token_ids"]
        self.tokenizer = self._core.TokenizerInfo.from_vocab_and_metadata(info["encoded_vocab"], facts)
        self._compiler = self._core.GrammarCompiler(self.tokenizer, 1, False, -1)

    def fault(self, kind: str, text: str) -> str | None:
        """Why an answer cannot be held to this guide; None when it can. Raises what xgrammar does."""
        matcher, chance = self.matcher(kind, text), np.random.default_rng(0)
        for step in range(STEPS):  # by tokens drawn from those that are allowed
            allowed = self.allowed(matcher)
            if not allowed:
                return f"no token can follow the first {step}" if step else "no token can start it"
            further = [token for token in allowed if token not in self._stops]
            if not further:
                return None
            matcher.accept_token(int(chance.choice(further)), False)
        return None

    def matcher(self, kind: str, text: str) -> Any:
        """xgrammar's own; ValueError when the grammar is too large."""
        if kind == "regex":
            compiled = self._compiler.compile_grammar(self._core.Grammar.from_regex(text, False))
        else:
            compiled = self._compiler.compile_json_schema(text, True, None, None, True, None)
        if (size := compiled.memory_size_bytes) > GRAMMAR_BYTES:
            raise ValueError(f"its grammar takes {size >> 20} MiB; the limit is {GRAMMAR_BYTES >> 20}")
        return self._core.GrammarMatcher(compiled, None, False, -1)

    def allowed(self, matcher: Any) -> list[int]:
        """The tokens that may come next."""
        mask = np.zeros((1, -(-self._vocab_size // 32)), np.int32)
        matcher.fill_next_token_bitmask(mask, 0, False)
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
        tokens: list[int] = np.flatnonzero(bits).tolist()
        return tokens


def _bindings() -> Any:
    """xgrammar's C++ part alone: the package around it imports torch, which takes seconds and memory."""
    if (found := importlib.metadata.version("xgrammar")) != VERSION:
        raise ImportError(f"xgrammar is {found}; expected {VERSION}")
    spec = importlib.util.find_spec("xgrammar")
    package = types.ModuleType("xgrammar")
    package.__spec__, package.__path__ = spec, list(spec.submodule_search_locations or ()) if spec else []
    sys.modules["xgrammar"] = package
    return importlib.import_module("xgrammar.xgrammar_bindings")


def _limit_memory() -> None:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (used,) = (int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + MORE_BYTES, used + MORE_BYTES))


def _limit_time() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + CPU_SECONDS, hard))


def _say(fault: str | None) -> None:
    sys.stdout.write(f"{json.dumps({'fault': fault})}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
