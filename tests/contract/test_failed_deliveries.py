"""Dead letters of the delivery log on a real MongoDB: chosen, counted and marked as in memory, and by their index."""

import asyncio
from dataclasses import replace

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, FailedFilter, merge, shown
from dispatcher.core.errors import InvalidInputError
from dispatcher.core.reruns import new_run_id
from dispatcher.mongo import MongoDeliveryLog, failed_deliveries
from dispatcher.mongo.failed_deliveries import MongoFailedDeliveries, failed_conditions, index_of
from tests.fakes.stores import MemoryDeliveryLogReader, MemoryFailedDeliveries
from tests.mongo_support import open_database
from tests.unit.mongo.samples import START_MS, entry

FAILED, PENDING = DeliveryStatus.FAILED, DeliveryStatus.PENDING
EVERYTHING = FailedFilter()
HOUR_MS = 3_600_000
NOW_MS = START_MS + 5


@pytest.fixture(scope="module")
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("failed")) as connection:
        yield connection


@pytest.fixture
async def deliveries(connection):
    await connection.deliveries.delete_many({})
    return connection.deliveries


@pytest.fixture
def log(deliveries):
    return MongoDeliveryLog(deliveries)


@pytest.fixture
def store(deliveries):
    return MongoFailedDeliveries(deliveries)


def letter(number=1, **changes):
    """Make the entry that ends a delivery as a dead letter."""
    plain = {"status": FAILED, "reason": "attempts_exhausted", "response_code": 503, "error": "answered 503"}
    return entry(number, **{**plain, **changes})


SAMPLES = [
    letter(1),
    letter(2, reason="gone", response_code=410),
    letter(3, subscription_id="wh_2", response_code=0),
    letter(4, event_type="user.deleted", response_code=500, at_ms=START_MS + HOUR_MS),
    letter(5, response_code=599),
    letter(6, workspace_id="ws_2"),
    letter(7, test=True),
    entry(8),
    entry(9, status=DeliveryStatus.RETRYING),
    letter(10, status=DeliveryStatus.SKIPPED, reason="disabled"),
]


def numbers(rows):
    return [int(row.delivery_id[4:]) for row in rows]


@pytest.mark.parametrize(
    "wanted",
    [
        EVERYTHING,
        FailedFilter(subscription_id="wh_2"),
        FailedFilter(event_type="user.deleted"),
        FailedFilter(reason="gone"),
        FailedFilter(response_code="none"),
        FailedFilter(response_code="5xx"),
        FailedFilter(response_code="503", reason="attempts_exhausted"),
        FailedFilter(since_ms=START_MS + 2, until_ms=START_MS + 5),
        FailedFilter(delivery_ids=(letter(1).delivery_id, letter(6).delivery_id, letter(8).delivery_id)),
        FailedFilter(subscription_id="wh_1", response_code="4xx", until_ms=START_MS + 100),
    ],
)
async def test_what_is_chosen_and_counted_is_as_in_memory(log, store, wanted):
    """Pages and counts are those of the plain reading of a filter."""
    await log.write(SAMPLES)
    reader = MemoryDeliveryLogReader()
    reader.deliveries = [shown(merge(None, each)) for each in SAMPLES]
    memory = MemoryFailedDeliveries(reader)
    expected = (await memory.page("ws_1", wanted, None, 100)).rows
    assert expected
    assert (await store.page("ws_1", wanted, None, 100)).rows == expected
    assert await store.summary("ws_1", wanted) == await memory.summary("ws_1", wanted)


async def test_no_dead_letters_are_none(store):
    """An empty log has an empty page and counts of nothing."""
    assert (await store.page("ws_1", EVERYTHING, None, 10)).rows == []
    summary = await store.summary("ws_1", EVERYTHING)
    assert (summary.total, summary.complete, summary.by_reason) == (0, True, [])


