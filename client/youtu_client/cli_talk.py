"""The commands that talk: `ask`, `chat`, `info`. They know the terminal; the options are read in `cli`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .answers import Answer
from .client import Client
from .errors import InvalidRequest, YoutuError
from .servers import addresses
from .wire import Sampling

HELP = "/reset forgets the conversation, /quit or Ctrl-D ends, Ctrl-C stops an answer"


def ask(client: Client, question: str, *, system: str | None, as_json: bool, options: Sampling) -> int:
    """One answer to standard output."""
    messages = with_system(system, [{"role": "user", "content": question}])
    if as_json:
        sys.stdout.write(json.dumps(as_dict(client.chat(messages, **options)), ensure_ascii=False) + "\n")
        return 0
    last = "\n"
    with client.stream(messages, **options) as stream:
        try:
            for piece in stream:
                last = piece.text or last
                sys.stdout.write(piece.text)
                sys.stdout.flush()
        finally:
            if not last.endswith("\n"):
                sys.stdout.write("\n")
    return 0


def chat(client: Client, *, system: str | None, options: Sampling) -> int:
    """A conversation until the user ends it. What goes wrong is said, and the conversation goes on."""
    out = sys.stdout
    try:
        model = client.model_info()
        out.write(f"{model.id}. {model.description}\n")
    except YoutuError as error:
        sys.stderr.write(f"youtu: {error}\n")
    out.write(HELP + "\n")
    history: list[dict[str, Any]] = []
    with line_history():
        while True:
            try:
                line = input("> ").strip()
            except EOFError:
                out.write("\n")
                return 0
            except KeyboardInterrupt:
                out.write(f"\n({HELP})\n")
                continue
            if line == "/quit":
                return 0
            if line == "/reset":
                history.clear()
                out.write("(forgotten)\n")
            elif line.startswith("/"):
                out.write(f"({HELP})\n")
            elif line:
                history.append({"role": "user", "content": line})
                answer = speak(client, with_system(system, history), options)
                if answer:
                    history.append({"role": "assistant", "content": answer})
                else:
                    history.pop()


def speak(client: Client, messages: list[dict[str, Any]], options: Sampling) -> str:
    """Print one answer as it comes. Ctrl-C ends it; what was said until then is returned."""
    said: list[str] = []
    try:
        with client.stream(messages, **options) as stream:
            for piece in stream:
                said.append(piece.text)
                sys.stdout.write(piece.text)
                sys.stdout.flush()
        if stream.answer.finish_reason == "length":
            sys.stdout.write(" (cut off at the limit)")
        sys.stdout.write("\n")
    except KeyboardInterrupt:
        sys.stdout.write(" (stopped)\n")
    except YoutuError as error:
        hint = "; /reset starts anew" if isinstance(error, InvalidRequest) and len(messages) > 1 else ""
        sys.stdout.write("\n" if said else "")
        sys.stdout.flush()
        sys.stderr.write(f"youtu: {error}{hint}\n")
        return ""
    return "".join(said)


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
                sys.stdout.write(f"{name:<12} {value}\n")
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
    return {
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "usage": dataclasses.asdict(answer.usage),
        "timings": {
            "ttft": round(timings.ttft, 6),
            "total": round(timings.total, 6),
            "tokens_per_second": round(timings.tokens_per_second, 2),
        },
        "request_id": answer.request_id,
    }


@contextlib.contextmanager
def line_history() -> Iterator[None]:
    """Line editing, and the lines typed in earlier sessions, where the terminal and the disk allow it."""
    try:
        import readline
    except ImportError:
        yield
        return
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    file = state / "youtu" / "history"
    keep = sys.stdin.isatty()
    if keep:
        with contextlib.suppress(OSError):
            readline.read_history_file(file)
        readline.set_history_length(1000)
    try:
        yield
    finally:
        if keep:
            with contextlib.suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(file)
                file.chmod(0o600)
