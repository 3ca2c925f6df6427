"""An endpoint that fails: its circuit, its probes, and what becomes of its deliveries."""

from dataclasses import replace

from dispatcher.core.breaker import FIRST_PROBE_SECONDS, MIN_ATTEMPTS, PROBES_TO_CLOSE
from dispatcher.core.in_flight_limit import LOWEST
from dispatcher.pipeline import role
from tests.fakes.http import answer
from tests.unit.pipeline.world import delivery_id, eventually, subscription


def broken(*ids):
    """Answer 500 for some subscriptions."""
    return lambda sent: answer(500 if sent.subscription_id in ids else 200)


async def open_circuit(world, subscription_id="wh_a"):
    """Let so many deliveries fail that the circuit opens."""
    world.sender.answers = broken(subscription_id)
    for number in range(MIN_ATTEMPTS):
        world.publish(number)
    await eventually(lambda: len(world.sender.sent) >= MIN_ATTEMPTS)
    await eventually(world.caught_up)
    lane = next(each for each in world.pipeline.lanes.known if each.subscription_id == subscription_id)
    assert lane.breaker.is_open
    world.sender.sent.clear()
    return lane


async def test_open_circuit_uses_steps_up_and_sends_nothing(worlds):
    """While the circuit is open a step uses up its number, is logged as circuit_open and climbs on."""
    world = worlds("1h", "2h")
    world.index.put(subscription("wh_a", max_attempts=3))
    world.add_source()
    await world.start()
    await open_circuit(world)
    world.log.entries.clear()
    world.publish(100)
    await eventually(lambda: len(world.broker.on_topic("webhooks.retry.1h")) == MIN_ATTEMPTS + 1)
    assert not world.sender.sent
    record = world.broker.on_topic("webhooks.retry.1h")[-1]
    assert (record.header("attempt"), record.header("http-status")) == ("1", None)
    await eventually(lambda: world.log.entries)
    (entry,) = world.log.entries
    assert entry.error.startswith("circuit_open")
    assert (entry.attempt, entry.status, entry.response_code) == (1, "retrying", 0)
    assert world.metrics.circuit_skipped._value.get() == 1


async def meeting_an_open_circuit(worlds):
    """Make a world whose overflow topic brings last attempts to an open circuit, for which they wait a minute."""
    world = worlds("1h", "2h", circuit_wait_ms=60_000)
    world.index.put(subscription("wh_a", max_attempts=3))
    world.add_source()
    world.add_own("overflow")
    await world.start()
    await open_circuit(world)
    return world


def parked_in(world):
    """Give the records that wait for the circuit in the first tier."""
    return [each for each in world.broker.on_topic("webhooks.retry.1h") if each.header("reason") == "circuit_open"]


async def test_last_attempt_waits_for_a_probe_and_then_fails(worlds):
    """A last attempt that meets an open circuit is parked, its number kept, and fails when it has waited enough."""
    world = await meeting_an_open_circuit(worlds)
    now = world.clock.now_ms()
    world.put_own("overflow", 100, "wh_a", attempt=2)
    world.put_own("overflow", 101, "wh_a", attempt=2, parked_since_ms=now - 59_000)
    world.put_own("overflow", 102, "wh_a", attempt=2, parked_since_ms=now - 61_000)
    await eventually(lambda: world.broker.on_topic("webhooks.dead-letter"))
    parked = parked_in(world)
    assert [each.header("attempt") for each in parked] == ["2", "2"]
    assert int(parked[0].header("parked-since-ms")) >= now
    assert parked[1].header("parked-since-ms") == str(now - 59_000)
    (letter,) = world.broker.on_topic("webhooks.dead-letter")
    assert (letter.header("reason"), letter.header("attempt")) == ("circuit_open", "2")
    assert letter.header("delivery-id") == delivery_id(102, "wh_a")
    assert not world.sender.sent


async def test_last_attempt_parked_by_a_clock_that_was_ahead_waits_no_longer(worlds):
    """Where a last attempt waits since a time to come, its wait begins now."""
    world = await meeting_an_open_circuit(worlds)
    now = world.clock.now_ms()
    world.put_own("overflow", 100, "wh_a", attempt=2, parked_since_ms=now + 3_600_000)
    await eventually(lambda: parked_in(world))
    assert now <= int(parked_in(world)[0].header("parked-since-ms")) < now + 60_000


