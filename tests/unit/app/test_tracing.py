"""Spans of an event's way through a worker, on a pipeline over fakes."""

import sys
import threading

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from dispatcher.app import tracing
from dispatcher.app.connections import tracer_of
from dispatcher.app.tracing import OtelTracer, exporting_tracer
from dispatcher.core.errors import SettingsError
from dispatcher.core.exchange import SendFailure
from dispatcher.core.sealing import SealPurpose, binding
from dispatcher.settings import KafkaSettings, MongoSettings, Settings
from tests.fakes.http import answer, failure
from tests.unit.pipeline.conftest import _quick, worlds
from tests.unit.pipeline.world import KEYRING, WORKSPACE, delivery_id, event_bytes, eventually, subscription

__all__ = ["_quick", "worlds"]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    return tracer_into(exporter)


def tracer_into(exporter, sampler=None):
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return OtelTracer(provider)


def publish(world, traceparent=None, number=1):
    headers = () if traceparent is None else (("traceparent", traceparent.encode()),)
    world.broker.append("events", event_bytes(number), headers=headers)


async def run(worlds, exporter, *, traceparent=SAMPLED, fails=1, **world):
    """Let one event through that fails so many times; give the world and the spans by name."""
    made = worlds("50ms", "60ms", **world)
    made.index.put(subscription("wh_a", max_attempts=3))
    made.sender.answers = lambda sent: answer(503 if sent.attempt <= fails else 200)
    made.add_source()
    made.add_own("retry.50ms")
    made.add_own("retry.60ms")
    await made.start()
    publish(made, traceparent)
    await eventually(lambda: made.log.documents and made.caught_up())
    await eventually(lambda: made.log.state(delivery_id(1, "wh_a")).status in ("delivered", "failed"))
    return made, {span.name: span for span in exporter.get_finished_spans()}


def sent_traceparents(world):
    return [sent.headers.get("traceparent") for sent in world.sender.sent]


def traceparent_of(span):
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


async def test_one_trace_from_the_record_to_the_endpoint(worlds, exporter, tracer):
    """Publisher, match, first attempt, delay topic, second attempt and endpoint are one chain of parents."""
    world, spans = await run(worlds, exporter, tracer=tracer)
    chain = ["match events", "attempt 1", "send webhooks.retry.50ms", "attempt 2"]
    assert sorted(spans) == sorted(chain)
    parent = int(PARENT, 16)
    for name in chain:
        assert (f"{spans[name].context.trace_id:032x}", spans[name].parent.span_id) == (TRACE, parent), name
        parent = spans[name].context.span_id
    assert [spans[name].kind for name in chain] == [
        SpanKind.CONSUMER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CLIENT
    ]  # fmt: skip
    assert sent_traceparents(world) == [traceparent_of(spans["attempt 1"]), traceparent_of(spans["attempt 2"])]


async def test_what_the_spans_say(worlds, exporter, tracer):
    """Ids to find a delivery by, how many matched, status codes; a failed attempt is an error, a success isn't."""
    _, spans = await run(worlds, exporter, tracer=tracer)
    assert spans["match events"].attributes.items() >= {"dispatcher.matches": 1, "dispatcher.event_id": "evt_1"}.items()
    first, second = spans["attempt 1"], spans["attempt 2"]
    assert (
        first.attributes.items()
        >= {
            "dispatcher.delivery_id": delivery_id(1, "wh_a"),
            "dispatcher.webhook_id": "wh_a",
            "dispatcher.event_id": "evt_1",
            "dispatcher.workspace_id": WORKSPACE,
            "dispatcher.attempt": 1,
            "http.response.status_code": 503,
            "server.address": "wh-a.example.com",
            "error.type": "503",
        }.items()
    )
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "the endpoint answered 503")
    assert second.status.status_code is StatusCode.UNSET
    assert second.attributes["http.response.status_code"] == 200
    assert spans["send webhooks.retry.50ms"].attributes["messaging.destination.name"] == "webhooks.retry.50ms"


async def test_an_event_without_a_trace_begins_one(worlds, exporter, tracer):
    """The chain holds for events whose publisher sends no traceparent: the retry is in the first attempt's trace."""
    _, spans = await run(worlds, exporter, traceparent=None, tracer=tracer)
    assert spans["match events"].parent is None
    assert len({span.context.trace_id for span in spans.values()}) == 1


