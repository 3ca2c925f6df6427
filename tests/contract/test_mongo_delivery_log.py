"""The delivery log on a real MongoDB: what it holds is what the pure merge says, whatever happened on the way."""

import asyncio
import functools
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymongo import IndexModel

from dispatcher.core.delivery_log import DeliveryStatus, LoggedState, merge
from dispatcher.core.errors import InvalidInputError
from dispatcher.mongo import MongoDeliveryLog, MongoDeliveryPages
from dispatcher.mongo.client import ensure_indexes
from dispatcher.mongo.delivery_documents import delivery_of
from dispatcher.ports import DeliveryFilter
from dispatcher.settings import MongoSettings
from tests.mongo_support import open_database
from tests.unit.mongo.samples import START_MS, entries_of_one_delivery, entry

RETRYING, DELIVERED, FAILED = DeliveryStatus.RETRYING, DeliveryStatus.DELIVERED, DeliveryStatus.FAILED
EVERYTHING = DeliveryFilter()


@pytest.fixture(scope="module")
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("log")) as connection:
        yield connection


@pytest.fixture
async def deliveries(connection):
    await connection.deliveries.delete_many({})
    return connection.deliveries


@pytest.fixture
def log(deliveries):
    return MongoDeliveryLog(deliveries)


@pytest.fixture
def pages(deliveries):
    return MongoDeliveryPages(deliveries)


async def ids(pages, wanted=EVERYTHING, limit=100, **where):
    page = await pages.page(where.get("workspace", "ws_1"), where.get("subscription", "wh_1"), wanted, None, limit)
    return [int(row.delivery_id[4:]) for row in page.rows]


async def test_what_is_stored_is_the_pure_merge(deliveries, log, connection):
    """Random entries about one delivery, written in random batches, make what the pure merge makes of them."""
    batches = st.lists(st.lists(entries_of_one_delivery(), min_size=1, max_size=5), min_size=1, max_size=4)
    loop = asyncio.get_running_loop()

    async def write(written):
        await deliveries.delete_many({})
        for batch in written:
            assert await log.write(batch) == 0
        return await deliveries.find_one({"_id": "del_x"}), await log.states(["del_x"])

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(batches)
    def check(written):
        stored, states = asyncio.run_coroutine_threadsafe(write(written), loop).result(60)
        expected = functools.reduce(merge, [wanted for batch in written for wanted in batch], None)
        assert delivery_of(stored) == expected
        assert states == {"del_x": expected.state}

    await asyncio.to_thread(check)


async def test_concurrent_writers_agree(deliveries, log, connection):
    """Many writers at once on the same new deliveries end in the merge of all that they wrote."""
    other = MongoDeliveryLog(connection.deliveries)
    entries = [
        entry(number, attempt=attempt, status=status, at_ms=START_MS + attempt)
        for number in range(20)
        for attempt, status in ((1, RETRYING), (2, RETRYING), (3, DELIVERED))
    ]
    batches = [entries[part::6] for part in range(6)] + [entries[::-1][part::5] for part in range(5)]
    writes = [writer.write(batch) for batch in batches for writer in (log, other)]
    assert set(await asyncio.gather(*writes)) == {0}
    for number in range(20):
        expected = functools.reduce(merge, entries[number * 3 : number * 3 + 3], None)
        assert delivery_of(await deliveries.find_one({"_id": expected.delivery_id})) == expected


async def test_writing_twice_changes_nothing(deliveries, log):
    """A batch with repeats in it, written twice, leaves one document a delivery, unchanged by the second write."""
    batch = [entry(1), entry(2), entry(1), entry(2, attempt=2)]
    assert await log.write(batch) == 0
    before = await deliveries.find().to_list(None)
    assert await log.write(batch) == 0
    assert await deliveries.find().to_list(None) == before
    assert len(before) == 2


async def test_a_late_write_does_not_undo_delivered(log):
    """An older attempt's outcome that arrives after `delivered` leaves the state delivered."""
    await log.write([entry(attempt=2, status=DELIVERED)])
    await log.write([entry(attempt=1, status=RETRYING), entry(attempt=3, status=RETRYING)])
    assert await log.states([entry().delivery_id]) == {entry().delivery_id: LoggedState("", 3, DELIVERED)}


