"""Everything at once for minutes, and the memory of the engine's process meanwhile, which must not grow.

Callers come and go with short and long prompts, a shared system prompt, answers that follow a schema,
log-probabilities, and calls that are left in the middle. Uses the deployment as a client does.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from youtu_client import Client, YoutuError

from benchmarks.measuring import say
from benchmarks.served import Served

SETTLING = 0.2  # share of the time after which memory is expected to stay
LOOK_EVERY = 5.0
SYSTEM_WORDS = 40
SCHEMA = (
    '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, '
    '"count": {"type": "integer"}}, "required": ["name", "count"]}'
)


def run(server: Served, seconds: float, callers: int, context: int) -> dict[str, Any]:
    """Bytes of the engine's process: medians of the second fifth of the time and of the last, and the growth.

    RuntimeError when an answer fails.
    """
    until = time.monotonic() + seconds
    asked: Counter[str] = Counter()
    failures: list[str] = []
    lock = threading.Lock()

    def call(number: int) -> None:
        source = random.Random(number)  # noqa: S311
        with Client(server.grpc, timeout=600) as client:
            while time.monotonic() < until and not failures:
                kind = source.choice(list(KINDS))
                try:
                    KINDS[kind](client, source, context)
                except YoutuError as error:
                    failures.append(f"{kind}: {type(error).__name__}: {error}")
                with lock:
                    asked[kind] += 1

    threads = [threading.Thread(target=call, args=(n,), daemon=True) for n in range(callers)]
    for thread in threads:
        thread.start()
    held: list[int] = []
    while time.monotonic() < until and not failures:
        time.sleep(min(LOOK_EVERY, seconds / 20))
        held.append(server.memory().engine)
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    part = max(1, round(SETTLING * len(held)))
    start, end = statistics.median(held[part : 2 * part]), statistics.median(held[-part:])
    say(f"mixed load: {dict(asked)}, {start / 1e9:.3f} GB, then {end / 1e9:.3f} GB")
    return {"seconds": seconds, "asked": dict(asked), "start": start, "end": end, "growth": end - start}


def _words(source: random.Random, count: int) -> str:
    return " ".join(f"w{source.randrange(10_000)}" for _ in range(count))


def _short(client: Client, source: random.Random, _context: int) -> None:
    client.chat(_words(source, source.randint(2, 12)), max_tokens=source.randint(4, 48))


def _long(client: Client, source: random.Random, context: int) -> None:
    client.chat(_words(source, source.randint(context // 24, context // 10)), max_tokens=8)


def _shared(client: Client, source: random.Random, _context: int) -> None:
    system = {"role": "system", "content": _words(random.Random(0), SYSTEM_WORDS)}  # noqa: S311
    client.chat([system, {"role": "user", "content": _words(source, 6)}], max_tokens=16)


def _schema(client: Client, source: random.Random, _context: int) -> None:
    options: dict[str, Any] = {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": SCHEMA}
    client.chat(_words(source, 6), max_tokens=24, **options)


def _log_probs(client: Client, source: random.Random, _context: int) -> None:
    client.chat(_words(source, 6), max_tokens=12, return_log_probs=True)


def _left(client: Client, source: random.Random, _context: int) -> None:
    with client.stream(_words(source, source.randint(6, 60)), max_tokens=200) as pieces:
        for _, _piece in zip(range(source.randint(0, 4)), pieces, strict=False):
            pass


KINDS: dict[str, Callable[[Client, random.Random, int], None]] = {
    "short": _short,
    "long": _long,
    "shared system prompt": _shared,
    "schema": _schema,
    "log-probabilities": _log_probs,
    "left": _left,
}
