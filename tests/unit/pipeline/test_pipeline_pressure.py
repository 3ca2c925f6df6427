"""Bounds: what waits, what moves elsewhere, who gets the room that there is."""

import asyncio
import gc
import time
from itertools import pairwise

import pytest

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.pipeline import lane, lanes, log_buffer, role, settlement
from dispatcher.pipeline.expansions import MAX_OPEN
from dispatcher.pipeline.work import Delivery
from tests.fakes.http import answer
from tests.unit.pipeline.world import delivery_id, eventually, subscription, turns


def peak(world, read):
    """Watch a value at each request; return a list whose last element is its peak."""
    seen = [0]
    send = world.sender.send

    def watching(request, done):
        seen.append(max(seen[-1], read()))
        send(request, done)

    world.sender.send = watching
    return seen


async def test_unlogged_window(worlds, monkeypatch):
    """With MongoDB down, deliveries go on until the window of unlogged outcomes is full, and go on when it is back."""
    monkeypatch.setattr(log_buffer, "MAX_UNLOGGED", 50)
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.log.down = True
    world.add_source()
    await world.start()
    for number in range(400):
        world.publish(number)
    await eventually(lambda: len(world.pipeline.buffer) >= 50)
    await asyncio.sleep(0.2)
    assert 50 <= len(world.sender.sent) < 400
    assert world.broker.committed("source", "events").offset == 0
    assert world.pipeline.buffer.failing_since is not None
    world.log.down = False
    await eventually(world.caught_up)
    assert len(world.log.documents) == 400
    assert world.pipeline.buffer.failing_since is None


async def test_unlogged_window_within_a_fan_out(worlds, monkeypatch):
    """The window of unlogged outcomes stops a fan-out in its middle, and it is made to its end afterwards."""
    monkeypatch.setattr(log_buffer, "MAX_UNLOGGED", 50)
    world = worlds(max_in_flight=10)
    for number in range(400):
        world.index.put(subscription(f"wh_{number}"))
    world.log.down = True
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: len(world.pipeline.buffer) >= 50)
    await asyncio.sleep(0.15)
    assert len(world.sender.sent) <= 60
    world.log.down = False
    await eventually(world.caught_up)
    assert len(world.log.documents) == 400


async def test_window_of_bytes(worlds):
    """No more is taken up while the payload window is full; all is taken up when it has room again."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    world.window.limit_bytes = 1000
    world.add_source()
    await world.start()
    for number in range(100):
        world.publish(number)
    await eventually(lambda: world.sender.sent)
    await asyncio.sleep(0.1)
    assert world.window.held_bytes < 1200
    assert len(world.sender.sent) < 15
    world.sender.release()
    await eventually(world.caught_up)
    assert world.window.held_bytes == 0


async def test_bound_on_produces(worlds, monkeypatch):
    """With Kafka taking nothing, the number of unacknowledged produces is bounded, bad records included."""
    monkeypatch.setattr(role, "MAX_PRODUCING", 20)
    world = worlds()
    world.producer.holding = True
    world.add_source()
    await world.start()
    for _ in range(500):
        world.broker.append("events", b"bad")
    await eventually(lambda: world.producer.held)
    await asyncio.sleep(0.2)
    assert len(world.producer.held) == 20
    world.producer.release()
    await eventually(world.caught_up)


async def test_full_fast_lane_waits(worlds, monkeypatch):
    """A lane that is fast but full makes its role wait; nothing is moved elsewhere."""
    monkeypatch.setattr(lanes, "QUEUE", 3)
    monkeypatch.setattr(lanes, "SLOW_SECONDS", 100)
    world = worlds(max_in_flight_per_webhook=2)
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    world.add_source()
    await world.start()
    for number in range(50):
        world.publish(number)
    await eventually(lambda: world.pipeline.lanes.queued == 3)
    await asyncio.sleep(0.1)
    assert (world.pipeline.lanes.in_flight, world.pipeline.lanes.queued) == (2, 3)
    world.sender.release()
    await eventually(world.caught_up)
    assert not world.producer.produced


async def test_slow_lane_spills(worlds, monkeypatch):
    """A lane that is slow and full sends its further events to overflow, unchanged; other lanes don't notice."""
    monkeypatch.setattr(lanes, "SLOW_SECONDS", 0.05)
    world = worlds(max_in_flight_per_webhook=2)
    world.index.put(subscription("wh_slow"))
    world.index.put(subscription("wh_ok"))
    world.sender.answers = lambda sent: None if sent.subscription_id == "wh_slow" else answer()
    world.add_source()
    await world.start()
    for number in range(2):
        world.publish(number)
    await eventually(lambda: world.pipeline.lanes.in_flight == 2)
    began = world.pipeline.lanes.now
    await eventually(lambda: world.pipeline.lanes.now > began + 0.05)
    for number in range(2, 40):
        world.publish(number)
    await eventually(lambda: [sent.subscription_id for sent in world.sender.sent].count("wh_ok") == 40)
    await eventually(lambda: len(world.broker.on_topic("webhooks.overflow")) == 38)
    first = world.broker.on_topic("webhooks.overflow")[0]
    assert (first.header("attempt"), first.header("reason"), first.key) == ("0", "slow_lane", b"wh_slow")
    assert {entry.subscription_id for entry in world.log.entries} == {"wh_ok"}
    world.sender.release()
    await eventually(world.caught_up)


