"""`GET /metrics`: what happens here as Prometheus reads it.

Names, buckets and meanings follow vLLM's (docs.vllm.ai, "Production Metrics"), with `youtu_` in place of
`vllm:`. Times are of this process's clock: `time_to_first_token` and `e2e_request_latency` start when the
request arrives here, so they hold the time in the queue. Handles numbers; independent of any route's fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from flask import Blueprint, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from youtu_client import Answer
from youtu_client.servers import Server

from .description import Operation

_TTFT_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0,
)  # fmt: skip
_TOKEN_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
    1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip
_REQUEST_S = (
    0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0,
    120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0,
)  # fmt: skip
_TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)


STATES = ("ready", "loading", "stalled", "down", "draining")


class Metrics:
    """The counters of one process. The functions are asked when somebody reads it."""

    def __init__(
        self,
        slots: Callable[[], int],
        running: Callable[[], int],
        waiting: Callable[[], int],
        device_memory: Callable[[], tuple[int, int] | None],
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector("youtu", registry=registry)
        registry.register(_Gauges(slots, running, waiting, device_memory))

        def counter(name: str, words: str, *labels: str) -> Counter:
            return Counter(f"youtu_{name}", words, labels, registry=registry)

        def histogram(name: str, words: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"youtu_{name}", words, buckets=buckets, registry=registry)

        self._requests = counter(
            "requests", "Requests, by route and outcome.", "route", "method", "status", "outcome"
        )
        self._success = counter("request_success", "Completed answers.", "finished_reason")
        self._cancelled = counter("requests_cancelled", "Requests whose client disconnected before the end.")
        self._refused = counter("requests_refused", "Requests refused because of overload.", "reason")
        self._moved = counter(
            "requests_moved", "Requests moved away from a failed server before their first token."
        )
        self._prompt = counter("prompt_tokens", "Prompt tokens.")
        self._cached = counter("prompt_tokens_cached", "Prompt tokens taken from the prefix cache.")
        self._generated = counter("generation_tokens", "Tokens made.")
        self._of_key = counter(
            "key_requests", "Requests of each key, by route and outcome.", "key", "route", "outcome"
        )
        self._read_of_key = counter("key_prompt_tokens", "Prompt tokens of each key.", "key")
        self._cached_of_key = counter(
            "key_prompt_tokens_cached", "Prompt tokens of each key taken from the prefix cache.", "key"
        )
        self._made_of_key = counter("key_generation_tokens", "Tokens generated for each key.", "key")
        self._queue_s = histogram(
            "request_queue_time_seconds", "Time a request waited for a slot.", _REQUEST_S
        )
        self._ttft_s = histogram(
            "time_to_first_token_seconds", "Time from arrival to the first text.", _TTFT_S
        )
        self._itl_s = histogram("inter_token_latency_seconds", "Time between two pieces of text.", _TOKEN_S)
        self._tpot_s = histogram(
            "request_time_per_output_token_seconds",
            "Mean time per token of a request after its first.",
            _TOKEN_S,
        )
        self._e2e_s = histogram(
            "e2e_request_latency_seconds", "Time from arrival to the end of the answer.", _REQUEST_S
        )
        self._prompt_each = histogram("request_prompt_tokens", "Prompt tokens per request.", _TOKENS)
        self._made_each = histogram("request_generation_tokens", "Generated tokens per request.", _TOKENS)

    def watch_state(self, state: Callable[[], str]) -> None:
        """Show whether text would come out, as /health says it."""
        self.registry.register(_State(state))

    def watch_servers(self, servers: Callable[[], Sequence[Server]]) -> None:
        """Show what runs on each Triton and whether it works."""
        self.registry.register(_Servers(servers))

    def watch_rate_storage(self, works: Callable[[], bool]) -> None:
        """Show whether the Redis that holds the rates answers."""
        self.registry.register(_RateStorage(works))

    def moved(self, count: int) -> None:
        """A request without a token has left so many servers that failed."""
        self._moved.inc(count)

    def request(self, route: str, method: str, status: int, outcome: str) -> None:
        """One request is over. `outcome`: ok, invalid, refused, failed or cancelled."""
        self._requests.labels(route, method, str(status), outcome).inc()
        if outcome == "cancelled":
            self._cancelled.inc()

    def used(self, key: str, route: str, outcome: str, read: int, cached: int, made: int) -> None:
        """One request with a key is over: its tokens read, of them out of the cache, and made."""
        self._of_key.labels(key, route, outcome).inc()
        self._read_of_key.labels(key).inc(read)
        self._cached_of_key.labels(key).inc(cached)
        self._made_of_key.labels(key).inc(made)

    def refused(self, reason: str) -> None:
        """A request was turned away; `reason` is the error's code."""
        self._refused.labels(reason).inc()

    def queued(self, seconds: float) -> None:
        self._queue_s.observe(seconds)

    def first_token(self, seconds: float) -> None:
        self._ttft_s.observe(seconds)

    def next_token(self, seconds: float) -> None:
        self._itl_s.observe(seconds)

    def answered(self, answers: list[Answer], seconds: float) -> None:
        """The answers of one request are whole, `seconds` after it arrived."""
        self._e2e_s.observe(seconds)
        for answer in answers:
            usage = answer.usage
            self._success.labels(answer.finish_reason).inc()
            self._prompt.inc(usage.prompt_tokens)
            self._cached.inc(usage.cached_tokens)
            self._generated.inc(usage.completion_tokens)
            self._prompt_each.observe(usage.prompt_tokens)
            self._made_each.observe(usage.completion_tokens)
            if speed := answer.timings.tokens_per_second:
                self._tpot_s.observe(1 / speed)


