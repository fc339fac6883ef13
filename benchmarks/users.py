"""Locust's users: each asks one question after the other at its endpoint (closed loop), or one user sends
them as they arrive (open loop).

What they ask and where the samples go is the `Plan` of their environment. Locust gets each request as
two entries, "<step> ttft" and "<step> e2e", for its own page and report; it rounds both, and its Aggregated
row adds them up as if they were two requests: the figures of this project come from the samples alone.

Importing this module imports Locust, which patches the interpreter for gevent: import it before anything that
opens sockets or starts threads.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
import grpc  # type: ignore[import-untyped]
import grpc.experimental.gevent as grpc_gevent  # type: ignore[import-untyped]
import locust
from locust.exception import StopUser
from youtu_client import Client

from benchmarks.endpoints import (
    ChatEndpoint,
    Endpoint,
    LlamaServerEndpoint,
    OpenAIEndpoint,
    TokenEndpoint,
    TritonEndpoint,
)
from benchmarks.samples import Sample
from benchmarks.workloads import Question

ENDPOINTS = ("chat", "v1", "grpc", "tokens", "llama-server")
ENGINE_MODEL = "youtu_engine"
_prepared = False


def prepare() -> None:
    """Make gRPC wait as gevent does. Without it, a stream under Locust's patching never returns."""
    global _prepared
    if not _prepared:
        grpc_gevent.init_gevent()
        _prepared = True


@dataclass(frozen=True)
class Address:
    """Where the endpoints are. `url` of the frontend, `grpc` as host:port; `model` is the name that /v1
    gets.
    """

    url: str = "http://127.0.0.1:8080"
    grpc: str = "127.0.0.1:8001"
    api_key: str = field(default="", repr=False)
    model: str = ""
    timeout: float = 300.0

    def endpoint(self, name: str, clock: Callable[[], float]) -> Endpoint:
        """An endpoint for one caller. ValueError for an unknown name."""
        http = {"timeout": self.timeout, "api_key": self.api_key, "model": self.model}
        if name == "chat":
            return ChatEndpoint(self.url, clock, **http)  # type: ignore[arg-type]
        if name == "v1":
            return OpenAIEndpoint(self.url, clock, **http)  # type: ignore[arg-type]
        if name == "llama-server":
            return LlamaServerEndpoint(self.url, clock, **http)  # type: ignore[arg-type]
        if name == "tokens":
            return TokenEndpoint(_shared_channel(self.grpc), ENGINE_MODEL, clock, timeout=self.timeout)
        if name == "grpc":
            return TritonEndpoint(_shared_client(self.grpc), clock, timeout=self.timeout)
        raise ValueError(f"endpoint must be one of {', '.join(ENDPOINTS)}, not {name!r}")


_clients: dict[str, Client] = {}


def _shared_client(address: str) -> Client:
    if address not in _clients:
        _clients[address] = Client(address)
    return _clients[address]


_channels: dict[str, Any] = {}


def _shared_channel(address: str) -> Any:
    if address not in _channels:
        _channels[address] = grpc.insecure_channel(address)
    return _channels[address]


class Plan:
    """What the users of one step do: ask `quota` questions (None: no end), none after `seconds`; `done` takes
    each sample as it is finished. `rate` per second makes it an open loop.
    """

    def __init__(
        self,
        step: str,
        questions: Iterator[Question],
        endpoint: Callable[[], Endpoint] | None,
        done: Callable[[Sample], None],
        *,
        clock: Callable[[], float] = time.monotonic,
        quota: int | None = None,
        seconds: float | None = None,
        rate: float | None = None,
        seed: int = 0,
    ) -> None:
        self.step, self.done, self.clock, self.rate = step, done, clock, rate
        self._endpoint = endpoint
        self._questions, self._quota, self._arrivals = questions, quota, random.Random(seed)  # noqa: S311
        self._until = None if seconds is None else clock() + seconds
        self.asked = 0

    def next(self) -> Question | None:
        """The next question, or None when there are no more in this step."""
        if self._quota is not None and self.asked >= self._quota:
            return None
        if self._until is not None and self.clock() >= self._until:
            return None
        self.asked += 1
        return next(self._questions, None)

    def left(self) -> int:
        """Questions that were to be asked and were not: more than none only when the step was broken off."""
        ended = self._until is not None and self.clock() >= self._until
        return 0 if self._quota is None or ended else self._quota - self.asked

    def endpoint(self) -> Endpoint:
        """An endpoint for one caller."""
        if self._endpoint is None:
            raise ValueError(f"step {self.step} has no endpoint: its users must bring their own")
        return self._endpoint()

    def pause(self) -> float:
        """Seconds to the next arrival of a Poisson process of `rate` per second."""
        if self.rate is None:
            raise ValueError(f"step {self.step} has no rate")
        return self._arrivals.expovariate(self.rate)


def ask(environment: Any, endpoint: Endpoint, plan: Plan, question: Question, intended: float) -> Sample:
    """One question at an endpoint, its sample to the plan too, its two entries to Locust."""
    sample = Sample(plan.step, intended)
    try:
        endpoint.ask(question, sample)
    finally:
        plan.done(sample)
        if sample.outcome != "cancelled":
            _report_to_locust(environment, endpoint.name, sample)
    return sample


def _report_to_locust(environment: Any, endpoint: str, sample: Sample) -> None:
    failure = None if sample.outcome == "done" else RuntimeError(sample.error)
    if sample.ttft is not None:
        environment.events.request.fire(
            request_type=endpoint, name=f"{sample.step} ttft", response_time=sample.ttft * 1000,
            response_length=0, exception=None, context={},
        )  # fmt: skip
    environment.events.request.fire(
        request_type=endpoint, name=f"{sample.step} e2e", response_time=sample.e2e * 1000,
        response_length=sample.output_tokens, exception=failure, context={},
    )  # fmt: skip


class Caller(locust.User):
    """Closed loop: asks, reads to the end, asks again."""

    wait_time = locust.constant(0)
    last: Sample | None = None
    """Of the question before."""

    def on_start(self) -> None:
        self._endpoint = self.environment.plan.endpoint()

    def on_stop(self) -> None:
        self._endpoint.close()

    @locust.task
    def ask(self) -> None:
        plan: Plan = self.environment.plan
        question = plan.next()
        if question is None:
            raise StopUser
        self.last = ask(self.environment, self._endpoint, plan, question, plan.clock())


class Arrivals(locust.User):
    """Open loop: questions leave when they are due, whatever became of those before (Poisson arrivals)."""

    fixed_count = 1
    wait_time = locust.constant(0)

    @locust.task
    def send(self) -> None:
        plan: Plan = self.environment.plan
        under_way = []
        due = plan.clock()
        try:
            while (question := plan.next()) is not None:
                due += plan.pause()
                gevent.sleep(max(0.0, due - plan.clock()))
                under_way.append(gevent.spawn(self._one, plan, question, due))
            gevent.joinall(under_way)
        finally:
            gevent.killall(under_way)
            for late in range(plan.left()):
                plan.done(Sample(plan.step, due + late / (plan.rate or 1), outcome="unsent"))
        raise StopUser

    def _one(self, plan: Plan, question: Question, due: float) -> None:
        endpoint = plan.endpoint()
        try:
            ask(self.environment, endpoint, plan, question, due)
        finally:
            endpoint.close()
