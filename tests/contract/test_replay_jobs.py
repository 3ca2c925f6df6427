"""Replay jobs behave the same in memory and in MongoDB; leases end by the server's clock."""

import asyncio
import time
from dataclasses import replace

import pytest

from dispatcher.core.delivery_log import DeliveryStatus, FailedFilter
from dispatcher.core.errors import InvalidInputError
from dispatcher.core.reruns import ReplayCounts, ReplayJob, ReplaySource, ReplayStatus, SourceSpan, new_run_id
from dispatcher.mongo import MongoDeliveryLog
from dispatcher.mongo.jobs import MongoReplays
from dispatcher.mongo.replay_selection import MongoReplaySelection
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.replays import MemoryReplays, MemorySelection
from tests.mongo_support import open_database
from tests.unit.mongo.samples import START_MS, WallClock, entry

LONG_MS = 600_000


@pytest.fixture(scope="module")
async def connection(services, unique_name):
    async with open_database(services.mongo_uri, unique_name("jobs")) as connection:
        yield connection


@pytest.fixture(params=["memory", "mongo"])
async def jobs(request, connection):
    if request.param == "memory":
        return MemoryReplays(WallClock())
    await connection.replays.delete_many({})
    return MongoReplays(connection.replays)


@pytest.fixture(params=["memory", "mongo"])
async def logged(request, connection):
    """A log's writer and what selects from it."""
    if request.param == "memory":
        log = MemoryDeliveryLog()
        return log, MemorySelection(log)
    await connection.deliveries.delete_many({})
    return MongoDeliveryLog(connection.deliveries), MongoReplaySelection(connection.deliveries)


def job(number=1, **changes):
    at_ms = START_MS + number
    made = ReplayJob(
        new_run_id(at_ms, bytes(10)), "ws_1", "wh_1", START_MS, START_MS + 1000, DeliveryStatus.FAILED, at_ms, at_ms
    )
    return replace(made, **changes)


async def test_job_is_stored_as_it_is(jobs):
    """What is inserted is read, field for field, in its workspace and in no other."""
    whole = job(
        status=ReplayStatus.RUNNING,
        wanted=None,
        error="e",
        selected=9,
        counts=ReplayCounts(1, 2, 3),
        cursor=(START_MS, "del_1"),
        in_hand=("del_1", "del_2"),
        source=ReplaySource.EVENTS,
        spans=(SourceSpan("events", 3, 5, 9), SourceSpan("$other", 0, 0, 1)),
        rate=2.5,
    )
    letters = FailedFilter(event_type="$t", reason="gone", response_code="5xx", delivery_ids=("del_2", "del_1"))
    of_letters = job(3, source=ReplaySource.DEAD_LETTERS, subscription_id="", failed=letters)
    for each in (job(), whole := replace(whole, id=job(2).id), of_letters):
        await jobs.insert(each)
        assert await jobs.get("ws_1", each.id) == each
        assert await jobs.get("ws_2", each.id) is None
        if isinstance(jobs, MongoReplays):
            assert await jobs.find(each.id) == each
    assert await jobs.get("ws_1", "rpl_none") is None


async def test_pages_are_newest_first_and_complete(jobs):
    """Pages of two show every job of the workspace once."""
    made = [job(number) for number in range(5)]
    for each in (*made, job(9, workspace_id="ws_2")):
        await jobs.insert(each)
    found, cursor = [], None
    while True:
        page = await jobs.page("ws_1", cursor, 2)
        found += page.rows
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == made[::-1]
    with pytest.raises(InvalidInputError):
        await jobs.page("ws_1", "nonsense", 2)


async def test_one_owner_at_a_time_holds_a_job(jobs):
    """A taken job runs and is nobody else's; its owner may take it again; released, the next one takes it."""
    await jobs.insert(job())
    taken = await jobs.take("a", LONG_MS)
    assert (taken.id, taken.status) == (job().id, "running")
    assert await jobs.take("b", LONG_MS) is None
    assert (await jobs.take("a", LONG_MS)).id == taken.id
    assert not await jobs.renew(taken.id, "b", LONG_MS)
    assert await jobs.renew(taken.id, "a", LONG_MS)
    await jobs.release("a")
    assert (await jobs.take("b", LONG_MS)).id == taken.id
    assert not await jobs.renew(taken.id, "a", LONG_MS)


