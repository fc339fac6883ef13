"""A trace goes from the caller through the frontend into Triton: a collector on localhost sees one tree."""

from __future__ import annotations

import base64
import http.server
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serve.addresses import free_ports
from tests.e2e.running import RunningServer
from tests.limits import WAIT_S

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Seen:
    """One span. OTLP's JSON writes ids in hexadecimal, where protobuf's JSON expects base64."""

    def __init__(self, service: str, span: Any, as_json: bool) -> None:
        self.service = service
        self.name: str = span.name
        self.facts = {item.key: item.value for item in span.attributes}
        raw = (span.trace_id, span.span_id, span.parent_span_id)
        self.trace, self.id, self.parent = (
            base64.b64encode(value).decode() if as_json else value.hex() for value in raw
        )

    def __repr__(self) -> str:
        return f"{self.service}: {self.name} {self.trace[:6]} {self.id[:6]} in {self.parent[:6]}"


class Collector(http.server.ThreadingHTTPServer):
    """Takes OTLP over HTTP. `spans`: as they came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_ports(1)[0]), _Intake)
        self.spans: list[Seen] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Intake(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if as_json := "json" in self.headers["Content-Type"]:
            request = json_format.Parse(body, ExportTraceServiceRequest())
        else:
            request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            names = {item.key: item.value.string_value for item in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.server.spans += [Seen(names["service.name"], span, as_json) for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.mark.slow
def test_one_tree(collector: Collector, tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "data", otlp_endpoint=collector.url)
    try:
        server.wait_until_up()
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "traced"}
        body = b'{"prompt": "hi", "max_tokens": 5}'
        request = urllib.request.Request(f"{server.http_url}/chat", body, headers, method="POST")
        urllib.request.urlopen(request, timeout=WAIT_S).read()
        until = time.monotonic() + WAIT_S
        while not {"youtu-frontend", "triton-inference-server"} <= services(collector):
            assert time.monotonic() < until, collector.spans
            time.sleep(0.2)
    finally:
        server.end()
        server.kill()
    ours = [span for span in collector.spans if span.trace == TRACE]
    (front,) = [span for span in ours if span.service == "youtu-frontend"]
    assert (front.name, front.parent) == ("POST /chat", PARENT)
    assert front.facts["http.response.status_code"].int_value == 200
    assert front.facts["youtu.tokens"].int_value == 5
    assert front.facts["request_id"].string_value == "traced"
    assert front.id in {span.parent for span in ours if span.service != "youtu-frontend"}
    assert {"youtu_llm", "youtu_engine"} <= {span.name for span in ours}
    assert not [span for span in collector.spans if "health" in span.name]


def services(collector: Collector) -> set[str]:
    """Who told of the trace so far."""
    return {span.service for span in collector.spans if span.trace == TRACE}
