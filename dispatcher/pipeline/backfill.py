"""The part of a replay job that goes through source topics: events that a webhook never got.

An event is sent where the webhook wants its type today and the delivery log holds nothing of that delivery. What is
under way for the first time at that very moment is not in the log yet, and may come twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dispatcher.core.catalogue import Catalogue
from dispatcher.core.decoding import decode
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.errors import ConflictError, UndecodableError
from dispatcher.core.matching import patterns_of
from dispatcher.core.model import Event, Status, Subscription
from dispatcher.core.reruns import ReplayCounts, ReplayJob, SourceSpan, first_entry, new_run_record
from dispatcher.pipeline.intake import size_of
from dispatcher.pipeline.replay_deliveries import Sent, batch_size, produce_all
from dispatcher.pipeline.work import origin_of
from dispatcher.ports import (
    Clock,
    ConsumedRecord,
    DeliveryLogWriter,
    OutgoingRecord,
    RecordProducer,
    SourceReader,
    SubscriptionLookup,
    UnreadableRecord,
)

RECORDS_AT_ONCE = 100
"""So many records are decoded before others have their turn."""
LONGEST_WAIT_SECONDS = 10.0
"""A job's time ends a few seconds after it was made at most: what is more than that is a clock that differs."""
RECORDS_A_DELIVERY = 50
"""So many records that are only looked at count as one delivery towards the rate."""


@dataclass(frozen=True, slots=True)
class Acceptance:
    """What a record must be to be an event here, as for the source role.

    Attributes:
        default_workspace: Workspace of events that name none.
        max_event_bytes: Bound on key + value + headers.
        catalogue: What an event must be in; None: anything goes.
    """

    default_workspace: str | None
    max_event_bytes: int
    catalogue: Catalogue | None

    def event_of(self, record: ConsumedRecord) -> Event | None:
        """Return a record's event, or None where it is no event."""
        origin = origin_of(record)
        if size_of(record) > self.max_event_bytes:
            return None
        try:
            return decode(
                record.value,
                record.headers,
                origin,
                self.default_workspace,
                None if self.catalogue is None else self._check,
            )
        except UndecodableError:
            # The source role has made a dead letter of it.
            return None

    def _check(self, event_type: str, data: Any) -> None:
        if self.catalogue is not None and self.catalogue.fault(event_type, data) is not None:
            raise UndecodableError("the event catalogue refuses it")


@dataclass(frozen=True, slots=True)
class Found:
    """A record that the webhook wants."""

    record: ConsumedRecord
    event: Event
    delivery_id: str


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some records of a span, read.

    Attributes:
        after: The span behind them.
        unknown: What the webhook wants of them and the delivery log holds nothing of.
        before: How many this job produced before a crash.
        gone: Offsets that can't be read any more.
        looked_at: How many records there were.
    """

    after: SourceSpan
    unknown: Sequence[Found]
    before: int
    gone: int
    looked_at: int


class SourceEvents:
    """Goes through source topics; implements `ReplayWay`.

    Args:
        source: Reads them.
        subscriptions: Finds the webhook as it is now.
        log: Says what it holds already, and shows what waits.
        producer: Takes the deliveries' records.
        clock: Time.
        topic: The replay topic.
        acceptance: What is an event.
        sleep: Waits for some seconds.
    """

    def __init__(
        self,
        source: SourceReader,
        subscriptions: SubscriptionLookup,
        log: DeliveryLogWriter,
        producer: RecordProducer,
        clock: Clock,
        topic: str,
        acceptance: Acceptance,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._sleep = sleep
        self._source = source
        self._subscriptions = subscriptions
        self._log = log
        self._producer = producer
        self._clock = clock
        self._topic = topic
        self._acceptance = acceptance

    async def begin(self, job: ReplayJob) -> ReplayJob:
        """See `ReplayWay`; what is counted are offsets. What is still to come of the job's time is waited for."""
        ahead_seconds = (job.until_ms - self._clock.now_ms()) / 1000
        await self._sleep(min(max(ahead_seconds, 0.0), LONGEST_WAIT_SECONDS))
        spans = tuple(await self._source.spans(job.since_ms, job.until_ms))
        return replace(job, spans=spans, selected=sum(span.end - span.position for span in spans))

    async def take(self, job: ReplayJob) -> tuple[ReplayJob, Stretch] | None:
        """See `ReplayWay`.

        Raises:
            ConflictError: The webhook was deleted, or is not active any more.
        """
        if not job.spans:
            return None
        span = job.spans[0]
        subscription = await self._subscriptions.find(job.subscription_id)
        if subscription is None or subscription.status != Status.ACTIVE:
            state = "was deleted" if subscription is None else f"is {subscription.status}"
            raise ConflictError(f"the webhook {state}, so nothing more would be sent")
        read = await self._source.read_span(span)
        found: dict[str, Found] = {}
        gone, position, looked_at, most = read.gone, read.position, 0, batch_size(job)
        for entry in read.entries:
            if len(found) == most:
                position = entry.offset
                break
            looked_at += 1
            if looked_at % RECORDS_AT_ONCE == 0:
                await asyncio.sleep(0)
            if isinstance(entry, UnreadableRecord):
                gone += 1
            elif (wanted := self._wanted(entry, job, subscription)) is not None:
                found.setdefault(wanted.delivery_id, wanted)
        states = await self._log.states(list(found))
        unknown = [each for delivery_id, each in found.items() if delivery_id not in states]
        # An event that is on its topic twice was produced as well, and was counted then.
        before = [each for each in job.in_hand if each in states and states[each].run == job.id]
        job = replace(job, in_hand=(*before, *(each.delivery_id for each in unknown)))
        return job, Stretch(replace(span, position=position), unknown, len(before), gone, looked_at)

    async def send(self, job: ReplayJob, batch: Stretch) -> Sent:
        """See `ReplayWay`."""
        outgoing = {each.delivery_id: self._record(job, each) for each in batch.unknown}
        accepted = await produce_all(self._producer, outgoing)
        started = [each for each in batch.unknown if each.delivery_id in accepted]
        if started:
            now_ms = self._clock.now_ms()
            await self._log.write(
                [first_entry(each.event, each.delivery_id, job.subscription_id, job.id, now_ms) for each in started]
            )
        gone = batch.gone + len(batch.unknown) - len(started)
        passed = batch.after.position - job.spans[0].position
        counts = ReplayCounts(len(started), gone, passed - len(started) - batch.before - gone)
        rest = job.spans[1:]
        if batch.after.position < batch.after.end:
            rest = (batch.after, *rest)
        job = replace(job, spans=rest, counts=job.counts + counts + ReplayCounts(produced=batch.before), in_hand=())
        return Sent(job, counts, max(len(started), batch.looked_at / RECORDS_A_DELIVERY))

    def _wanted(self, record: ConsumedRecord, job: ReplayJob, subscription: Subscription) -> Found | None:
        if not job.since_ms <= record.timestamp < job.until_ms:
            return None
        event = self._acceptance.event_of(record)
        if event is None or event.workspace_id != job.workspace_id:
            return None
        if set(subscription.events).isdisjoint(patterns_of(event.type)):
            return None
        return Found(record, event, DeliveryIds(event.workspace_id, event.source, event.id).of(subscription.id))

    def _record(self, job: ReplayJob, found: Found) -> OutgoingRecord:
        key, headers = new_run_record(found.event, found.delivery_id, job.subscription_id, job.id, found.record.headers)
        return OutgoingRecord(self._topic, key, found.record.value, headers)