async def test_lease_that_ran_out_is_taken_over(jobs):
    """The job of an owner that says nothing goes to another with its progress; the first one can store no more."""
    await jobs.insert(job())
    taken = await jobs.take("a", LONG_MS)
    known = replace(taken, selected=5, counts=ReplayCounts(2, 0, 1), cursor=(START_MS + 3, "$x"), in_hand=("del_4",))
    known = replace(known, spans=(SourceSpan("$events", 0, 1, 2),))
    assert await jobs.checkpoint(known, "a", 50)
    deadline = time.monotonic() + 10
    while (again := await jobs.take("b", LONG_MS)) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert replace(again, updated_at_ms=known.updated_at_ms) == known
    assert not await jobs.checkpoint(replace(known, counts=ReplayCounts(99, 0, 0)), "a", LONG_MS)
    assert not await jobs.finish(replace(known, status=ReplayStatus.DONE), "a")
    assert (await jobs.get("ws_1", known.id)).counts == ReplayCounts(2, 0, 1)


async def test_many_take_each_job_once(jobs):
    """Of owners that take at once, none gets another's job."""
    for number in range(5):
        await jobs.insert(job(number))
    taken = await asyncio.gather(*(jobs.take(f"owner {number}", LONG_MS) for number in range(8)))
    ids = [each.id for each in taken if each is not None]
    assert sorted(ids) == sorted(job(number).id for number in range(5))


async def test_job_left_alone_for_longest_is_next(jobs):
    """A checkpoint puts a job behind the others that wait."""
    for number in (1, 2):
        await jobs.insert(job(number, updated_at_ms=START_MS - 1000 + number, created_at_ms=1))
    first = await jobs.take("a", LONG_MS)
    assert first.id == job(1).id
    now_ms = int(time.time() * 1000)
    assert await jobs.checkpoint(replace(first, updated_at_ms=now_ms), "a", LONG_MS)
    if isinstance(jobs, MongoReplays):
        # The server's clock said when; the sample times lie ahead of it.
        await jobs._replays.update_one({"_id": first.id}, [{"$set": {"updated_at": {"$add": ["$created_at", 10**13]}}}])
    else:
        jobs.jobs[first.id] = replace(jobs.jobs[first.id], updated_at_ms=10**13)
    await jobs.release("a")
    assert (await jobs.take("a", LONG_MS)).id == job(2).id


async def test_finished_job_is_over(jobs):
    """It keeps its counts and its end, and nobody takes it again."""
    await jobs.insert(job())
    taken = await jobs.take("a", LONG_MS)
    assert await jobs.finish(replace(taken, status=ReplayStatus.DONE, counts=ReplayCounts(7, 1, 0)), "a")
    done = await jobs.get("ws_1", taken.id)
    assert (done.status, list(done.counts)) == ("done", [7, 1, 0])
    assert abs(done.finished_at_ms - time.time() * 1000) < 60_000
    assert await jobs.take("a", LONG_MS) is None
    assert await jobs.cancel("ws_1", done.id, 1) is None
    assert await jobs.insert(job(2), at_most=1)


async def test_cancelled_job_takes_its_last_counts_and_stays_cancelled(jobs):
    """Whoever ran it learns at the next checkpoint; the counts stand, the status does too."""
    await jobs.insert(job())
    taken = await jobs.take("a", LONG_MS)
    assert not await jobs.insert(job(2), at_most=1)
    assert await jobs.cancel("ws_2", taken.id, START_MS + 5) is None
    cancelled = await jobs.cancel("ws_1", taken.id, START_MS + 5)
    assert (cancelled.status, cancelled.finished_at_ms) == ("cancelled", START_MS + 5)
    later = replace(taken, counts=ReplayCounts(3, 0, 0), selected=4)
    assert not await jobs.renew(taken.id, "a", LONG_MS)
    assert not await jobs.checkpoint(later, "a", LONG_MS)
    found = await jobs.get("ws_1", taken.id)
    assert (found.status, found.counts, found.selected, found.in_hand) == ("cancelled", later.counts, 4, ())
    assert await jobs.take("a", LONG_MS) is None


