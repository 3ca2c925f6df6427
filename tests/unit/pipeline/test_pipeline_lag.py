"""How far behind a worker is, in seconds, as its page tells it."""

from tests.fakes.http import answer
from tests.unit.pipeline.world import event_bytes, eventually, subscription, turns


def gauge(world, name, **labels):
    """Read one sample of a world's page; None where it isn't there."""
    return world.metrics.registry.get_sample_value(f"dispatcher_{name}", labels)


def at_rest(world):
    """Stop a world's clock; gives the time at which it stands."""
    now_ms = world.clock.now_ms()
    world.clock.now_ms = lambda: now_ms + world.clock.ahead_ms
    return now_ms


async def test_the_oldest_unfinished_record_is_told(worlds):
    """The lag is the age of the first record that has no answer, whatever was done behind it; then 0."""
    world = worlds()
    world.index.put(subscription("wh_a"))
    now_ms = at_rest(world)
    world.sender.answers = lambda sent: None if not world.sender.sent[1:] else answer()
    world.add_source()
    world.add_own("overflow")
    await world.start()
    assert gauge(world, "consumer_lag_seconds", role="source") == 0
    for number, age_ms in enumerate((90_000, 50_000, 10_000)):
        world.broker.append("events", event_bytes(number), timestamp=now_ms - age_ms)
    await eventually(lambda: len(world.sender.sent) == 3, "all are sent")
    await eventually(lambda: world.role("source").incomplete == 1, "the later ones are complete")
    assert gauge(world, "consumer_lag_seconds", role="source") == 90
    world.clock.ahead_ms = 5_000
    assert gauge(world, "consumer_lag_seconds", role="source") == 95
    assert gauge(world, "consumer_lag_seconds", role="overflow") == 0
    assert gauge(world, "retry_overdue_seconds", tier="source") is None
    world.sender.release()
    await eventually(world.caught_up)
    assert gauge(world, "consumer_lag_seconds", role="source") == 0


async def test_what_is_held_back_counts_of_the_slowest_partition(worlds):
    """Records that nothing takes up, as the index is stale, count from when they were written; the oldest is told."""
    world = worlds()
    now_ms = at_rest(world)
    world.gate_open = False
    world.add_source()
    await world.start(partitions=2)
    for partition, age_ms in ((0, 20_000), (1, 70_000), (1, 60_000)):
        world.broker.append("events", event_bytes(age_ms), partition=partition, timestamp=now_ms - age_ms)
    held = world.role("source")._partitions
    await eventually(lambda: sum(len(state.hold) for state in held.values()) == 3, "all are held")
    assert gauge(world, "consumer_lag_seconds", role="source") == 70


async def test_a_record_without_a_time_is_not_old(worlds):
    """A record that carries no time, or one of tomorrow, and one that can't be read count as no lag."""
    world = worlds()
    now_ms = at_rest(world)
    world.gate_open = False
    world.add_source()
    await world.start(partitions=3)
    world.broker.append("events", event_bytes(1), partition=0, timestamp=-1)
    world.broker.append("events", event_bytes(2), partition=1, timestamp=now_ms + 86_400_000)
    world.broker.append_unreadable("events", "corrupt", partition=2)
    held = world.role("source")._partitions
    await eventually(lambda: sum(len(state.hold) for state in held.values()) == 3, "all are held")
    assert gauge(world, "consumer_lag_seconds", role="source") == 0


async def test_a_retry_is_overdue_from_its_due_time(worlds):
    """A tier's records are no lag while they wait; once due and not done, they are overdue by the time since."""
    world = worlds("1h")
    world.index.put(subscription("wh_a"))
    now_ms = at_rest(world)
    world.sender.answers = lambda _sent: None
    world.add_own("retry.1h")
    await world.start()
    world.put_own("retry.1h", 1, "wh_a", not_before_ms=now_ms + 600_000)
    held = world.role("retry.1h")._partitions
    await eventually(lambda: any(state.hold for state in held.values()), "it is held")
    assert gauge(world, "retry_overdue_seconds", tier="1h") == 0
    world.gate_open = False
    world.clock.ahead_ms = 640_000
    assert gauge(world, "retry_overdue_seconds", tier="1h") == 40
    world.gate_open = True
    world.role("retry.1h").feed()
    await eventually(lambda: world.sender.sent, "it is sent")
    assert gauge(world, "retry_overdue_seconds", tier="1h") == 40
    assert gauge(world, "consumer_lag_seconds", role="retry.1h") is None
    world.sender.release()
    await eventually(world.caught_up)
    await turns()
    assert gauge(world, "retry_overdue_seconds", tier="1h") == 0