async def test_states_are_read_in_chunks(log):
    """More ids than one query takes are all answered, and unknown ones are missing."""
    await log.write([entry(number) for number in range(1, 1203)])
    states = await log.states([entry(number).delivery_id for number in range(1205)])
    assert len(states) == 1202
    assert await log.states([]) == {}


async def test_a_refused_entry_is_stored_without_its_text(deliveries, log, connection, pages):
    """What MongoDB refuses is written again without body and error; the others of the batch are untouched."""
    await connection.database.command("collMod", "deliveries", validator={"a.0.b": {"$ne": b"poison"}})
    try:
        bad = entry(2, response_body=b"poison", error="why")
        late = entry(3, attempt=2, response_body=b"poison")
        assert await log.write([entry(1), bad, late]) == 0
    finally:
        await connection.database.command("collMod", "deliveries", validator={})
    (attempt,) = (await pages.get("ws_1", "wh_1", bad.delivery_id)).attempts
    assert (attempt.response_body, attempt.error, attempt.response_code) == (b"", "", 200)
    assert sorted(await ids(pages)) == [1, 2, 3]


async def test_an_entry_refused_twice_is_given_up_and_counted(deliveries, log, connection, pages):
    """An entry that is refused bare as well is counted, and costs no other entry its place."""
    await connection.database.command("collMod", "deliveries", validator={"e": {"$ne": "evt_2"}})
    try:
        assert await log.write([entry(1), entry(2), entry(2, attempt=2), entry(3)]) == 2
    finally:
        await connection.database.command("collMod", "deliveries", validator={})
    assert log.given_up == 2
    assert sorted(await ids(pages)) == [1, 3]


async def test_what_cannot_be_encoded_stops_nobody_else(log, pages):
    """An entry with text that isn't UTF-8 is mended, one with a number out of range given up, the rest is stored."""
    batch = [entry(number) for number in range(1, 10)]
    batch[3] = entry(4, source="\ud800")
    batch[6] = entry(7, response_code=2**40)
    assert await log.write(batch) == 1
    assert sorted(await ids(pages)) == [1, 2, 3, 4, 5, 6, 8, 9]
    assert (await pages.get("ws_1", "wh_1", batch[3].delivery_id)).source == "?"


async def test_a_document_beyond_16_mib_is_contained(log, pages):
    """A command that MongoDB refuses as a whole is taken apart until only the entry at fault is refused."""
    huge = entry(2, source="x" * (17 * 1024 * 1024))
    assert await log.write([entry(1), huge, entry(3)]) == 1
    assert sorted(await ids(pages)) == [1, 3]


async def test_many_large_bodies_fit(log, pages):
    """Batches of the largest bodies are cut so that no message is too long."""
    entries = [entry(number, response_body=b"x" * 4096, source="s" * 20_000) for number in range(2500)]
    assert await log.write(entries) == 0
    assert await pages._deliveries.count_documents({}) == 2500


async def test_a_delivery_is_shown_with_all_its_attempts(log, pages):
    """Attempts come by run and number, with time, status, duration, body and error; the summary is the last one's."""
    await log.write(
        [
            entry(1, run="rp_1", at_ms=START_MS + 9),
            entry(1, attempt=2, status=FAILED, reason="gone", response_code=410),
            entry(1, status=RETRYING, response_code=0, error="timed out: 10 s", response_body=b""),
        ]
    )
    shown = await pages.get("ws_1", "wh_1", entry(1).delivery_id)
    assert [(a.run, a.attempt, a.status, a.response_code) for a in shown.attempts] == [
        ("", 1, RETRYING, 0),
        ("", 2, FAILED, 410),
        ("rp_1", 1, DELIVERED, 200),
    ]
    assert (shown.attempts[0].error, shown.attempts[2].response_body) == ("timed out: 10 s", b"OK")
    assert (shown.status, shown.run, shown.origin) == (DELIVERED, "rp_1", entry(1).origin)


