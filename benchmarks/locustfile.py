"""For Locust's own command line and page: `locust -f benchmarks/locustfile.py ChatUser --host http://127.0.0.1:8080`.

Three kinds of users, one for each endpoint; name one, or all three take part. Customers'
questions, or those of --questions FILE. --samples FILE keeps every request with its exact times, for
`benchmarks.samples.read`; Locust's own figures are rounded, and its Aggregated row adds two entries a
request. The ladder with its report, and arrivals at a rate, are in `make load`.
"""

from __future__ import annotations

# Locust must come before whatever opens sockets: it patches the interpreter.
# The module and not its classes: Locust would take each user class of this file for one to run.
from benchmarks import users  # isort: skip

from pathlib import Path
from typing import Any

import locust

from benchmarks import samples, workloads

users.prepare()


def add_options(parser: Any) -> None:
    add = parser.add_argument
    add("--grpc", default="127.0.0.1:8001", help="Triton's gRPC, for TritonUser")
    add("--api-key", default="", is_secret=True, help="key of the frontend")
    add("--model-name", default="", help="the model's name for OpenAIUser, where a server wants one")
    add("--questions", default="", help="a .jsonl file of questions (default: customers' questions)")
    add("--samples", default="", help="file for one line of JSON for each request")
    add("--answer-timeout", type=float, default=300.0, help="seconds for one answer")


def make_plan(environment: Any, **_: Any) -> None:
    options = environment.parsed_options
    path = Path(options.questions)
    questions = workloads.from_file(path, max_tokens=200) if options.questions else workloads.service()

    def done(sample: samples.Sample) -> None:
        if options.samples:
            with Path(options.samples).open("a", encoding="utf-8") as file:
                samples.write(file, sample)

    environment.address = users.Address(
        environment.host or users.Address.url,
        options.grpc,
        options.api_key,
        options.model_name,
        options.answer_timeout,
    )
    environment.plan = users.Plan("answers", questions, None, done)


locust.events.init_command_line_parser.add_listener(add_options)  # type: ignore[no-untyped-call]
locust.events.test_start.add_listener(make_plan)  # type: ignore[no-untyped-call]


PAUSE_S = 1.0
"""After a failure, so that a server that is away or full is not run over."""


class _EndpointUser(users.Caller):
    abstract = True
    endpoint_name = ""

    def wait_time(self) -> float:  # type: ignore[override]
        return 0.0 if self.last is None or self.last.outcome == "done" else PAUSE_S

    def on_start(self) -> None:
        self._endpoint = self.environment.address.endpoint(self.endpoint_name, self.environment.plan.clock)


class ChatUser(_EndpointUser):
    """POST /chat, streamed."""

    endpoint_name = "chat"


class OpenAIUser(_EndpointUser):
    """POST /v1/chat/completions, streamed."""

    endpoint_name = "v1"


class TritonUser(_EndpointUser):
    """youtu_llm over Triton's gRPC, streamed."""

    endpoint_name = "grpc"