async def test_selection_is_the_span_in_order(logged):
    """Of the webhook's deliveries those in span and status, oldest first, no tests, behind the cursor."""
    log, selection = logged
    failed = DeliveryStatus.FAILED
    await log.write(
        [
            *(entry(number, status=failed, at_ms=START_MS + number // 2) for number in range(6)),
            entry(6, status=failed, at_ms=START_MS - 1),
            entry(7, status=failed, at_ms=START_MS + 1000),
            entry(8),
            entry(9, status=failed, test=True),
            entry(10, status=failed, subscription_id="wh_2"),
            entry(11, status=failed, workspace_id="ws_2"),
        ]
    )
    wanted = job()
    assert await selection.count(wanted) == 6
    found, cursor = [], None
    while rows := await selection.next(replace(wanted, cursor=cursor), 2):
        found += rows
        cursor = (rows[-1].created_at_ms, rows[-1].delivery_id)
    assert [row.event_id for row in found] == [f"evt_{number}" for number in range(6)]
    assert found[0].attempts == []
    assert await selection.count(replace(wanted, wanted=None)) == 7
    held = replace(wanted, in_hand=(found[1].delivery_id, found[4].delivery_id, "del_x"))
    assert [row.event_id for row in await selection.in_hand(held)] == ["evt_1", "evt_4"]
    assert list(await selection.in_hand(wanted)) == []


async def test_selection_of_dead_letters_spans_webhooks(logged):
    """Failed deliveries of the whole workspace, oldest first, by each of what they are chosen by, in hand as well."""
    log, selection = logged
    failed = {"status": DeliveryStatus.FAILED, "reason": "attempts_exhausted", "response_code": 503}
    await log.write(
        [
            *(entry(number, **failed) for number in range(3)),
            entry(3, **{**failed, "subscription_id": "wh_2"}),
            entry(4, **{**failed, "reason": "gone", "response_code": 410}),
            entry(5, **{**failed, "event_type": "user.deleted", "response_code": 0}),
            entry(6, **{**failed, "workspace_id": "ws_2"}),
            entry(7),
            entry(8, **failed, test=True),
            entry(9, **{**failed, "at_ms": START_MS + 1000}),
        ]
    )

    def of(subscription="", **wanted):
        return job(source=ReplaySource.DEAD_LETTERS, subscription_id=subscription, failed=FailedFilter(**wanted))

    for wanted, expected in (
        (of(), [0, 1, 2, 3, 4, 5]),
        (of("wh_2"), [3]),
        (of("wh_1"), [0, 1, 2, 4, 5]),
        (of(reason="gone"), [4]),
        (of(event_type="user.deleted"), [5]),
        (of(response_code="none"), [5]),
        (of(response_code="5xx"), [0, 1, 2, 3]),
        (of(response_code="410", reason="gone"), [4]),
        (of(delivery_ids=(entry(1).delivery_id, entry(6).delivery_id, entry(7).delivery_id)), [1]),
    ):
        found, cursor = [], None
        while rows := await selection.next(replace(wanted, cursor=cursor), 2):
            found += rows
            cursor = (rows[-1].created_at_ms, rows[-1].delivery_id)
        assert [int(row.delivery_id[4:]) for row in found] == expected, wanted
        assert await selection.count(wanted) == len(expected)
    held = replace(of(), in_hand=(entry(3).delivery_id, entry(1).delivery_id, entry(6).delivery_id))
    assert [int(row.delivery_id[4:]) for row in await selection.in_hand(held)] == [1, 3]


async def test_of_many_at_once_as_many_are_stored_as_may_be(jobs):
    """Fifty that ask at the same time leave no more unfinished jobs than allowed; other workspaces have their own."""
    await jobs.insert(job(1))
    stored = await asyncio.gather(*(jobs.insert(job(number), at_most=4) for number in range(2, 52)))
    assert stored.count(True) == 3
    assert await jobs.insert(job(60, workspace_id="ws_2"), at_most=4)