async def test_probes_close_the_circuit(worlds):
    """One request at a time finds out; after three that succeed everything is sent again, carefully at first."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    world.add_source()
    await world.start()
    lane = await open_circuit(world)
    world.sender.answers = lambda _sent: None
    world.pipeline._lane_clock.now += FIRST_PROBE_SECONDS
    for number in range(PROBES_TO_CLOSE):
        world.publish(100 + 2 * number)
        await eventually(lambda: world.sender.waiting)
        world.publish(101 + 2 * number)
        await eventually(lambda wanted=number + 1: world.metrics.circuit_skipped._value.get() == wanted)
        assert len(world.sender.waiting) == 1
        world.sender.waiting[0].answer(answer())
    assert not lane.breaker.is_open
    assert lane.limit.current == LOWEST
    world.sender.answers = lambda _sent: answer()
    world.sender.sent.clear()
    for number in range(200, 260):
        world.publish(number)
    await eventually(lambda: len(world.sender.sent) == 60)
    assert lane.limit.current > LOWEST


async def test_a_failed_probe_keeps_it_open(worlds):
    """A probe that fails is an ordinary failed attempt of its delivery, and the circuit stays open."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    world.add_source()
    await world.start()
    lane = await open_circuit(world)
    world.pipeline._lane_clock.now += FIRST_PROBE_SECONDS
    world.publish(100)
    world.publish(101)
    await eventually(world.caught_up)
    assert [sent.delivery_id for sent in world.sender.sent] == [delivery_id(100, "wh_a")]
    assert lane.breaker.is_open


async def test_a_probe_that_cannot_be_made_is_given_back(worlds):
    """A webhook that can't be rendered when its probe is due leaves the probe to the next delivery."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    world.add_source()
    await world.start()
    lane = await open_circuit(world)
    healthy = lane.subscription
    world.index.put(replace(healthy, secrets=(), revision=2))
    world.pipeline._lane_clock.now += FIRST_PROBE_SECONDS
    world.publish(100)
    await eventually(world.caught_up)
    assert not world.sender.sent
    assert lane.breaker.is_open
    world.index.put(replace(healthy, revision=3))
    world.publish(101)
    await eventually(lambda: world.sender.sent)
    assert world.sender.sent[0].delivery_id == delivery_id(101, "wh_a")


async def test_shared_origin_is_not_shared_fate(worlds):
    """One tenant's broken path on a host costs another tenant there nothing."""
    world = worlds("1h")
    world.index.put(subscription("wh_a", url="https://shared.example.com/broken"))
    world.index.put(subscription("wh_b", url="https://shared.example.com/fine"))
    world.add_source()
    await world.start()
    await open_circuit(world)
    for number in range(100, 150):
        world.publish(number)
    await eventually(world.caught_up)
    assert [sent.subscription_id for sent in world.sender.sent] == ["wh_b"] * 50


async def test_one_ladder_never_opens_it(worlds):
    """A single delivery that fails time and again is a broken event, not a broken endpoint."""
    world = worlds("1ms")
    world.index.put(subscription("wh_a", max_attempts=20))
    world.sender.answers = lambda sent: answer(500 if sent.delivery_id == delivery_id(1, "wh_a") else 200)
    world.add_source()
    world.add_own("retry.1ms")
    await world.start()
    world.publish(1)
    await eventually(lambda: world.broker.on_topic("webhooks.dead-letter"), within_seconds=30)
    assert len(world.sender.sent) == 20
    world.publish(2)
    await eventually(lambda: len(world.sender.sent) == 21)


async def test_a_parked_record_costs_one_produce_and_one_fetch(worlds, monkeypatch):
    """Of a hanging lane's overflow, a hold's worth waits; the rest is produced once, and read once, a tier's delay."""
    monkeypatch.setattr(role, "HOLD_RECORDS", 10)
    world = worlds("300ms", max_in_flight_per_webhook=1)
    world.pipeline.lanes.slow_seconds = -1
    world.index.put(subscription("wh_hot"))
    world.index.put(subscription("wh_ok"))
    world.sender.answers = lambda sent: None if sent.subscription_id == "wh_hot" else answer()
    world.add_own("overflow")
    world.add_own("retry.300ms")
    await world.start()
    for number in range(40):
        world.put_own("overflow", number, "wh_hot", attempt=0)
    world.put_own("overflow", 100, "wh_ok", attempt=0)
    tier = "webhooks.retry.300ms"
    await eventually(lambda: len(world.broker.on_topic(tier)) == 29)
    await eventually(lambda: "wh_ok" in {sent.subscription_id for sent in world.sender.sent})
    assert world.pipeline.lanes.held == 10
    # The tier's own hold takes ten more when they are due; each of the others is produced once more and no more often.
    await eventually(lambda: len(world.broker.on_topic(tier)) == 29 + 19)
    assert world.pipeline.lanes.held == 20
    first = {each.header("delivery-id"): int(each.header("not-before-ms")) for each in world.broker.on_topic(tier)[:29]}
    for again in world.broker.on_topic(tier)[29:]:
        assert int(again.header("not-before-ms")) - first[again.header("delivery-id")] >= 300
        assert again.header("attempt") == "0"
    world.sender.answers = lambda _sent: answer()
    world.sender.release()
    await eventually(lambda: len({sent.delivery_id for sent in world.sender.sent}) == 41, within_seconds=20)
    await eventually(world.caught_up, within_seconds=20)
    assert len(world.sender.sent) == 41


