"""`make promises`: how long the things take that are promised in milliseconds, with the demonstration.

A slot is free after its caller left, in decode, in prefill and in the queue, over Triton's gRPC and HTTP and
over the frontend; probes and refusals while all slots and the whole queue are taken; the second start. The
tests hold that these things happen, in which order and how often. How long they take is the machine's, and is
measured here, on an otherwise idle one.

Prints a table, and one line of JSON on standard output.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any
from urllib.parse import urlsplit

from youtu_client import Client, Stream

from benchmarks import runs
from benchmarks.measuring import say
from benchmarks.served import ROOT, CannotStart, Served
from serve.addresses import free_ports

SLOTS, QUEUE, LONG = 4, 64, 1900
PATIENCE_S = 120.0
PROMPT = "你好"
ENDLESS = {"prompt": PROMPT, "max_tokens": LONG, "temperature": 2.0, "top_p": 1.0, "repetition_penalty": 1.9}
FIND = """
import sys
from pathlib import Path
from build.engine import make_engine
make_engine("demo", Path(sys.argv[1]))
"""
PROBES = ("/health/live", "/health/ready", "/metrics")


class Measured:
    """Seconds of each thing that was measured."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        self.seconds.setdefault(name, []).append(seconds)

    def summary(self) -> dict[str, dict[str, float]]:
        return {
            name: {
                "n": len(values),
                "median": 1000 * statistics.median(values),
                "min": 1000 * min(values),
                "max": 1000 * max(values),
            }
            for name, values in self.seconds.items()
        }

    def table(self) -> Iterator[str]:
        yield f"{'milliseconds':<58} {'median':>8} {'min':>8} {'max':>8} {'n':>4}"
        for name, row in self.summary().items():
            yield f"{name:<58} {row['median']:8.1f} {row['min']:8.1f} {row['max']:8.1f} {row['n']:4.0f}"


class Leaving:
    """Calls that are left while all slots are taken; timed is the first token of the next in line."""

    def __init__(self, served: Served, triton: str, measured: Measured) -> None:
        self._served = served
        self._triton = triton
        self._measured = measured

    def measure(self, tries: int) -> None:
        ways: dict[str, Callable[[Client, ExitStack], float | None]] = {
            "slot free after leaving, in decode (gRPC)": self._decode,
            "slot free after leaving, in prefill (gRPC)": self._prefill,
            "slot free after leaving in the queue (gRPC)": self._queue,
            "slot free after hanging up, in decode (Triton's HTTP)": self._tritons_http,
            "slot free after hanging up on a stream (POST /chat)": self._chat_streamed,
            "slot free after hanging up, plain (POST /chat)": self._chat_plain,
        }
        for name, way in ways.items():
            say(name)
            for _ in range(3 * tries):
                if len(self._measured.seconds.get(name, [])) == tries:
                    break
                with Client(self._served.grpc) as client, ExitStack() as opened:
                    seconds = way(client, opened)
                if seconds is not None:
                    self._measured.add(name, seconds)

    def _stream(self, client: Client, opened: ExitStack, prompt: str = PROMPT, tokens: int = LONG) -> Stream:
        options: dict[str, Any] = {"min_tokens": tokens, "max_tokens": tokens, "temperature": 1.0}
        return opened.enter_context(client.stream(prompt, **options))

    def _busy(self, client: Client, opened: ExitStack, slots: int) -> list[Stream]:
        streams = [self._stream(client, opened) for _ in range(slots)]
        for stream in streams:
            next(stream)
        return streams

    def _timed(self, waiting: Stream, leave: Callable[[], object]) -> float | None:
        """None when a slot came free before, because an answer ended."""
        if waiting.poll(0.1) is not None:
            return None
        began = time.perf_counter()
        leave()
        next(waiting)
        return time.perf_counter() - began

    def _decode(self, client: Client, opened: ExitStack) -> float | None:
        left = self._busy(client, opened, SLOTS)[0]
        return self._timed(self._stream(client, opened, tokens=3), left.close)

    def _prefill(self, client: Client, opened: ExitStack) -> float | None:
        self._busy(client, opened, SLOTS - 1)
        prompt = "".join(chr(random.randrange(0x4E00, 0x9FA5)) for _ in range(600))  # noqa: S311
        left = self._stream(client, opened, prompt)
        if left.poll(0.01) is not None:
            return None
        waiting = self._stream(client, opened, tokens=3)
        began = time.perf_counter()
        left.close()
        next(waiting)
        return time.perf_counter() - began

    def _queue(self, client: Client, opened: ExitStack) -> float | None:
        """The place that was left is passed over when the next slot comes free."""
        left = self._busy(client, opened, SLOTS)[0]
        first, second = self._stream(client, opened), self._stream(client, opened, tokens=3)
        first.poll(0.05)
        first.close()
        return self._timed(second, left.close)

    def _tritons_http(self, client: Client, opened: ExitStack) -> float | None:
        self._busy(client, opened, SLOTS - 1)
        body = {
            "messages": json.dumps([{"role": "user", "content": PROMPT}]),
            "min_tokens": LONG,
            "max_tokens": LONG,
            "stream": True,
            "temperature": 1.0,
        }
        call = opened.enter_context(Call(self._triton, "/v2/models/youtu_llm/generate_stream", body))
        call.begin()
        return self._timed(self._stream(client, opened, tokens=3), call.hang_up)

    def _chat_streamed(self, client: Client, opened: ExitStack) -> float | None:
        return self._chat(client, opened, stream=True)

    def _chat_plain(self, client: Client, opened: ExitStack) -> float | None:
        return self._chat(client, opened, stream=False)

    def _chat(self, client: Client, opened: ExitStack, *, stream: bool) -> float | None:
        self._busy(client, opened, SLOTS - 1)
        call = opened.enter_context(Call(self._served.url, "/chat", ENDLESS | {"stream": stream}))
        if stream:
            call.begin()
        until = time.monotonic() + PATIENCE_S
        while gauge(self._served.url, "num_requests_running") < 1 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.05)  # from the frontend's slot to the engine's
        return self._timed(self._stream(client, opened, tokens=3), call.hang_up)


