"""Replays beside live deliveries: how much of the slots they take, and when they have all."""

import pytest

from dispatcher.pipeline import lanes
from tests.fakes.http import answer
from tests.unit.pipeline.world import eventually, subscription, turns

SLOTS = 8
"""What replays have of 128 slots beside live deliveries."""


@pytest.fixture
async def busy(worlds, monkeypatch):
    """A world whose endpoints answer nothing, where a live delivery under way counts for long."""
    monkeypatch.setattr(lanes, "RECENT_SECONDS", 60.0)
    monkeypatch.setattr(lanes, "SLOW_SECONDS", 0.1)
    world = worlds(max_in_flight=SLOTS * 16)
    world.sender.answers = lambda _sent: None
    for number in range(150):
        world.index.put(subscription(f"wh_{number}", events=("other.*",)))
    world.index.put(subscription("wh_live"))
    world.add_source()
    world.add_own("replay")
    await world.start()
    return world


async def live(world):
    """Let a live delivery be under way."""
    world.publish("live")
    await eventually(lambda: of(world, "wh_live"), "the live delivery")


def put_replays(world, numbers, subscription_id=None):
    """Put replays on their topic, each for a webhook of its own unless one is named."""
    for number in numbers:
        name = subscription_id or f"wh_{number}"
        world.put_own("replay", number, name, attempt=0, replay_id="rpl_1")


def of(world, *names):
    """Return the requests to some webhooks that nobody answered."""
    return [sent for sent in world.sender.waiting if sent.subscription_id in names]


def replays(world):
    """Return the replays that nobody answered."""
    return [sent for sent in world.sender.waiting if sent.subscription_id != "wh_live"]


async def test_replays_leave_room_to_live_deliveries(busy):
    """While live deliveries come, replays have a 16th of the slots, and the next goes as one is answered."""
    await live(busy)
    put_replays(busy, range(100))
    await eventually(lambda: len(replays(busy)) == SLOTS, "its share")
    await turns(200)
    assert len(replays(busy)) == SLOTS
    replays(busy)[0].answer(answer())
    await eventually(lambda: len(busy.sender.sent) == SLOTS + 2, "the next one")
    await turns(200)
    assert len(replays(busy)) == SLOTS


async def test_replays_have_every_slot_where_nothing_else_comes(busy):
    """Without live deliveries, replays are bounded by what bounds everything."""
    put_replays(busy, range(100))
    await eventually(lambda: len(replays(busy)) == 100, "all of them")


async def test_replays_are_no_live_deliveries_to_each_other(busy):
    """While nothing but replays comes, none of them makes the next one wait."""
    put_replays(busy, range(10))
    await eventually(lambda: len(replays(busy)) == 10, "the first ones")
    put_replays(busy, range(10, 100))
    await eventually(lambda: len(replays(busy)) == 100, "all of them")


async def test_replays_have_every_slot_again_when_live_deliveries_cease(busy, monkeypatch):
    """A second after the last live delivery was offered, replays go on without a bound of their own."""
    await live(busy)
    put_replays(busy, range(100))
    await eventually(lambda: len(replays(busy)) == SLOTS, "its share")
    monkeypatch.setattr(lanes, "RECENT_SECONDS", 0.05)
    await eventually(lambda: len(replays(busy)) == 100, "all of them")


async def test_replays_are_taken_up_a_few_at_a_time_beside_live_deliveries(busy):
    """While live deliveries come, so many replays start between two ticks, however fast they are answered."""
    await live(busy)
    busy.sender.answers = lambda _sent: answer()
    sent, tick = [], busy.pipeline.lanes.tick

    def ticking():
        sent.append(len(busy.sender.sent))
        tick()

    busy.pipeline.lanes.tick = ticking
    put_replays(busy, range(100))
    await eventually(lambda: len(busy.sender.sent) == 101, "all of them")
    await eventually(lambda: sent[-1] == 101, "a last tick")
    # What is taken up just before a tick is sent just after it.
    assert max(after - before for before, after in zip([1, *sent], sent, strict=False)) <= 2 * lanes.REPLAYS_A_TICK
    assert len(sent) >= 100 / lanes.REPLAYS_A_TICK


async def test_live_deliveries_pass_replays(busy):
    """However many replays wait, live deliveries of the same moment all go out."""
    await live(busy)
    put_replays(busy, range(150))
    await eventually(lambda: len(replays(busy)) == SLOTS, "its share")
    for number in range(100):
        busy.publish(number)
    await eventually(lambda: len(of(busy, "wh_live")) == 101, "all live ones")
    assert len(replays(busy)) == SLOTS


async def test_replays_that_wait_for_a_hanging_webhook_stop_no_others(busy):
    """Replays held for a lane that hangs take nothing of the share: those of other webhooks have the rest of it."""
    await live(busy)
    busy.pipeline.lanes._max_per_lane = 3
    put_replays(busy, range(3), "wh_7")
    await eventually(lambda: len(of(busy, "wh_7")) == 3, "the first ones")
    began = busy.pipeline.lanes.now
    await eventually(lambda: busy.pipeline.lanes.now > began + 0.2, "it hangs")
    put_replays(busy, range(3, 60), "wh_7")
    await eventually(lambda: busy.pipeline.lanes.held == 57, "the others wait for its lane")
    put_replays(busy, range(100, 150))
    await eventually(lambda: len(replays(busy)) == SLOTS, "others have what is left")
    assert len(of(busy, "wh_7")) == 3
