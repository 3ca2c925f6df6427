"""Spans of OpenTelemetry: an event's way from its record through match, attempts and retries to its endpoints.

They are made only with `DISPATCHER_TRACING` and the extra `otel`; where they go, how many and under which name say
OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` …). They go
out as OTLP over HTTP, whatever `OTEL_EXPORTER_OTLP_PROTOCOL` and `OTEL_TRACES_EXPORTER` say.

No span holds a secret: of an endpoint there are host and port, of an answer the status code, of an event id and type.

Source: W3C Trace Context, section 3.2; OpenTelemetry's semantic conventions for HTTP and for messaging.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    format_span_id,
    format_trace_id,
    set_span_in_context,
)
from opentelemetry.trace import Span as OtelSpan

from dispatcher.core.model import Event, Subscription
from dispatcher.ports import Span

NAME = "webhook-dispatcher"
END_SECONDS = 2.0
"""How long the last spans may take when the worker ends: it must be gone in time, whatever the collector does."""

_ROOT = Context()
_OWN = "dispatcher"


class OtelSpanOfStep:
    """A `dispatcher.ports.Span`.

    Args:
        span: One that is recorded.
    """

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: OtelSpan) -> None:
        self._span = span
        context = span.get_span_context()
        trace, own, flags = format_trace_id(context.trace_id), format_span_id(context.span_id), context.trace_flags
        self.traceparent = f"00-{trace}-{own}-{flags:02x}"

    def end(self, *, status: int = 0, matches: int | None = None, error: str = "") -> None:
        """End it now; see the port."""
        span = self._span
        if status:
            span.set_attribute("http.response.status_code", status)
        if matches is not None:
            span.set_attribute(f"{_OWN}.matches", matches)
        if error:
            span.set_attribute("error.type", str(status) if status else error.partition(":")[0])
            span.set_status(Status(StatusCode.ERROR, error))
        span.end()


class OtelTracer:
    """A `dispatcher.ports.Tracer`.

    Args:
        provider: Makes the spans; what becomes of them is its processors' business.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(NAME)

    def match(self, event: Event) -> Span | None:
        """See the port."""
        origin = event.origin
        about = {
            **_messaging("process", origin.topic),
            "messaging.destination.partition.id": str(origin.partition),
            "messaging.kafka.offset": origin.offset,
            **_about(event),
        }
        return self._begin(f"match {origin.topic}", SpanKind.CONSUMER, event.traceparent, about)

    def attempt(
        self, traceparent: str | None, event: Event, subscription: Subscription, delivery_id: str, number: int
    ) -> Span | None:
        """See the port."""
        about = {
            **_about(event),
            "http.request.method": subscription.method,
            "http.request.resend_count": number - 1,
            f"{_OWN}.attempt": number,
            f"{_OWN}.delivery_id": delivery_id,
            f"{_OWN}.webhook_id": subscription.id,
        }
        if (url := subscription.url) is not None:
            about |= {"server.address": url.host, "server.port": url.port}
        return self._begin(f"attempt {number}", SpanKind.CLIENT, traceparent, about)

    def produce(
        self, traceparent: str | None, topic: str, event: Event, subscription_id: str, delivery_id: str
    ) -> Span | None:
        """See the port."""
        about = {
            **_messaging("send", topic),
            **_about(event),
            f"{_OWN}.delivery_id": delivery_id,
            f"{_OWN}.webhook_id": subscription_id,
        }
        return self._begin(f"send {topic}", SpanKind.PRODUCER, traceparent, about)

    def _begin(self, name: str, kind: SpanKind, traceparent: str | None, about: Mapping[str, str | int]) -> Span | None:
        context = _ROOT if traceparent is None else parent_of(traceparent)
        span = self._tracer.start_span(name, context, kind, about)
        return OtelSpanOfStep(span) if span.is_recording() else None


def parent_of(traceparent: str) -> Context:
    """Return the context whose spans are children of what this header's value names.

    Args:
        traceparent: A valid value, as `dispatcher.core.decoding` lets through; of a later version of the format the
            parts that are known count.
    """
    _, trace, parent, flags = traceparent.split("-")[:4]
    context = SpanContext(int(trace, 16), int(parent, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return set_span_in_context(NonRecordingSpan(context), _ROOT)


@contextmanager
def exporting_tracer() -> Iterator[OtelTracer]:
    """Give a tracer whose spans go where OpenTelemetry's variables say; at the end the last of them are sent."""
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: NAME}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    try:
        yield OtelTracer(provider)
    finally:
        # A collector that doesn't answer would be waited for much longer.
        ending = threading.Thread(target=provider.shutdown, name="last spans", daemon=True)
        ending.start()
        ending.join(END_SECONDS)


def _messaging(operation: str, topic: str) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka",
        "messaging.operation.type": operation,
        "messaging.destination.name": topic,
    }


def _about(event: Event) -> dict[str, str | int]:
    return {
        f"{_OWN}.event_id": event.id,
        f"{_OWN}.event_type": event.type,
        f"{_OWN}.workspace_id": event.workspace_id,
    }
