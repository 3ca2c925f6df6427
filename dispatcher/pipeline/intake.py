"""From a record to the deliveries that it stands for."""

from collections.abc import Sequence
from typing import Any

import structlog

from dispatcher.core.catalogue import Catalogue
from dispatcher.core.decoding import decode
from dispatcher.core.delivery_id import DeliveryIds
from dispatcher.core.errors import UndecodableError
from dispatcher.core.matching import SubscriptionIndex
from dispatcher.core.model import DeadLetterReason, Event, Origin, Subscription
from dispatcher.core.records import BadRecord, DeliveryRecord, decode_headers, kept_headers
from dispatcher.metrics import Metrics
from dispatcher.pipeline.settlement import Settlement
from dispatcher.pipeline.work import Delivery, Owner, PartitionState, RecordWork, Window, origin_of
from dispatcher.ports import ConsumedRecord, Tracer, UnreadableRecord

log = structlog.get_logger(__name__)


class Expansion:
    """The deliveries of one event, made one at a time: a large fan-out never stands in memory as a whole.

    Args:
        event: The event.
        matches: The subscriptions that want it.
        work: Its record.
    """

    __slots__ = ("_at", "_ids", "_matches", "_put_back", "event", "work")

    def __init__(self, event: Event, matches: Sequence[Subscription], work: RecordWork) -> None:
        self.event = event
        self.work = work
        self._matches = matches
        self._ids = DeliveryIds(event.workspace_id, event.source, event.id)
        self._at = 0
        self._put_back: Delivery | None = None
        work.add(len(matches))
        work.expanding = True

    @property
    def left(self) -> int:
        """How many deliveries aren't made yet."""
        return len(self._matches) - self._at + (self._put_back is not None)

    def next(self, owner: Owner) -> Delivery | None:
        """Return the next delivery, or None after the last; the record is then expanded."""
        if (delivery := self._put_back) is not None:
            self._put_back = None
            return delivery
        if self._at == len(self._matches):
            self.work.expanding = False
            self.work.done()
            return None
        subscription = self._matches[self._at]
        self._at += 1
        # Not the subscription itself: when its turn comes, it is asked for anew, and may be gone.
        return Delivery(self.event, subscription.id, None, self._ids.of(subscription.id), self.work, owner)

    def put_back(self, delivery: Delivery) -> None:
        """Let `next` return a delivery again that found no room."""
        self._put_back = delivery


class SourceIntake:
    """Takes up records of source topics: decodes, looks into the event catalogue, matches.

    Args:
        index: The subscriptions.
        settlement: Takes what is no event.
        window: The payload bytes held.
        metrics: Counts.
        max_event_bytes: Bound on key + value + headers.
        default_workspace: Workspace of events that name none.
        catalogue: The event types that are known; None checks nothing.
        refuses_off_catalogue: Whether an event that the catalogue doesn't know, or whose `data` its schema rejects,
            is a dead letter; else it is only counted.
        tracer: Told of the matching; None: nobody is.
    """

    def __init__(
        self,
        index: SubscriptionIndex,
        settlement: Settlement,
        window: Window,
        metrics: Metrics,
        max_event_bytes: int,
        default_workspace: str | None,
        catalogue: Catalogue | None = None,
        *,
        refuses_off_catalogue: bool = False,
        tracer: Tracer | None = None,
    ) -> None:
        self._index = index
        self._settlement = settlement
        self._window = window
        self._events = metrics.events.counts
        self._max_event_bytes = max_event_bytes
        self._default_workspace = default_workspace
        self._catalogue = catalogue
        self._off_catalogue = metrics.off_catalogue.counts
        self._refuses_off_catalogue = refuses_off_catalogue
        self._tracer = tracer
        self._check_data = None if catalogue is None else self._check

    def take(self, record: ConsumedRecord | UnreadableRecord, state: PartitionState) -> Expansion | None:
        """Take up a record.

        Returns:
            Its deliveries; None where it has none, and is complete or on its way to the dead-letter topic.
        """
        if isinstance(record, UnreadableRecord):
            refuse_unreadable(record, state, self._window, self._settlement)
            self._events["undecodable"] += 1
            return None
        size = size_of(record)
        work = RecordWork(state, record.offset, size, self._window, record.timestamp)
        origin = origin_of(record)
        if size > self._max_event_bytes:
            self._events["undecodable"] += 1
            origin.key = None
            problem = f"the record has {size} bytes, more than the {self._max_event_bytes} allowed"
            self._settlement.bad_record(work, BadRecord(origin, DeadLetterReason.TOO_LARGE, problem), None, ())
            return None
        try:
            event = decode(record.value, record.headers, origin, self._default_workspace, self._check_data)
        except UndecodableError as error:
            self._events["off_catalogue" if error.reason in self._off_catalogue else "undecodable"] += 1
            kept = kept_headers(record.headers)
            self._settlement.bad_record(work, BadRecord(origin, error.reason, str(error)), record.value, kept)
            return None
        span = None if self._tracer is None else self._tracer.match(event)
        matches = self._index.match(event.workspace_id, event.type)
        if span is not None:
            event.traceparent = span.traceparent
            span.end(matches=len(matches))
        if not matches:
            self._events["unmatched"] += 1
            work.done()
            return None
        self._events["matched"] += 1
        return Expansion(event, matches, work)

    def _check(self, event_type: str, data: Any) -> None:
        catalogue = self._catalogue
        if catalogue is None or (fault := catalogue.fault(event_type, data)) is None:
            return
        self._off_catalogue[fault] += 1
        if self._refuses_off_catalogue:
            raise UndecodableError(catalogue.explain(event_type, data), reason=fault)