async def test_the_dead_letter_belongs_to_the_trace_too(worlds, exporter, tracer):
    """What failed for good has a span to the dead-letter topic, whose record carries the trace on, once."""
    world, spans = await run(worlds, exporter, fails=9, tracer=tracer)
    assert spans["send webhooks.dead-letter"].parent.span_id == spans["attempt 3"].context.span_id
    (letter,) = world.broker.on_topic("webhooks.dead-letter")
    carried = [value.decode() for name, value in letter.headers if name == "traceparent"]
    assert carried == [traceparent_of(spans["send webhooks.dead-letter"])]


async def test_what_is_not_sampled_is_passed_on_as_it_came(worlds, exporter, tracer):
    """A publisher that didn't sample its trace gets no spans, and the endpoint gets the publisher's own value."""
    unsampled = f"00-{TRACE}-{PARENT}-00"
    world, spans = await run(worlds, exporter, traceparent=unsampled, tracer=tracer)
    assert spans == {}
    assert sent_traceparents(world) == [unsampled, unsampled]


async def test_a_sampler_that_begins_no_trace(worlds, exporter):
    """Without a traceparent and a sample the endpoint gets no header, rather than one of a trace that nobody has."""
    tracer = tracer_into(exporter, ParentBased(ALWAYS_OFF))
    world, spans = await run(worlds, exporter, traceparent=None, tracer=tracer)
    assert spans == {}
    assert sent_traceparents(world) == [None, None]


async def test_without_a_tracer_everything_is_as_the_publisher_sent_it(worlds, exporter):
    """Switched off, the record's own value goes to the endpoint and into the retry record, verbatim."""
    world, spans = await run(worlds, exporter)
    assert spans == {}
    assert sent_traceparents(world) == [SAMPLED, SAMPLED]
    (retry,) = world.broker.on_topic("webhooks.retry.50ms")
    assert dict(retry.headers)["traceparent"] == SAMPLED.encode()


async def test_each_webhook_has_a_branch_of_its_own(worlds, exporter, tracer):
    """Attempts for several webhooks of an event are children of one match, and each endpoint gets its own."""
    world = worlds("1h", tracer=tracer)
    for name in ("wh_a", "wh_b"):
        world.index.put(subscription(name))
    world.add_source()
    await world.start()
    publish(world, SAMPLED)
    await eventually(lambda: len(world.log.documents) == 2)
    spans = exporter.get_finished_spans()
    (match,) = [span for span in spans if span.name == "match events"]
    attempts = [span for span in spans if span.name == "attempt 1"]
    assert [span.parent.span_id for span in attempts] == [match.context.span_id] * 2
    assert set(sent_traceparents(world)) == {traceparent_of(span) for span in attempts}
    assert match.attributes["dispatcher.matches"] == 2


async def test_what_cannot_be_sent_ends_its_span(worlds, exporter, tracer):
    """A webhook that can't be rendered has a span that tells so, and the next step is its child."""
    world = worlds("1h", tracer=tracer)
    world.index.put(subscription("wh_a", headers=(("X-Own", "two\r\nlines"),)))
    world.add_source()
    await world.start()
    publish(world, SAMPLED)
    await eventually(lambda: len(world.log.documents) == 1)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert spans["attempt 1"].status.status_code is StatusCode.ERROR
    assert spans["send webhooks.retry.1h"].parent.span_id == spans["attempt 1"].context.span_id


async def test_a_produce_that_is_withdrawn_ends_its_span(worlds, exporter, tracer):
    """A retry record that isn't acknowledged any more may be on Kafka, with its span's id: the span is told anyway."""
    made = worlds("50ms", tracer=tracer)
    made.index.put(subscription("wh_a"))
    made.sender.answers = lambda _: answer(503)
    made.producer.holding = True
    made.add_source()
    await made.start()
    publish(made, SAMPLED)
    await eventually(lambda: made.producer.held)
    made.producer.held[0].future.cancel()
    name = "send webhooks.retry.50ms"
    await eventually(lambda: name in {span.name for span in exporter.get_finished_spans()})
    (span,) = (each for each in exporter.get_finished_spans() if each.name == name)
    assert "withdrawn" in span.status.description


