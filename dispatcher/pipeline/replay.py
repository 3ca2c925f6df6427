"""Goes through replay jobs: reads records again and produces them to the replay topic.

A job belongs to whoever holds its lease. What is taken in hand is stored before anything of it is produced, and
produced at once after that: so a runner whose lease has passed on produces no more, and whoever goes on after a crash
looks at that one batch again, and counts each delivery once.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import structlog

from dispatcher.core.errors import ConflictError, UnavailableError
from dispatcher.core.reruns import ReplayCounts, ReplayJob, ReplaySource, ReplayStatus
from dispatcher.metrics import Metrics
from dispatcher.pipeline.backfill import Acceptance, SourceEvents
from dispatcher.pipeline.replay_deliveries import LoggedDeliveries, ReplayWay, Sent
from dispatcher.ports import (
    Clock,
    DeliveryLogWriter,
    RecordLookup,
    RecordProducer,
    ReplayLeases,
    ReplaySelection,
    SourceReader,
    SubscriptionLookup,
)

log = structlog.get_logger(__name__)

DELIVERIES_PER_SECOND = 100.0
"""How fast one worker replays at most, all its jobs together."""
TURN_SECONDS = 10.0
"""For how long a job is gone on with while others wait."""
LEASE_MS = 30_000
RENEW_SECONDS = 10.0
LOOK_SECONDS = 1.0
BACK_OFF_SECONDS = 5.0
RELEASE_SECONDS = 2.0

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ReplayOutside:
    """What a replay runner needs of the outside."""

    jobs: ReplayLeases
    selection: ReplaySelection
    log: DeliveryLogWriter
    records: RecordLookup
    source: SourceReader
    subscriptions: SubscriptionLookup
    producer: RecordProducer
    clock: Clock


class ReplayRunner:
    """Runs replay jobs, one at a time, in turns.

    Args:
        outside: Stores, Kafka, the time.
        topic: The replay topic.
        owner: Names this process; no other has the same name.
        acceptance: What is an event on a source topic.
        metrics: Counts.
        rate: Deliveries a second, at most.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        outside: ReplayOutside,
        topic: str,
        owner: str,
        acceptance: Acceptance,
        metrics: Metrics,
        *,
        rate: float = DELIVERIES_PER_SECOND,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._clock = outside.clock
        self._jobs = outside.jobs
        self._owner = owner
        self._metrics = metrics
        self._rate = rate
        self._sleep = sleep
        logged = LoggedDeliveries(
            outside.selection,
            outside.log,
            outside.records,
            outside.subscriptions,
            outside.producer,
            outside.clock,
            topic,
        )
        self._ways: dict[ReplaySource, ReplayWay[Any]] = {
            ReplaySource.DELIVERIES: logged,
            ReplaySource.DEAD_LETTERS: logged,
            ReplaySource.EVENTS: SourceEvents(
                outside.source,
                outside.subscriptions,
                outside.log,
                outside.producer,
                outside.clock,
                topic,
                acceptance,
                sleep=sleep,
            ),
        }

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
        way, ends_at = self._ways[job.source], self._clock.monotonic() + TURN_SECONDS
        log.info("replay goes on", replay_id=job.id, produced=job.counts.produced, selected=job.selected)
        try:
            if job.selected is None:
                job = await self._while_held(job, way.begin(job))
            began = self._clock.monotonic()
            while (taken := await self._while_held(job, way.take(job))) is not None:
                job, batch = taken
                if not await self._jobs.checkpoint(job, self._owner, LEASE_MS):
                    return
                sent = await self._while_held(job, way.send(job, batch))
                job = sent.job
                self._count(job, sent.counts)
                await self._sleep(max(0.0, began + self._seconds_of(sent) - self._clock.monotonic()))
                began = self._clock.monotonic()
                if began >= ends_at:
                    if await self._jobs.checkpoint(job, self._owner, LEASE_MS):
                        await self._jobs.release(self._owner)
                    return
            await self._jobs.finish(replace(job, status=ReplayStatus.DONE), self._owner)
        except _LetGoError:
            log.info("replay is no longer this worker's", replay_id=job.id)
        except UnavailableError:
            with contextlib.suppress(UnavailableError):
                # What this job needs may be away for long: the others have their turn first.
                await self._jobs.checkpoint(job, self._owner, LEASE_MS)
            raise
        except ConflictError as error:
            await self._jobs.finish(replace(job, status=ReplayStatus.FAILED, error=str(error)), self._owner)
        except Exception as error:
            log.exception("replay failed", replay_id=job.id)
            text = f"{type(error).__name__}: the job met a fault of the service; its operator's log has more"
            await self._jobs.finish(replace(job, status=ReplayStatus.FAILED, error=text), self._owner)

    async def _while_held(self, job: ReplayJob, step: Coroutine[Any, Any, T]) -> T:
        """Run a step, holding the job as long as it takes.

        Raises:
            _LetGoError: The job was cancelled or taken meanwhile; the step is stopped.
        """
        task = asyncio.create_task(step)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=RENEW_SECONDS)
                if done:
                    return task.result()
                if not await self._jobs.renew(job.id, self._owner, LEASE_MS):
                    raise _LetGoError
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _seconds_of(self, sent: Sent) -> float:
        """Return how long a batch takes at least, by the runner's rate and by its job's own."""
        own = sent.job.rate
        return max(sent.weight / self._rate, 0.0 if own is None else sent.counts.produced / own)

    def _count(self, job: ReplayJob, counts: ReplayCounts) -> None:
        metrics = self._metrics
        # A backfill counts records, most of which are no deliveries of its webhook.
        tally = metrics.backfilled if job.source is ReplaySource.EVENTS else metrics.replayed
        tally.counts["produced"] += counts.produced
        tally.counts["gone"] += counts.gone
        tally.counts["skipped"] += counts.skipped

    async def _release(self) -> None:
        try:
            await asyncio.wait_for(self._jobs.release(self._owner), RELEASE_SECONDS)
        except (UnavailableError, TimeoutError):
            log.info("replay jobs stay held until their lease ends")


class _LetGoError(Exception):
    """A job is no longer this runner's to run."""