async def test_slow_lane_parks_what_was_spilled(worlds, monkeypatch):
    """A spilled record whose lane still has no room is parked once a first-tier delay, and expires after 3 days."""
    monkeypatch.setattr(lanes, "SLOW_SECONDS", -1)
    monkeypatch.setattr(role, "HOLD_RECORDS", 0)
    world = worlds("1m", max_in_flight_per_webhook=1)
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    world.add_own("overflow")
    await world.start()
    world.put_own("overflow", 0, "wh_a", attempt=2)
    await eventually(lambda: world.sender.sent)
    now = world.clock.now_ms()
    old = now - settlement.MAX_PARKED_MS - 60_000
    world.put_own("overflow", 1, "wh_a", attempt=2)
    world.put_own("overflow", 2, "wh_a", attempt=2, parked_since_ms=now - 1000)
    world.put_own("overflow", 3, "wh_a", attempt=2, parked_since_ms=old)
    await eventually(lambda: world.broker.on_topic("webhooks.dead-letter"))
    one, two = world.broker.on_topic("webhooks.retry.1m")
    assert (one.header("attempt"), two.header("attempt")) == ("2", "2")
    assert int(one.header("parked-since-ms")) >= now
    assert int(one.header("not-before-ms")) >= now + 60_000
    assert two.header("parked-since-ms") == str(now - 1000)
    (letter,) = world.broker.on_topic("webhooks.dead-letter")
    assert (letter.header("reason"), letter.header("delivery-id")) == ("expired", delivery_id(3, "wh_a"))
    await eventually(lambda: world.log.entries)
    assert world.log.state(delivery_id(3, "wh_a")).status == DeliveryStatus.FAILED
    world.sender.release()
    await eventually(world.caught_up)


@pytest.mark.parametrize("rate_limit", [None, 0.001])
async def test_what_a_rate_limit_keeps_waiting_is_spread(worlds, monkeypatch, rate_limit):
    """What a rate limit moves elsewhere goes to any worker, each having a part of the limit; a slow lane's doesn't."""
    monkeypatch.setattr(lanes, "SLOW_SECONDS", -1)
    monkeypatch.setattr(role, "HOLD_RECORDS", 0)
    world = worlds("1m", max_in_flight_per_webhook=1)
    world.index.put(subscription("wh_a", rate_limit=rate_limit))
    world.sender.answers = lambda _sent: None
    world.add_source()
    world.add_own("overflow")
    await world.start()
    for number in range(3):
        world.publish(number)
    await eventually(lambda: len(world.broker.on_topic("webhooks.retry.1m")) == 2)
    spread = ["webhooks.overflow"] * 2 + ["webhooks.retry.1m"] * 2
    assert sorted(world.producer.spread) == ([] if rate_limit is None else spread)
    world.sender.release()
    await eventually(world.caught_up)


async def test_gate(worlds):
    """While the index is stale nothing is taken up, a fan-out that has begun included; then it goes on by itself."""
    world = worlds(max_in_flight=10)
    for number in range(30):
        world.index.put(subscription(f"wh_{number}"))
    world.sender.answers = lambda _sent: None
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: len(world.sender.sent) == 10)
    world.gate_open = False
    world.sender.release()
    await asyncio.sleep(0.15)
    assert len(world.sender.sent) == 10
    world.gate_open = True
    await eventually(world.caught_up)
    assert len(world.sender.sent) == 30


