# ruff: noqa: D102 - the world's methods say what they do by their names
"""Going through source topics: what is sent of them, what is passed over, and what a crash repeats."""

import asyncio
import dataclasses
import json

import pytest

from dispatcher.core.catalogue import Catalogue
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.delivery_log import DeliveryStatus
from dispatcher.core.model import Origin
from dispatcher.core.reruns import ReplayJob, ReplaySource, new_run_id
from dispatcher.metrics import Metrics
from dispatcher.pipeline import replay
from dispatcher.pipeline.backfill import RECORDS_A_DELIVERY, Acceptance
from dispatcher.pipeline.replay import ReplayOutside, ReplayRunner
from dispatcher.pipeline.replay_deliveries import BATCH_DELIVERIES
from tests.fakes.event_records import ENVELOPE, raw
from tests.fakes.kafka import MemoryBroker, MemoryProducer
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.replays import MemoryRecords, MemoryReplays, MemorySelection, MemorySource, MemorySubscriptions
from tests.unit.mongo.samples import START_MS, entry, webhook

NOW_MS = START_MS + 3_600_000
JOB = new_run_id(NOW_MS, bytes(10))
IN_SPAN_MS = START_MS + 1000


class World:
    """Kafka, log and jobs in memory, with one active webhook that wants `user.*`; time goes on where one sleeps."""

    def __init__(self):
        self.ms = NOW_MS
        self.broker, self.log, self.metrics = MemoryBroker(), MemoryDeliveryLog(), Metrics()
        self.producer, self.source = MemoryProducer(self.broker), MemorySource(self.broker)
        self.jobs, self.subscriptions = MemoryReplays(self), MemorySubscriptions()
        self.set(id="wh_1", workspace_id="acme", status="active", events=("user.*",))

    def set(self, **changes):
        known = self.subscriptions.known.get("wh_1") or webhook().subscription
        self.subscriptions.known["wh_1"] = dataclasses.replace(known, **changes)

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.ms / 1000

    async def sleep(self, seconds):
        await asyncio.sleep(0)
        self.ms += round(seconds * 1000)

    def event(self, number, at_ms=IN_SPAN_MS, partition=0, **fields):
        value = raw(ENVELOPE, **{"id": f"evt_{number}", "type": "user.created", "workspace_id": "acme", **fields})
        self.broker.append("events", value, timestamp=at_ms, partition=partition)
        return DeliveryIds("acme", "", f"evt_{number}").of("wh_1")

    def run_of(self, owner, catalogue=None, **options):
        readers = (MemorySelection(self.log), self.log, MemoryRecords(self.broker), self.source, self.subscriptions)
        outside = ReplayOutside(self.jobs, *readers, self.producer, self)
        accepts = Acceptance(None, 10_000, catalogue)
        return ReplayRunner(outside, "webhooks.replay", owner, accepts, self.metrics, sleep=self.sleep, **options)

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0)

    async def run(self, status="done", owner="a", **options):
        if JOB not in self.jobs.jobs:
            await self.jobs.insert(
                ReplayJob(JOB, "acme", "wh_1", START_MS, NOW_MS, None, NOW_MS, NOW_MS, source=ReplaySource.EVENTS)
            )
        task = asyncio.create_task(self.run_of(owner, **options).run())
        try:
            await self.until(lambda: self.jobs.jobs[JOB].status == status)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return self.jobs.jobs[JOB]

    @property
    def sent(self):
        return [json.loads(record.value)["id"] for record in self.broker.on_topic("webhooks.replay")]


@pytest.fixture
def world():
    return World()


async def test_what_the_webhook_wants_and_never_got_goes_out(world):
    """By time, type, workspace and log: the rest is skipped; what goes out is shown as waiting, from its record."""
    wanted = world.event(1)
    world.event(2, at_ms=START_MS - 1)
    world.event(3, type="post.deleted")
    world.event(4, workspace_id="globex")
    known = world.event(5)
    world.broker.append("events", b"no event", timestamp=IN_SPAN_MS)
    world.event(6, data={"long": "x" * 20_000})
    world.broker.append_unreadable("events", "corrupt")
    other = world.event(7, partition=1)
    world.event(8, at_ms=NOW_MS)
    changes = {"delivery_id": known, "workspace_id": "acme", "event_id": "evt_5", "status": DeliveryStatus.FAILED}
    await world.log.write([dataclasses.replace(entry(5), **changes)])
    job = await world.run()
    assert sorted(world.sent) == ["evt_1", "evt_7"]
    assert (job.selected, list(job.counts), job.spans) == (9, [2, 1, 6], ())
    (first, *_) = world.broker.on_topic("webhooks.replay")
    assert (first.header("delivery-id"), first.header("replay-id"), first.header("attempt")) == (wanted, JOB, "0")
    assert (first.key, first.header("origin-topic"), first.header("origin-offset")) == (b"wh_1", "events", "0")
    for delivery_id in (wanted, other):
        assert world.log.documents[delivery_id].standing.status == DeliveryStatus.PENDING
    assert world.log.documents[wanted].state.run == JOB
    assert world.log.documents[known].state.run == ""
    assert world.metrics.backfilled.counts == {"produced": 2, "gone": 1, "skipped": 6}
    assert set(world.metrics.replayed.counts.values()) == {0}


async def test_event_that_is_there_twice_goes_out_once(world):
    """A publisher's retry is the same delivery, in one fetch and across fetches."""
    for _ in range(3):
        world.event(1)
    world.source.fetch_records = 2
    assert list((await world.run()).counts) == [1, 0, 2]
    assert world.sent == ["evt_1"]


