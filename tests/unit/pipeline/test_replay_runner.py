# ruff: noqa: D102 - the world's methods say what they do by their names
"""Going through replay jobs: what is produced, counted, paced, and what another runner goes on with."""

import asyncio
import contextlib
from dataclasses import replace

import pytest

from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.errors import UnavailableError
from dispatcher.core.model import Origin
from dispatcher.core.reruns import ReplayJob, ReplaySource, new_run_id
from dispatcher.metrics import Metrics
from dispatcher.pipeline import replay
from dispatcher.pipeline.backfill import Acceptance
from dispatcher.pipeline.replay import LEASE_MS, ReplayOutside, ReplayRunner
from dispatcher.pipeline.replay_deliveries import BATCH_DELIVERIES
from dispatcher.ports import RejectedRecordError
from tests.fakes.event_records import ENVELOPE, raw
from tests.fakes.kafka import MemoryBroker, MemoryProducer
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.replays import MemoryRecords, MemoryReplays, MemorySelection, MemorySource, MemorySubscriptions
from tests.unit.mongo.samples import START_MS, entry, webhook

FAILED, DELIVERED, RETRYING = DeliveryStatus.FAILED, DeliveryStatus.DELIVERED, DeliveryStatus.RETRYING
NOW_MS = START_MS + 3_600_000
JOB = new_run_id(NOW_MS, bytes(10))


class World:
    """Kafka, log and jobs in memory; time goes on only where somebody sleeps."""

    def __init__(self):
        self.ms = NOW_MS
        self.slept = []
        self.broker, self.log, self.metrics = MemoryBroker(), MemoryDeliveryLog(), Metrics()
        self.records, self.producer = MemoryRecords(self.broker), MemoryProducer(self.broker)
        self.jobs, self.selection = MemoryReplays(self), MemorySelection(self.log)
        self.subscriptions = MemorySubscriptions()

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.ms / 1000

    async def sleep(self, seconds):
        await asyncio.sleep(0)
        self.slept.append(seconds)
        self.ms += round(seconds * 1000)

    async def deliver(self, *numbers, status=FAILED, **changes):
        """Put events on their topic, and their deliveries in the log."""
        for number in numbers:
            record = self.broker.append("events", raw(ENVELOPE, id=f"evt_{number}"))
            origin = Origin("events", 0, record.offset, record.timestamp)
            known = {"workspace_id": "acme", "origin": origin, "status": status, **changes}
            await self.log.write([entry(number, **known)])

    async def job(self, wanted=FAILED, **changes):
        span = (START_MS, NOW_MS)
        made = ReplayJob(JOB, "acme", "wh_1", *span, wanted, NOW_MS, NOW_MS)
        await self.jobs.insert(replace(made, **changes))

    @contextlib.asynccontextmanager
    async def runner(self, owner="a", **options):
        readers = (self.records, MemorySource(self.broker), self.subscriptions)
        outside = ReplayOutside(self.jobs, self.selection, self.log, *readers, self.producer, self)
        accepts = Acceptance(None, 1_000_000, None)
        runner = ReplayRunner(outside, "webhooks.replay", owner, accepts, self.metrics, sleep=self.sleep, **options)
        task = asyncio.create_task(runner.run())
        try:
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    async def run(self, status="done", **options):
        async with self.runner(**options):
            await self.until(lambda: self.jobs.jobs[JOB].status == status)
        return self.jobs.jobs[JOB]

    @property
    def sent(self):
        return [int(record.header("delivery-id")[4:]) for record in self.broker.on_topic("webhooks.replay")]


@pytest.fixture
def world():
    return World()


async def test_range_goes_out_by_status_oldest_first(world):
    """Of the span the wanted status goes out, in order, each as a new run, shown as pending; all are counted."""
    await world.deliver(1, 2, 3)
    await world.deliver(4, status=DELIVERED)
    await world.deliver(5, at_ms=NOW_MS)
    await world.deliver(6, test=True)
    await world.deliver(7, subscription_id="wh_2")
    await world.job()
    job = await world.run()
    assert world.sent == [1, 2, 3]
    assert (job.selected, list(job.counts), job.finished_at_ms, job.in_hand) == (3, [3, 0, 0], NOW_MS + 30, ())
    (first, *_) = world.broker.on_topic("webhooks.replay")
    assert (first.header("attempt"), first.header("replay-id"), first.key) == ("0", JOB, b"wh_1")
    assert world.log.documents[first.header("delivery-id")].standing.status == DeliveryStatus.PENDING
    assert world.metrics.replayed.counts == {"produced": 3, "gone": 0, "skipped": 0}
    assert set(world.metrics.backfilled.counts.values()) == {0}


