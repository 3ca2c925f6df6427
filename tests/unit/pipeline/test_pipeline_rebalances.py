"""What happens when partitions are taken away, and when somebody takes them over."""

import asyncio

import pytest

from dispatcher.pipeline import log_check, role
from dispatcher.pipeline.work import CLEAN, OPEN
from dispatcher.ports import CommitPoint
from tests.fakes.http import answer
from tests.unit.pipeline.world import delivery_id, eventually, subscription, turns


def overflow(world):
    records = world.broker.on_topic("webhooks.overflow")
    return sorted((record.header("delivery-id"), record.header("attempt")) for record in records)


async def test_clean_end(worlds):
    """A role with nothing unfinished commits its position with a note that says so; while it works, another stands."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    consumer = world.add_source()
    await world.start()
    world.publish(1)
    await eventually(world.caught_up)
    assert world.broker.committed("source", "events") == CommitPoint(1, OPEN)
    await consumer.revoke()
    assert world.broker.committed("source", "events") == CommitPoint(1, CLEAN)


async def test_nothing_is_taken_up_before_it_is_marked(worlds):
    """No record is taken up before its partition is marked as being worked on."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    consumer = world.add_source()
    consumer.commits_fail = True
    await world.start()
    world.publish(1)
    await asyncio.sleep(0.05)
    assert not world.sender.sent
    consumer.commits_fail = False
    await eventually(lambda: world.sender.sent)


async def test_records_that_came_before_the_mark(worlds):
    """Records that an earlier poll brought before the partition was marked are taken up once it is, unasked."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    consumer = world.add_source()
    await world.start()
    await eventually(lambda: world.role("source")._opened)
    await turns()  # a poll waits for records now
    await consumer.revoke()
    consumer.commits_fail = True
    await consumer.assign(("events", 0))
    world.publish(1)
    await eventually(lambda: world.role("source")._partitions["events", 0].hold)
    consumer.commits_fail = False
    await eventually(lambda: world.sender.sent, within_seconds=2)


async def test_queued_and_in_flight_are_handed_over(worlds, monkeypatch):
    """Queued deliveries go to overflow at once, those in flight after the drain, all with their attempt unchanged."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    consumer = world.add_source()
    await world.start()
    for number in range(130):
        world.publish(number)
    await eventually(lambda: world.pipeline.lanes.queued == 2)
    monkeypatch.setattr(role, "DRAIN_SECONDS", 5)
    revoking = asyncio.create_task(consumer.revoke())
    await eventually(lambda: len(overflow(world)) == 2)
    world.sender.waiting[0].answer(answer(200))
    world.sender.waiting[0].answer(answer(500))
    await turns()
    monkeypatch.setattr(role, "DRAIN_SECONDS", 0)
    for sent in world.sender.waiting[10:]:
        sent.answer(answer(200))
    await turns()
    assert not revoking.done()
    for sent in world.sender.waiting[2:]:
        sent.answer(answer(200))
    assert len(world.sender.waiting) == 2
    for sent in world.sender.waiting:
        sent.answer(answer(200))
    await revoking
    assert overflow(world) == sorted((delivery_id(number, "wh_a"), "0") for number in (128, 129))
    assert len(world.broker.on_topic("webhooks.retry.1m")) == 1
    assert len(world.sender.sent) == 128
    assert world.broker.committed("source", "events") == CommitPoint(130, CLEAN)


