"""The commands `ask` and `info`, and what `ask` reads from a pipe. The options are read in `main`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import sys
from typing import Any

from youtu_client import Answer, Client, Sampling, YoutuError
from youtu_client.servers import addresses

from .answer import show_reply
from .conversation import with_system
from .terminal import print_error, printable
from .words import say


def ask(client: Client, question: str, *, system: str | None, as_json: bool, options: Sampling) -> int:
    """One answer to standard output, without the thinking before it. Returns the exit code."""
    messages = with_system(system, [{"role": "user", "content": question}])
    if as_json:
        print_json(as_dict(client.chat(messages, **options)))
        return 0
    reply = show_reply(client, messages, options)
    if reply.failure is not None:
        raise reply.failure
    return 130 if reply.end == "stopped" else 0


def print_json(value: Any) -> None:
    """One line, escaped where standard output cannot write every character."""
    every = (sys.stdout.encoding or "").lower().replace("-", "") in ("utf8", "utf8sig")
    sys.stdout.write(json.dumps(value, ensure_ascii=not every) + "\n")


def read_stdin() -> str:
    """What stands in standard input, which must be UTF-8. Raises UnicodeDecodeError."""
    return sys.stdin.buffer.read().decode("utf-8-sig").removesuffix("\n")


def stdin_is_pipe() -> bool:
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
        print_json(found if len(found) > 1 else found[0])
    else:
        for facts in found:
            for name, value in facts.items():
                if isinstance(value, dict):
                    value = ", ".join(f"{key} {number:g}" for key, number in value.items())
                elif isinstance(value, bool):
                    value = "yes" if value else "no"
                sys.stdout.write(f"{name:<12} {printable(str(value))}\n")
    not_ready = [str(facts["server"]) for facts in found if not facts["ready"]]
    if not_ready:
        print_error(say("not ready: {servers}", servers=", ".join(not_ready)))
    return 1 if not_ready else 0


def describe(address: str) -> dict[str, Any]:
    with Client(address) as client:
        facts: dict[str, Any] = {"server": address, "live": client.live(), "ready": client.ready()}
        with contextlib.suppress(YoutuError):
            facts.update(dataclasses.asdict(client.model_info()))
    return facts


def as_dict(answer: Answer) -> dict[str, Any]:
    """An answer with its parts, for a machine to read; times in seconds."""
    timings = answer.timings
    return {
        "answer": answer.content,
        "thinking": answer.reasoning or None,
        "finish_reason": answer.finish_reason,
        "usage": dataclasses.asdict(answer.usage),
        "timings": {
            "ttft": round(timings.ttft, 6),
            "total": round(timings.total, 6),
            "tokens_per_second": round(timings.tokens_per_second, 2),
        },
        "request_id": answer.request_id,
    }
