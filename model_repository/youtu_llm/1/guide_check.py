"""Checks guides for an engine that a bad guide would crash: TensorRT-LLM's.

Its C++ backend compiles a guide in the middle of a step, where an exception ends all answers and a
long compilation delays them. So it is compiled here first, by llguidance, which the CPU engine uses,
and by xgrammar, in a process that can be killed. Independent of tensors and the engine.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from schema_keywords import NotHeld, check_schema
from text_request import TextRequest
from youtu_contract.errors import Error, Refused, invalid, unsupported
from youtu_contract.values import json_value

if TYPE_CHECKING:
    from llguidance import LLTokenizer

KINDS = ("json", "json_schema", "regex")
MAX_BYTES = 16 << 10
ANSWER_SECONDS = 60.0  # of the compiler, which bounds the time that it works by itself
ANY_OBJECT = '{"type": "object"}'
_TYPE, _GUIDE = "guided_decoding_guide_type", "guided_decoding_guide"
_COMPILER = Path(__file__).with_name("guide_compiler.py")


class GuideCheck:
    """Checks guides for one vocabulary. Safe to use from threads, of which one at a time is served.

    python: the interpreter that has xgrammar; tokenizer_info, tokenizer: the two files of the tokenizer; log:
    told when it does not start.
    """

    def __init__(
        self,
        python: str,
        tokenizer_info: Path,
        tokenizer: Path,
        vocab_size: int,
        log: Callable[[str], object],
    ) -> None:
        self._command = [python, str(_COMPILER), str(tokenizer_info), str(vocab_size)]
        self._tokenizer_path, self._vocab_size = tokenizer, vocab_size
        self._tokenizer: LLTokenizer | None = None
        self._log = log
        self._lock, self._closed = threading.Lock(), False
        self._process: subprocess.Popen[bytes] | None = None
        self._starter = threading.Thread(target=self._start_early, name="guides", daemon=True)
        self._starter.start()

    def check(self, kind: str, text: str | None) -> tuple[str, str]:
        """Kind and text as the engine is to be given them. Raises Refused."""
        if kind not in KINDS:
            raise invalid(_TYPE, f"expected one of {', '.join(KINDS)}; got {kind[:60]!r}")
        if (text is None) != (kind == "json"):
            needed = "it is not allowed" if kind == "json" else "it is required"
            raise invalid(_GUIDE, f"{needed} with type {kind}")
        # Its own kind "json" takes lists and bare values too.
        kind, text = ("json_schema", ANY_OBJECT) if text is None else (kind, text)
        if (size := len(text.encode())) > MAX_BYTES:
            raise invalid(_GUIDE, f"at most {MAX_BYTES} bytes are allowed; got {size}")
        with self._lock:
            fault = self._fault_of_llguidance(kind, text) or _not_held(kind, text)
            fault = fault or self._fault_of_xgrammar(kind, text)
        if fault:
            raise invalid(_GUIDE, fault[:500])
        return kind, text

    def started(self, timeout: float) -> None:
        """Wait until it has been tried to start the compiler."""
        self._starter.join(timeout)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._end()

    def _fault_of_llguidance(self, kind: str, text: str) -> str | None:
        from llguidance import LLMatcher, LLTokenizer

        if self._tokenizer is None:
            words = self._tokenizer_path.read_text(encoding="utf-8")
            self._tokenizer = LLTokenizer(words, n_vocab=self._vocab_size)
        make = LLMatcher.grammar_from_regex if kind == "regex" else LLMatcher.grammar_from_json_schema
        try:
            matcher = LLMatcher(self._tokenizer, make(text), log_level=0)
        except ValueError as error:
            return " ".join(str(error).split("\n\n")[0].split())
        return " ".join(matcher.get_error().split("\n\n")[0].split()) if matcher.is_error() else None

    def _fault_of_xgrammar(self, kind: str, text: str) -> str | None:
        self._start()
        try:
            return self._ask({"kind": kind, "text": text})
        except OSError as error:  # of which a timeout is one
            self._end()
            return f"compiling it takes too much time or memory ({error})"

    def _start_early(self) -> None:
        """It takes seconds: not those of the first request."""
        try:
            with self._lock:
                self._start()
        except Refused as refused:
            self._log(f"guides cannot be checked and are refused: {refused.error}")

    def _start(self) -> None:
        if self._process is not None:
            return
        if self._closed:
            raise Refused(Error("not_ready", "the server is shutting down"))
        # Safe: the modules beside the script are not to be taken for others of their names.
        environment = {**os.environ, "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": ""}
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            fault = _reply(self._process)
        except OSError as error:  # of which a timeout is one
            fault = str(error) or type(error).__name__
        if fault:
            self._end()
            raise Refused(Error("not_ready", f"xgrammar does not start: {fault[:200]}"))

    def _ask(self, request: dict[str, str]) -> str | None:
        if self._process is None or self._process.stdin is None:
            raise BrokenPipeError("it has not been started")
        self._process.stdin.write(f"{json.dumps(request)}\n".encode())
        self._process.stdin.flush()
        return _reply(self._process)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def with_checked_guide(request: TextRequest, guides: GuideCheck, *, thinking: bool) -> TextRequest:
    """The request with its guide, if any, as TensorRT-LLM can be given it. Raises Refused."""
    kind, text = (request.options[name] for name in ("guided_decoding_guide_type", "guided_decoding_guide"))
    if kind is None:
        if text is not None:
            raise invalid("guided_decoding_guide", "it requires guided_decoding_guide_type")
        return request
    if thinking:
        message = "this engine would also constrain the thinking: send enable_thinking false for the template"
        raise unsupported("guided_decoding_guide_type", message)
    if request.options["min_tokens"]:
        # Where only the end may follow, nothing would be left to choose from.
        message = "this engine cannot suppress the end of a guided answer"
        raise unsupported("min_tokens", f"{message}; got {request.options['min_tokens']}")
    kind, text = guides.check(kind, text)
    checked = {"guided_decoding_guide_type": kind, "guided_decoding_guide": text}
    return replace(request, options={**request.options, **checked})


def _not_held(kind: str, text: str) -> str | None:
    try:
        if kind == "json_schema":
            check_schema(json_value(_GUIDE, text))
    except NotHeld as error:
        return str(error)
    return None


def _reply(process: subprocess.Popen[bytes]) -> str | None:
    """The fault that it tells. Raises TimeoutError, or another OSError when it has ended."""
    if process.stdout is None or not select.select([process.stdout], [], [], ANSWER_SECONDS)[0]:
        raise TimeoutError(f"no answer in {ANSWER_SECONDS:g} s")
    line = process.stdout.readline()
    if not line:
        status = process.wait()
        raise BrokenPipeError(
            f"the compiler ended with {signal.Signals(-status).name if status < 0 else status}"
        )
    fault: str | None = json.loads(line)["fault"]
    return fault