async def test_late_success_is_logged_only(worlds):
    """A success after the hand-over is logged, and neither produced nor committed; the one who takes over skips it."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    consumer = world.add_source()
    await world.start()
    world.publish(1)
    world.publish(2)
    await eventually(lambda: len(world.sender.sent) == 2)
    await consumer.revoke()
    assert overflow(world) == sorted((delivery_id(number, "wh_a"), "0") for number in (1, 2))
    assert world.broker.committed("source", "events") == CommitPoint(2, CLEAN)
    before = (world.producer.produced, dict(world.broker.commits["source"]))
    world.sender.sent[0].answer(answer(200))
    world.sender.sent[1].answer(answer(500))
    await eventually(lambda: len(world.log.entries) == 1)
    await turns()
    assert (world.producer.produced, world.broker.commits["source"]) == before
    assert world.log.state(delivery_id(1, "wh_a")).status == "delivered"
    assert (world.window.held_bytes, world.pipeline.lanes.in_flight) == (0, 0)


async def begin_fan_out(world):
    """Publish an event for 30 webhooks, of which none answers, to a worker with 10 slots; gives its consumer."""
    for number in range(30):
        world.index.put(subscription(f"wh_{number}"))
    world.sender.answers = lambda _sent: None
    consumer = world.add_source()
    await world.start()
    world.publish(1)
    return consumer


async def test_event_under_way_is_handed_over_whole(worlds):
    """A fan-out cut off by a rebalance is made to its end and handed over, so that nothing behind it is done again."""
    world = worlds(max_in_flight=10)
    consumer = await begin_fan_out(world)
    world.publish(2)
    await eventually(lambda: len(world.sender.sent) == 10 and world.pipeline.roles[0].incomplete == 2)
    await consumer.revoke()
    wanted = sorted((delivery_id(event, f"wh_{number}"), "0") for event in (1, 2) for number in range(30))
    assert overflow(world) == wanted
    assert world.broker.committed("source", "events") == CommitPoint(2, CLEAN)
    assert world.window.held_bytes == 0


async def test_partly_expanded_record(worlds, monkeypatch):
    """A fan-out too large to be made whole stays incomplete, its unsent siblings go nowhere, and no window is lost."""
    monkeypatch.setattr(role, "MAX_FINISHED", 19)
    world = worlds(max_in_flight=10)
    consumer = await begin_fan_out(world)
    await eventually(lambda: len(world.sender.sent) == 10)
    await consumer.revoke()
    assert not world.producer.produced
    assert world.broker.committed("source", "events") == CommitPoint(0, "open 1")
    assert world.window.held_bytes == 0
    for sent in world.sender.waiting:
        sent.answer(answer(200))
    await eventually(lambda: len(world.log.entries) == 10)
    world.sender.release()
    await consumer.assign(("events", 0))
    await eventually(world.caught_up)
    assert len(world.sender.sent) == 30
    assert world.window.held_bytes == 0


async def test_unacknowledged_hand_over_is_withdrawn(worlds):
    """What the hand-over could not produce in time is withdrawn: the record stays, and no late produce comes."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    consumer = world.add_source()
    await world.start()
    world.publish(1)
    world.broker.append("events", b"bad")
    await eventually(lambda: world.sender.sent)
    world.producer.holding = True
    await consumer.revoke()
    assert world.broker.committed("source", "events") == CommitPoint(0, "open 2")
    world.producer.release()
    await turns()
    assert not world.broker.on_topic("webhooks.overflow")
    assert (world.window.held_bytes, world.pipeline.settlement.producing) == (0, 0)


async def test_gone_while_mongodb_is_away(worlds):
    """A 410 whose disabling can't be stored by the end of the drain is handed over, and brings no dead letter later."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: answer(410)
    world.subscriptions.gate.clear()
    consumer = world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: world.pipeline.settlement.producing == 1)
    await consumer.revoke()
    assert overflow(world) == [(delivery_id(1, "wh_a"), "0")]
    world.subscriptions.gate.set()
    await eventually(lambda: world.subscriptions.disabled)
    await turns()
    assert not world.broker.on_topic("webhooks.dead-letter")
    assert world.pipeline.settlement.producing == 0


async def test_gone_within_the_drain(worlds, monkeypatch):
    """A 410 whose disabling is stored within the drain is a dead letter, and not sent once more."""
    monkeypatch.setattr(role, "DRAIN_SECONDS", 5)
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: answer(410)
    world.subscriptions.gate.clear()
    consumer = world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: world.pipeline.settlement.producing == 1)
    revoking = asyncio.create_task(consumer.revoke())
    await turns()
    world.subscriptions.gate.set()
    await revoking
    assert (len(world.broker.on_topic("webhooks.dead-letter")), overflow(world)) == (1, [])
    assert world.broker.committed("source", "events") == CommitPoint(1, CLEAN)


async def test_look_up_that_ends_after_the_hand_over(worlds):
    """A subscription found after its delivery was handed over starts no attempt, in whatever assignment."""
    world = worlds()
    world.subscriptions.stored["wh_new"] = subscription("wh_new")
    world.subscriptions.gate.clear()
    consumer = world.add_own("replay")
    await world.start()
    world.put_own("replay", 1, "wh_new", attempt=0)
    await eventually(lambda: world.subscriptions.found)
    await consumer.revoke()
    assert len(overflow(world)) == 1
    await consumer.assign(("webhooks.replay", 0))
    world.subscriptions.gate.set()
    await turns(50)
    await asyncio.sleep(0.1)
    assert not world.sender.sent


async def test_unclean_start(worlds):
    """After an unclean end, what the log shows as done is not sent again; after a clean one nothing is asked."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    world.index.put(subscription("wh_b"))
    world.sender.answers = lambda sent: answer(500 if sent.subscription_id == "wh_b" else 200)
    consumer = world.add_source()
    await world.start()
    for number in range(15):
        world.publish(number)
    await eventually(world.caught_up)
    assert not world.log.asked
    await consumer.revoke()
    world.broker.commits["source"]["events", 0] = CommitPoint(5, OPEN)
    del world.log.documents[delivery_id(6, "wh_a")], world.log.documents[delivery_id(9, "wh_b")]
    world.sender.sent.clear()
    await consumer.assign(("events", 0))
    await eventually(world.caught_up)
    assert {sent.delivery_id for sent in world.sender.sent} == {delivery_id(6, "wh_a"), delivery_id(9, "wh_b")}