async def test_pages_stay_right_while_rows_are_added_and_marked(log, store):
    """Walking through pages meets each row once, though newer ones come and those that were read are marked."""
    await log.write([letter(number, at_ms=START_MS + number // 4) for number in range(30)])
    seen, cursor, more = [], None, 1000
    while True:
        page = await store.page("ws_1", EVERYTHING, cursor, 7)
        seen += numbers(page.rows)
        await log.write([letter(more, at_ms=START_MS + 100)])
        await store.handle("ws_1", FailedFilter(delivery_ids=tuple(row.delivery_id for row in page.rows)), NOW_MS)
        more, cursor = more + 1, page.next_cursor
        if cursor is None:
            break
    assert seen == list(range(29, -1, -1))
    assert page.rows[0].attempts == []
    with pytest.raises(InvalidInputError):
        await store.page("ws_1", EVERYTHING, "garbage", 7)


async def test_counts_stop_at_their_bound(log, store, monkeypatch):
    """Of more than the bound the newest are counted, and the answer says that it isn't all."""
    monkeypatch.setattr(failed_deliveries, "MAX_SUMMED_UP", 3)
    await log.write([letter(number, event_type=f"t.{number}") for number in range(5)])
    summary = await store.summary("ws_1", EVERYTHING)
    assert (summary.total, summary.complete) == (3, False)
    assert {each.value for each in summary.by_type} == {"t.2", "t.3", "t.4"}


async def test_mark_lasts_until_the_delivery_runs_again(log, store):
    """A handled one is gone from the list; written twice it stays so; once a replay fails, it is back unmarked."""
    await log.write([letter(1), letter(2)])
    assert (await store.handle("ws_1", FailedFilter(delivery_ids=(letter(1).delivery_id,)), NOW_MS)).count == 1
    assert (await store.get("ws_1", letter(1).delivery_id)).handled_at_ms == NOW_MS
    await log.write([letter(1), letter(1, attempt=0, status=DeliveryStatus.RETRYING)])
    assert numbers((await store.page("ws_1", EVERYTHING, None, 10)).rows) == [2]
    await log.write([letter(1, run="rpl_1", attempt=0, status=PENDING, reason="")])
    assert await store.get("ws_1", letter(1).delivery_id) is None
    await log.write([letter(1, run="rpl_1", attempt=1)])
    assert (await store.get("ws_1", letter(1).delivery_id)).handled_at_ms is None
    assert numbers((await store.page("ws_1", EVERYTHING, None, 10)).rows) == [2, 1]


async def test_marks_are_bounded_a_call(log, store, monkeypatch):
    """A call marks the newest ones up to its bound and says that some are left; repeated, it comes to an end."""
    monkeypatch.setattr(failed_deliveries, "MAX_HANDLED", 4)
    monkeypatch.setattr(failed_deliveries, "_BATCH", 2)
    await log.write([letter(number) for number in range(7)])
    first = await store.handle("ws_1", EVERYTHING, NOW_MS)
    assert (first.count, first.more) == (4, True)
    assert numbers((await store.page("ws_1", EVERYTHING, None, 10)).rows) == [2, 1, 0]
    second = await store.handle("ws_1", EVERYTHING, NOW_MS)
    assert (second.count, second.more) == (3, False)


async def test_marks_that_the_topic_lacks_are_told_of(deliveries, log, store):
    """What was marked in the log alone is named, of every workspace; the look-up reads nothing else."""
    await log.write([letter(number, workspace_id=f"ws_{number % 3}") for number in range(30)])
    await store.handle("ws_0", EVERYTHING, NOW_MS, letters_too=True)
    await store.handle("ws_1", FailedFilter(delivery_ids=(letter(1).delivery_id, letter(4).delivery_id)), NOW_MS)
    await store.handle("ws_2", FailedFilter(delivery_ids=(letter(5).delivery_id,)), NOW_MS + 1)
    await log.write([letter(4, workspace_id="ws_1", run="rpl_1")])
    found = {delivery_id async for delivery_id in store.handled_alone()}
    assert found == {letter(1).delivery_id, letter(5).delivery_id}
    alone = {"w": {"$gte": ""}, "st": "failed", "h": {"$gte": {"l": False}, "$lt": {"l": True}}}
    explained = await deliveries.find(alone, hint="dead_letters").explain()
    assert explained["executionStats"]["totalDocsExamined"] == 2
    assert explained["executionStats"]["totalKeysExamined"] <= 12


async def test_what_was_sent_again_is_told_of_with_its_run(deliveries, log, store):
    """Each delivery with a run behind its first is named with its latest one, all or those behind one; by the index."""
    runs = [new_run_id(START_MS + number, bytes(10)) for number in range(3)]
    await log.write([letter(number) for number in range(20)])
    await log.write([letter(1, run=runs[0]), letter(1, run=runs[2]), letter(2, run=runs[1]), letter(3, run="odd")])
    found = {each: run async for each, run in store.reruns(runs[0])}
    assert found == {letter(1).delivery_id: runs[2], letter(2).delivery_id: runs[1]}
    assert {each async for each, _ in store.reruns()} == {letter(number).delivery_id for number in (1, 2, 3)}
    assert [each async for each, _ in store.reruns(runs[1])] == [letter(1).delivery_id]
    explained = await deliveries.find({"r": {"$gt": ""}}, {"r": 1}, hint="reruns").explain()
    assert explained["executionStats"]["totalKeysExamined"] <= 4
    assert explained["executionStats"]["totalDocsExamined"] == 0


async def test_workspaces_never_mix(log, store):
    """Another workspace's dead letters are neither listed, counted, shown nor marked, even by their ids."""
    await log.write(SAMPLES)
    theirs = letter(6).delivery_id
    assert await store.get("ws_1", theirs) is None
    assert (await store.handle("ws_1", FailedFilter(delivery_ids=(theirs,)), NOW_MS)).count == 0
    assert numbers((await store.page("ws_2", EVERYTHING, None, 10)).rows) == [6]
    assert (await store.get("ws_2", theirs)).handled_at_ms is None


async def test_two_who_mark_at_once_mark_each_once(log, store, connection):
    """Of calls at the same time each counts only what it has marked itself."""
    await log.write([letter(number) for number in range(200)])
    other = MongoFailedDeliveries(connection.deliveries)
    marked = await asyncio.gather(*(each.handle("ws_1", EVERYTHING, NOW_MS) for each in (store, other, store)))
    assert sum(each.count for each in marked) == 200


@pytest.mark.parametrize(
    "wanted",
    [
        EVERYTHING,
        FailedFilter(subscription_id="wh_1"),
        FailedFilter(event_type="user.created", since_ms=START_MS),
        FailedFilter(reason="gone", response_code="5xx", until_ms=START_MS + 10),
        FailedFilter(delivery_ids=(letter(1).delivery_id, letter(2).delivery_id)),
    ],
)
async def test_every_choice_walks_an_index(deliveries, log, store, wanted):
    """Neither pages nor counts nor marks read the whole log; a page sorts nothing unless it names its rows."""
    await log.write([letter(number) for number in range(60)])
    await log.write([entry(number) for number in range(100, 400)])
    await store.handle("ws_1", FailedFilter(since_ms=START_MS + 30), NOW_MS)
    query = failed_conditions("ws_1", wanted)
    hint = index_of(wanted)
    for direction in (-1, 1):
        ordered = deliveries.find(query, hint=hint).sort([("c", direction), ("_id", direction)])
        explained = await ordered.explain()
        plan = str(explained["queryPlanner"]["winningPlan"])
        assert "COLLSCAN" not in plan
        assert f"'indexName': '{hint}'" in plan
        if wanted.delivery_ids is None:
            assert "'stage': 'SORT'" not in plan
        assert explained["executionStats"]["totalDocsExamined"] <= 31


async def test_count_of_dead_letters_walks_the_index(deliveries, log, connection):
    """The stages that count begin with the index as well."""
    await log.write([letter(number) for number in range(20)])
    stages = [{"$match": failed_conditions("ws_1", EVERYTHING)}, {"$sort": {"c": -1, "_id": -1}}, {"$limit": 5}]
    command = {"aggregate": "deliveries", "pipeline": stages, "cursor": {}, "hint": index_of(EVERYTHING)}
    plan = str(await connection.database.command("explain", command))
    assert "'indexName': 'dead_letters'" in plan
    assert "COLLSCAN" not in plan
    assert "'stage': 'SORT'" not in plan


async def test_later_step_of_a_handled_run_keeps_the_mark(log, store):
    """A repeated write of the failed step itself, as after a crash, doesn't bring the letter back."""
    await log.write([letter(1, run="rpl_1")])
    await store.handle("ws_1", EVERYTHING, NOW_MS)
    await log.write([letter(1, run="rpl_1"), replace(letter(1), run="")])
    assert numbers((await store.page("ws_1", EVERYTHING, None, 10)).rows) == []
