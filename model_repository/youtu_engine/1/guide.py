"""Constrains an answer to a JSON schema or a regular expression, with llguidance.

Handles grammars and which tokens may come next; independent of logits, slots and Triton. llguidance and the
tokenizer are loaded at the first request that needs them: a server without such requests pays nothing.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import grammar
import numpy as np
from grammar import InvalidGuide, compiled, reason
from numpy.typing import NDArray
from sampling import GuideError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MAX_BYTES = 64 << 10
CACHED = 8  # grammars that are kept
ANSWER_SECONDS = 20.0  # of a clock; on a busy machine it is much longer than its processor time
# What models write between their thinking and their answer, and how many such tokens may come.
GAPS, MAX_GAPS = ("\n\n", "\n", " "), 2
TOO_COMPLEX = "it is too complex: compiling it takes more than"


class Guides:
    """Makes the guides of one vocabulary. tokenizer: path of its tokenizer.json. Safe to use from threads."""

    def __init__(self, tokenizer: Path, vocab_size: int) -> None:
        self._path, self._vocab_size = tokenizer, vocab_size
        self._tokenizer: LLTokenizer | None = None
        self._made: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()  # of these two
        self._process: subprocess.Popen[bytes] | None = None
        self._making = threading.Lock()  # of the process

    def made(self, kind: str, text: str, ends: frozenset[int], after: str = "") -> Guide | None:
        """As `make` where that takes no time, else None."""
        with self._lock:
            matcher = self._made.get((kind, text))
            if matcher is None or self._tokenizer is None:
                return None
            self._made.move_to_end((kind, text))
            return Guide(matcher.deep_copy(), self._tokenizer, self._vocab_size, ends, after)

    def make(self, kind: str, text: str, ends: frozenset[int], after: str = "") -> Guide:
        """A guide of one of KINDS; `text` is the schema or the expression, `ends` the ids that end an answer.

        `after`: text behind which the guide begins. Takes seconds at worst. Raises InvalidGuide.
        """
        with self._making:
            if guide := self.made(kind, text, ends, after):
                return guide
            tokenizer = self._loaded()
            self._try_out(kind, text)
            matcher = compiled(tokenizer, kind, text)
        with self._lock:
            self._tokenizer, self._made[kind, text] = tokenizer, matcher
            if len(self._made) > CACHED:
                self._made.popitem(last=False)
            return Guide(matcher.deep_copy(), tokenizer, self._vocab_size, ends, after)

    def close(self) -> None:
        """End the process that tries guides out; a guide that is being made fails."""
        if (process := self._process) is not None:
            process.kill()
            process.wait()

    def _loaded(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        if self._tokenizer is not None:
            return self._tokenizer
        return LLTokenizer(self._path.read_text(encoding="utf-8"), n_vocab=self._vocab_size)

    def _try_out(self, kind: str, text: str) -> None:
        """Raises InvalidGuide, also when it takes more time or memory than there is for it."""
        if self._process is None or self._process.poll() is not None:
            command = [sys.executable, "-I", grammar.__file__, str(self._path), str(self._vocab_size)]
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        process = self._process
        if process.stdin is None or process.stdout is None:
            raise AssertionError("stdin and stdout must be pipes")
        process.stdin.write(json.dumps([kind, text]).encode() + b"\n")
        process.stdin.flush()
        answered = select.select([process.stdout], [], [], ANSWER_SECONDS)[0]
        if line := process.stdout.readline() if answered else b"":
            if why := json.loads(line):
                raise InvalidGuide(why)
            return
        if not answered:
            process.kill()
        status = self._ended(process)
        if status == -signal.SIGPROF or not answered:
            raise InvalidGuide(f"{TOO_COMPLEX} {grammar.CPU_SECONDS:g} s")
        if status < 0 or status == grammar.NO_MEMORY:
            raise InvalidGuide(f"{TOO_COMPLEX} {grammar.MEMORY >> 20} MiB")
        raise RuntimeError(f"the process that tests guides exited with status {status}")

    def _ended(self, process: subprocess.Popen[bytes]) -> int:
        """Its status, once it has ended."""
        self._process = None
        with process:  # closes its pipes
            return process.wait()


class Guide:
    """Where one answer stands in its grammar. Ends are no part of the grammar: they are allowed by `ends`."""

    def __init__(
        self, matcher: LLMatcher, tokenizer: LLTokenizer, vocab_size: int, ends: frozenset[int], after: str
    ) -> None:
        self._matcher, self._tokenizer, self._vocab_size = matcher, tokenizer, vocab_size
        self._ends, self._own_ends = list(ends), list(tokenizer.eos_tokens)
        self._after, self._seen = after.encode(), b""
        single = (tokenizer.tokenize_str(gap) for gap in GAPS if after)
        self._gaps, self._gaps_left = {ids[0] for ids in single if len(ids) == 1}, MAX_GAPS

    @property
    def complete(self) -> bool:
        """Whether nothing can follow what has been taken."""
        return not self._after and bool(self._matcher.is_stopped())

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may come next, [vocab_size]. Raises GuideError."""
        if self._after:
            mask = np.ones(self._vocab_size, np.bool_)
            mask[self._own_ends + self._ends] = False  # the answer has not begun
            return mask
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        mask = np.unpackbits(bits, count=self._vocab_size, bitorder="little").astype(np.bool_)
        mask[self._own_ends] = False
        mask[self._ends] |= (
            self._matcher.is_accepting()
        )  # an end that the grammar has as a text may come anyway
        if self._gaps and self._gaps_left:
            mask[list(self._gaps)] = True
        return mask

    def take(self, token: int) -> None:
        """Go on by a token that was allowed. Raises GuideError."""
        if self._after:
            self._wait(token)
        elif token in self._gaps and self._gaps_left:
            self._gaps_left -= 1
        elif token not in self._ends:
            self._gaps_left = 0
            self._matcher.consume_token(token)
            self._check()

    def _wait(self, token: int) -> None:
        """The guide begins within this token, behind it, or later."""
        seen = self._seen + self._tokenizer.decode_bytes([token])
        _, begun, rest = seen.partition(self._after)
        if not begun:
            self._seen = seen[-len(self._after) :]
            return
        self._after = b""
        if rest := rest.lstrip():
            self._gaps_left = 0
            self._matcher.consume_tokens(self._tokenizer.tokenize_bytes(rest))
            self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GuideError(reason(self._matcher.get_error()))
