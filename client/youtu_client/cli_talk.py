"""The commands `ask` and `info`, and what `ask` reads from a pipe. The options are read in `cli`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import sys
from typing import Any

from .answers import Answer
from .cli_answer import printable, speak
from .client import Client
from .errors import YoutuError
from .servers import addresses
from .thinking import Thoughts
from .wire import Sampling


def ask(client: Client, question: str, *, system: str | None, as_json: bool, options: Sampling) -> int:
    """One answer to standard output, without the thinking before it. Returns the exit code."""
    messages = with_system(system, [{"role": "user", "content": question}])
    if as_json:
        sys.stdout.write(json.dumps(as_dict(client.chat(messages, **options)), ensure_ascii=False) + "\n")
        return 0
    spoken = speak(client, messages, options)
    if spoken.failure is not None:
        raise spoken.failure
    return 130 if spoken.end == "stopped" else 0


def piped() -> str:
    """What stands in standard input, which must be UTF-8. Raises UnicodeDecodeError."""
    return sys.stdin.buffer.read().decode("utf-8-sig").removesuffix("\n")


def has_pipe() -> bool:
    """Whether standard input is a pipe or a file; not so a terminal, /dev/null, or nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (AttributeError, OSError, ValueError):  # closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def info(servers: str, *, as_json: bool) -> int:
    """What each server serves. Exit code 1 unless all are ready."""
    found = [describe(address) for address in addresses(servers)]
    if as_json:
        sys.stdout.write(json.dumps(found if len(found) > 1 else found[0], ensure_ascii=False) + "\n")
    else:
        for facts in found:
            for name, value in facts.items():
                if isinstance(value, dict):
                    value = ", ".join(f"{key} {number:g}" for key, number in value.items())
                elif isinstance(value, bool):
                    value = "yes" if value else "no"
                sys.stdout.write(f"{name:<12} {printable(str(value))}\n")
    away = [str(facts["server"]) for facts in found if not facts["ready"]]
    if away:
        sys.stderr.write(f"youtu: not ready: {', '.join(away)}\n")
    return 1 if away else 0


def describe(address: str) -> dict[str, Any]:
    with Client(address) as client:
        facts: dict[str, Any] = {"server": address, "live": client.live(), "ready": client.ready()}
        with contextlib.suppress(YoutuError):
            facts.update(dataclasses.asdict(client.model_info()))
    return facts


def with_system(system: str | None, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The conversation under a system prompt, unless there is none or it brings its own."""
    if not system or (messages and messages[0].get("role") == "system"):
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


def as_dict(answer: Answer) -> dict[str, Any]:
    """An answer for a machine to read; times in seconds."""
    timings = answer.timings
    thoughts = Thoughts(inside=answer.starts_in_thinking)
    thoughts.feed(answer.text)
    thoughts.end()
    return {
        "answer": thoughts.answer,
        "thinking": thoughts.thinking or None,
        "finish_reason": answer.finish_reason,
        "usage": dataclasses.asdict(answer.usage),
        "timings": {
            "ttft": round(timings.ttft, 6),
            "total": round(timings.total, 6),
            "tokens_per_second": round(timings.tokens_per_second, 2),
        },
        "request_id": answer.request_id,
    }