async def test_a_blocked_role_goes_on_after_a_rebalance(worlds):
    """What kept a role from taking up may end while it has no partitions: with the next ones it goes on by itself."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    consumer = world.add_source()
    await world.start()
    world.gate_open = False
    world.publish(1)
    blocked = world.role("source")
    await eventually(lambda: blocked in world.pipeline._engine.blocked)
    await consumer.revoke()
    world.gate_open = True
    await asyncio.sleep(0.25)  # a poll that began before would bring records in time for the opening
    await consumer.assign(("events", 0))
    world.publish(2)
    await eventually(world.caught_up)
    assert {sent.delivery_id for sent in world.sender.sent} == {delivery_id(number, "wh_a") for number in (1, 2)}


async def test_after_an_unclean_end_a_large_fan_out_keeps_nobody_waiting(worlds, monkeypatch):
    """What the log was asked about and has no room in its workspace's share stands before no other's."""
    monkeypatch.setattr(role, "MAX_CHECKING", 20)
    world = worlds(max_in_flight=40)
    world.pipeline.lanes.slow_seconds = 60.0  # what hangs isn't found slow within this test
    for number in range(100):
        world.index.put(subscription(f"wh_{number}", events=("large",)))
    world.index.put(subscription("wh_b", workspace_id="b"))
    world.sender.answers = lambda sent: answer() if sent.subscription_id == "wh_b" else None
    world.broker.commits["source"][("events", 0)] = CommitPoint(0, "open")
    world.add_source()
    await world.start()
    world.publish("first", workspace_id="b")
    await eventually(lambda: len(world.sender.sent) == 1)
    world.publish("large", type="large")
    await eventually(lambda: len(world.sender.sent) > 10)
    world.publish("second", workspace_id="b")
    await eventually(lambda: "wh_b" in {sent.subscription_id for sent in world.sender.sent[1:]})
    world.sender.answers = lambda _sent: answer()
    world.sender.release()
    await eventually(world.caught_up)


async def test_look_ups_end(worlds, monkeypatch):
    """When as many deliveries were unknown to the log as could have been unlogged, it isn't asked any more."""
    monkeypatch.setattr(role, "LOOKUPS", 10)
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.broker.commits["source"]["events", 0] = CommitPoint(0, OPEN)
    consumer = world.add_source()
    await world.start()
    for number in range(10):
        world.publish(number)
    await eventually(world.caught_up)
    asked = len(world.log.asked)
    assert asked
    world.publish(11)
    await eventually(world.caught_up)
    assert len(world.log.asked) == asked
    await consumer.revoke()
    assert world.broker.committed("source", "events").metadata == CLEAN