class _Gauges(Collector):
    """What is true at the moment of the question."""

    def __init__(
        self,
        slots: Callable[[], int],
        running: Callable[[], int],
        waiting: Callable[[], int],
        device_memory: Callable[[], tuple[int, int] | None],
    ) -> None:
        self._slots, self._running, self._waiting = slots, running, waiting
        self._device_memory = device_memory

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield GaugeMetricFamily("youtu_slots", "Slots of the engine.", self._slots())
        yield GaugeMetricFamily("youtu_num_requests_running", "Slots in use.", self._running())
        yield GaugeMetricFamily("youtu_num_requests_waiting", "Requests waiting for a slot.", self._waiting())
        if memory := self._device_memory():
            used, total = memory
            yield GaugeMetricFamily("youtu_device_memory_used_bytes", "Of the engine's card.", used)
            yield GaugeMetricFamily("youtu_device_memory_total_bytes", "Of the engine's card.", total)


class _State(Collector):
    """One of STATES is 1."""

    def __init__(self, state: Callable[[], str]) -> None:
        self._state = state

    def collect(self) -> Iterator[GaugeMetricFamily]:
        words = "State of the service as /health reports it; exactly one state is 1."
        family = GaugeMetricFamily("youtu_state", words, labels=["state"])
        now = self._state()
        for state in STATES:
            family.add_metric([state], float(state == now))
        yield family


class _Servers(Collector):
    """Each Triton, where there are several."""

    def __init__(self, servers: Callable[[], Sequence[Server]]) -> None:
        self._servers = servers

    def collect(self) -> Iterator[GaugeMetricFamily]:
        up = GaugeMetricFamily("youtu_server_up", "Whether a Triton works.", labels=["server"])
        running = GaugeMetricFamily("youtu_server_requests", "Requests at a Triton.", labels=["server"])
        for server in self._servers():
            up.add_metric([server.address], float(not server.down))
            running.add_metric([server.address], server.running)
        yield from (up, running)


class _RateStorage(Collector):
    """The Redis of the rates."""

    def __init__(self, works: Callable[[], bool]) -> None:
        self._works = works

    def collect(self) -> Iterator[GaugeMetricFamily]:
        words = "Whether the Redis of the rate limits responds; if not, each frontend counts on its own."
        yield GaugeMetricFamily("youtu_rate_storage_up", words, float(self._works()))


def blueprint(metrics: Metrics) -> Blueprint:
    """The route."""
    routes = Blueprint("metrics", __name__)

    @routes.get("/metrics")
    @Operation("metrics", "Metrics for Prometheus", "In Prometheus' text format.", errors=(401,))
    def read() -> Response:
        return Response(generate_latest(metrics.registry), content_type=CONTENT_TYPE_LATEST)

    return routes
