"""Counts and measures on a real MongoDB, and the list of webhooks by a filter."""

from dataclasses import replace

import pytest

from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.errors import UnavailableError
from dispatcher.mongo import MongoWebhooks, delivery_statistics
from dispatcher.mongo.delivery_log import MongoDeliveryLog
from dispatcher.mongo.delivery_statistics import MongoDeliveryStatistics
from dispatcher.ports import WaitingDelivery, WebhookFilter
from tests.mongo_support import open_database
from tests.unit.mongo.samples import START_MS, entry, webhook

MINUTE = 60_000
FROM = START_MS - START_MS % MINUTE


@pytest.fixture
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("statistics")) as connection:
        yield connection


@pytest.fixture
async def statistics(connection):
    """Two minutes of two webhooks' deliveries, and one of a third that nobody asks about."""
    retrying = {"status": DeliveryStatus.RETRYING, "response_code": 500}
    await MongoDeliveryLog(connection.deliveries).write(
        [
            entry(1, at_ms=FROM, duration_ms=10.0),
            entry(2, at_ms=FROM + MINUTE - 1, duration_ms=20.0, status=DeliveryStatus.FAILED),
            entry(3, at_ms=FROM + MINUTE, duration_ms=30.0, subscription_id="wh_2"),
            entry(4, at_ms=FROM + MINUTE, **retrying, next_attempt_at_ms=FROM + 2 * MINUTE),
            entry(4, at_ms=FROM + 3 * MINUTE, **retrying, attempt=2, next_attempt_at_ms=FROM + 8 * MINUTE),
            entry(5, at_ms=FROM + MINUTE, attempt=0, status=DeliveryStatus.PENDING, duration_ms=0.0),
            entry(6, at_ms=FROM, subscription_id="wh_3"),
        ]
    )
    return MongoDeliveryStatistics(connection.deliveries)


async def test_counts_are_by_part_and_status(statistics):
    """Each delivery counts once, in the part in which it was created; the end of the time is left out."""
    counted = await statistics.counts(["wh_1", "wh_2"], FROM, FROM + 2 * MINUTE, MINUTE)
    assert {at_ms: dict(counts) for at_ms, counts in counted.items()} == {
        FROM: {"delivered": 1, "failed": 1},
        FROM + MINUTE: {"delivered": 1, "retrying": 1, "pending": 1},
    }
    assert await statistics.counts(["wh_1"], FROM - MINUTE, FROM, MINUTE) == {}
    assert await statistics.counts([], FROM, FROM + MINUTE, MINUTE) == {}


async def test_counting_reads_the_index_alone(connection, statistics):
    """No document is fetched for it, however large the log is."""
    pipeline = []
    real = connection.deliveries.aggregate

    class Spy:
        database, name = connection.deliveries.database, connection.deliveries.name

        def aggregate(self, given, **options):
            pipeline.extend(given)
            return real(given, **options)

    await MongoDeliveryStatistics(Spy()).counts(["wh_1", "wh_2"], FROM, FROM + MINUTE, MINUTE)
    command = {"aggregate": connection.deliveries.name, "pipeline": pipeline, "cursor": {}, "hint": "list"}
    told = await connection.database.command("explain", command, verbosity="executionStats")
    stats = told.get("executionStats") or told["stages"][0]["$cursor"]["executionStats"]
    assert (stats["totalDocsExamined"], stats["totalKeysExamined"] > 0) == (0, True)


async def test_durations_are_of_attempts_only(statistics):
    """Of a bounded number of deliveries; what was closed or queued without an attempt took no time."""
    assert sorted(await statistics.durations(["wh_1"], FROM, FROM + MINUTE, 1, 10)) == [10.0, 20.0]
    assert sorted(await statistics.durations(["wh_1", "wh_2"], FROM + MINUTE, FROM + 2 * MINUTE, 1.5, 10)) == [
        12.5,
        12.5,
        30.0,
    ]
    assert len(await statistics.durations(["wh_1"], FROM, FROM + MINUTE, 1, 1)) == 1


async def test_a_sample_is_of_every_webhook_alike(connection):
    """A webhook whose id comes first doesn't fill it: of a fast and a slow one, each has its part."""
    fast = [own_id(number, "wh_1", duration_ms=20.0) for number in range(3_000)]
    slow = [own_id(number, "wh_2", duration_ms=9_000.0) for number in range(1_000)]
    await MongoDeliveryLog(connection.deliveries).write([*fast, *slow])
    statistics = MongoDeliveryStatistics(connection.deliveries)
    taken = await statistics.durations(["wh_1", "wh_2"], FROM, FROM + MINUTE, 0.1, 1_600)
    assert 330 < len(taken) < 470
    assert 0.2 < sum(each == 9_000.0 for each in taken) / len(taken) < 0.3
    assert await statistics.durations(["wh_1", "wh_2"], FROM, FROM + MINUTE, 0.1, 1_600) == taken
    few = await statistics.durations(["wh_1", "wh_2"], FROM, FROM + MINUTE, 0.001, 1_600)
    assert 0 < len(few) < 15