class OwnIntake:
    """Takes up records of own topics: each stands for one delivery.

    Args:
        settlement: Takes what can't be read.
        window: The payload bytes held.
    """

    def __init__(self, settlement: Settlement, window: Window) -> None:
        self._settlement = settlement
        self._window = window

    def take(
        self, record: ConsumedRecord | UnreadableRecord, state: PartitionState, owner: Owner, due: int = 0
    ) -> Delivery | None:
        """Take up a record.

        Args:
            record: The record.
            state: Its partition.
            owner: The role that read it.
            due: When it was due, unix milliseconds; 0: when it was written.

        Returns:
            Its delivery; None where it can't be read, and is on its way to the dead-letter topic.
        """
        if isinstance(record, UnreadableRecord):
            refuse_unreadable(record, state, self._window, self._settlement)
            return None
        work = RecordWork(state, record.offset, size_of(record), self._window, due or record.timestamp)
        try:
            found = decode_headers(record.headers)
            event = decode(record.value, record.headers, found.origin, found.workspace_id)
            _check(event, found)
        except UndecodableError as error:
            log.warning("a record of an own topic can't be read", topic=record.topic, problem=str(error))
            here = origin_of(record)
            kept = kept_headers(record.headers)
            self._settlement.bad_record(work, BadRecord(here, error.reason, str(error)), record.value, kept)
            return None
        delivery = Delivery(event, found.subscription_id, None, found.delivery_id, work, owner)
        delivery.attempt = found.attempt + 1
        delivery.run = found.replay_id
        delivery.first_attempt_ms = found.first_attempt_ms
        delivery.parked_since_ms = found.parked_since_ms
        return delivery


def _check(event: Event, found: DeliveryRecord) -> None:
    for own_id in (found.delivery_id, found.subscription_id, found.replay_id):
        # They go into request headers and queries.
        if not (own_id.isascii() and own_id.isprintable()):
            raise UndecodableError("an id in the record's headers is not one that this dispatcher makes")
    if event.workspace_id != found.workspace_id:
        raise UndecodableError(
            "the event's workspace is not the one in the record's headers",
            reason=DeadLetterReason.WORKSPACE_MISMATCH,
        )


def refuse_unreadable(record: UnreadableRecord, state: PartitionState, window: Window, settlement: Settlement) -> None:
    """Dead-letter a record that Kafka could not hand out, as a pointer to it."""
    work = RecordWork(state, record.offset, 0, window)
    reason = DeadLetterReason.TOO_LARGE if record.too_large else DeadLetterReason.UNDECODABLE
    origin = Origin(record.topic, record.partition, record.offset, -1)
    settlement.bad_record(work, BadRecord(origin, reason, record.problem), None, ())


def size_of(record: ConsumedRecord) -> int:
    """Return the bytes of a record's key, value and headers."""
    size = len(record.value or b"") + len(record.key or b"")
    if record.headers:
        for name, value in record.headers:
            size += len(name) + len(value or b"")
    return size