async def test_batches_are_bounded_and_paced(world):
    """No more than a batch is in hand at once, and the rate holds for what is sent and for what is only read."""
    for number in range(2 * BATCH_DELIVERIES + 50):
        world.event(number)
    for number in range(1000):
        world.event(number, type="post.deleted", partition=1)
    held = []
    world.jobs.before_checkpoint = lambda job: held.append(sum(job.counts))
    job = await world.run(rate=50.0)
    assert list(job.counts) == [250, 0, 1000]
    assert held == [0, 100, 200, 250]
    assert job.finished_at_ms - NOW_MS == (250 + 1000 / RECORDS_A_DELIVERY) * 1000 / 50
    assert len(world.sent) == len(set(world.sent)) == 250


async def test_jobs_own_rate_counts_what_is_sent_and_not_what_is_read(world):
    """A slow backfill still looks at what is not for its webhook as fast as any, and sends no bursts."""
    for number in range(6):
        world.event(number)
    for number in range(1000):
        world.event(number, type="post.deleted", partition=1)
    held = []
    world.jobs.before_checkpoint = lambda job: held.append(len(job.in_hand))
    changes = {"source": ReplaySource.EVENTS, "rate": 2.0}
    await world.jobs.insert(ReplayJob(JOB, "acme", "wh_1", START_MS, NOW_MS, None, NOW_MS, NOW_MS, **changes))
    job = await world.run()
    assert list(job.counts) == [6, 0, 1000]
    assert max(held) == 2
    took_ms = job.finished_at_ms - NOW_MS
    assert 3000 <= took_ms <= 3000 + 1000 * 1000 / RECORDS_A_DELIVERY / 100 + 100


async def test_records_that_expired_since_are_gone(world):
    """What its topic dropped after the job's start is counted, and the rest goes out."""
    for number in range(6):
        world.event(number)
    world.source.dropped["events", 0] = 4
    assert list((await world.run()).counts) == [2, 4, 0]
    assert world.sent == ["evt_4", "evt_5"]


async def test_nothing_in_the_span_is_done_at_once(world):
    """A job without records ends."""
    job = await world.run()
    assert (job.selected, list(job.counts)) == (0, [0, 0, 0])


async def test_killed_runners_stretch_is_read_again_and_counted_once(world, monkeypatch):
    """Of what a killed runner had in hand, what it logged isn't produced again; nothing is lost."""
    for number in range(BATCH_DELIVERIES + 50):
        world.event(number)
    write, writes = world.log.write, []

    async def half(entries):
        writes.append(await write(entries[: len(entries) // 2]))
        await asyncio.get_running_loop().create_future()

    async def never(_owner):
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(world.log, "write", half)
    monkeypatch.setattr(world.jobs, "release", never)
    monkeypatch.setattr(replay, "RELEASE_SECONDS", 0)
    await world.jobs.insert(
        ReplayJob(JOB, "acme", "wh_1", START_MS, NOW_MS, None, NOW_MS, NOW_MS, source=ReplaySource.EVENTS)
    )
    task = asyncio.create_task(world.run_of("a").run())
    await world.until(lambda: writes)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    monkeypatch.undo()
    job = await world.run(owner="b")
    assert list(job.counts) == [BATCH_DELIVERIES + 50, 0, 0]
    assert set(world.sent) == {f"evt_{number}" for number in range(BATCH_DELIVERIES + 50)}
    assert len(world.sent) == BATCH_DELIVERIES + 50 + BATCH_DELIVERIES // 2


@pytest.mark.parametrize("status", ["inactive", "disabled", None])
async def test_webhook_that_takes_nothing_any_more_ends_the_job(world, status):
    """Deleted or not active: the job fails, and says why."""
    world.event(1)
    if status is None:
        del world.subscriptions.known["wh_1"]
    else:
        world.set(status=status)
    job = await world.run("failed")
    assert ("was deleted" if status is None else f"is {status}") in job.error
    assert world.sent == []


async def test_what_the_catalogue_refuses_is_skipped_where_that_makes_dead_letters(world):
    """An event that the source role refuses is not brought in by a backfill."""
    world.event(1)
    assert list((await world.run(catalogue=Catalogue())).counts) == [0, 0, 1]


async def test_redelivery_origin_can_be_read_again(world):
    """The log points at the event's record, so that the delivery can be redelivered like any other."""
    delivery_id = world.event(1)
    await world.run()
    occurrence = world.log.documents[delivery_id].occurrence
    origin = Origin(occurrence.topic, occurrence.partition, occurrence.offset, occurrence.timestamp_ms)
    assert origin == Origin("events", 0, 0, IN_SPAN_MS)


async def test_what_is_still_to_come_of_its_time_is_waited_for(world):
    """A job whose time isn't over begins when it is, so that events of its last seconds are sent as well."""
    await world.jobs.insert(
        ReplayJob(JOB, "acme", "wh_1", START_MS, NOW_MS + 5_000, None, NOW_MS, NOW_MS, source=ReplaySource.EVENTS)
    )
    asked, spans = [], world.source.spans

    async def looked(since_ms, until_ms):
        asked.append(world.ms)
        world.event(1, at_ms=NOW_MS + 4_000)
        return await spans(since_ms, until_ms)

    world.source.spans = looked
    job = await world.run()
    assert asked == [NOW_MS + 5_000]
    assert job.counts.produced == 1