@pytest.mark.parametrize(("name", "left"), [("source", [7, 5, 3]), ("overflow", [10, 8, 6])])
async def test_turns_are_longer_while_live_events_wait(worlds, monkeypatch, name, left):
    """One turn takes few records up, so that nothing waits for it; more where so many live events do wait."""
    monkeypatch.setattr(role, "BACKLOG", 10)
    monkeypatch.setattr(role, "FEED_RECORDS", 2)
    monkeypatch.setattr(role, "FEED_BACKLOG_RECORDS", 5)
    world = worlds()
    if name == "source":
        world.add_source()
    else:
        world.add_own(name)
    await world.start()
    world.gate_open = False
    for number in range(12):
        if name == "source":
            world.publish(number)
        else:
            world.put_own(name, number, "wh_a")
    reader = world.role(name)
    held = next(iter(reader._partitions.values())).hold
    await eventually(lambda: len(held) == 12)
    world.gate_open = True
    found = []
    for _ in range(3):
        reader.feed()
        found.append(len(held))
    assert found == left
    await eventually(world.caught_up)


async def test_what_the_log_was_asked_about_goes_on_over_several_turns(worlds, monkeypatch):
    """One answer of the log lets hundreds of deliveries go; each turn of the loop starts few of them."""
    monkeypatch.setattr(role, "FEED_RECORDS", 2)
    world = worlds()
    world.index.put(subscription("wh_a"))
    ask, all_asked = world.log.states, asyncio.Event()

    async def late(delivery_ids):
        await all_asked.wait()
        return await ask(delivery_ids)

    world.log.states = late
    world.add_own("overflow")
    await world.start()
    for number in range(12):
        world.put_own("overflow", number, "wh_a")
    await eventually(lambda: len(world.role("overflow").active) == 12)
    all_asked.set()
    sent = []
    while len(world.sender.sent) < 12:
        await asyncio.sleep(0)
        sent.append(len(world.sender.sent))
    assert max(after - before for before, after in pairwise(sent)) <= 4
    await eventually(world.caught_up)


async def test_large_fan_out_is_made_lazily(worlds):
    """One event to 10,000 subscriptions never stands in memory as a whole, and its record completes at the end."""
    world = worlds(max_in_flight=100)
    for number in range(10_000):
        world.index.put(subscription(f"wh_{number}"))
    alive = peak(world, lambda: len(world.role("source").active))
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(world.caught_up, within_seconds=30)
    assert len(world.log.documents) == 10_000
    assert 0 < alive[-1] <= 101
    gc.collect()
    mine = world.role("source")
    assert not [each for each in gc.get_objects() if type(each) is Delivery and each.role is mine]
    assert world.window.held_bytes == 0
    assert all(not each.in_flight and not each.queue for each in world.pipeline.lanes.known)


async def test_large_fan_out_lets_the_loop_turn(worlds):
    """A fan-out with room for all of it is still made in portions, between which others get their turn."""
    world = worlds(max_in_flight=100_000)
    for number in range(2000):
        world.index.put(subscription(f"wh_{number}"))
    world.sender.answers = lambda _sent: None
    world.add_source()
    await world.start()
    world.publish(1)
    sizes = set()
    deadline = time.monotonic() + 8
    while len(world.sender.sent) < 2000:
        sizes.add(len(world.sender.sent))
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    assert len(sizes) >= 7


async def test_a_large_fan_out_keeps_no_event_waiting(worlds):
    """What comes behind an event that goes to 20,000 subscriptions is sent long before that one's end."""
    world = worlds(max_in_flight=100)
    for number in range(20_000):
        world.index.put(subscription(f"wh_{number}", events=("large",)))
    world.index.put(subscription("wh_small", events=("small",)))
    world.add_source()
    await world.start()
    world.publish(1, type="large")
    world.publish(2, type="small")
    await eventually(lambda: delivery_id(2, "wh_small") in {sent.delivery_id for sent in world.sender.sent})
    assert len(world.sender.sent) < 2_000
    await eventually(world.caught_up, within_seconds=30)
    assert len(world.log.documents) == 20_001


