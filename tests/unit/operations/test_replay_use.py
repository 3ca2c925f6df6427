"""Making, showing and cancelling replay jobs."""

import dataclasses

import pytest

from dispatcher.core.errors import ConflictError, InvalidInputError, NotFoundError
from dispatcher.operations.audit import Audit
from dispatcher.operations.replays import MAX_UNFINISHED, Replays
from dispatcher.operations.times import rfc3339
from dispatcher.operations.webhooks import KNOWN_AFTER_MS
from dispatcher.ports import Actor
from tests.fakes.api_stack import START_MS, ManualClock, draws
from tests.fakes.replays import MemoryReplays
from tests.fakes.stores import MemoryAuditStore, MemoryWebhookStore
from tests.unit.mongo.samples import webhook

SPAN = {"since": rfc3339(START_MS - 60_000), "until": rfc3339(START_MS - 1)}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def store():
    made = webhook()
    store = MemoryWebhookStore()
    for workspace_id, webhook_id in (("acme", "wh_1"), ("globex", "wh_2")):
        subscription = dataclasses.replace(made.subscription, id=webhook_id, workspace_id=workspace_id, status="active")
        store.webhooks[webhook_id] = dataclasses.replace(made, subscription=subscription)
    return store


@pytest.fixture
def jobs(clock):
    return MemoryReplays(clock)


@pytest.fixture
def replays(jobs, store, clock):
    return Replays(jobs, store, clock, draws())


async def test_job_waits_for_a_worker(replays, jobs):
    """A new job is pending, with the span and status that were asked for, and can be read and listed."""
    job = await replays.create("acme", "wh_1", {**SPAN, "status": "failed"})
    assert job.id.startswith("rpl_")
    assert (job.status, job.since_ms, job.until_ms, job.wanted) == (
        "pending",
        START_MS - 60_000,
        START_MS - 1,
        "failed",
    )
    assert (job.selected, list(job.counts), job.cursor) == (None, [0, 0, 0], None)
    assert await replays.get("acme", job.id) == job
    assert list((await replays.page("acme", None, 10)).rows) == [job]


async def test_end_in_the_future_counts_as_now(replays):
    """What is still to come is delivered anyway."""
    job = await replays.create("acme", "wh_1", {**SPAN, "until": rfc3339(START_MS + 60_000)})
    assert job.until_ms == START_MS


async def test_a_backfill_may_reach_until_all_know_that_its_webhook_is_active(replays):
    """Events that come before every worker knows the webhook are its own to send; later ones are delivered anyway."""
    for ahead_ms, reaches_ms in ((60_000, KNOWN_AFTER_MS), (2_000, 2_000)):
        sent = {**SPAN, "until": rfc3339(START_MS + ahead_ms), "source": "events"}
        assert (await replays.create("acme", "wh_1", sent)).until_ms == START_MS + reaches_ms


@pytest.mark.parametrize(
    ("sent", "wrong"),
    [
        ({}, {"since", "until"}),
        ({"since": "yesterday", "until": 5}, {"since", "until"}),
        ({**SPAN, "status": "lost"}, {"status"}),
        ({**SPAN, "since": rfc3339(START_MS)}, {"since"}),
        ({**SPAN, "until": SPAN["since"]}, {"until"}),
        ({**SPAN, "source": "topics"}, {"source"}),
        ({**SPAN, "source": "events", "status": "failed"}, {"status"}),
    ],
)
async def test_wrong_fields_are_named_and_no_job_is_made(replays, jobs, sent, wrong):
    """Missing and unreadable times, an empty span, an unknown status or source, and a status of events."""
    with pytest.raises(InvalidInputError) as caught:
        await replays.create("acme", "wh_1", sent)
    assert set(caught.value.fields) == wrong
    assert jobs.jobs == {}


@pytest.mark.parametrize(("sent", "expected"), [({}, "deliveries"), ({"source": "events"}, "events")])
async def test_source_is_the_delivery_log_unless_events_are_asked_for(replays, sent, expected):
    """A backfill is a job of its own kind."""
    assert (await replays.create("acme", "wh_1", {**SPAN, **sent})).source == expected


async def test_unfinished_jobs_of_a_workspace_are_bounded(replays):
    """One more than allowed conflicts, for this workspace alone, until one is cancelled."""
    made = [await replays.create("acme", "wh_1", SPAN) for _ in range(MAX_UNFINISHED)]
    with pytest.raises(ConflictError, match="wait or run already"):
        await replays.create("acme", "wh_1", SPAN)
    await replays.create("globex", "wh_2", SPAN)
    await replays.cancel("acme", made[0].id)
    await replays.create("acme", "wh_1", SPAN)


async def test_cancelling_ends_a_job_once(replays):
    """A cancelled job has an end; cancelling it again conflicts."""
    job = await replays.create("acme", "wh_1", SPAN)
    cancelled = await replays.cancel("acme", job.id)
    assert (cancelled.status, cancelled.finished_at_ms) == ("cancelled", START_MS)
    with pytest.raises(ConflictError, match="is cancelled already"):
        await replays.cancel("acme", job.id)


async def test_who_made_and_ended_a_job_is_written_down(jobs, store, clock):
    """The audit log tells of the job's making and its cancelling, and of nothing that was refused."""
    noted = MemoryAuditStore()
    replays = Replays(jobs, store, clock, draws(), audit=Audit(noted, clock, draws()))
    somebody = Actor("api_key", "key_1", "ci")
    job = await replays.create("acme", "wh_1", SPAN, by=somebody)
    await replays.cancel("acme", job.id, by=somebody)
    with pytest.raises(ConflictError):
        await replays.cancel("acme", job.id, by=somebody)
    assert [(entry.action, entry.target_id, entry.actor) for entry in noted.entries] == [
        ("replay.create", job.id, somebody),
        ("replay.cancel", job.id, somebody),
    ]
    assert noted.entries[0].changes["webhook_id"] == (None, "wh_1")


async def test_webhook_that_is_not_active_conflicts(replays, store):
    """What would only be skipped is refused at once."""
    made = store.webhooks["wh_1"]
    store.webhooks["wh_1"] = dataclasses.replace(
        made, subscription=dataclasses.replace(made.subscription, status="disabled")
    )
    with pytest.raises(ConflictError, match="set its status to active"):
        await replays.create("acme", "wh_1", SPAN)


async def test_other_workspaces_see_nothing(replays, jobs):
    """Neither webhooks nor jobs of another workspace can be found, and its jobs go on."""
    job = await replays.create("acme", "wh_1", SPAN)
    with pytest.raises(NotFoundError):
        await replays.create("globex", "wh_1", SPAN)
    for call in (replays.get, replays.cancel):
        with pytest.raises(NotFoundError):
            await call("globex", job.id)
    assert list((await replays.page("globex", None, 10)).rows) == []
    assert jobs.jobs[job.id].status == "pending"