async def test_without_a_status_all_that_ended_go_out(world):
    """Delivered and failed ones go out, those under way are skipped, as are those that a later run took over."""
    await world.deliver(1)
    await world.deliver(2, status=DELIVERED)
    await world.deliver(3, status=RETRYING)
    await world.deliver(4, status=DELIVERED, run=new_run_id(NOW_MS + 1, bytes(10)))
    await world.job(None)
    job = await world.run()
    assert world.sent == [1, 2]
    assert (job.selected, list(job.counts)) == (4, [2, 0, 2])


async def test_those_under_way_go_out_where_they_are_asked_for(world):
    """An explicit status means what it says."""
    await world.deliver(1, status=RETRYING)
    await world.job(RETRYING)
    assert list((await world.run()).counts) == [1, 0, 0]


async def test_records_that_are_gone_are_counted(world):
    """Expired records, other records at their place and records that Kafka refuses don't stop the others."""
    await world.deliver(1, 2, 3, 4)
    world.records.drop("events", 0)
    await world.log.write([entry(2, workspace_id="acme", event_id="evt_x", status=FAILED, run="0")])
    document = world.log.documents[f"del_{2:026}"]
    world.log.documents[document.delivery_id] = replace(document, event_id="evt_x")
    world.producer.refuses = lambda record: (
        RejectedRecordError("too large") if dict(record.headers)["dispatcher-delivery-id"].endswith(b"3") else None
    )
    await world.job()
    assert list((await world.run()).counts) == [1, 3, 0]
    assert world.sent == [4]


@pytest.mark.parametrize(("rate", "batch"), [(5.0, 5), (0.5, 1), (2.4, 2)])
async def test_jobs_own_rate_is_kept_without_bursts(world, rate, batch):
    """A job with a rate takes about a second's deliveries in hand at once, and as long as its rate says."""
    await world.deliver(*range(11))
    await world.job(rate=rate)
    held, began = [], world.ms
    world.jobs.before_checkpoint = lambda job: held.append(len(job.in_hand))
    # One job's turn doesn't end within this test.
    await world.run()
    assert world.sent == list(range(11))
    assert max(held) == batch
    assert abs(world.jobs.jobs[JOB].finished_at_ms - began - 11 * 1000 / rate) < 50


async def test_dead_letters_of_a_workspace_go_out_where_their_webhook_is_active(world):
    """A job of dead letters spans webhooks; those that would be skipped at once stay dead letters, and are counted."""
    for webhook_id, status in (("wh_1", "active"), ("wh_2", "active"), ("wh_3", "disabled")):
        world.subscriptions.known[webhook_id] = replace(webhook().subscription, id=webhook_id, status=status)
    await world.deliver(1, 2)
    await world.deliver(3, subscription_id="wh_2", reason="gone")
    await world.deliver(4, subscription_id="wh_3")
    await world.deliver(5, subscription_id="wh_deleted")
    await world.deliver(6, status=DELIVERED)
    await world.job(source=ReplaySource.DEAD_LETTERS, subscription_id="")
    job = await world.run()
    assert world.sent == [1, 2, 3]
    assert (job.selected, list(job.counts)) == (5, [3, 0, 2])
    assert world.log.documents[f"del_{4:026}"].standing.status == FAILED
    assert world.metrics.replayed.counts == {"produced": 3, "gone": 0, "skipped": 2}


async def test_killed_runners_dead_letters_are_counted_once(world):
    """What was in hand is looked at again though it is no dead letter any more: produced once, counted once."""
    world.subscriptions.known["wh_1"] = replace(webhook().subscription, id="wh_1", status="active")
    await world.deliver(1, 2)
    await world.log.write([entry(1, workspace_id="acme", run=JOB, attempt=0, status=DeliveryStatus.PENDING)])
    ids = tuple(f"del_{number:026}" for number in (1, 2))
    letters = {"source": ReplaySource.DEAD_LETTERS, "subscription_id": ""}
    await world.job(selected=2, in_hand=ids, cursor=(START_MS + 2, ids[-1]), **letters)
    job = await world.run()
    assert world.sent == [2]
    assert list(job.counts) == [2, 0, 0]


