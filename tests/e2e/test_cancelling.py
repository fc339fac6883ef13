"""A call that is left frees its slot: in decode, in prefill, in the queue. `make promises` measures how soon.

That it takes no more than one engine step is held by tests/model_repository/test_engine.py. Here the order of
things is: the next in line gets its first token while all others in the slots still make theirs, so that no
slot but the left one can have come free. On a busy machine these may end before the call is left; such a try
shows nothing and is made again.
"""

from __future__ import annotations

import http.client
import json
import random
from collections.abc import Callable
from contextlib import ExitStack
from urllib.parse import urlsplit

from youtu_client import Client, Stream

from tests.e2e.running import RunningServer
from tests.limits import WAIT_S

SLOTS = 4
GOOD, TRIES = 2, 12
LONG = 1900


class Try:
    """One attempt: the streams it opens are closed after it."""

    def __init__(self, client: Client, opened: ExitStack) -> None:
        self._client = client
        self._opened = opened

    def stream(self, prompt: str = "你好", tokens: int = LONG) -> Stream:
        options = {"min_tokens": tokens, "max_tokens": tokens, "temperature": 1.0}
        return self._opened.enter_context(self._client.stream(prompt, **options))  # type: ignore[arg-type]

    def busy(self, slots: int) -> list[Stream]:
        """Answers of LONG tokens that have begun."""
        streams = [self.stream() for _ in range(slots)]
        for stream in streams:
            next(stream)
        return streams

    def served_in_the_left_slot(
        self, others: list[Stream], waiting: Stream, leave: Callable[[], object]
    ) -> bool:
        """Whether `waiting` waited until `leave`, and was served before any of the `others` ended."""
        if waiting.poll(0.05) is not None:
            return False
        leave()
        return served_first(waiting, others)


def served_first(waiting: Stream, others: list[Stream]) -> bool:
    """Whether the first token of `waiting` was made before the last of any of the `others`."""
    for stream in (waiting, *others):
        list(stream)
    last = min(stream.answer.timings.last_token_ns for stream in others)
    return waiting.answer.timings.first_token_ns < last


def tried(client: Client, once: Callable[[Try], bool]) -> None:
    good = 0
    for _ in range(TRIES):
        with ExitStack() as opened:
            good += once(Try(client, opened))
        if good == GOOD:
            return
    raise AssertionError(f"in {good} of {TRIES} tries the left slot came free before another answer ended")


def test_in_decode(client: Client) -> None:
    def once(attempt: Try) -> bool:
        left, *others = attempt.busy(SLOTS)
        return attempt.served_in_the_left_slot(others, attempt.stream(tokens=3), left.close)

    tried(client, once)


def test_in_prefill(client: Client) -> None:
    def once(attempt: Try) -> bool:
        others = attempt.busy(SLOTS - 1)
        prompt = "".join(chr(random.randrange(0x4E00, 0x9FA5)) for _ in range(600))  # about 1,800 tokens
        left = attempt.stream(prompt, tokens=100)
        left.poll(0.01)  # sends it
        waiting = attempt.stream(tokens=3)
        if waiting.poll(0) is not None or left.poll(0) is not None:
            return False
        left.close()
        return served_first(waiting, others)

    tried(client, once)


def test_in_the_queue(client: Client) -> None:
    """A place in the queue that was left is not served: the one behind it is next."""

    def once(attempt: Try) -> bool:
        left, *others = attempt.busy(SLOTS)
        first, second = attempt.stream(), attempt.stream(tokens=3)
        waited = first.poll(0.05) is None
        first.close()
        return waited and attempt.served_in_the_left_slot(others, second, left.close)

    tried(client, once)


def test_by_hanging_up_on_tritons_http_stream(client: Client, server: RunningServer) -> None:
    body = {
        "messages": json.dumps([{"role": "user", "content": "你好"}]),
        "min_tokens": LONG, "max_tokens": LONG, "stream": True, "temperature": 1.0,
    }  # fmt: skip

    def once(attempt: Try) -> bool:
        others = attempt.busy(SLOTS - 1)
        connection = http.client.HTTPConnection(urlsplit(server.triton_http_url).netloc, timeout=WAIT_S)
        connection.request("POST", "/v2/models/youtu_llm/generate_stream", json.dumps(body))
        response = connection.getresponse()
        response.read(10)

        def hang_up() -> None:
            response.close()
            connection.close()

        try:
            return attempt.served_in_the_left_slot(others, attempt.stream(tokens=3), hang_up)
        finally:
            hang_up()

    tried(client, once)


def test_sixteen_streams_go_on_whole_while_one_is_left(client: Client) -> None:
    options = {"temperature": 0.0, "min_tokens": 150, "max_tokens": 150}
    alone = client.chat("怎么退货？", **options)  # type: ignore[arg-type]
    streams = [client.stream("怎么退货？", **options) for _ in range(16)]  # type: ignore[arg-type]
    next(streams[0])
    streams[0].close()
    for stream in streams[1:]:
        text = "".join(piece.text for piece in stream)
        assert text == alone.text
        assert stream.answer.usage.completion_tokens == 150
