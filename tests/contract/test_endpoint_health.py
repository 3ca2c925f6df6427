"""What is known of failing endpoints behaves the same in memory and in MongoDB."""

import asyncio
from dataclasses import replace

import pytest

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.endpoint_health import FailingEndpoint, HealthNote, Trouble
from dispatcher.mongo import MongoDeliveryLog
from dispatcher.mongo.endpoint_health import MongoEndpointHealth
from tests.fakes.health import MemoryEndpointHealth
from tests.mongo_support import open_database
from tests.unit.mongo.samples import START_MS, WallClock, entry

LONG_MS = 600_000


@pytest.fixture(scope="module")
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("health")) as connection:
        yield connection


@pytest.fixture(params=["memory", "mongo"])
async def store(request, connection):
    if request.param == "memory":
        return MemoryEndpointHealth(WallClock())
    await connection.endpoint_health.delete_many({})
    return MongoEndpointHealth(connection.endpoint_health, connection.deliveries)


def note(*, revision=1, succeeded=None, first=None, last=None, webhook_id="wh_1"):
    """Make a note; times are milliseconds after the start."""

    def at(offset):
        return None if offset is None else START_MS + offset

    return HealthNote(webhook_id, "ws", revision, at(succeeded), at(first), at(last or first) or 0)


def endpoint(first, last, *, revision=1, webhook_id="wh_1", **changes):
    made = FailingEndpoint(webhook_id, "ws", revision, START_MS + first, START_MS + last, key=webhook_id)
    return replace(made, **changes)


async def test_failures_of_many_workers_become_one_time(store):
    """In whatever order workers write, the time begins with the earliest failure and ends with the latest."""
    await store.note([note(first=20, last=30), note(first=1, webhook_id="wh_$2")])
    await store.note([note(first=25, last=60)])
    await store.note([note(first=10, last=40)])
    await store.note([note(first=10, last=40)])
    known = {each.webhook_id: each for each in await store.load()}
    assert known == {"wh_1": endpoint(10, 60), "wh_$2": endpoint(1, 1, webhook_id="wh_$2")}


async def test_a_success_ends_what_began_before_it_and_nothing_else(store):
    """An older success than the first failure, or one of a former endpoint, changes nothing."""
    await store.note([note(first=20, revision=2)])
    await store.note([note(succeeded=19, revision=2)])
    await store.note([note(succeeded=90, revision=1)])
    assert await store.load() == [endpoint(20, 20, revision=2)]
    await store.note([note(succeeded=20, revision=2)])
    assert await store.load() == []


async def test_a_success_between_failures_begins_the_time_anew(store):
    """One note can end what was known and begin the next."""
    await store.note([note(first=1, last=5)])
    await store.note([note(succeeded=8, first=9, last=12)])
    assert await store.load() == [endpoint(9, 12)]


async def test_a_changed_endpoint_begins_with_a_clean_slate(store):
    """Failures of a newer revision replace what is known, warnings and claims included; older ones count nothing."""
    await store.note([note(first=1, last=5)])
    (old,) = await store.load()
    assert await store.claim(old, LONG_MS)
    await store.set_warned(old)
    await store.note([note(first=7, revision=4)])
    await store.note([note(first=2, last=99, revision=1)])
    (new,) = await store.load()
    assert new == endpoint(7, 7, revision=4)
    assert not await store.claim(old, LONG_MS)
    await store.forget(old)
    await store.set_warned(old)
    assert await store.load() == [new]
    assert await store.claim(new, LONG_MS)


async def test_of_many_that_claim_at_once_one_gets_it(store):
    """Two workers that notice the same moment don't both tell of it."""
    await store.note([note(first=1, last=5)])
    (known,) = await store.load()
    assert sorted(await asyncio.gather(*(store.claim(known, LONG_MS) for _ in range(8)))) == [False] * 7 + [True]


async def test_a_claim_outlasts_failures_and_ends_with_its_work(store):
    """While one deals with an endpoint, failures let no other in; once it is told of, the next thing may be claimed."""
    await store.note([note(first=1, last=5)])
    (known,) = await store.load()
    assert await store.claim(known, LONG_MS)
    await store.note([note(first=6, last=9)])
    (failed_again,) = await store.load()
    assert not await store.claim(failed_again, LONG_MS)
    await store.set_warned(known)
    (warned,) = await store.load()
    assert warned == endpoint(1, 9, warned=True)
    assert not await store.claim(known, LONG_MS), "somebody loaded it before it was told of"
    assert await store.claim(warned, LONG_MS)
    await store.forget(warned)
    assert await store.load() == []


async def test_a_claim_that_nobody_brings_to_its_end_is_taken_over(store):
    """Whoever died in between is replaced after a while, by one."""
    await store.note([note(first=1, last=5)])
    (known,) = await store.load()
    assert await store.claim(known, LONG_MS)
    await asyncio.sleep(0.05)
    assert not await store.claim(known, LONG_MS)
    assert await store.claim(known, 10)


async def test_what_is_gone_stands_beside_what_fails(store):
    """A webhook that is being disabled as gone is found by others, and its claim is taken over like any other."""
    gone = endpoint(5, 5, trouble=Trouble.GONE, key="wh_1/gone/$a/5")
    await store.note([note(first=1, last=5)])
    await store.announce_gone(gone)
    await store.announce_gone(gone)
    await store.note([note(succeeded=90)])
    assert await store.load() == [gone]
    assert not await store.claim(gone, LONG_MS)
    await asyncio.sleep(0.05)
    assert await store.claim(gone, 10)
    await store.forget(gone)
    assert await store.load() == []


@pytest.mark.parametrize(
    ("first_ms", "last_ms", "status", "counts"),
    [
        (150, 150, DeliveryStatus.DELIVERED, True),
        (50, 150, DeliveryStatus.DELIVERED, True),
        (50, 60, DeliveryStatus.DELIVERED, False),
        (150, 150, DeliveryStatus.FAILED, False),
    ],
)
async def test_a_success_that_nobody_noted_is_found_in_the_log(connection, first_ms, last_ms, status, counts):
    """A delivery that succeeded since the time began tells, however early it began; others don't."""
    await connection.deliveries.delete_many({})
    log = MongoDeliveryLog(connection.deliveries)
    first = entry(subscription_id="wh_1", delivery_id="del_1", at_ms=START_MS + first_ms, status=status)
    await log.write([first])
    await log.write([replace(first, attempt=2, at_ms=START_MS + last_ms)])
    store = MongoEndpointHealth(connection.endpoint_health, connection.deliveries)
    assert await store.delivered_since(endpoint(100, 900)) is counts
    assert not await store.delivered_since(endpoint(100, 900, webhook_id="wh_other"))