async def test_rate_is_bounded(world):
    """Each batch takes as long as the rate allows its deliveries, however many jobs there are."""
    count = 2 * BATCH_DELIVERIES + 50
    await world.deliver(*range(count))
    await world.job()
    began = world.ms
    await world.run(rate=50.0)
    assert len(world.sent) == count
    assert world.jobs.jobs[JOB].finished_at_ms - began == count * 1000 / 50


async def test_jobs_take_turns(world):
    """A long job leaves room to one that came later, and is gone on with afterwards."""
    await world.deliver(*range(300))
    await world.deliver(999, workspace_id="globex", subscription_id="wh_9")
    # The event is of that workspace too.
    record = world.broker.append("events", raw(ENVELOPE, id="evt_999", workspace_id="globex"))
    document = world.log.documents[f"del_{999:026}"]
    occurrence = replace(document.occurrence, offset=record.offset)
    world.log.documents[document.delivery_id] = replace(document, occurrence=occurrence)
    await world.job()
    other = new_run_id(NOW_MS + 1, bytes(10))
    await world.job(id=other, workspace_id="globex", subscription_id="wh_9", updated_at_ms=NOW_MS + 1)
    # A hundred deliveries take longer than a turn.
    await world.run(rate=BATCH_DELIVERIES / (2 * replay.TURN_SECONDS))
    assert world.jobs.jobs[other].status == "done"
    assert world.sent.index(999) == BATCH_DELIVERIES
    assert sorted(world.sent) == [*range(300), 999]


async def test_cancelled_job_stops_at_the_next_batch(world):
    """What was produced before is counted; nothing more is."""
    await world.deliver(*range(3 * BATCH_DELIVERIES))
    await world.job()

    def cancel(job):
        if job.counts.produced:
            world.jobs.jobs[JOB] = replace(world.jobs.jobs[JOB], status="cancelled")

    world.jobs.before_checkpoint = cancel
    async with world.runner():
        await world.until(lambda: world.jobs.jobs[JOB].counts.produced)
        await world.until(lambda: 1.0 in world.slept[2:])
    assert list(world.jobs.jobs[JOB].counts) == [BATCH_DELIVERIES, 0, 0]
    assert len(world.sent) == BATCH_DELIVERIES


async def test_killed_runners_job_goes_on_from_its_checkpoint(world, monkeypatch):
    """A runner that vanishes within a batch leaves its lease to run out; another repeats that batch and no other."""
    await world.deliver(*range(3 * BATCH_DELIVERIES))
    await world.job()
    write = world.log.write

    async def never(_entries):
        await asyncio.get_running_loop().create_future()

    async with world.runner("a"):
        await world.until(lambda: world.jobs.jobs[JOB].counts.produced == BATCH_DELIVERIES)
        monkeypatch.setattr(world.log, "write", never)
        await world.until(lambda: len(world.sent) >= 2 * BATCH_DELIVERIES)
        # Killed: it can't give its lease back.
        monkeypatch.setattr(world.jobs, "release", never)
        monkeypatch.setattr(replay, "RELEASE_SECONDS", 0)
    assert world.jobs.jobs[JOB].status == "running"
    assert world.jobs.leases[JOB][0] == "a"
    monkeypatch.undo()
    assert world.log.write == write
    before = world.ms
    job = await world.run(owner="b")
    assert world.ms - before > LEASE_MS - 2000
    again = sorted(world.sent)
    assert set(again) == set(range(3 * BATCH_DELIVERIES))
    assert len(again) - len(set(again)) <= BATCH_DELIVERIES
    assert list(job.counts) == [3 * BATCH_DELIVERIES, 0, 0]


async def test_batch_that_was_logged_is_not_produced_again(world):
    """What the log shows under the job's own run was produced before the crash: it is counted and not repeated."""
    await world.deliver(1, 2)
    await world.log.write([entry(1, workspace_id="acme", run=JOB, attempt=1, status=DELIVERED)])
    ids = tuple(f"del_{number:026}" for number in (1, 2))
    await world.job(selected=2, in_hand=ids, cursor=(START_MS + 2, ids[-1]))
    job = await world.run()
    assert world.sent == [2]
    assert list(job.counts) == [2, 0, 0]
    assert world.metrics.replayed.counts["produced"] == 1


async def test_stopped_runner_leaves_its_job_to_others_at_once(world):
    """A clean stop gives the lease back."""
    world.producer.holding = True
    await world.deliver(1)
    await world.job()
    async with world.runner("a"):
        await world.until(lambda: world.producer.held)
    assert world.jobs.leases == {}
    world.producer.release()
    before = world.ms
    await world.run(owner="b")
    assert world.ms - before < LEASE_MS
    assert world.sent[-1] == 1