class Call:
    """A POST that is sent and not read; a context manager that hangs up."""

    def __init__(self, url: str, path: str, body: dict[str, Any]) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
        self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        self._socket = self._connection.sock

    def begin(self) -> None:
        """Read the first bytes of its answer, which goes on."""
        self._response = self._connection.getresponse()
        if self._response.status != 200:
            raise RuntimeError(f"{self._response.status}: {self._response.read()!r}")
        self._response.read(10)

    def status_within(self, seconds: float) -> int | None:
        """The status of its answer; None when there is none by then."""
        self._socket.settimeout(seconds)
        try:
            return self._connection.getresponse().status
        except TimeoutError:
            return None

    def hang_up(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(SHUT_RDWR)
        self._socket.close()
        self._connection.close()

    def __enter__(self) -> Call:
        return self

    def __exit__(self, *exc: object) -> None:
        self.hang_up()


def ask(url: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """Status and body."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    try:
        content = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, content)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def gauge(url: str, name: str) -> float:
    """A value of /metrics that has no labels."""
    lines = ask(url, "/metrics")[1].splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"youtu_{name} "))


def probes(served: Served, measured: Measured, rounds: int) -> None:
    """Probes and refusals; answers that end meanwhile are replaced by more requests."""
    say("probes and refusals while all is taken")
    with ExitStack() as opened:
        for _ in range(rounds):
            until = time.monotonic() + PATIENCE_S
            while (missing := QUEUE - gauge(served.url, "num_requests_waiting")) > 0:
                if time.monotonic() > until:
                    raise RuntimeError(f"{missing:.0f} places in the queue stay free")
                for _ in range(int(missing)):
                    opened.enter_context(Call(served.url, "/chat", ENDLESS | {"stream": True}))
                time.sleep(0.1)
            for path in PROBES:
                began = time.perf_counter()
                ask(served.url, path)
                measured.add(f"GET {path} beside a full queue", time.perf_counter() - began)
            began = time.perf_counter()
            call = Call(served.url, "/chat", ENDLESS)
            status = call.status_within(1.0)
            if status == 429:
                measured.add("POST /chat refused by a full queue", time.perf_counter() - began)
            call.hang_up()


def main() -> int:
    options = _parse()
    measured = Measured()
    triton_port = free_ports(1)[0]
    settings: dict[str, Any] = {"slots": SLOTS, "queue": QUEUE, "http_port": triton_port}
    try:
        with Served("demo", options.data_dir, **settings):
            pass  # makes the engine
        for _ in range(options.starts):
            say("a start with an engine that was made before")
            began = time.perf_counter()
            with Served("demo", options.data_dir, **settings):
                measured.add("start with a made engine, until all is up", time.perf_counter() - began)
            began = time.perf_counter()
            subprocess.run([sys.executable, "-c", FIND, str(options.data_dir)], cwd=ROOT, check=True)
            measured.add(
                "a made engine is found, the interpreter's start included", time.perf_counter() - began
            )
        with Served("demo", options.data_dir, **settings) as served:
            Leaving(served, f"http://127.0.0.1:{triton_port}", measured).measure(options.tries)
            probes(served, measured, 3 * options.tries)
    except CannotStart as error:
        say(f"error: {error}")
        return 1
    for line in measured.table():
        say(line)
    print(runs.line({"kind": "promises", "milliseconds": measured.summary()}))  # noqa: T201
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.promises", description=__doc__)
    parser.add_argument(
        "--tries", type=int, default=7, help="of each way to leave; three times as many probes"
    )
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--data-dir", type=Path, default=Path("var/bench/promises"))
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