async def test_a_partitions_large_events_leave_room_for_anothers(worlds):
    """With more large events in one partition than are made at a time, what stands in another is begun with."""
    world = worlds(max_in_flight=100)
    for number in range(500):
        world.index.put(subscription(f"wh_{number}", events=("large",)))
    world.index.put(subscription("wh_small", events=("small",)))
    world.add_source()
    for number in range(2 * MAX_OPEN):
        world.publish(number, partition=0, type="large")
    world.publish("x", partition=1, type="small")
    await world.start(partitions=2)
    await eventually(lambda: delivery_id("x", "wh_small") in {sent.delivery_id for sent in world.sender.sent})
    assert len(world.sender.sent) < 500 * MAX_OPEN // 2
    await eventually(world.caught_up, within_seconds=30)


async def test_only_so_many_events_are_made_at_a_time(worlds):
    """A backlog of large events is taken up as far as they are made into deliveries, and completes."""
    world = worlds(max_in_flight=100)
    for number in range(400):
        world.index.put(subscription(f"wh_{number}"))
    world.add_source()
    await world.start()
    for number in range(2 * MAX_OPEN):
        world.publish(number)
    open_at_once = peak(world, lambda: len(world.role("source")._expansions))
    await eventually(world.caught_up, within_seconds=30)
    assert 1 < open_at_once[-1] <= MAX_OPEN
    assert len(world.log.documents) == 400 * 2 * MAX_OPEN


async def test_partitions_take_turns(worlds):
    """A partition with a backlog doesn't keep another one of its role waiting for its end."""
    world = worlds(max_in_flight=5)
    world.index.put(subscription("wh_a"))
    world.add_source()
    for number in range(2000):
        world.publish(number, partition=0)
    for number in range(20):
        world.publish(f"x{number}", partition=1)
    await world.start(partitions=2)
    wanted = {delivery_id(f"x{number}", "wh_a") for number in range(20)}
    await eventually(lambda: wanted <= {sent.delivery_id for sent in world.sender.sent})
    assert len(world.sender.sent) < 1500
    await eventually(world.caught_up)


async def test_roles_take_turns(worlds):
    """Of several roles with a backlog and no room, each gets a share of the room that comes."""
    world = worlds(max_in_flight=3)
    names = ("wh_source", "wh_overflow", "wh_retry")
    world.index.put(subscription("wh_source", events=("user.created",)))
    for name in names[1:]:
        world.index.put(subscription(name, events=()))
    world.sender.answers = lambda _sent: None
    world.add_source()
    world.add_own("overflow")
    world.add_own("retry.1m")
    for number in range(1000):
        world.publish(number)
        world.put_own("overflow", number, "wh_overflow", attempt=0)
        world.put_own("retry.1m", number, "wh_retry", attempt=0)
    await world.start()
    await eventually(lambda: len(world.sender.waiting) == 3)
    for count in range(300):
        world.sender.waiting[0].answer(answer())
        await eventually(lambda wanted=count: len(world.sender.sent) >= wanted + 4)
    sent = [each.subscription_id for each in world.sender.sent]
    assert min(sent.count(name) for name in names) > 50
    world.sender.release()
    await eventually(world.caught_up)


async def test_thousands_skipped_at_once(worlds, monkeypatch):
    """A full queue whose subscription is switched off is skipped without deep recursion, and every slot is free."""
    monkeypatch.setattr(lanes, "QUEUE", 3000)
    monkeypatch.setattr(lanes, "SLOW_SECONDS", 100_000)
    monkeypatch.setattr(lane, "QUIET_SECONDS", 100_000)
    world = worlds(max_in_flight_per_webhook=1)
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    world.add_source()
    await world.start()
    for number in range(3001):
        world.publish(number)
    await eventually(lambda: world.pipeline.lanes.queued == 3000)
    world.index.put(subscription("wh_a", status="inactive", revision=2))
    world.sender.release()
    await eventually(world.caught_up)
    assert (world.pipeline.lanes.in_flight, world.pipeline.lanes.queued) == (0, 0)
    assert [entry.status for entry in world.log.entries].count("skipped") == 3000