async def test_job_that_was_taken_over_is_let_go(world, monkeypatch):
    """A runner whose batch outlasts its lease stops when it finds that another holds the job."""
    monkeypatch.setattr(replay, "RENEW_SECONDS", 0.01)
    world.producer.holding = True
    await world.deliver(1)
    await world.job()
    async with world.runner("a"):
        await world.until(lambda: world.producer.held)
        world.jobs.leases[JOB] = ("b", world.ms + 10**9)
        await world.until(world.producer.held[0].future.cancelled)
    assert world.jobs.leases[JOB][0] == "b"
    assert list(world.jobs.jobs[JOB].counts) == [0, 0, 0]


async def test_runner_that_loses_its_lease_while_it_reads_produces_nothing(world, monkeypatch):
    """Between reading and producing it is asked whose the job is: one that was held up leaves it to its heir."""
    await world.deliver(1, 2)
    await world.job()
    read_many = world.records.read_many

    async def slowly(wanted):
        found = await read_many(wanted)
        world.jobs.leases[JOB] = ("b", world.ms + 10**9)
        return found

    monkeypatch.setattr(world.records, "read_many", slowly)
    async with world.runner("a"):
        await world.until(lambda: replay.LOOK_SECONDS in world.slept)
    assert world.sent == []
    assert world.jobs.jobs[JOB].in_hand == ()


async def test_job_whose_records_are_out_of_reach_lets_others_go_first(world, monkeypatch):
    """A topic without a leader holds up the job that needs it, and no other one."""
    await world.deliver(1)
    await world.deliver(2, subscription_id="wh_2")
    await world.job()
    other = new_run_id(NOW_MS + 1, bytes(10))
    await world.job(id=other, subscription_id="wh_2", updated_at_ms=NOW_MS + 1)
    read_many = world.records.read_many

    async def without_the_first(wanted):
        wanted = list(wanted)
        if ("events", 0, 0) in wanted:
            raise UnavailableError("no leader")
        return await read_many(wanted)

    monkeypatch.setattr(world.records, "read_many", without_the_first)
    async with world.runner():
        await world.until(lambda: world.jobs.jobs[other].status == "done")
        assert world.jobs.jobs[JOB].status == "running"
        monkeypatch.undo()
        await world.until(lambda: world.jobs.jobs[JOB].status == "done")
    assert world.sent == [2, 1]


@pytest.mark.parametrize("what", ["kafka", "jobs", "log"])
async def test_outages_are_waited_out(world, what):
    """Kafka or MongoDB out of reach stops the job and fails nothing; it goes on by itself."""
    await world.deliver(1, 2)
    await world.job()
    place, name = {"kafka": (world.records, "down"), "jobs": (world.jobs.outage, "down"), "log": (world.log, "down")}[
        what
    ]
    setattr(place, name, True)
    async with world.runner():
        await world.until(lambda: replay.BACK_OFF_SECONDS in world.slept)
        setattr(place, name, False)
        await world.until(lambda: world.jobs.jobs[JOB].status == "done")
    assert set(world.sent) == {1, 2}
    assert list(world.jobs.jobs[JOB].counts) == [2, 0, 0]


async def test_fault_fails_the_job_and_not_the_runner(world, monkeypatch):
    """A job that meets a fault ends as failed, with words for its owner; the next one runs."""

    async def broken(_wanted):
        raise RuntimeError("a secret detail")

    await world.deliver(1)
    await world.job()
    monkeypatch.setattr(world.records, "read_many", broken)
    async with world.runner() as task:
        await world.until(lambda: world.jobs.jobs[JOB].status == "failed")
        monkeypatch.undo()
        other = new_run_id(NOW_MS + 1, bytes(10))
        await world.job(id=other)
        await world.until(lambda: world.jobs.jobs[other].status == "done")
        assert not task.done()
    assert "secret" not in world.jobs.jobs[JOB].error
    assert world.sent == [1]


async def test_store_out_of_reach_at_the_end_is_no_fault(world, monkeypatch):
    """A stop while MongoDB is away ends the runner all the same."""

    async def unreachable(_owner):
        raise UnavailableError("away")

    monkeypatch.setattr(world.jobs, "release", unreachable)
    async with world.runner() as task:
        await world.until(lambda: world.slept)
    assert task.cancelled()
