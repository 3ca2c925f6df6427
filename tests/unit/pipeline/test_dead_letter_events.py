"""Source records that were no events, looked at again: what goes out once their fault is mended, and what doesn't."""

import json

import pytest

from dispatcher.core.catalogue import Catalogue
from dispatcher.core.dead_letter_replays import Fate, ReplayStage
from dispatcher.core.dead_letters import DeadLetterFilter
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.errors import InvalidInputError, UnavailableError
from dispatcher.core.model import Status
from tests.unit.mongo.samples import START_MS
from tests.unit.pipeline.letter_world import World, event, fates
from tests.unit.pipeline.test_dead_letter_replay import Crash, Stopping

NO_WORKSPACE = {"id": "evt_1", "type": "user.created", "data": {}}


@pytest.fixture
def world():
    return World()


def delivery(number, name="wh_1"):
    return DeliveryIds("acme", "", f"evt_{number}").of(name)


@pytest.mark.parametrize(
    ("reason", "value", "before", "after"),
    [
        ("no_workspace", NO_WORKSPACE, {}, {"default_workspace": "acme"}),
        ("too_large", json.loads(event(1)), {"max_event_bytes": 10}, {"max_event_bytes": 10_000}),
        ("unknown_type", json.loads(event(1)), {"catalogue": Catalogue({})}, {}),
    ],
)
async def test_a_mended_record_goes_to_every_webhook_that_wants_it(world, reason, value, before, after):
    """Before the fault is mended nothing goes out; afterwards each active webhook gets it, under its ordinary id."""
    world.set("wh_2", events=("team.*",))
    value = json.dumps(value).encode()
    origin = world.bad(None if reason == "too_large" else value, reason, on_topic=value)
    assert fates(await world.plan(as_events=True, replays=world.replays(**before))) == {Fate.STILL_BAD: 1}
    done = await world.replay(as_events=True, replays=world.replays(**after))
    (sent,) = world.sent
    assert (sent.delivery_id, sent.subscription_id, sent.replay_id) == (delivery(1), "wh_1", done.id)
    assert (sent.origin.topic, sent.origin.offset, sent.origin.timestamp_ms) == ("events", origin.offset, START_MS)
    assert world.broker.on_topic("webhooks.replay")[0].value == value
    assert world.log.state(delivery(1)).status is DeliveryStatus.PENDING
    assert (done.fates, set(world.letters.handled.values())) == ({Fate.REPLAYED: 1}, {done.id})


async def test_what_is_known_to_the_log_is_not_sent_again(world):
    """Where the publisher sent the event anew meanwhile, only webhooks that it never reached get it."""
    world.bad(event(1))
    world.logged(delivery(1), DeliveryStatus.DELIVERED)
    assert (await world.replay(as_events=True)).fates == {Fate.REPLAYED: 1}
    assert world.sent_ids == [delivery(1, "wh_2")]


@pytest.mark.parametrize(
    ("status", "fate"),
    [("delivered", Fate.DELIVERED), ("failed", Fate.SUPERSEDED), ("retrying", Fate.UNDER_WAY)],
)
async def test_a_record_whose_deliveries_are_all_known_stays_out(world, status, fate):
    """Whatever became of its deliveries since, they are no longer this letter's to send; with again they are."""
    world.set("wh_2", events=())
    world.bad(event(1))
    world.logged(delivery(1), DeliveryStatus(status))
    assert fates(await world.plan(as_events=True)) == {fate: 1}
    assert fates(await world.plan(as_events=True, again=True)) == {Fate.REPLAYED: 1}


async def test_a_record_that_two_letters_tell_of_goes_out_once(world):
    """Two records of one event, or two letters of one record, make each delivery once."""
    world.bad(event(1))
    world.bad(event(1))
    done = await world.replay(as_events=True)
    assert sorted(world.sent_ids) == sorted([delivery(1), delivery(1, "wh_2")])
    assert done.fates == {Fate.REPLAYED: 1, Fate.SUPERSEDED: 1}


async def test_what_can_be_no_event_is_told_of(world):
    """Gone or replaced records, those of own topics, deliveries, and events that nobody wants are each left out."""
    gone = world.bad(b"no event")
    world.bad(event(2), timestamp_ms=START_MS - 1)
    world.bad(event(3), topic="webhooks.retry.1m")
    world.letter(4)
    world.bad(event(5, type="team.made"))
    world.records.drop("events", gone.offset)
    expected = {Fate.GONE: 2, Fate.NO_RECORD: 2, Fate.UNWANTED: 1}
    assert fates(await world.plan(as_events=True)) == expected


async def test_a_record_that_could_not_be_read_has_no_time_to_compare(world):
    """A pointer to a record that Kafka could not hand out is followed, though its timestamp was never known."""
    world.bad(None, "too_large", on_topic=event(1), timestamp_ms=-1)
    assert fates(await world.plan(as_events=True)) == {Fate.REPLAYED: 1}


async def test_events_go_to_one_webhook_alone_where_it_is_named(world):
    """With a target, only it gets the events; one of another workspace, or not active, is refused."""
    world.bad(event(1))
    await world.replay(as_events=True, to_subscription="wh_2")
    assert world.sent_ids == [delivery(1, "wh_2")]
    with pytest.raises(InvalidInputError):
        await world.plan(as_events=True, to_subscription="wh_3")


async def test_inactive_webhooks_get_nothing(world):
    """An event is made for webhooks that are active now."""
    world.set("wh_1", status=Status.DISABLED)
    world.bad(event(1))
    await world.replay(as_events=True)
    assert world.sent_ids == [delivery(1, "wh_2")]


async def test_after_a_crash_each_event_has_gone_out_once(world):
    """Killed before a batch was logged, or marked, a replay of events ends as if it had not been."""
    for number in range(3):
        world.bad(event(number))
    replays = world.replays()
    plan = await world.plan(as_events=True, rate=2, replays=replays)
    begun = await replays.begin(plan)
    with pytest.raises(UnavailableError):
        await replays.run(begun, plan.letters, Crash(world, "before", after=1), world.stop)
    world.store.before_store = lambda _replay: None
    assert len(world.sent) == 2
    done = await world.resume(begun.id)
    assert sorted(world.sent_ids) == sorted(delivery(number, name) for number in range(3) for name in ("wh_1", "wh_2"))
    assert done.fates == {Fate.REPLAYED: 3}


async def test_a_stopped_replay_of_events_is_gone_on_with(world):
    """Each event's deliveries go out once, though the replay was stopped between two events."""
    for number in range(5):
        world.bad(event(number))
    world.told = Stopping(world.stop, after=2)
    stopped = await world.replay(DeadLetterFilter(), as_events=True, rate=2)
    assert (stopped.stage, len(world.sent)) == (ReplayStage.STOPPED, 4)
    world.stop.clear()
    world.told = []
    done = await world.resume(stopped.id)
    assert sorted(world.sent_ids) == sorted(delivery(number, name) for number in range(5) for name in ("wh_1", "wh_2"))
    assert done.fates == {Fate.REPLAYED: 5}