async def test_what_was_taken_up_is_noted_and_looked_up(worlds, monkeypatch):
    """A record that holds the offset back doesn't keep from its note how far a crash may have come; all that is asked.

    What was moved elsewhere behind it isn't in the log, and doesn't use the other look-ups up.
    """
    monkeypatch.setattr(role, "LOOKUPS", 3)
    monkeypatch.setattr(role, "NOTED_RECORDS", 10)
    monkeypatch.setattr(role, "COMMIT_SECONDS", 0.02)
    world = worlds()
    world.index.put(subscription("wh_a"))
    first = delivery_id(0, "wh_a")
    world.sender.answers = lambda sent: None if sent.delivery_id == first else answer(200)
    consumer = world.add_source()
    await world.start()
    for number in range(40):
        world.publish(number)
    await eventually(lambda: world.broker.committed("source", "events") == CommitPoint(0, "open 40"))
    # As a crash leaves it: nothing is finished in order, and of some deliveries the log knows nothing.
    note = world.broker.committed("source", "events")
    world.sender.release()
    await eventually(world.caught_up)
    await consumer.revoke()
    assert world.broker.committed("source", "events") == CommitPoint(40, CLEAN)
    world.broker.commits["source"]["events", 0] = note
    unknown = {delivery_id(number, "wh_a") for number in range(30)}
    for each in unknown:
        del world.log.documents[each]
    world.sender.sent.clear()
    await consumer.assign(("events", 0))
    await eventually(world.caught_up)
    assert {sent.delivery_id for sent in world.sender.sent} == unknown
    for number in range(40, 43):
        world.publish(number)
    await eventually(world.caught_up)
    assert {each for question in world.log.asked for each in question} == {
        delivery_id(number, "wh_a") for number in range(43)
    }
    asked = len(world.log.asked)
    world.publish(43)
    await eventually(world.caught_up)
    assert len(world.log.asked) == asked


async def test_unfinished_look_ups_stay_open(worlds):
    """Who gives a partition back before the former owner's open end is looked through leaves it marked as open."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.broker.commits["source"]["events", 0] = CommitPoint(0, OPEN)
    consumer = world.add_source()
    await world.start()
    world.publish(1)
    await eventually(world.caught_up)
    await consumer.revoke()
    assert world.broker.committed("source", "events") == CommitPoint(1, OPEN)


async def test_unclean_start_with_a_silent_log(worlds, monkeypatch):
    """After an unclean end, a log that doesn't answer holds nothing up: the deliveries are sent."""
    monkeypatch.setattr(log_check, "ANSWER_WITHIN_SECONDS", 0.05)
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.log.hangs = True
    world.broker.commits["source"]["events", 0] = CommitPoint(0, OPEN)
    world.add_source()
    await world.start()
    for number in range(50):
        world.publish(number)
    await eventually(lambda: len(world.sender.sent) == 50)


async def test_stop_finishes_and_leaves(worlds):
    """Stopping waits for what is in flight, logs it, commits, and leaves the group."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    consumer = world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: world.sender.sent)
    stopping = asyncio.create_task(world.pipeline.stop())
    await turns()
    world.sender.release()
    await stopping
    assert consumer.stopped
    assert world.broker.committed("source", "events") == CommitPoint(1, CLEAN)
    await asyncio.wait_for(world.running, 2)


async def test_commit_that_fails_is_made_later(worlds):
    """A commit that doesn't stand is made again later; nothing is lost by it."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    consumer = world.add_source()
    await world.start()
    await eventually(lambda: world.role("source")._opened)
    consumer.commits_fail = True
    world.publish(1)
    await eventually(lambda: world.log.entries)
    await asyncio.sleep(0.05)
    assert world.broker.committed("source", "events").offset == 0
    consumer.commits_fail = False
    await eventually(world.caught_up)


@pytest.mark.parametrize("fault", [RuntimeError("a fault"), ValueError("not assigned")])
async def test_fault_while_committing_is_not_lost(worlds, fault):
    """A fault in the committing task reaches the loop's handler, which ends the process."""
    world = worlds()
    consumer = world.add_source()
    await world.start()
    await eventually(lambda: world.role("source")._opened)

    async def commit(_epoch, _points):
        raise fault

    consumer.commit = commit
    world.publish(1)
    await eventually(lambda: world.unhandled)
    assert world.unhandled[0]["exception"] is fault
    world.unhandled.clear()
    del consumer.commit