async def test_no_span_holds_a_secret(worlds, exporter, tracer):
    """Keys, signing secrets, static headers, paths, queries and bodies stay out of everything that is exported."""
    aad = binding(WORKSPACE, "wh_a", SealPurpose.API_KEY)
    world = worlds("1h", tracer=tracer)
    api_key = KEYRING.seal(b"key-of-wh-a", nonce=b"n" * 12, aad=aad)
    url = "https://a.example.com/hook/t0ken?sig=qu3ry"
    world.index.put(subscription("wh_a", url=url, api_key=api_key, headers=(("X-Own", "st4tic"),)))
    world.sender.answers = lambda sent: answer(500, body=sent.request.head)
    world.add_source()
    await world.start()
    publish(world, SAMPLED)
    await eventually(lambda: len(world.log.documents) == 1)
    shown = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "a.example.com" in shown
    for hidden in ("key-of-wh-a", "s3cret", "st4tic", "t0ken", "qu3ry"):
        assert hidden not in shown


@pytest.mark.parametrize(
    ("came", "kind"),
    [(answer(302), "302"), (answer(503), "503"), (failure(SendFailure.TIMEOUT), "timeout"), (answer(204), None)],
)
async def test_failures_are_told_apart_by_few_words(worlds, exporter, tracer, came, kind):
    """`error.type` is a status code or a kind of failure, of which there are few; a success has none."""
    world = worlds("1h", tracer=tracer)
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: came
    world.add_source()
    await world.start()
    publish(world, SAMPLED)
    await eventually(lambda: len(world.log.documents) == 1)
    (span,) = [span for span in exporter.get_finished_spans() if span.name == "attempt 1"]
    assert span.attributes.get("error.type") == kind
    assert (span.status.status_code is StatusCode.ERROR) == (kind is not None)


@pytest.mark.parametrize("value", [f"01-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-03"])
def test_later_versions_and_flags_are_understood(exporter, tracer, value):
    """A publisher with a newer trace context is still the parent."""
    parent = tracing.parent_of(value)
    with tracer._tracer.start_as_current_span("s", parent) as span:
        assert f"{span.get_span_context().trace_id:032x}" == TRACE
        assert span.parent.span_id == int(PARENT, 16)


def settings(**changes):
    return Settings(KafkaSettings("k:9092"), MongoSettings("mongodb://m"), (b"k" * 32,), **changes)


def test_switched_off_nothing_of_opentelemetry_is_imported(monkeypatch):
    """A worker without spans needs neither the package nor its memory."""
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "dispatcher.app.tracing")
    with tracer_of(settings()) as made:
        assert made is None
    assert not any(name.startswith("opentelemetry") for name in sys.modules)


def test_without_the_extra_the_worker_says_what_to_install(monkeypatch):
    """Switched on without the package, the start fails with a sentence."""
    monkeypatch.delitem(sys.modules, "dispatcher.app.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"webhook-dispatcher\[otel\]"), tracer_of(settings(tracing=True)):
        pass


def test_a_collector_that_hangs_does_not_hold_the_worker_back(monkeypatch):
    """The end waits for the last spans for a bounded time."""
    never = threading.Event()
    monkeypatch.setattr(tracing, "END_SECONDS", 0.05)
    monkeypatch.setattr(tracing.OTLPSpanExporter, "export", lambda *_: never.wait(30))
    with exporting_tracer() as tracer:
        span = tracer._begin("s", SpanKind.CLIENT, SAMPLED, {})
        span.end()
        ending = threading.active_count()
    assert ending
    assert any(thread.name == "last spans" for thread in threading.enumerate())
    never.set()


def test_the_service_has_a_name(monkeypatch):
    """Spans come from `webhook-dispatcher`, unless OpenTelemetry's own variable says another name."""
    for given, expected in ((None, "webhook-dispatcher"), ("ours", "ours")):
        if given:
            monkeypatch.setenv("OTEL_SERVICE_NAME", given)
        with exporting_tracer() as tracer:
            assert tracer._tracer.resource.attributes["service.name"] == expected
