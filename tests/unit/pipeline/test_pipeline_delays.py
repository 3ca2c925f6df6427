"""Delays of very different lengths side by side, and a delay during which its partition changes hands."""

from dispatcher.ports import CommitPoint
from tests.fakes.http import answer
from tests.unit.pipeline.world import delivery_id, eventually, subscription, turns


async def test_a_resting_partition_that_comes_back_goes_on(worlds):
    """A partition taken away and given back while its head isn't due yet sends it once, when it is due."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    consumer = world.add_own("retry.1h")
    await world.start()
    world.put_own("retry.1h", 1, "wh_a", not_before_ms=world.clock.now_ms() + 1_000_000)
    role = world.role("retry.1h")
    key = ("webhooks.retry.1h", 0)
    for _ in range(3):
        await eventually(lambda: key in role._partitions and role._partitions[key].hold, "the record is held")
        await consumer.revoke()
        point = world.broker.committed("retry.1h", key[0])
        assert point in {None, CommitPoint(0, "clean")}
        await consumer.assign(key)
    await eventually(lambda: role._partitions[key].hold, "the record is held again")
    await turns()
    assert not world.sender.sent
    world.clock.ahead_ms = 1_100_000
    role.feed()
    await eventually(world.caught_up)
    assert [sent.delivery_id for sent in world.sender.sent] == [delivery_id(1, "wh_a")]
    assert world.broker.on_topic("webhooks.overflow") == []


async def test_a_long_retry_after_waits_beside_the_short_ones(worlds):
    """Who asks for six hours goes to the tier of six hours, and so never stands before others in that of a minute."""
    world = worlds("1m", "6h")
    for name in ("wh_patient", "wh_quick"):
        world.index.put(subscription(name))
    world.sender.answers = lambda sent: (
        answer(429, retry_after="21600") if sent.subscription_id == "wh_patient" else answer(500)
    )
    world.add_source()
    await world.start()
    for number in range(20):
        world.publish(number)
    await eventually(world.caught_up)
    waiting = {
        tier: {record.header("subscription-id") for record in world.broker.on_topic(f"webhooks.retry.{tier}")}
        for tier in ("1m", "6h")
    }
    assert waiting == {"1m": {"wh_quick"}, "6h": {"wh_patient"}}
    for tier, delay_ms in (("1m", 60_000), ("6h", 21_600_000)):
        records = world.broker.on_topic(f"webhooks.retry.{tier}")
        assert len(records) == 20
        now = world.clock.now_ms()
        assert all(
            now + delay_ms - 60_000 < int(record.header("not-before-ms")) <= now + delay_ms for record in records
        )


async def test_a_clock_that_was_set_back_keeps_nothing_for_longer_than_the_tier(worlds):
    """What is held when the clock is set back by a day waits for the tier's delay once more at most, all of it."""
    world = worlds("1m")
    world.index.put(subscription("wh_a"))
    world.add_own("retry.1m")
    await world.start()
    for number in (1, 2, 3):
        world.put_own("retry.1m", number, "wh_a", not_before_ms=world.clock.now_ms() + 50_000)
    role = world.role("retry.1m")
    key = ("webhooks.retry.1m", 0)
    await eventually(lambda: len(role._partitions[key].hold) == 3, "the records are held")
    world.clock.ahead_ms = -86_400_000
    role.feed()
    await turns()
    assert not world.sender.sent
    world.clock.ahead_ms += 60_000
    role.feed()
    await eventually(world.caught_up)
    assert {sent.delivery_id for sent in world.sender.sent} == {delivery_id(each, "wh_a") for each in (1, 2, 3)}
