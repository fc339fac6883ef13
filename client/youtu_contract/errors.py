"""Errors as data: a code, the parameter at fault, a message and a hint when to try again.

On Triton's wire an error is one line of JSON, which plain Triton clients read in `error_message`:

    {"code": "invalid_value", "param": "temperature", "message": "must be 0 to 10; got 11",
     "retry_after_s": null, "details": {}}

A stream gets no gRPC status of its own: Triton 2.51 dies of these now and then. CODES is the one table of
what a code means over HTTP and in Triton's own statuses. Only `code` decides; `message` is for people.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

TritonStatus = Literal["INVALID_ARG", "UNAVAILABLE", "INTERNAL", "UNSUPPORTED"]
"""Names of Triton's error codes."""


@dataclass(frozen=True)
class Code:
    """What a code means. retry_after_s: when the very same request may succeed; None: never as it is."""

    http: int
    triton: TritonStatus
    retry_after_s: float | None
    meaning: str


CODES: dict[str, Code] = {
    "invalid_value": Code(400, "INVALID_ARG", None, "An input is invalid."),
    "context_length_exceeded": Code(
        400,
        "INVALID_ARG",
        None,
        "The prompt does not fit in the context; details: prompt_tokens, context_tokens.",
    ),
    "unsupported": Code(
        400, "INVALID_ARG", None, "This model or its engine does not support what an input requests."
    ),
    "queue_full": Code(429, "UNAVAILABLE", 1.0, "All slots are taken and the queue is full."),
    "not_ready": Code(503, "UNAVAILABLE", 2.0, "The model is loading, restarting or shutting down."),
    "engine_stalled": Code(503, "UNAVAILABLE", 2.0, "The engine has work but is making no progress."),
    "no_engine": Code(503, "UNAVAILABLE", 2.0, "There is no connection to the inference server."),
    "cancelled": Code(503, "UNAVAILABLE", 2.0, "The inference server cancelled the request."),
    "deadline_exceeded": Code(504, "UNAVAILABLE", None, "The request's deadline has passed."),
    "engine_error": Code(
        502, "INTERNAL", None, "The engine failed; the inference server's log has the reason."
    ),
}


@dataclass(frozen=True)
class Error:
    """One error. `param`: the input at fault, as a path such as `messages[0].role`."""

    code: str
    message: str
    param: str | None = None
    details: Mapping[str, int] = field(default_factory=dict)

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which the same request may succeed; None: it will not."""
        code = CODES.get(self.code)
        return code.retry_after_s if code else None

    def __str__(self) -> str:
        return f"{self.param}: {self.message}" if self.param else self.message

    def to_line(self) -> str:
        """Its form on Triton's wire."""
        value = {
            "code": self.code,
            "param": self.param,
            "message": self.message,
            "retry_after_s": self.retry_after_s,
            "details": dict(self.details),
        }
        return json.dumps(value, ensure_ascii=False)

    @classmethod
    def from_line(cls, line: str) -> Error | None:
        """What `to_line` wrote; None for anything else, such as Triton's own prose."""
        try:
            value: Any = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(value, dict) or not isinstance(value.get("code"), str):
            return None
        details = value.get("details")
        return cls(
            code=value["code"],
            message=str(value.get("message", "")),
            param=value.get("param"),
            details=details if isinstance(details, dict) else {},
        )


class Refused(Exception):
    """A request that cannot be answered; `error` says why."""

    def __init__(self, error: Error) -> None:
        super().__init__(str(error))
        self.error = error


def invalid(param: str | None, message: str) -> Refused:
    """An input is not what it must be; `message` names the limit and what was sent."""
    return Refused(Error("invalid_value", message, param))


def unsupported(param: str, message: str) -> Refused:
    """This model or its engine cannot do what an input asks for."""
    return Refused(Error("unsupported", message, param))


def context_length_exceeded(
    param: str | None, tokens: int, context: int, *, at_least: bool = False, of_tools: int = 0
) -> Refused:
    """A prompt of `tokens` tokens leaves no room for an answer. `at_least`: they were not counted to the end.
    `of_tools`: how many of them only tell the model of tools.

    The sentence begins as OpenAI's does and calls the prompt too long, since clients know it by these words
    (litellm 1.110, LangChain with openai 3).
    """
    sent = f"at least {tokens}" if at_least else str(tokens)
    message = (
        f"This model's maximum context length is {context} tokens. However, your prompt is too long: it has "
        f"{sent} tokens; at most {context - 1} leave room for an answer."
    )
    details = {"prompt_tokens": tokens, "context_tokens": context}
    if of_tools:
        details["tools_tokens"] = of_tools
        alone = f"The tools alone take {of_tools} tokens"
        if of_tools >= context:
            alone += f", {of_tools - context + 1} more than fit: send fewer, or serve with a larger context"
        message += f" {alone}."
    return Refused(Error("context_length_exceeded", message, param, details=details))
