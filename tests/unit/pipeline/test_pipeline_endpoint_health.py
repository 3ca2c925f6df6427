"""Endpoints that only fail: noted, told of at half of the time, disabled at its end; and those that are gone."""

import asyncio
import json
from dataclasses import replace

import pytest

from dispatcher.core.decoding import rfc3339
from dispatcher.core.endpoint_health import Trouble
from dispatcher.core.errors import UnavailableError
from dispatcher.core.exchange import SendFailure
from dispatcher.metrics import Metrics
from dispatcher.pipeline import endpoint_health
from dispatcher.pipeline.endpoint_health import TAKEN_OVER_AFTER_MS, EndpointHealth, HealthOutside
from dispatcher.ports import RejectedRecordError
from tests.fakes.http import answer, failure
from tests.unit.pipeline.test_pipeline_circuit import open_circuit
from tests.unit.pipeline.world import eventually, subscription, turns

PERIOD_MS = 100_000
OUTCOMES = "webhooks.outcomes"


@pytest.fixture
async def world(worlds):
    """A worker with one webhook, whose endpoint answers 500."""
    world = worlds("1h", "2h", follows_health=True, auto_disable_ms=PERIOD_MS, owner="a")
    known_to(world, subscription("wh_a"))
    world.add_source()
    world.sender.answers = lambda _sent: answer(500)
    await world.start()
    return world


def known_to(world, webhook):
    world.index.put(webhook)
    world.webhooks.put(webhook)


async def attempt(world, number):
    """Publish an event and wait until its attempt was settled."""
    world.publish(number)
    await eventually(lambda: any(each.event_id == f"evt_{number}" for each in world.log.entries))


async def look(world, after_ms=0):
    """Write down what was seen, some time later than the step before, and look."""
    world.clock.ahead_ms += after_ms
    await world.pipeline.health.flush()
    await world.pipeline.health.look()


async def failed_for(world, *times_ms):
    """Let an attempt fail now, and after each of these times another."""
    await attempt(world, 0)
    for number, time_ms in enumerate(times_ms, 1):
        world.clock.ahead_ms += time_ms
        await attempt(world, number)
    await world.pipeline.health.flush()


def told(world):
    """Return what was told of: type and reason."""
    events = [json.loads(record.value) for record in world.broker.on_topic(OUTCOMES)]
    return [(event["type"], event.get("reason")) for event in events]


def other_worker(world, owner="b"):
    """Make another worker's part, on the same MongoDB and Kafka."""
    outside = HealthOutside(world.health, world.webhooks, world.webhooks, world.producer, world.clock)
    return EndpointHealth(outside, world.index.get, OUTCOMES, PERIOD_MS, owner, Metrics())


