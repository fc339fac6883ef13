"""A crowd in front of the frontend: callers who come, wait, leave in the midst, and come back.

    python -m tests.e2e.crowd http://127.0.0.1:8080 --callers 200 --seconds 600

Whoever stays must get a whole answer or an error of the one shape; anything else is a fault and is reported.
Prints one JSON line: what became of the requests, how long probes and refusals took (seconds), the faults.
It knows the HTTP contract and nothing of the processes behind.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2 as httpx

PATIENCE_S = 300.0
QUESTIONS = ("怎么退货？", "What are your opening hours?", "Write a function that adds two numbers.", "你好")


@dataclass
class Tally:
    """What happened so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    faults: list[str] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """For one JSON line."""
        return {
            "outcomes": dict(sorted(self.outcomes.items())),
            "seconds": {
                name: {
                    "n": len(values),
                    "p50": round(statistics.median(values), 4),
                    "p99": round(sorted(values)[int(0.99 * (len(values) - 1))], 4),
                    "max": round(max(values), 4),
                }
                for name, values in self.seconds.items()
            },
            "faults": self.faults[:10],
        }


class Crowd:
    """`callers` at once for `seconds`, and for as long as fewer than `least` of an outcome were counted.

    `broken`: connections may break, for somebody kills the frontend.
    """

    def __init__(
        self,
        url: str,
        callers: int,
        seconds: float,
        *,
        broken: bool = False,
        least: Mapping[str, int] | None = None,
        seed: int = 1,
    ) -> None:
        self._url = url
        self._callers = callers
        self._seconds = seconds
        self._broken = broken
        self._until = 0.0
        self._least = least or {}
        self.tally = Tally()

    async def run(self) -> Tally:
        """Let them come; ends when the last has gone."""
        self._until = time.monotonic() + self._seconds
        async with contextlib.AsyncExitStack() as stack:
            # One client each: the connections of a shared one are found by looking through all of them.
            clients = [
                await stack.enter_async_context(
                    httpx.AsyncClient(base_url=self._url, timeout=PATIENCE_S, verify=False)
                )
                for _ in range(self._callers + 1)
            ]
            callers = [self._caller(client, random.Random(at)) for at, client in enumerate(clients[1:])]
            await asyncio.gather(self._prober(clients[0]), *callers)
        return self.tally

    @property
    def _goes_on(self) -> bool:
        missing = any(self.tally.outcomes[outcome] < count for outcome, count in self._least.items())
        now = time.monotonic()
        return now < self._until or (missing and now < self._until + PATIENCE_S)

    async def _prober(self, client: httpx.AsyncClient) -> None:
        while self._goes_on:
            for path in ("/health/live", "/metrics"):
                started = time.monotonic()
                try:
                    await client.get(path)
                    self.tally.seconds[path].append(time.monotonic() - started)
                except httpx.TransportError as error:
                    self._broke(path, error)
            await asyncio.sleep(0.2)

    async def _caller(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        while self._goes_on:
            kind = chance.choice(("plain", "stream", "openai", "leaves", "leaves"))
            pause = 0.05
            started = time.monotonic()
            try:
                pause = await getattr(self, f"_{kind}")(client, chance)
            except httpx.TimeoutException:
                self.tally.faults.append(f"{kind}: nothing for {PATIENCE_S} s")
            except httpx.TransportError as error:
                self._broke(kind, error)
            if time.monotonic() - started > PATIENCE_S + 30:
                self.tally.faults.append(f"{kind}: took {time.monotonic() - started:.0f} s")
            await asyncio.sleep(pause * (0.5 + chance.random()))

    def _broke(self, kind: str, error: Exception) -> None:
        self.tally.outcomes["broken"] += 1
        if not self._broken:
            self.tally.faults.append(f"{kind}: {error!r}")

    async def _plain(self, client: httpx.AsyncClient, chance: random.Random) -> float:
        started = time.monotonic()
        reply = await client.post("/chat", json={"prompt": chance.choice(QUESTIONS), "max_tokens": 40})
        return self._judge(reply, reply.content, time.monotonic() - started)

    async def _stream(self, client: httpx.AsyncClient, chance: random.Random) -> float:
        body = {"prompt": chance.choice(QUESTIONS), "max_tokens": 40, "stream": True}
        async with client.stream("POST", "/chat", json=body) as reply:
            return self._judge(reply, await reply.aread(), 0.0, b"event: done\n")

    async def _openai(self, client: httpx.AsyncClient, chance: random.Random) -> float:
        message = {"role": "user", "content": chance.choice(QUESTIONS)}
        body = {"messages": [message], "max_tokens": 40, "stream": True, "n": chance.choice((1, 1, 1, 2))}
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            return self._judge(reply, await reply.aread(), 0.0, b"data: [DONE]")

    async def _leaves(self, client: httpx.AsyncClient, chance: random.Random) -> float:
        body = {"prompt": chance.choice(QUESTIONS), "max_tokens": 400, "stream": chance.random() < 0.5}
        try:
            async with asyncio.timeout(chance.random() * 2):
                await client.post("/chat", json=body)
        except TimeoutError:
            self.tally.outcomes["left"] += 1
        return 0.0

    def _judge(self, reply: httpx.Response, body: bytes, seconds: float, end: bytes | None = None) -> float:
        status = reply.status_code
        if status == 200:
            if end is None:
                json.loads(body)["finish_reason"]
                self.tally.outcomes["answered"] += 1
            elif end in body:
                self.tally.outcomes["answered"] += 1
            elif b'"error":{"message"' in body:
                self.tally.outcomes["error event"] += 1
            else:
                self.tally.faults.append(f"200 and no end: {body[-200:]!r}")
            return 0.0
        self.tally.outcomes[str(status)] += 1
        error = json.loads(body).get("error", {})
        if set(error) != {"message", "type", "param", "code"} or status not in (429, 502, 503, 504):
            self.tally.faults.append(f"{status}: {body[:200]!r}")
        if status not in (429, 503):
            return 0.1
        if seconds and error.get("code") == "queue_full":
            self.tally.seconds["refusal"].append(seconds)
        return min(3.0, float(reply.headers["Retry-After"]))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("url")
    options.add_argument("--callers", type=int, default=200)
    options.add_argument("--seconds", type=float, default=600)
    options.add_argument("--broken", action="store_true", help="somebody kills the frontend meanwhile")
    given = options.parse_args()
    crowd = Crowd(given.url, given.callers, given.seconds, broken=given.broken)
    print(json.dumps(asyncio.run(crowd.run()).report(), ensure_ascii=False))


if __name__ == "__main__":
    main()
