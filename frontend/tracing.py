"""OpenTelemetry: one span per request, continued from the caller and handed on through Triton.

Off until `otlp_endpoint` is set; then spans go there as OTLP over HTTP, and so do Triton's own (see
`serve.triton`), which are children of ours because the call to the model carries the W3C `traceparent`.
Handles spans; independent of routes and text.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode


class Tracing:
    """Begins spans; `endpoint` is the address of a collector, "" for none: then nothing is recorded."""

    def __init__(self, endpoint: str) -> None:
        self._tracer: trace.Tracer | None = None
        if endpoint:
            provider = TracerProvider(resource=Resource.create({"service.name": "youtu-frontend"}))
            exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
            provider.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = provider.get_tracer("frontend")

    def begin(self, name: str, headers: Iterable[tuple[str, str]]) -> Trace | None:
        """A span for a request with these headers."""
        if self._tracer is None:
            return None
        parent = propagate.extract({key.lower(): value for key, value in headers})
        return Trace(self._tracer.start_span(name, context=parent, kind=SpanKind.SERVER))


class Trace:
    """The span of one request."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def metadata(self) -> dict[str, str]:
        """What continues the trace in a call to Triton."""
        carrier: dict[str, str] = {}
        propagate.inject(carrier, context=trace.set_span_in_context(self._span))
        return carrier

    def end(self, failed: bool, **facts: Any) -> None:
        """The request is over."""
        with suppress(Exception):  # A trace is never worth a request.
            self._span.set_attributes(facts)
            if failed:
                self._span.set_status(Status(StatusCode.ERROR))
            self._span.end()