async def test_open_circuit_needs_no_room_and_no_token(worlds):
    """While the circuit is open, steps are settled at once: no rate limit, no probe under way holds them up."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    world.add_source()
    await world.start()
    lane = await open_circuit(world)
    world.index.put(subscription("wh_a", rate_limit=0.001, revision=2))
    world.sender.answers = lambda _sent: None
    world.pipeline._lane_clock.now += FIRST_PROBE_SECONDS
    for number in range(100, 160):
        world.publish(number)
    await eventually(lambda: len(world.broker.on_topic("webhooks.retry.1h")) == MIN_ATTEMPTS + 59)
    assert len(world.sender.waiting) == 1
    lane.limit.restart()
    lane.limit.latency_seconds = 9.0
    for number in range(200, 260):
        world.publish(number)
    await eventually(lambda: len(world.broker.on_topic("webhooks.retry.1h")) == MIN_ATTEMPTS + 59 + 60)
    assert not world.broker.on_topic("webhooks.overflow")
    world.sender.release()
    await eventually(world.caught_up)


async def test_what_waits_for_a_probe_is_settled_with_it(worlds):
    """Held deliveries of a lane whose circuit opens meanwhile don't wait for its rate limit any more."""
    world = worlds("1h", "2h")
    world.index.put(subscription("wh_a"))
    world.add_source()
    world.add_own("overflow")
    await world.start()
    lane = await open_circuit(world)
    lane.breaker.is_open = False
    world.sender.answers = lambda _sent: None
    world.index.put(subscription("wh_a", rate_limit=0.001, revision=2))
    for number in range(100, 110):
        world.put_own("overflow", number, "wh_a", attempt=1)
    await eventually(lambda: world.pipeline.lanes.held == 9)
    lane.breaker.is_open = True
    await eventually(lambda: world.pipeline.lanes.held == 0)
    assert len(world.sender.sent) == 1
    world.sender.release()
    await eventually(world.caught_up)


async def test_a_handed_over_probe_is_given_back(worlds):
    """A probe that is still under way when its partition is given back ends like any other, and the next may go."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    consumer = world.add_source()
    await world.start()
    lane = await open_circuit(world)
    assert lane.breaker.is_open
    world.sender.answers = lambda _sent: None
    world.pipeline._lane_clock.now += FIRST_PROBE_SECONDS
    world.publish(100)
    await eventually(lambda: world.sender.waiting)
    await consumer.revoke()
    await consumer.assign(("events", 0))
    assert len(world.broker.on_topic("webhooks.overflow")) == 1
    world.sender.release()
    world.publish(101)
    await eventually(lambda: len(world.sender.sent) == 2)
    world.sender.release()
    await eventually(world.caught_up)


async def test_failures_of_an_old_url_do_not_open_the_new_ones_circuit(worlds):
    """Requests that are under way when the URL is changed say nothing about the new one."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    world.sender.answers = lambda _sent: None
    world.add_source()
    await world.start()
    for number in range(30):
        world.publish(number)
    await eventually(lambda: len(world.sender.waiting) == 30)
    world.index.put(subscription("wh_a", url="https://new.example.com/", revision=2))
    world.publish(100)
    await eventually(lambda: len(world.sender.waiting) == 31)
    for sent in world.sender.waiting[:30]:
        sent.answer(answer(500))
    (lane,) = world.pipeline.lanes.known
    assert not lane.breaker.is_open
    assert not lane.breaker.has_failures
    world.sender.release()
    await eventually(world.caught_up)
