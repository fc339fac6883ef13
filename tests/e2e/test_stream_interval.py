"""The stream interval through Triton, `youtu_llm`, client and frontend, with an engine of a known pace.

It makes the tokens of a fixed text at a fixed rate (benchmarks/fast): what must arrive is known to the byte.
"""

from __future__ import annotations

import itertools
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from youtu_client import Client

from benchmarks.fast.serving import TEXT
from tests.e2e.running import PYTHON, RunningServer
from tests.limits import WAIT_S

TOKENS = 60
TRIES = 10  # a busy machine lets a few tokens pile up
ASCII_TOKENS = 15  # from the beginning of the text: each of them is whole characters
Serve = Callable[..., RunningServer]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Starts a server whose engine makes so many tokens a second; `kind` as in benchmarks.fast.serving."""
    running: list[RunningServer] = []

    def start(kind: str, rate: float, interval_ms: int = 25) -> RunningServer:
        command = [str(PYTHON), "-m", "benchmarks.fast.serving", kind, str(rate)]
        settings = {"runtime": "llama_cpp", "stream_interval_ms": str(interval_ms)}
        running.append(RunningServer(tmp_path, command=command, **settings))  # type: ignore[arg-type]
        return running[-1].wait_until_up()

    yield start
    for server in running:
        server.end()


def chunks(server: RunningServer, **options: Any) -> Iterator[tuple[float, dict[str, Any]]]:
    """Of a streamed chat completion: when each chunk came, and the chunk."""
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": TOKENS, "stream": True, **options}
    request = urllib.request.Request(
        f"{server.http_url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=WAIT_S) as response:
        for line in response:
            if line.startswith(b"data: {"):
                yield time.monotonic(), json.loads(line[len(b"data: ") :])


def pieces(found: list[tuple[float, dict[str, Any]]]) -> list[tuple[float, str]]:
    return [
        (at, text)
        for at, chunk in found
        for choice in chunk["choices"]
        if (text := choice["delta"].get("content"))
    ]


def whole(texts: list[str]) -> bool:
    """Whether they are the text from its beginning, in order, with nothing missing."""
    text = "".join(texts)
    return bool(text) and (TEXT * (len(text) // len(TEXT) + 1)).startswith(text)


@pytest.mark.parametrize("kind", ["packed", "single"])
def test_at_a_hundred_tokens_a_second_two_or_three_travel_together(serve: Serve, kind: str) -> None:
    server = serve(kind, 100)
    found = list(chunks(server, stream_options={"include_usage": True, "continuous_usage_stats": True}))
    came = pieces(found)
    assert whole([text for _, text in came])
    assert TOKENS / 5 < len(came) < TOKENS / 2, f"{len(came)} pieces for {TOKENS} tokens"
    made = [chunk["usage"]["completion_tokens"] for _, chunk in found if chunk.get("usage")]
    assert made == sorted(made)
    assert made[-1] == TOKENS
    of_pieces = [
        chunk["usage"]["completion_tokens"]
        for _, chunk in found
        if chunk["choices"] and chunk["choices"][0]["delta"].get("content")
    ]
    steps = [after - before for before, after in itertools.pairwise([0, *of_pieces])]
    assert steps[0] == 1, "the first token waited for another one"
    assert max(steps[1:]) > 1
    with Client(server.grpc_url) as client, client.stream("hi", max_tokens=TOKENS) as stream:
        texts = [piece.text for piece in stream]
    assert whole(texts)
    assert TOKENS / 5 < len(texts) < TOKENS / 2, "through Triton's gRPC it is another interval"
    assert stream.answer.usage.completion_tokens == TOKENS


def test_at_ten_tokens_a_second_every_token_is_its_own_piece(serve: Serve) -> None:
    came = pieces(list(chunks(serve("packed", 10), max_tokens=ASCII_TOKENS)))
    assert whole([text for _, text in came])
    assert len(came) == ASCII_TOKENS


@pytest.mark.parametrize("kind", ["packed", "single"])
def test_without_an_interval_tokens_travel_alone(serve: Serve, kind: str) -> None:
    server, most = serve(kind, 50, interval_ms=0), 0
    for _ in range(TRIES):
        came = pieces(list(chunks(server, max_tokens=ASCII_TOKENS)))
        assert whole([text for _, text in came])
        most = max(most, len(came))
        if most == ASCII_TOKENS:
            return
    raise AssertionError(f"{most} pieces at most for {ASCII_TOKENS} tokens")