async def test_due_order_and_clamp(worlds):
    """A retry partition rests until its head is due; a due time further off than its tier is clamped to it."""
    world = worlds("200ms", "1h")
    world.index.put(subscription("wh_a"))
    world.add_own("retry.200ms")
    await world.start()
    now = world.clock.now_ms()
    world.put_own("retry.200ms", 1, "wh_a", not_before_ms=now + 150)
    world.put_own("retry.200ms", 2, "wh_a", not_before_ms=now + 100)
    world.put_own("retry.200ms", 3, "wh_a", not_before_ms=now + 10**9)
    await eventually(lambda: len(world.role("retry.200ms")._partitions["webhooks.retry.200ms", 0].hold) == 3)
    assert not world.sender.sent
    await eventually(lambda: len(world.sender.sent) == 3)
    assert [sent.delivery_id for sent in world.sender.sent] == [delivery_id(each, "wh_a") for each in (1, 2, 3)]
    assert int(world.sender.sent[0].headers["webhook-timestamp"]) * 1000 + 999 >= now + 150
    await eventually(world.caught_up)


async def test_hold_is_bounded(worlds):
    """What a resting partition holds is bounded, and all of it goes out when it is due."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    world.add_own("retry.1h")
    await world.start()
    due = world.clock.now_ms() + 3_000_000
    for number in range(3000):
        world.put_own("retry.1h", number, "wh_a", not_before_ms=due)
    state = world.role("retry.1h")._partitions["webhooks.retry.1h", 0]
    await eventually(lambda: state.hold)
    await asyncio.sleep(0.1)
    assert len(state.hold) <= role.HOLD_RECORDS + role.POLL_RECORDS
    world.clock.ahead_ms = 3_100_000
    world.role("retry.1h").feed()
    await eventually(world.caught_up)
    assert state.held_bytes == 0


async def test_clock_set_forward(worlds, monkeypatch):
    """A wall clock that is set forward is noticed without a new record."""
    monkeypatch.setattr(role, "LONGEST_REST_SECONDS", 0.05)
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    world.add_own("retry.1h")
    await world.start()
    world.put_own("retry.1h", 1, "wh_a", not_before_ms=world.clock.now_ms() + 3_000_000)
    await eventually(lambda: world.role("retry.1h")._timer)
    world.clock.ahead_ms = 3_100_000
    await eventually(lambda: world.sender.sent)


async def test_unknown_subscriptions_are_bounded(worlds, monkeypatch):
    """With MongoDB down, the deliveries that wait for a look-up are bounded, and asked for once a subscription."""
    monkeypatch.setattr(role, "MAX_CHECKING", 50)
    world = worlds()
    world.subscriptions.down = True
    world.add_own("overflow")
    await world.start()
    for number in range(500):
        world.put_own("overflow", number, "wh_gone")
    await eventually(lambda: len(world.role("overflow")._check) >= 50)
    await asyncio.sleep(0.1)
    assert len(world.role("overflow").active) == 50
    assert len(world.subscriptions.found) <= 2
    world.subscriptions.down = False
    await eventually(world.caught_up)
    assert len(world.log.documents) == 500


async def test_given_up_entries_complete(worlds):
    """An entry that MongoDB itself refuses for good is counted and holds no offset."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.log.gives_up = 1
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(world.caught_up)
    assert world.metrics.log_given_up._value.get() == 1


async def test_kafka_out_of_reach(worlds):
    """Polls that fail for now are made again; what is held goes on meanwhile."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    consumer = world.add_source()
    consumer.out_of_reach = True
    await world.start()
    world.publish(1)
    await turns()
    consumer.out_of_reach = False
    await eventually(world.caught_up)


async def test_fault_of_a_poll_ends_the_run(worlds):
    """A fault of the consumer ends the whole pipeline's run, with that fault."""
    world = worlds()
    consumer = world.add_source()
    world.add_own("overflow")
    await world.start()
    consumer.fault = RuntimeError("dead")
    world.publish(1)
    await asyncio.wait({world.running}, timeout=5)
    with pytest.RaisesGroup(RuntimeError) if hasattr(pytest, "RaisesGroup") else pytest.raises(ExceptionGroup):
        await world.running


async def test_closing_gives_up_in_time(worlds):
    """Closing the log's buffer with MongoDB down ends in time and says that something is left."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    world.log.down = True
    world.add_source()
    await world.start()
    world.publish(1)
    await eventually(lambda: len(world.pipeline.buffer) == 1)
    assert await world.pipeline.buffer.close(0.05) is False
