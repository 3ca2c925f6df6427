"""Goes through replay jobs: reads logged deliveries' records again and produces them to the replay topic.

A job belongs to whoever holds its lease. What is taken in hand is stored before anything of it is produced, so that
whoever goes on after a crash looks at that one batch again, and counts each delivery once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from dispatcher.core.delivery_log import TERMINAL, LoggedDelivery
from dispatcher.core.errors import GoneError, UnavailableError
from dispatcher.core.model import Origin
from dispatcher.core.reruns import ReplayCounts, ReplayJob, ReplayStatus, pending_entry, rerun_record
from dispatcher.metrics import Metrics
from dispatcher.ports import (
    Clock,
    ConsumedRecord,
    Coordinates,
    DeliveryLogWriter,
    OutgoingRecord,
    RecordLookup,
    RecordProducer,
    RejectedRecordError,
    ReplayLeases,
    ReplaySelection,
)

log = structlog.get_logger(__name__)

BATCH_DELIVERIES = 100
DELIVERIES_PER_SECOND = 100.0
"""How fast one worker replays at most, all its jobs together."""
TURN_SECONDS = 10.0
"""For how long a job is gone on with while others wait."""
LEASE_MS = 30_000
RENEW_SECONDS = 10.0
LOOK_SECONDS = 1.0
BACK_OFF_SECONDS = 5.0
RELEASE_SECONDS = 2.0

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ReplayOutside:
    """What a replay runner needs of the outside."""

    jobs: ReplayLeases
    selection: ReplaySelection
    log: DeliveryLogWriter
    records: RecordLookup
    producer: RecordProducer
    clock: Clock


class ReplayRunner:
    """Runs replay jobs, one at a time, in turns.

    Args:
        outside: Stores, Kafka, the time.
        topic: The replay topic.
        owner: Names this process; no other has the same name.
        metrics: Counts.
        rate: Deliveries a second, at most.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        outside: ReplayOutside,
        topic: str,
        owner: str,
        metrics: Metrics,
        *,
        rate: float = DELIVERIES_PER_SECOND,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._outside = outside
        self._jobs = outside.jobs
        self._topic = topic
        self._owner = owner
        self._metrics = metrics
        self._rate = rate
        self._sleep = sleep

    async def run(self) -> None:
        """Run jobs until cancelled; the job in hand is then left to others."""
        try:
            while True:
                try:
                    job = await self._jobs.take(self._owner, LEASE_MS)
                    if job is None:
                        await self._sleep(LOOK_SECONDS)
                    else:
                        await self._turn(job)
                except UnavailableError as error:
                    # The lease is held on to while it lasts: whoever can reach everything goes on.
                    log.warning("replay jobs wait", error=str(error))
                    await self._sleep(BACK_OFF_SECONDS)
        finally:
            await self._release()

    async def _turn(self, job: ReplayJob) -> None:
        """Go on with a job for a while, or to its end."""
        ends_at = self._outside.clock.monotonic() + TURN_SECONDS
        log.info("replay goes on", replay_id=job.id, produced=job.counts.produced, selected=job.selected)
        try:
            if job.selected is None:
                job = replace(job, selected=await self._outside.selection.count(job))
            held = await self._next(job)
            while held is not None:
                began = self._outside.clock.monotonic()
                job, rows = held
                counts = await self._while_held(job, self._send(job, rows))
                if counts is None:
                    return
                job = replace(job, counts=job.counts + counts, in_hand=())
                await self._sleep(max(0.0, began + len(rows) / self._rate - self._outside.clock.monotonic()))
                if self._outside.clock.monotonic() >= ends_at:
                    if await self._jobs.checkpoint(job, self._owner, LEASE_MS):
                        await self._jobs.release(self._owner)
                    return
                held = await self._next(job)
        except UnavailableError:
            raise
        except Exception as error:
            log.exception("replay failed", replay_id=job.id)
            text = f"{type(error).__name__}: the job met a fault of the service; its operator's log has more"
            await self._jobs.finish(replace(job, status=ReplayStatus.FAILED, error=text), self._owner)

    async def _next(self, job: ReplayJob) -> tuple[ReplayJob, Sequence[LoggedDelivery]] | None:
        """Take the next batch in hand, durably; None where the job is at its end, or not this process' any more."""
        if job.in_hand:
            return job, await self._outside.selection.in_hand(job)
        rows = await self._outside.selection.next(job, BATCH_DELIVERIES)
        if not rows:
            await self._jobs.finish(replace(job, status=ReplayStatus.DONE), self._owner)
            return None
        cursor = (rows[-1].created_at_ms, rows[-1].delivery_id)
        job = replace(job, cursor=cursor, in_hand=tuple(row.delivery_id for row in rows))
        return (job, rows) if await self._jobs.checkpoint(job, self._owner, LEASE_MS) else None

    async def _while_held(self, job: ReplayJob, step: Coroutine[Any, Any, ReplayCounts]) -> ReplayCounts | None:
        """Run a step, holding the job as long as it takes; None where the job was cancelled or taken meanwhile."""
        task = asyncio.create_task(step)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=RENEW_SECONDS)
                if done:
                    return task.result()
                if not await self._jobs.renew(job.id, self._owner, LEASE_MS):
                    return None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _send(self, job: ReplayJob, rows: Sequence[LoggedDelivery]) -> ReplayCounts:
        done = [row for row in rows if row.run == job.id]
        wanted = [row for row in rows if row.run < job.id and (job.wanted is not None or row.status in TERMINAL)]
        found = await self._outside.records.read_many(_coordinates(row) for row in wanted)
        starting: list[tuple[LoggedDelivery, asyncio.Future[None]]] = []
        for row in wanted:
            record = self._record(job, row, found)
            if record is not None:
                starting.append((row, self._outside.producer.produce(record)))
        try:
            ended = await asyncio.gather(*(future for _, future in starting), return_exceptions=True)
        finally:
            for _, future in starting:
                future.cancel()
        if (fault := next((each for each in ended if _is_fault(each)), None)) is not None:
            raise fault
        started = [row for (row, _), each in zip(starting, ended, strict=True) if each is None]
        now_ms = self._outside.clock.now_ms()
        if started:
            await self._outside.log.write([pending_entry(row, job.id, now_ms) for row in started])
        counts = ReplayCounts(
            produced=len(done) + len(started),
            gone=len(wanted) - len(started),
            skipped=len(rows) - len(done) - len(wanted),
        )
        self._count(replace(counts, produced=len(started)))
        return counts

    def _record(
        self, job: ReplayJob, row: LoggedDelivery, found: Mapping[Coordinates, ConsumedRecord]
    ) -> OutgoingRecord | None:
        read = found.get(_coordinates(row))
        if read is None:
            return None
        origin = Origin(read.topic, read.partition, read.offset, read.timestamp, read.key)
        try:
            key, headers = rerun_record(row, job.id, read.value, read.headers, origin)
        except GoneError:
            return None
        return OutgoingRecord(self._topic, key, read.value, headers)

    def _count(self, counts: ReplayCounts) -> None:
        replayed = self._metrics.replayed.counts
        replayed["produced"] += counts.produced
        replayed["gone"] += counts.gone
        replayed["skipped"] += counts.skipped

    async def _release(self) -> None:
        try:
            await asyncio.wait_for(self._jobs.release(self._owner), RELEASE_SECONDS)
        except (UnavailableError, TimeoutError):
            log.info("replay jobs stay held until their lease ends")


def _coordinates(row: LoggedDelivery) -> Coordinates:
    return row.origin.topic, row.origin.partition, row.origin.offset


def _is_fault(ended: object) -> bool:
    """Say whether a produce ended in something else than success, or Kafka's refusal of this very record."""
    return isinstance(ended, BaseException) and not isinstance(ended, RejectedRecordError)