def own_id(number, subscription_id, **changes):
    """Make an entry whose delivery has the id that it would have."""
    named = DeliveryIds("ws_1", "", f"evt_{number}").of(subscription_id)
    at_ms = FROM + number % MINUTE
    return replace(entry(number, at_ms=at_ms, subscription_id=subscription_id, **changes), delivery_id=named)


async def test_waiting_deliveries_tell_how_long_they_wait(statistics):
    """From the latest step to the next attempt; one that is in no tier says so."""
    waiting = await statistics.waiting(["wh_1", "wh_2"], FROM, 10)
    assert sorted(waiting, key=lambda each: each.attempts_made) == [
        WaitingDelivery(0, None, None),
        WaitingDelivery(2, 5 * MINUTE, FROM + 8 * MINUTE),
    ]
    assert len(await statistics.waiting(["wh_1"], FROM, 1)) == 1
    assert await statistics.waiting(["wh_1"], FROM + 2 * MINUTE, 10) == []


async def test_what_waits_is_looked_for_among_what_waits(connection, statistics):
    """However many deliveries have ended, none of them is gone through; one that ends is no longer there."""
    ended = [entry(number, at_ms=FROM + number) for number in range(100, 1_100)]
    await MongoDeliveryLog(connection.deliveries).write(ended)
    before = await keys_of_waiting(connection)
    assert before == 2
    await MongoDeliveryLog(connection.deliveries).write([entry(5, at_ms=FROM + 2 * MINUTE)])
    assert await keys_of_waiting(connection) == 1
    assert [each.attempts_made for each in await statistics.waiting(["wh_1", "wh_2"], FROM, 10)] == [2]


async def keys_of_waiting(connection):
    """Count the keys that MongoDB looks at to find what waits."""
    cursors = []
    real = connection.deliveries.find

    class Spy:
        database, name = connection.deliveries.database, connection.deliveries.name

        def find(self, *given):
            cursors.append(real(*given))
            return cursors[-1]

    await MongoDeliveryStatistics(Spy()).waiting(["wh_1", "wh_2"], FROM, 10)
    return (await cursors[0].clone().explain())["executionStats"]["totalKeysExamined"]


async def test_what_takes_too_long_is_given_up_with_words_for_the_reader(statistics, monkeypatch):
    """The query ends by itself, and the error says to choose a shorter time."""
    slow = {"s": "wh_1", "$where": "sleep(300) || true"}
    monkeypatch.setattr(delivery_statistics, "MAX_QUERY_MS", 20)
    monkeypatch.setattr(delivery_statistics, "_created", lambda *_: slow)
    with pytest.raises(UnavailableError) as raised:
        await statistics.durations(["wh_1"], FROM, FROM + MINUTE, 1, 10)
    assert "Choose a shorter time" in raised.value.shown


async def test_webhooks_are_listed_by_a_filter(connection):
    """By status, by part of name or URL whatever its case, by whole id; a dot is a dot; pages keep the filter."""
    store = MongoWebhooks(connection.webhooks)
    for number in range(1, 4):
        await store.insert(webhook(number, name=f"Hook.{number}", status="inactive" if number == 3 else "active"))

    async def found(**wanted):
        page = await store.page("ws_1", None, 10, wanted=WebhookFilter(**wanted))
        return sorted(row.subscription.id for row in page.rows)

    assert await found(status="inactive") == ["wh_0003"]
    assert await found(text="hOOK.2") == ["wh_0002"]
    assert await found(text="example.com/1") == ["wh_0001"]
    assert await found(text="wh_0001") == ["wh_0001"]
    assert await found(text="wh_") == []
    assert await found(text="h.*k") == []
    assert await found(text="hook", status="active") == ["wh_0001", "wh_0002"]
    first = await store.page("ws_1", None, 1, wanted=WebhookFilter(text="hook"))
    second = await store.page("ws_1", first.next_cursor, 5, wanted=WebhookFilter(text="hook"))
    assert [row.subscription.id for row in (*first.rows, *second.rows)] == ["wh_0003", "wh_0002", "wh_0001"]


async def test_webhooks_are_read_at_once_and_their_ids_alone(connection):
    """Only this workspace's; newest first; a bound cuts the oldest off; ids come from the index."""
    store = MongoWebhooks(connection.webhooks)
    for number in range(1, 4):
        await store.insert(webhook(number))
    await store.insert(webhook(4, workspace_id="ws_2"))
    found = await store.some("ws_1", ["wh_0001", "wh_0003", "wh_0004", "wh_gone"])
    assert sorted(each.subscription.id for each in found) == ["wh_0001", "wh_0003"]
    assert await store.some("ws_1", []) == []
    assert await store.ids("ws_1", 10) == ["wh_0003", "wh_0002", "wh_0001"]
    assert await store.ids("ws_1", 2) == ["wh_0003", "wh_0002"]
    assert await store.ids("ws_3", 2) == []
    plan = connection.webhooks.find({"workspace_id": "ws_1"}, {"_id": 1}).sort([("created_at", -1), ("_id", -1)])
    assert (await plan.explain())["executionStats"]["totalDocsExamined"] == 0
