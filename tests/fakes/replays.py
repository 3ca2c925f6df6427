# ruff: noqa: D102 - the ports say what each method promises
"""Replay jobs, the deliveries that they are about, and records by their coordinates, in memory."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from dispatcher.core.delivery_log import LoggedDelivery, shown
from dispatcher.core.errors import UnavailableError
from dispatcher.core.model import Subscription
from dispatcher.core.reruns import UNFINISHED, ReplayJob, ReplaySource, ReplayStatus, SourceSpan
from dispatcher.ports import Clock, ConsumedRecord, Coordinates, OutgoingRecord, Page, SourceRecords
from tests.fakes.kafka import MemoryBroker, MemoryProducer, StoredRecord
from tests.fakes.log import MemoryDeliveryLog
from tests.fakes.stores import Outage, is_chosen, paged


class MemoryReplays:
    """`ReplayStore` and `ReplayLeases` in memory.

    Attributes:
        jobs: What it holds.
        leases: Owner and end of each job's lease.
        before_checkpoint: Runs before each checkpoint, to make races.
    """

    def __init__(self, clock: Clock, outage: Outage | None = None) -> None:
        self.clock = clock
        self.outage = outage or Outage()
        self.jobs: dict[str, ReplayJob] = {}
        self.leases: dict[str, tuple[str, int]] = {}
        self.before_checkpoint: Callable[[ReplayJob], None] = lambda _job: None

    async def insert(self, job: ReplayJob, *, at_most: int | None = None) -> bool:
        self.outage.check()
        if at_most is not None and len(self.unfinished(job.workspace_id)) >= at_most:
            return False
        self.jobs[job.id] = job
        return True

    async def get(self, workspace_id: str, replay_id: str) -> ReplayJob | None:
        self.outage.check()
        job = self.jobs.get(replay_id)
        return job if job and job.workspace_id == workspace_id else None

    async def page(self, workspace_id: str, cursor: str | None, limit: int) -> Page[ReplayJob]:
        self.outage.check()
        rows = [job for job in self.jobs.values() if job.workspace_id == workspace_id]
        return paged(rows, lambda job: (job.created_at_ms, job.id), cursor, limit)

    def unfinished(self, workspace_id: str) -> list[ReplayJob]:
        """Return the jobs of a workspace that wait or run."""
        return [job for job in self.jobs.values() if job.workspace_id == workspace_id and job.status in UNFINISHED]

    async def cancel(self, workspace_id: str, replay_id: str, now_ms: int) -> ReplayJob | None:
        job = await self.get(workspace_id, replay_id)
        if job is None or job.status not in UNFINISHED:
            return None
        job = replace(job, status=ReplayStatus.CANCELLED, updated_at_ms=now_ms, finished_at_ms=now_ms)
        self.jobs[replay_id] = job
        return job

    async def take(self, owner: str, lease_ms: int) -> ReplayJob | None:
        self.outage.check()
        now_ms = self.clock.now_ms()
        for job in sorted(self.jobs.values(), key=lambda each: (each.updated_at_ms, each.id)):
            holder, until_ms = self.leases.get(job.id, (owner, 0))
            if job.status in UNFINISHED and (holder == owner or until_ms < now_ms):
                self.leases[job.id] = (owner, now_ms + lease_ms)
                self.jobs[job.id] = replace(job, status=ReplayStatus.RUNNING)
                return self.jobs[job.id]
        return None

    async def renew(self, replay_id: str, owner: str, lease_ms: int) -> bool:
        self.outage.check()
        if not self._runs(replay_id, owner):
            return False
        self.leases[replay_id] = (owner, self.clock.now_ms() + lease_ms)
        return True

    async def checkpoint(self, job: ReplayJob, owner: str, lease_ms: int) -> bool:
        self.before_checkpoint(job)
        runs = self._store(replace(job, updated_at_ms=self.clock.now_ms()), owner)
        return runs and await self.renew(job.id, owner, lease_ms)

    async def finish(self, job: ReplayJob, owner: str) -> bool:
        now_ms = self.clock.now_ms()
        runs = self._store(replace(job, updated_at_ms=now_ms, finished_at_ms=now_ms), owner)
        if runs:
            self.leases.pop(job.id, None)
        return runs

    async def release(self, owner: str) -> None:
        self.outage.check()
        self.leases = {job_id: lease for job_id, lease in self.leases.items() if lease[0] != owner}

    def _runs(self, job_id: str, owner: str) -> bool:
        return self._holds(job_id, owner) and self.jobs[job_id].status is ReplayStatus.RUNNING

    def _holds(self, job_id: str, owner: str) -> bool:
        return self.leases.get(job_id, ("", 0))[0] == owner

    def _store(self, job: ReplayJob, owner: str) -> bool:
        self.outage.check()
        if self._runs(job.id, owner):
            self.jobs[job.id] = job
            return True
        if self._holds(job.id, owner):
            self.jobs[job.id] = replace(self.jobs[job.id], counts=job.counts, selected=job.selected)
        return False


class MemorySelection:
    """`ReplaySelection` over a delivery log in memory."""

    def __init__(self, log: MemoryDeliveryLog) -> None:
        self._log = log

    async def count(self, job: ReplayJob) -> int:
        return len(self._chosen(job))

    async def next(self, job: ReplayJob, limit: int) -> Sequence[LoggedDelivery]:
        return [row for row in self._chosen(job) if job.cursor is None or _position(row) > job.cursor][:limit]

    async def in_hand(self, job: ReplayJob) -> Sequence[LoggedDelivery]:
        return [row for row in self._rows() if row.delivery_id in job.in_hand and row.workspace_id == job.workspace_id]

    def _chosen(self, job: ReplayJob) -> list[LoggedDelivery]:
        if job.source is ReplaySource.DEAD_LETTERS:
            wanted = job.dead_letters
            return [row for row in self._rows() if row.workspace_id == job.workspace_id and is_chosen(row, wanted)]
        return [
            row
            for row in self._rows()
            if (row.workspace_id, row.subscription_id) == (job.workspace_id, job.subscription_id)
            and job.since_ms <= row.created_at_ms < job.until_ms
            and job.wanted in (None, row.status)
            and not row.test
        ]

    def _rows(self) -> list[LoggedDelivery]:
        rows = [replace(shown(document), attempts=[]) for document in self._log.documents.values()]
        return sorted(rows, key=_position)


class MemoryRecords:
    """`RecordLookup` and `RecordPlacer` over a broker in memory.

    Attributes:
        down: While True Kafka is out of reach.
    """

    def __init__(self, broker: MemoryBroker) -> None:
        self.broker = broker
        self.down = False
        self._producer = MemoryProducer(broker)

    async def read(self, topic: str, partition: int, offset: int) -> ConsumedRecord | None:
        return (await self.read_many([(topic, partition, offset)])).get((topic, partition, offset))

    async def read_many(self, wanted: Iterable[Coordinates]) -> Mapping[Coordinates, ConsumedRecord]:
        self._check()
        found: dict[Coordinates, ConsumedRecord] = {}
        for topic, partition, offset in wanted:
            for record in self.broker.partitions[topic, partition]:
                if isinstance(record, StoredRecord) and record.offset == offset:
                    found[topic, partition, offset] = record
        return found

    async def place(self, record: OutgoingRecord) -> None:
        self._check()
        await self._producer.produce(record)

    def drop(self, topic: str, offset: int, partition: int = 0) -> None:
        """Let a record expire."""
        records = self.broker.partitions[topic, partition]
        self.broker.partitions[topic, partition] = [record for record in records if record.offset != offset]

    def _check(self) -> None:
        if self.down:
            raise UnavailableError("Kafka is out of reach")


class MemorySource:
    """`SourceReader` over a broker in memory.

    Attributes:
        topics: The source topics.
        fetch_records: How many records one fetch brings.
        dropped: First offset that each partition still has.
        down: While True Kafka is out of reach.
    """

    def __init__(self, broker: MemoryBroker, topics: Sequence[str] = ("events",)) -> None:
        self.broker = broker
        self.topics = topics
        self.fetch_records = 1000
        self.dropped: dict[tuple[str, int], int] = {}
        self.down = False

    async def spans(self, since_ms: int, until_ms: int) -> Sequence[SourceSpan]:
        self._check()
        found = []
        for (topic, partition), records in sorted(self.broker.partitions.items()):
            times = [(record.offset, getattr(record, "timestamp", since_ms)) for record in records]
            first = next((offset for offset, at_ms in times if at_ms >= since_ms), None)
            end = next((offset for offset, at_ms in times if at_ms >= until_ms), len(times))
            if topic in self.topics and first is not None and first < end:
                found.append(SourceSpan(topic, partition, first, end))
        return found

    async def read_span(self, span: SourceSpan) -> SourceRecords:
        self._check()
        first = self.dropped.get((span.topic, span.partition), 0)
        if span.position < first:
            position = min(first, span.end)
            return SourceRecords((), position, position - span.position)
        end = min(span.end, span.position + self.fetch_records)
        return SourceRecords(self.broker.partitions[span.topic, span.partition][span.position : end], end)

    def _check(self) -> None:
        if self.down:
            raise UnavailableError("Kafka is out of reach")


class MemorySubscriptions:
    """`SubscriptionLookup` over a dictionary."""

    def __init__(self) -> None:
        self.known: dict[str, Subscription] = {}

    async def find(self, subscription_id: str) -> Subscription | None:
        return self.known.get(subscription_id)

    async def disable(self, subscription: Subscription, reason: str, now_ms: int) -> bool:
        raise AssertionError("replay jobs disable nothing")


def _position(row: LoggedDelivery) -> tuple[int, str]:
    return row.created_at_ms, row.delivery_id
