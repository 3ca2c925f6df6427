"""Events that the catalogue doesn't know, or whose data its schema rejects, on their way through the pipeline."""

import pytest

from dispatcher.core.catalogue import Catalogue, EventType, compile_schema
from dispatcher.core.records import BadRecord, decode_dead_letter
from tests.unit.pipeline.world import event_bytes, eventually, subscription

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CATALOGUE = Catalogue([EventType("user.created", "T", "G", "D", SCHEMA, {"n": 1}, compile_schema(SCHEMA))])
GOOD, BAD_DATA, UNKNOWN, NO_EVENT = (
    event_bytes(0),
    event_bytes(1, data={"n": "s3cret"}),
    event_bytes(2, type="user.creatd"),
    b"{",
)


@pytest.fixture
async def after(worlds):
    """Publish each of the four records, let the pipeline work them off, and give its world."""

    async def run(*, wanted=True, **limits):
        world = worlds(**limits)
        if wanted:
            world.index.put(subscription("wh_1"))
        world.add_source()
        for value in (GOOD, BAD_DATA, UNKNOWN, NO_EVENT):
            world.broker.append("events", value, key=b"k", headers=(("content-type", b"application/json"),))
        await world.start()
        await eventually(world.caught_up)
        return world

    return run


def dead_letters(world):
    return world.broker.on_topic("webhooks.dead-letter")


async def test_by_default_they_are_delivered_and_counted(after):
    """What is off the catalogue is delivered like anything else; how much of it there is, is counted by reason."""
    world = await after(catalogue=CATALOGUE)
    assert len(world.sender.sent) == 3
    assert world.metrics.off_catalogue.counts == {"unknown_type": 1, "schema": 1}
    assert world.metrics.events.counts == {"matched": 3, "unmatched": 0, "undecodable": 1, "off_catalogue": 0}
    assert [decode_dead_letter(letter.headers).reason for letter in dead_letters(world)] == ["undecodable"]


async def test_events_that_nobody_wants_are_counted_too(after):
    """A publisher's mistake shows before the first customer subscribes."""
    world = await after(wanted=False, catalogue=CATALOGUE)
    assert world.metrics.off_catalogue.counts == {"unknown_type": 1, "schema": 1}
    assert world.metrics.events.counts["unmatched"] == 3


async def test_where_the_operator_says_so_they_are_dead_letters(after):
    """Their raw bytes, key and headers are kept, with reason and place of the fault; none of their values is told."""
    world = await after(catalogue=CATALOGUE, refuses_off_catalogue=True)
    assert len(world.sender.sent) == 1
    letters = {}
    for letter in dead_letters(world):
        told = decode_dead_letter(letter.headers)
        assert isinstance(told, BadRecord)
        assert (letter.key, dict(letter.headers)["content-type"]) == (b"k", b"application/json")
        letters[told.reason] = (letter.value, told.error)
    assert letters["schema"] == (BAD_DATA, 'data/n: the value is not of type "integer"')
    assert letters["unknown_type"][0] == UNKNOWN
    assert "user.creatd" in letters["unknown_type"][1]
    assert set(letters) == {"schema", "unknown_type", "undecodable"}
    assert world.metrics.off_catalogue.counts == {"unknown_type": 1, "schema": 1}
    assert world.metrics.events.counts == {"matched": 1, "unmatched": 0, "undecodable": 1, "off_catalogue": 2}


async def test_what_was_once_let_in_is_not_looked_at_again(worlds):
    """A delivery from a retry, overflow or replay topic goes out whatever the catalogue says by now."""
    world = worlds("1m", catalogue=Catalogue(), refuses_off_catalogue=True)
    world.index.put(subscription("wh_1"))
    for name in ("overflow", "replay", "retry.1m"):
        world.add_own(name)
        world.put_own(name, name, "wh_1")
    await world.start()
    await eventually(lambda: world.caught_up("overflow", "replay", "retry.1m"))
    assert len(world.sender.sent) == 3
    assert sum(world.metrics.off_catalogue.counts.values()) == 0


async def test_without_a_catalogue_nothing_is_looked_up(after):
    """A pipeline without one delivers everything that is an event and counts nothing."""
    world = await after(refuses_off_catalogue=True)
    assert len(world.sender.sent) == 3
    assert sum(world.metrics.off_catalogue.counts.values()) == 0