async def test_pages_stay_right_while_rows_are_added(log, pages):
    """Walking through pages meets each row that was there at the start exactly once, rows of one time included."""
    await log.write([entry(number, at_ms=START_MS + number // 4) for number in range(50)])
    seen, cursor, more = [], None, 1000
    while True:
        page = await pages.page("ws_1", "wh_1", EVERYTHING, cursor, 7)
        seen += [int(row.delivery_id[4:]) for row in page.rows]
        await log.write([entry(more, at_ms=START_MS + 100)])
        more += 1
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == list(range(49, -1, -1))
    assert page.rows[0].attempts == []


async def test_filters_narrow_a_page(log, pages):
    """Status, type and times each leave only their rows; `until` is the first moment that doesn't count."""
    await log.write([entry(1, status=FAILED), entry(2, event_type="user.deleted"), entry(3), entry(4)])
    assert await ids(pages, DeliveryFilter(status="failed")) == [1]
    assert await ids(pages, DeliveryFilter(event_type="user.deleted")) == [2]
    assert await ids(pages, DeliveryFilter(since_ms=START_MS + 2, until_ms=START_MS + 4)) == [3, 2]
    assert await ids(pages, DeliveryFilter(status="delivered", since_ms=START_MS + 3)) == [4, 3]


async def test_workspaces_never_mix(log, pages):
    """Another workspace's deliveries are neither listed nor shown, even by their ids."""
    theirs = entry(2, workspace_id="ws_2", status=FAILED)
    await log.write([entry(1, status=FAILED), theirs])
    assert await ids(pages) == [1]
    assert await ids(pages, workspace="ws_2") == [2]
    assert await pages.get("ws_1", "wh_1", theirs.delivery_id) is None
    assert await pages.get("ws_2", "wh_2", theirs.delivery_id) is None


async def test_a_foreign_cursor_is_refused(pages):
    """A cursor that isn't of this listing names the field."""
    with pytest.raises(InvalidInputError, match="cursor"):
        await pages.page("ws_1", "wh_1", EVERYTHING, "garbage", 10)


async def test_listings_use_their_indexes(deliveries, log, connection):
    """A page walks its index in order and sorts nothing."""
    await log.write([entry(number, status=FAILED) for number in range(50)])
    plan = str(await deliveries.find({"s": "wh_1", "w": "ws_1"}).sort([("c", -1), ("_id", -1)]).limit(5).explain())
    assert "'indexName': 'list'" in plan
    assert "'stage': 'SORT'" not in plan


async def test_the_retention_is_created_and_changed(connection):
    """The log has five secondary indexes, one of which expires documents; a changed setting reaches it."""
    changed = MongoSettings("unused", delivery_retention_days=7)
    for _ in range(2):
        await ensure_indexes(connection, changed)
    indexes = await connection.deliveries.index_information()
    assert len(indexes) == 6
    assert indexes["expire"]["expireAfterSeconds"] == 7 * 86_400
    assert indexes["expire"]["key"] == [("c", 1)]


async def test_an_earlier_versions_index_is_replaced(connection):
    """The index that failed deliveries were listed by before is dropped, by whichever process is first."""
    former = IndexModel([("w", 1), ("c", -1), ("_id", -1)], name="failed", partialFilterExpression={"st": "failed"})
    await connection.deliveries.create_indexes([former])
    wanted = MongoSettings("unused")
    await asyncio.gather(*(ensure_indexes(connection, wanted) for _ in range(3)))
    assert set(await connection.deliveries.index_information()) == {
        "_id_",
        "list",
        "dead_letters",
        "reruns",
        "waiting",
        "expire",
    }


async def test_times_are_dates(deliveries, log):
    """Times stand as dates in MongoDB, which is what its expiry needs."""
    await log.write([replace(entry(), next_attempt_at_ms=START_MS)])
    query = {"c": {"$type": "date"}, "u": {"$type": "date"}, "a.at": {"$type": "date"}, "a.nx": {"$type": "date"}}
    assert await deliveries.count_documents(query) == 1
