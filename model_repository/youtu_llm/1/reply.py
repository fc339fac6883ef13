"""One growing answer: the engine's responses in, the outputs of the text contract out.

Handles both contracts' tensors by name; independent of Triton, gRPC and the reader.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detokenizer import StreamingText
from text_request import TextRequest
from youtu_contract.parts import Content, Part, PartsParser, Reasoning, ToolCall

Outputs = dict[str, Any]
"""Output name -> its value, or values of a list."""

# Tensors that an engine sends beside its tokens, and where they go in Reply.
_PERF = {
    "kv_cache_reused_blocks": "cached_blocks",
    "arrival_time_ns": "engine_arrival_ns",
    "first_token_time_ns": "first_ns",
    "last_token_time_ns": "last_ns",
}
_TOP = ("top_log_prob_ids", "top_log_probs")
_PROMPT = "prompt_log_probs"
_TOP_OF_PROMPT = ("top_prompt_log_prob_ids", "top_prompt_log_probs")


def engine_outputs(request: TextRequest) -> tuple[str, ...]:
    """The engine's outputs that a reply is made of."""
    top, prompt = request.options["top_log_probs"], request.options["return_prompt_log_probs"]
    return (
        "output_ids",
        "sequence_length",
        "output_log_probs",
        *_PERF,
        *(_TOP if top else ()),
        *((_PROMPT,) if prompt else ()),
        *(_TOP_OF_PROMPT if prompt and top else ()),
    )


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Of each token id what it adds to the text, the names of those that add nothing, and which ones end."""

    table: Sequence[bytes]
    names: Mapping[int, bytes]
    ends: Collection[int]

    def data(self, token: int) -> bytes:
        return self.table[token] if 0 <= token < len(self.table) and token not in self.ends else b""

    def name(self, token: int) -> bytes:
        """What it adds, or what it is called where it adds nothing."""
        return self.data(token) or self.names.get(token, b"")


@dataclass(frozen=True, slots=True)
class _Token:
    start: int  # bytes of the text before it
    data: bytes
    log_prob: float
    top_ids: list[int]
    top_log_probs: list[float]


class Reply:
    """`reason` is empty until the answer has come to its end.

    An engine's times are nanoseconds of a clock of its own, of which only differences count: NVIDIA's counts
    from the start of the machine. `handed_ns`, since 1970, is when the request was handed to it.

    prompt: its token ids; limit: tokens that the engine was asked for at most; thinking: the prompt left the
    model in <think>.
    """

    def __init__(
        self,
        request: TextRequest,
        vocabulary: Vocabulary,
        *,
        prompt: Sequence[int],
        limit: int,
        thinking: bool,
    ) -> None:
        options = request.options
        self._vocabulary = vocabulary
        self._stop_ids = frozenset(options["stop_token_ids"])
        self._min_tokens: int = options["min_tokens"]
        self._log_probs: bool = options["return_log_probs"]
        self._top: int = options["top_log_probs"]
        self._prompt, self._limit, self._thinking = prompt, limit, thinking
        self._of_the_prompt: Outputs = {}
        chat = request.messages is not None
        self._text = StreamingText(
            vocabulary.table,
            options["stop"],
            names=vocabulary.names,
            min_tokens=self._min_tokens,
            thinking=thinking if chat and (options["stop"] or self._stop_ids) else None,
        )
        self._parser: PartsParser | None = None
        if options["return_parts"]:
            self._parser = PartsParser(thinking=thinking, tools=bool(request.tools))
        self._one_call = self._parser is not None and not options["parallel_tool_calls"]
        self._parts: list[Part] = []
        self._called = False
        self._token_ids: list[int] | None = [] if options["return_token_ids"] else None
        self._pieces: list[str] = []
        self._bytes = 0
        self._unsent: deque[_Token] = deque()
        self._begun = False
        self._at_stop_id = False
        self._stop_token: int | None = None
        self.reason = ""
        self.tokens = 0
        self.cached_blocks = 0
        self.handed_ns = time.time_ns()
        self.engine_arrival_ns = 0
        self.first_ns = 0
        self.last_ns = 0

    @property
    def stopped(self) -> bool:
        """Whether something ended it of which the engine does not know.

        A stop word, a stop token after thinking, or the one call of a tool that there may be.
        """
        return self._text.stopped or self._called or (self._thinking and self._at_stop_id)

    @property
    def has_news(self) -> bool:
        """Whether there is text that no response has carried yet."""
        return bool(self._pieces)

    def take(self, response: Mapping[str, list[Any]]) -> None:
        """The next response of the engine: tensor name -> values, flat. What follows the end is dropped."""
        for name, attribute in _PERF.items():
            if response.get(name):
                setattr(self, attribute, response[name][0])
        if _PROMPT in response:
            self._of_the_prompt = self._prompt_outputs(response)
        # An engine may fill up beyond sequence_length; NVIDIA's sends all log-probs each time.
        tokens = response.get("output_ids", [])[: response.get("sequence_length", [None])[0]]
        log_probs = response.get("output_log_probs", [])[-len(tokens) :] if tokens else []
        top_ids, top_log_probs = (response.get(name, []) for name in _TOP)
        for i, token in enumerate(tokens):
            if self.tokens >= self._limit:  # of a request for none, for which the engine makes one
                break
            self.tokens += 1
            if self._token_ids is not None:
                self._token_ids.append(token)
            self._at_stop_id = (
                token in self._stop_ids
                and self.tokens > self._min_tokens
                and self._text.in_content(self._vocabulary.data(token))
            )
            end = token in self._vocabulary.ends or self._at_stop_id
            data = b"" if end else self._vocabulary.data(token)
            if self._log_probs and i < len(log_probs):
                part = slice(i * self._top, (i + 1) * self._top)
                made = _Token(self._bytes, data, log_probs[i], top_ids[part], top_log_probs[part])
                self._unsent.append(made)
            self._bytes += len(data)
            if self._at_stop_id and token not in self._vocabulary.ends:
                self._stop_token = token
            if end:
                self.reason = "stop"
            elif piece := self._text.push(token):
                self._grow(piece)
            if self._text.stopped or self._called:
                self.reason = "stop"
            if self.reason:
                break

    def _grow(self, piece: str) -> None:
        self._pieces.append(piece)
        if self._parser is not None:
            for part in self._parser.feed(piece):
                if not self._called:  # what follows the one call is dropped
                    self._parts.append(part)
                    self._called = self._one_call and isinstance(part, ToolCall)

    def finish(self) -> None:
        """No more responses come."""
        if not self._called:
            self._grow(self._text.finish())
        if self._parser is not None and not self._called:
            self._parts += self._parser.end()
        if not self.reason:
            self.reason = "length" if self.tokens >= self._limit and not self.stopped else "stop"

    def news(self, *, last: bool = False) -> Outputs:
        """The outputs of one response: what has come since the one before."""
        text = "".join(self._pieces)
        out: Outputs = {"text_output": text}
        self._pieces = []
        if self._parser is not None:
            out |= _parts_outputs(self._parts)
            self._parts = []
        if self._token_ids is not None:
            out["output_token_ids"] = self._token_ids
            self._token_ids = []
            if not self._begun:
                out["prompt_token_ids"] = list(self._prompt)
        if self._thinking and (last or not self._begun):
            out["starts_in_thinking"] = True
        self._begun = True
        out |= self._of_the_prompt
        self._of_the_prompt = {}
        if self._log_probs:
            out |= self._token_outputs(last)
        return out

    def ending(self, *, prompt_tokens: int, arrival_ns: int, tokens_per_block: int) -> Outputs:
        """What only the last response carries."""
        stopped: Outputs = {}
        if self._text.stopped_by is not None:
            stopped["stop_word"] = self._text.stopped_by
        elif self._stop_token is not None:
            stopped["stop_token_id"] = self._stop_token
        return stopped | {
            "finish_reason": self.reason,
            "num_input_tokens": prompt_tokens,
            "num_output_tokens": self.tokens,
            "num_cached_tokens": self.cached_blocks * tokens_per_block,
            "arrival_time_ns": arrival_ns,
            "first_token_time_ns": self._since_1970(self.first_ns),
            "last_token_time_ns": self._since_1970(self.last_ns),
        }

    def _since_1970(self, engine_ns: int) -> int:
        if not (engine_ns and self.engine_arrival_ns):
            return time.time_ns()
        return self.handed_ns + engine_ns - self.engine_arrival_ns

    def _token_outputs(self, last: bool) -> Outputs:
        """The tokens whose text is out; at the end all of them, with as much of each as was shown."""
        shown, tokens = self._text.shown, []
        while self._unsent and (last or self._unsent[0].start + len(self._unsent[0].data) <= shown):
            tokens.append(self._unsent.popleft())
        out: Outputs = {
            "output_log_probs": [token.log_prob for token in tokens],
            "output_tokens": [token.data[: max(0, shown - token.start)] for token in tokens],
        }
        if self._top:
            out["top_tokens"] = self._names([index for token in tokens for index in token.top_ids])
            out["top_output_log_probs"] = [value for token in tokens for value in token.top_log_probs]
        return out

    def _prompt_outputs(self, response: Mapping[str, list[Any]]) -> Outputs:
        out: Outputs = {"prompt_tokens": self._names(self._prompt), "prompt_log_probs": response[_PROMPT]}
        if self._top:
            ids, values = (response[name] for name in _TOP_OF_PROMPT)
            out |= {"top_prompt_tokens": self._names(ids), "top_prompt_log_probs": values}
            if self._token_ids is not None:
                out["top_prompt_token_ids"] = ids
        return out

    def _names(self, tokens: Sequence[int]) -> list[bytes]:
        return [self._vocabulary.name(token) for token in tokens]


def _parts_outputs(parts: Sequence[Part]) -> Outputs:
    calls = [
        {"id": part.id, "name": part.name, "arguments": part.arguments}
        for part in parts
        if isinstance(part, ToolCall)
    ]
    out: Outputs = {
        "reasoning_output": "".join(part.text for part in parts if isinstance(part, Reasoning)),
        "content_output": "".join(part.text for part in parts if isinstance(part, Content)),
    }
    return out | {"tool_calls_output": json.dumps(calls, ensure_ascii=False)} if calls else out
