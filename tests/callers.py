"""Callers who ask without a pause while servers are killed or restarted, and what became of each request."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.limits import WAIT_S

CALLERS = 6
TO_RETRY = {"no_engine", "not_ready", "engine_stalled", "cancelled"}


def question(number: int) -> str:
    """What a caller asks a real model."""
    return f"怎么退货？{number % 3}"


class Load:
    """Callers who ask one question after the other, streamed and whole, until the end of the `with`."""

    def __init__(self, port: int, prompt: Callable[[int], str] = question) -> None:
        self._port = port
        self._prompt = prompt
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.outcomes: list[tuple[str, str]] = []  # (kind, what)
        self._callers = [threading.Thread(target=self._call, args=[at]) for at in range(CALLERS)]

    def __enter__(self) -> Load:
        for caller in self._callers:
            caller.start()
        self.wait(CALLERS)
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for caller in self._callers:
            caller.join(WAIT_S)
            assert not caller.is_alive(), "a request was neither answered nor refused"

    def wait(self, more: int) -> None:
        """Until so many more requests are over."""
        until, goal = time.monotonic() + WAIT_S, len(self.outcomes) + more
        while len(self.outcomes) < goal:
            assert time.monotonic() < until, self.outcomes
            time.sleep(0.02)

    def count(self, what: str) -> int:
        return sum(one == what for _, one in self.outcomes)

    def _call(self, caller: int) -> None:
        number = 0
        connection = self._connect()
        while not self._stop.is_set():
            number += 1
            stream = (caller + number) % 2 == 0
            body = {"prompt": self._prompt(caller), "temperature": 0, "max_tokens": 60, "stream": stream}
            try:
                outcome = self._ask(connection, body, stream)
            except (OSError, http.client.HTTPException) as error:
                outcome = f"broken: {error!r}"
                connection.close()
            with self._lock:
                self.outcomes.append(("stream" if stream else "whole", outcome))
            if caller % 3:  # the others keep theirs, until the server closes it
                connection.close()
                connection = self._connect()
        connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=WAIT_S)

    def _ask(self, connection: http.client.HTTPConnection, body: dict[str, Any], stream: bool) -> str:
        connection.request("POST", "/chat", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read().decode()
        if response.status == 503 and response.headers["Retry-After"]:
            return "refused, to retry"
        if response.status != 200:
            return f"status {response.status}: {text}"
        if not stream:
            return "answered" if json.loads(text)["token_count"] > 0 else f"odd: {text}"
        events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        last = json.loads(events[-1])
        if "error" in last:
            began = len(events) > 1
            return "broke off, to retry" if began and last["error"]["code"] in TO_RETRY else f"failed: {text}"
        return "answered" if "finish_reason" in last else f"odd: {text}"


def account(load: Load, *, to_retry: int = 0, broken: int = 0) -> None:
    """Every request was answered, but for so many at most that were told to try again.

    `broken`: connections that may have broken, for a server that was killed behind a proxy.
    """
    whole = [what for _, what in load.outcomes if what == "answered"]
    told = [what for _, what in load.outcomes if what.endswith(", to retry")]
    rest = [what for _, what in load.outcomes if what not in whole and what not in told]
    lost = [what for what in rest if what.startswith(("broken", "status 502"))]
    odd = [what for what in rest if what not in lost]
    assert not odd, odd
    assert len(lost) <= broken, lost
    assert len(told) <= to_retry, told
    print(f"{len(whole)} answered, {len(told)} told to try again, {len(lost)} lost")
