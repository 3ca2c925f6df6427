"""A worker process whose spans go to a collector, as OpenTelemetry's own variables say."""

import gzip

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.deployment import deploy, event, eventually, make_settings

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
async def collector():
    """An OTLP collector: its address, the names of services that sent something, and the spans by name."""
    services, spans = set(), {}

    async def take(request):
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            services.add(about["service.name"])
            for scope in resource.scope_spans:
                spans.update({span.name: span for span in scope.spans})
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/traces", take)
    async with TestServer(app) as server:
        yield f"http://127.0.0.1:{server.port}", services, spans


async def test_spans_of_a_real_worker(services, unique_name, collector, monkeypatch):
    """From a record on Kafka over a delay topic to the endpoint: one trace, exported, and the endpoint is its child."""
    address, names, spans = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", address)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    settings = make_settings(services.kafka_bootstrap, services.mongo_uri, unique_name("traced"))
    async with deploy(settings) as deployment:
        deployment.receiver.answer("/hook", lambda request: 503 if request.attempt == 1 else 200)
        webhook = await deployment.webhook("/hook")
        async with deployment.process(TRACING="true") as worker:
            headers = [("traceparent", f"00-{TRACE}-{PARENT}-01".encode())]
            await deployment.publish(event(1), headers=headers)
            await deployment.until_logged(deployment.delivery_id("evt_1", webhook), webhook, "delivered")
            worker.terminate()
            assert await worker.ended(25) == 0
        chain = [f"match {deployment.source}", "attempt 1", f"send {deployment.names.prefix}.retry.300ms", "attempt 2"]

        async def found():
            return sorted(spans)

        await eventually(found, lambda seen: seen == sorted(chain), "every span was exported")
        parent = PARENT
        for name in chain:
            assert (spans[name].trace_id.hex(), spans[name].parent_span_id.hex()) == (TRACE, parent)
            parent = spans[name].span_id.hex()
        got = [request.headers["traceparent"] for request in deployment.receiver.at("/hook")]
        assert got == [f"00-{TRACE}-{spans[name].span_id.hex()}-01" for name in ("attempt 1", "attempt 2")]
        assert names == {"webhook-dispatcher"}
