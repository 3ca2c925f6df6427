"""The outcomes topic: one record for each finished delivery, durable before the delivery's record is complete."""

import asyncio
import json

import pytest

from dispatcher.pipeline import role
from dispatcher.ports import RejectedRecordError
from tests.fakes.http import answer
from tests.unit.pipeline.world import delivery_id, eventually, subscription, turns

OUTCOMES = "webhooks.outcomes"


def outcomes(world):
    return [json.loads(record.value) for record in world.broker.on_topic(OUTCOMES)]


@pytest.fixture
async def world(worlds):
    """A worker that writes outcomes, with one webhook."""
    world = worlds("1h", outcomes=True)
    world.index.put(subscription("wh_a", max_attempts=2))
    world.add_source()
    world.add_own("overflow")
    return world


async def test_every_finished_delivery_has_one(world):
    """Delivered, failed and skipped ones are written with what became of them; one that is tried again is not."""
    world.index.put(subscription("wh_off", status="inactive"))
    world.sender.answers = lambda sent: answer(200 if sent.delivery_id == delivery_id(1, "wh_a") else 503)
    await world.start()
    world.publish(1)
    world.publish(2)
    world.put_own("overflow", 3, "wh_a", attempt=1, replay_id="rpl_1")
    world.put_own("overflow", 4, "wh_off", attempt=1)
    await eventually(lambda: len(outcomes(world)) == 3)
    await eventually(world.caught_up)
    found = {each["event_id"]: each for each in outcomes(world)}
    told = ("webhook_id", "status", "reason", "attempts", "response_code", "replay_id")
    assert {event_id: tuple(each[name] for name in told) for event_id, each in found.items()} == {
        "evt_1": ("wh_a", "delivered", None, 1, 200, None),
        "evt_3": ("wh_a", "failed", "attempts_exhausted", 2, 503, "rpl_1"),
        "evt_4": ("wh_off", "skipped", "inactive", 1, None, None),
    }
    assert found["evt_1"]["delivery_id"] == delivery_id(1, "wh_a")
    assert found["evt_1"]["event_type"] == "user.created"
    assert world.metrics.outcomes.counts == {"delivered": 1, "failed": 1, "skipped": 1}


async def test_nothing_is_complete_before_it_is_acknowledged(world):
    """Until Kafka has the outcome neither the log has the delivery nor is its record committed."""
    await world.start()
    world.producer.holding = True
    world.publish(1)
    await eventually(lambda: world.producer.held)
    await asyncio.sleep(0.1)
    assert not world.log.entries
    assert world.broker.lag("source", "events") == 1
    world.producer.release()
    await eventually(lambda: world.caught_up("source"))
    assert len(world.log.entries) == len(outcomes(world)) == 1


async def test_an_outcome_that_kafka_refuses_holds_nothing_up(world):
    """A delivery whose outcome can't be written is logged and complete all the same."""
    world.producer.refuses = lambda record: RejectedRecordError("never") if record.topic == OUTCOMES else None
    await world.start()
    world.publish(1)
    await eventually(lambda: world.caught_up("source"))
    assert [entry.status for entry in world.log.entries] == ["delivered"]
    assert world.metrics.outcomes.counts["delivered"] == 0


async def test_a_crash_before_it_is_acknowledged_repeats_the_delivery(worlds, world):
    """The next worker sends again what has no outcome yet, and writes one: at least once, never lost."""
    await world.start()
    world.producer.holding = True
    world.publish(1)
    await eventually(lambda: world.producer.held)
    await world.crash()
    after = worlds("1h", broker=world.broker, outcomes=True)
    after.index.put(subscription("wh_a"))
    after.add_source()
    await after.start()
    await eventually(lambda: after.caught_up("source"))
    assert [each["delivery_id"] for each in outcomes(after)] == [delivery_id(1, "wh_a")]


@pytest.mark.parametrize("taken", [True, False])
async def test_a_late_success_is_written_before_it_is_logged(world, monkeypatch, taken):
    """A success that comes after its hand-over has an outcome before the log says that it is done."""
    monkeypatch.setattr(role, "DRAIN_SECONDS", 0)
    world.sender.answers = lambda _sent: None
    await world.start()
    world.publish(1)
    await eventually(lambda: world.sender.waiting)
    await world.consumers["source"].revoke()
    if not taken:
        world.producer.refuses = lambda record: RejectedRecordError("never") if record.topic == OUTCOMES else None
    world.producer.holding = True
    world.sender.waiting[0].answer(answer(200))
    await turns()
    assert not world.log.entries
    world.producer.release()
    await asyncio.sleep(0.05)
    assert [entry.status for entry in world.log.entries] == (["delivered"] if taken else [])
    assert len(outcomes(world)) == taken


async def test_nothing_is_written_where_it_is_off(worlds):
    """By default finished deliveries leave nothing on the outcomes topic."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: world.caught_up("source"))
    assert not outcomes(world)