async def test_a_failing_endpoint_is_told_of_and_then_disabled(world):
    """At half of the time one event is produced; at its end the webhook is disabled, and one more is produced."""
    await failed_for(world, PERIOD_MS // 2)
    await look(world)
    await look(world)
    assert told(world) == [("webhook.failing", None)]
    assert world.webhooks.stored["wh_a"].subscription.status == "active"
    await attempt(world, 9)
    await look(world)
    assert told(world) == [("webhook.failing", None)]
    world.clock.ahead_ms += PERIOD_MS // 2
    await attempt(world, 10)
    await look(world)
    assert told(world) == [("webhook.failing", None), ("webhook.disabled", "failing")]
    stored = world.webhooks.stored["wh_a"]
    assert (stored.subscription.status, stored.disabled_reason) == ("disabled", "failing")
    await look(world)
    assert len(told(world)) == 2
    assert not world.health.endpoints
    assert world.metrics.webhooks_disabled.counts == {"failing": 1, "gone": 0}
    assert world.metrics.webhooks_warned._value.get() == 1
    assert world.metrics.operational_events._value.get() == 2
    assert {record.key for record in world.broker.on_topic(OUTCOMES)} == {b"wh_a"}


async def test_an_endpoint_that_is_sent_nothing_isnt_disabled(world):
    """One failure, then silence for longer than the whole time: nothing happens."""
    await failed_for(world)
    await look(world, after_ms=2 * PERIOD_MS)
    assert told(world) == []
    assert world.health.endpoints


async def test_a_success_of_any_worker_begins_the_time_anew(world):
    """A success ends what was known, noted by a worker that never saw the failures."""
    await failed_for(world, PERIOD_MS // 4)
    other = other_worker(world)
    assert not other.failing
    await other.look()
    assert other.failing == {"wh_a"}
    other.succeeded(subscription("wh_a"), world.clock.now_ms())
    await other.flush()
    assert not world.health.endpoints
    world.clock.ahead_ms += PERIOD_MS
    await attempt(world, 7)
    await look(world)
    assert told(world) == []


async def test_successes_are_noted_only_of_what_fails(world):
    """While nothing is known to fail nothing is noted; a webhook that is known has its success noted."""
    world.sender.answers = lambda _sent: answer(200)
    await attempt(world, 1)
    assert not world.pipeline.health._notes
    world.sender.answers = lambda _sent: answer(500)
    await attempt(world, 2)
    await look(world)
    world.sender.answers = lambda _sent: answer(200)
    await attempt(world, 3)
    await look(world)
    assert not world.health.endpoints
    assert not world.pipeline.health.failing


async def test_what_was_never_sent_is_no_failure(world):
    """Steps that an open circuit skips, and what this worker broke off itself, say nothing of an endpoint."""
    known_to(world, subscription("wh_b"))
    world.sender.answers = lambda _sent: failure(SendFailure.ABORTED)
    await attempt(world, 900)
    assert not world.pipeline.health._notes
    await open_circuit(world)
    await world.pipeline.health.flush()
    before = world.health.endpoints["wh_a"]
    world.clock.ahead_ms += 2 * PERIOD_MS
    world.sender.answers = lambda _sent: None  # what is sent is a probe, which isn't answered
    for number in range(800, 803):
        world.publish(number)
    await eventually(lambda: world.metrics.circuit_skipped._value.get() >= 2)
    await world.pipeline.health.flush()
    assert world.health.endpoints["wh_a"] == before


async def test_of_several_workers_one_tells(world):
    """Every worker notices; the event is produced once."""
    await failed_for(world, PERIOD_MS)
    others = [other_worker(world, owner) for owner in "bcd"]
    await asyncio.gather(world.pipeline.health.look(), *(each.look() for each in others))
    assert told(world) == [("webhook.disabled", "failing")]


@pytest.mark.parametrize("times_ms", [PERIOD_MS // 2, PERIOD_MS])
async def test_what_one_worker_left_undone_another_does(world, times_ms):
    """A worker that dies after its claim, disabled or not, is replaced: the event is not lost."""
    await failed_for(world, times_ms)
    world.producer.holding = True
    dying = asyncio.create_task(other_worker(world).look())
    await eventually(lambda: world.producer.held)
    dying.cancel()
    world.producer.held.clear()
    world.producer.release()
    await look(world)
    assert told(world) == [], "the claim is another's"
    await look(world, after_ms=TAKEN_OVER_AFTER_MS + 1)
    expected = ("webhook.failing", None) if times_ms < PERIOD_MS else ("webhook.disabled", "failing")
    assert told(world) == [expected]


@pytest.mark.parametrize("part", ["health", "webhooks"])
async def test_without_mongodb_nothing_is_lost(world, part):
    """What was seen while MongoDB is away is written when it is back, in one with what came since."""
    getattr(world, part).down = True
    await attempt(world, 0)
    began_ms = world.clock.now_ms()
    if part == "health":
        with pytest.raises(UnavailableError):
            await look(world)
    world.clock.ahead_ms += PERIOD_MS
    await attempt(world, 1)
    with pytest.raises(UnavailableError):
        await look(world)
    getattr(world, part).down = False
    await look(world, after_ms=TAKEN_OVER_AFTER_MS + 1)
    assert told(world) == [("webhook.disabled", "failing")]
    since = json.loads(world.broker.on_topic(OUTCOMES)[0].value)["failing_since"]
    assert since <= rfc3339(began_ms)


async def test_a_success_while_a_failure_waits_to_be_written_counts(world):
    """Notes that MongoDB didn't take don't overrule what came after them."""
    world.health.down = True
    await attempt(world, 0)
    with pytest.raises(UnavailableError):
        await world.pipeline.health.flush()
    world.sender.answers = lambda _sent: answer(200)
    await attempt(world, 1)
    with pytest.raises(UnavailableError):
        await world.pipeline.health.flush()
    world.health.down = False
    await look(world)
    assert not world.health.endpoints


async def test_without_kafka_it_is_told_later(world, monkeypatch):
    """An event that Kafka doesn't take in time is withdrawn and told another time."""
    monkeypatch.setattr(endpoint_health, "PRODUCE_SECONDS", 0.02)
    await failed_for(world, PERIOD_MS // 2)
    world.producer.holding = True
    with pytest.raises(TimeoutError):
        await look(world)
    assert world.producer.held[0].future.cancelled()
    world.producer.held.clear()
    world.producer.release()
    await look(world, after_ms=TAKEN_OVER_AFTER_MS + 1)
    assert told(world) == [("webhook.failing", None)]


async def test_trouble_doesnt_end_its_loop(world, monkeypatch):
    """By itself it looks again and again, whether MongoDB is there or not."""
    for name in ("FLUSH_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(endpoint_health, name, 0.01)
    other = other_worker(world)
    world.health.down = True
    running = asyncio.create_task(other.run())
    await asyncio.sleep(0.05)
    world.health.down = False
    await failed_for(world, PERIOD_MS // 2)
    await eventually(lambda: told(world))
    assert not running.done()
    running.cancel()


async def test_an_event_that_kafka_refuses_holds_nothing_up(world):
    """The webhook is disabled all the same, and that is the end of it."""
    await failed_for(world, PERIOD_MS)
    world.producer.refuses = lambda _record: RejectedRecordError("never")
    await look(world)
    assert world.webhooks.stored["wh_a"].subscription.status == "disabled"
    assert not world.health.endpoints
    world.producer.refuses = lambda _record: None


async def test_a_success_that_only_the_log_knows_counts(world):
    """The delivery log is asked first: a success that its worker couldn't note begins the time anew."""
    await failed_for(world, PERIOD_MS)
    world.health.delivered.add("wh_a")
    await look(world)
    assert told(world) == []
    assert not world.health.endpoints
    assert world.webhooks.stored["wh_a"].subscription.status == "active"


@pytest.mark.parametrize("is_due", [True, False])
@pytest.mark.parametrize(
    "change", [None, {"status": "inactive"}, {"revision": 2, "endpoint_revision": 2}], ids=["deleted", "off", "moved"]
)
async def test_what_its_owner_changed_begins_anew(world, change, is_due):
    """A webhook that is deleted, inactive, or has another URL or status since, is neither told of nor disabled."""
    await failed_for(world, *([PERIOD_MS] if is_due else []))
    if change is None:
        world.index.remove("wh_a")
        world.webhooks.stored.clear()
    else:
        known_to(world, replace(world.index.get("wh_a"), **change))
    await look(world)
    assert told(world) == []
    assert not world.health.endpoints
    assert not world.metrics.webhooks_disabled.counts["failing"]


async def test_answers_of_a_former_endpoint_count_nothing(world):
    """What was sent before the URL changed and fails afterwards is no failure of the new endpoint."""
    former, today = subscription("wh_a"), subscription("wh_a", revision=2, endpoint_revision=2)
    health = world.pipeline.health
    health.failed(today, 100)
    health.failed(former, 50)
    health.succeeded(former, 150)
    await health.flush()
    (known,) = world.health.endpoints.values()
    assert (known.endpoint_revision, known.failing_since_ms, known.last_failure_ms) == (2, 100, 100)


async def test_gone_is_told_of(world):
    """A 410 disables the webhook and produces an event, once for all its deliveries."""
    world.sender.answers = lambda _sent: answer(410)
    for number in range(3):
        world.publish(number)
    await eventually(lambda: len(world.broker.on_topic("webhooks.dead-letter")) == 3)
    await eventually(lambda: told(world))
    await eventually(lambda: not any(each.trouble is Trouble.GONE for each in world.health.endpoints.values()))
    assert told(world) == [("webhook.disabled", "gone")]
    assert world.webhooks.stored["wh_a"].disabled_reason == "gone"
    assert world.metrics.webhooks_disabled.counts == {"failing": 0, "gone": 1}


async def test_gone_is_told_of_where_mongodbs_answer_is_lost(world, monkeypatch):
    """A worker that doesn't learn that it has disabled a webhook finds out and tells."""
    monkeypatch.setattr("dispatcher.pipeline.pipeline._BACK_OFF_SECONDS", 0.01)
    world.webhooks.answers_are_lost = True
    world.sender.answers = lambda _sent: answer(410)
    world.publish(1)
    await eventually(lambda: told(world))
    assert told(world) == [("webhook.disabled", "gone")]


async def test_gone_is_told_of_by_another_where_its_worker_dies(world):
    """The event of a worker that dies after it has disabled a webhook is another's to produce."""
    world.producer.holding = True
    world.sender.answers = lambda _sent: answer(410)
    world.publish(1)
    await eventually(lambda: any(each.record.topic == OUTCOMES for each in world.producer.held))
    await world.crash()
    world.producer.release()
    other = other_worker(world)
    await other.look()
    assert told(world) == []
    world.clock.ahead_ms += TAKEN_OVER_AFTER_MS + 1
    await other.look()
    assert told(world) == [("webhook.disabled", "gone")]
    assert not world.health.endpoints


async def test_what_was_said_to_be_gone_and_isnt_disabled_is_forgotten(world):
    """A worker that dies before it has disabled a webhook leaves nothing to tell of."""
    world.webhooks.down = True
    world.sender.answers = lambda _sent: answer(410)
    world.publish(1)
    await eventually(lambda: world.health.endpoints)
    await world.crash()
    world.webhooks.down = False
    world.clock.ahead_ms += TAKEN_OVER_AFTER_MS + 1
    other = other_worker(world)
    await other.look()
    assert told(world) == []
    assert not any(each.trouble is Trouble.GONE for each in world.health.endpoints.values())


async def test_what_was_seen_is_written_when_the_worker_stops(world):
    """A worker that ends in order takes nothing with it; without MongoDB it ends as well."""
    await attempt(world, 0)
    await world.stop()
    assert world.health.endpoints
    world.pipeline.health.failed(subscription("wh_a"), 1)
    world.health.down = True
    await world.pipeline.health.stop(0.1)
    await turns()
