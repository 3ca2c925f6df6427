"""The part of a replay job that goes through the delivery log: its deliveries' records, read again."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from dispatcher.core.delivery_log import TERMINAL, LoggedDelivery
from dispatcher.core.errors import GoneError
from dispatcher.core.model import Status
from dispatcher.core.reruns import ReplayCounts, ReplayJob, ReplaySource, pending_entry, rerun_record
from dispatcher.pipeline.work import origin_of
from dispatcher.ports import (
    Clock,
    ConsumedRecord,
    Coordinates,
    DeliveryLogWriter,
    OutgoingRecord,
    RecordLookup,
    RecordProducer,
    RejectedRecordError,
    ReplaySelection,
    SubscriptionLookup,
)

BATCH_DELIVERIES = 100

Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a batch.

    Attributes:
        job: With the batch behind it.
        counts: What was done now; what a runner before a crash had done is in the job's counts alone.
        weight: As how many deliveries it counts towards the runner's rate; towards the job's own count those that
            were produced.
    """

    job: ReplayJob
    counts: ReplayCounts
    weight: float


class ReplayWay(Protocol, Generic[Batch]):
    """How the jobs of one source are gone through. Every method may raise `UnavailableError`.

    Between `take` and `send` the runner stores the job that `take` gave, and learns whether it is still its own.
    """

    async def begin(self, job: ReplayJob) -> ReplayJob:
        """Find out how much a job is about."""

    async def take(self, job: ReplayJob) -> tuple[ReplayJob, Batch] | None:
        """Take the next batch in hand; None at the job's end. Nothing is produced yet."""

    async def send(self, job: ReplayJob, batch: Batch) -> Sent:
        """Produce a batch, and show its deliveries as waiting."""


@dataclass(frozen=True, slots=True)
class LoggedBatch:
    """Logged deliveries in hand.

    Attributes:
        rows: All of them.
        wanted: Those that are to go out.
        found: Their records, as far as they are still there.
    """

    rows: Sequence[LoggedDelivery]
    wanted: Sequence[LoggedDelivery]
    found: Mapping[Coordinates, ConsumedRecord]


class LoggedDeliveries:
    """Goes through logged deliveries; implements `ReplayWay`.

    Args:
        selection: Finds them.
        log: Shows that they wait again.
        records: Reads their events again.
        subscriptions: Finds their webhooks as they are now.
        producer: Takes the new runs' records.
        clock: Time.
        topic: The replay topic.
    """

    def __init__(
        self,
        selection: ReplaySelection,
        log: DeliveryLogWriter,
        records: RecordLookup,
        subscriptions: SubscriptionLookup,
        producer: RecordProducer,
        clock: Clock,
        topic: str,
    ) -> None:
        self._selection = selection
        self._log = log
        self._records = records
        self._subscriptions = subscriptions
        self._producer = producer
        self._clock = clock
        self._topic = topic

    async def begin(self, job: ReplayJob) -> ReplayJob:
        """See `ReplayWay`."""
        return replace(job, selected=await self._selection.count(job))

    async def take(self, job: ReplayJob) -> tuple[ReplayJob, LoggedBatch] | None:
        """See `ReplayWay`; what a runner before a crash had in hand comes first."""
        if job.in_hand:
            rows = await self._selection.in_hand(job)
        else:
            rows = await self._selection.next(job, batch_size(job))
            if not rows:
                return None
            cursor = (rows[-1].created_at_ms, rows[-1].delivery_id)
            job = replace(job, cursor=cursor, in_hand=tuple(row.delivery_id for row in rows))
        wanted = [row for row in rows if row.run < job.id and (job.wanted is not None or row.status in TERMINAL)]
        if job.source is ReplaySource.DEAD_LETTERS:
            wanted = await self._of_active_webhooks(wanted)
        found = await self._records.read_many(row.origin.coordinates for row in wanted)
        return job, LoggedBatch(rows, wanted, found)

    async def send(self, job: ReplayJob, batch: LoggedBatch) -> Sent:
        """See `ReplayWay`."""
        records = {row.delivery_id: self._record(job, row, batch.found) for row in batch.wanted}
        outgoing = {delivery_id: record for delivery_id, record in records.items() if record is not None}
        accepted = await produce_all(self._producer, outgoing)
        started = [row for row in batch.wanted if row.delivery_id in accepted]
        if started:
            now_ms = self._clock.now_ms()
            await self._log.write([pending_entry(row, job.id, now_ms) for row in started])
        before = sum(row.run == job.id for row in batch.rows)
        counts = ReplayCounts(
            produced=len(started),
            gone=len(batch.wanted) - len(started),
            skipped=len(batch.rows) - before - len(batch.wanted),
        )
        job = replace(job, counts=job.counts + counts + ReplayCounts(produced=before), in_hand=())
        return Sent(job, counts, len(batch.rows))

    async def _of_active_webhooks(self, rows: Sequence[LoggedDelivery]) -> list[LoggedDelivery]:
        """Leave out what would be skipped when it is sent, and so be a dead letter no more."""
        found = {each: await self._subscriptions.find(each) for each in {row.subscription_id for row in rows}}
        active = {each for each, known in found.items() if known is not None and known.status == Status.ACTIVE}
        return [row for row in rows if row.subscription_id in active]

    def _record(
        self, job: ReplayJob, row: LoggedDelivery, found: Mapping[Coordinates, ConsumedRecord]
    ) -> OutgoingRecord | None:
        read = found.get(row.origin.coordinates)
        if read is None:
            return None
        origin = origin_of(read)
        try:
            key, headers = rerun_record(row, job.id, read.value, read.headers, origin)
        except GoneError:
            return None
        return OutgoingRecord(self._topic, key, read.value, headers)


async def produce_all(producer: RecordProducer, records: Mapping[str, OutgoingRecord]) -> frozenset[str]:
    """Produce records and wait for all of them; cancelled, those that are not on their way stay here.

    Returns:
        The names of those that Kafka took; it refuses the others for good.

    Raises:
        UnavailableError: Kafka is out of reach.
        MisconfiguredError: It refuses everything.
    """
    starting = {name: producer.produce(record) for name, record in records.items()}
    try:
        ended = await asyncio.gather(*starting.values(), return_exceptions=True)
    finally:
        for future in starting.values():
            future.cancel()
    if (fault := next((each for each in ended if _is_fault(each)), None)) is not None:
        raise fault
    return frozenset(name for name, each in zip(starting, ended, strict=True) if each is None)


def batch_size(job: ReplayJob) -> int:
    """Return how many deliveries of a job are taken in hand at once: those of about a second, where its rate is low."""
    return BATCH_DELIVERIES if job.rate is None else min(max(round(job.rate), 1), BATCH_DELIVERIES)


def _is_fault(ended: object) -> bool:
    """Say whether a produce ended in something else than success, or Kafka's refusal of this very record."""
    return isinstance(ended, BaseException) and not isinstance(ended, RejectedRecordError)
