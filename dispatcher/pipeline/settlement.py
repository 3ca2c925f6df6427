"""From an outcome to a durable place: the log, a delay topic, the overflow topic, the dead-letter topic.

A record's part is done only when its place is durable and, where it is an attempt's outcome, when the delivery log
has it. Nothing else completes a record.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import cast

import structlog

from dispatcher.core.delivery_log import TERMINAL, DeliveryStatus, LogEntry
from dispatcher.core.exchange import Response
from dispatcher.core.model import DeadLetterReason, RecordHeaders
from dispatcher.core.outcome import DeadLetter, Delivered, Outcome, Retry, describe
from dispatcher.core.outcome_records import delivery_finished
from dispatcher.core.records import BadRecord, DeliveryRecord, bad_record_headers, encode_headers, with_traceparent
from dispatcher.core.topics import TopicNames
from dispatcher.metrics import Metrics
from dispatcher.pipeline.failure_log import FailureLog
from dispatcher.pipeline.log_buffer import LogBuffer
from dispatcher.pipeline.work import Delivery, RecordWork
from dispatcher.ports import OutgoingRecord, RecordProducer, RejectedRecordError, Span, Tracer

log = structlog.get_logger(__name__)

MAX_PARKED_MS = 3 * 86_400_000

Fatal = Callable[[BaseException], None]


class Settlement:
    """Brings every delivery to its place.

    Args:
        names: The own topics.
        producer: Produces to them.
        buffer: Takes log entries.
        metrics: Counts.
        fatal: Told of what no trying again can mend; ends the process.
        circuit_wait_ms: How long a last attempt waits for an open circuit.
        outcomes: Whether each finished delivery is also written to the outcomes topic.
        tracer: Told of what goes to an own topic; None: nobody is.

    Attributes:
        producing: How many deliveries and bad records wait for their produce to be acknowledged, or for their
            subscription to be disabled first.
    """

    def __init__(
        self,
        names: TopicNames,
        producer: RecordProducer,
        buffer: LogBuffer,
        metrics: Metrics,
        fatal: Fatal,
        circuit_wait_ms: int = 3_600_000,
        *,
        outcomes: bool = False,
        tracer: Tracer | None = None,
    ) -> None:
        self._names = names
        self._producer = producer
        self._buffer = buffer
        self._metrics = metrics
        self._fatal = fatal
        self._circuit_wait_ms = circuit_wait_ms
        self._outcomes = outcomes
        self._tracer = tracer
        self._failures = FailureLog()
        self.producing = 0

    def attempted(self, delivery: Delivery, response: Response, outcome: Outcome, now_ms: int) -> None:
        """Settle an attempt that was made.

        Args:
            delivery: Whose attempt it was.
            response: What came.
            outcome: What that means.
            now_ms: When it ended, unix milliseconds.
        """
        delivery.first_attempt_ms = delivery.first_attempt_ms or now_ms
        delivery.parked_since_ms = None  # it waited for this step
        entry = _entry(delivery, now_ms)
        entry.attempt = delivery.attempt
        entry.duration_ms = response.duration_ms
        entry.response_code = response.status
        entry.response_body = response.body
        match outcome:
            case Delivered():
                entry.status = DeliveryStatus.DELIVERED
                self.log(delivery, entry)
            case Retry(due):
                entry.error = describe(response)
                entry.next_attempt_at_ms = due.not_before_ms
                record = self._record(delivery, made=delivery.attempt, not_before_ms=due.not_before_ms)
                record.http_status, record.error = response.status, entry.error
                self._failures.failed(entry, due.tier.name)
                self._metrics.retries.counts[due.tier.name] += 1
                self._produce(delivery, self._names.retry(due.tier), record, entry, now_ms)
            case DeadLetter(reason):
                entry.error = describe(response)
                self._dead_letter(delivery, reason, entry, made=delivery.attempt, status=response.status)

    def failed_unsent(self, delivery: Delivery, reason: DeadLetterReason, error: str, now_ms: int) -> None:
        """Settle a delivery that ends in the dead-letter topic without another attempt."""
        entry = _entry(delivery, now_ms)
        entry.error = error
        self._dead_letter(delivery, reason, entry, made=delivery.attempt - 1, status=0)

    def skipped(self, delivery: Delivery, reason: str, now_ms: int) -> None:
        """Settle a delivery whose subscription is deleted or not active any more: it is logged, and sent nowhere."""
        entry = _entry(delivery, now_ms)
        entry.status = DeliveryStatus.SKIPPED
        entry.reason = reason
        self.log(delivery, entry)

    def spill(self, delivery: Delivery, reason: str, now_ms: int, *, spread: bool = False) -> None:
        """Move a delivery to the overflow topic, no attempt charged; `spread`: to any worker's partition."""
        record = self._record(delivery, reason=reason)
        self._produce(delivery, self._names.overflow, record, None, now_ms, spread=spread)

    def park(self, delivery: Delivery, now_ms: int, *, spread: bool = False) -> None:
        """Move a delivery to the first tier, no attempt charged; one that is parked for too long expires."""
        if self._parked_ms(delivery, now_ms) > MAX_PARKED_MS:
            self.failed_unsent(delivery, DeadLetterReason.EXPIRED, "no room in its lane for 3 days", now_ms)
        else:
            self._metrics.parked.inc()
            self._produce_to_first_tier(delivery, "parked", now_ms, spread=spread)

    def wait_for_circuit(self, delivery: Delivery, now_ms: int) -> None:
        """Let a last attempt that meets an open circuit wait in the first tier, and fail where it has waited enough."""
        if self._parked_ms(delivery, now_ms) >= self._circuit_wait_ms:
            words = "the circuit was open for as long as a last attempt waits"
            self.failed_unsent(delivery, DeadLetterReason.CIRCUIT_OPEN, words, now_ms)
        else:
            self._produce_to_first_tier(delivery, "circuit_open", now_ms)

    def bad_record(self, work: RecordWork, letter: BadRecord, value: bytes | None, kept: RecordHeaders) -> None:
        """Move a record that is no event to the dead-letter topic.

        Args:
            work: The record.
            letter: Where it stands and what is wrong.
            value: Its raw bytes; None where they are too large or can't be read.
            kept: Its own headers that are carried on.
        """
        origin, reason = letter.origin, letter.reason
        headers = (*bad_record_headers(origin, reason, letter.error), *kept)

        def placed() -> None:
            self._metrics.dead_letters.counts[reason] += 1
            work.done()

        def refused() -> None:
            pointer = replace(origin, key=None)
            self.bad_record(work, BadRecord(pointer, reason, letter.error), None, ())

        is_pointer = value is None and origin.key is None and not kept
        outgoing = OutgoingRecord(self._names.dead_letter, origin.key, value, headers)
        self._place(outgoing, work, placed, None if is_pointer else refused)

    def log(self, delivery: Delivery, entry: LogEntry) -> None:
        """Write an entry; when it is durable, the delivery's part of its record is done.

        With the outcomes topic on, a finished delivery's outcome is durable there before it is in the log: what the log
        has is not looked at again after a crash.
        """
        self._metrics.deliveries.counts[entry.status] += 1
        delivery.role.active.discard(delivery)
        if self._outcomes and entry.status in TERMINAL:
            self._produce_outcome(delivery, entry)
        else:
            self._buffer.append(entry, delivery.work)

    def log_late(self, delivery: Delivery, response: Response, now_ms: int) -> None:
        """Log a success that came after its delivery was handed over, so that it is not sent once more."""
        entry = _entry(delivery, now_ms)
        entry.attempt = delivery.attempt
        entry.status = DeliveryStatus.DELIVERED
        entry.duration_ms = response.duration_ms
        entry.response_code = response.status
        entry.response_body = response.body
        if self._outcomes:
            self._produce_late_outcome(delivery, entry)
        else:
            self._buffer.append(entry, None)

    def _produce_outcome(self, delivery: Delivery, entry: LogEntry) -> None:
        def placed() -> None:
            self._metrics.outcomes.counts[entry.status] += 1
            self._buffer.append(entry, delivery.work)

        def refused() -> None:
            log.error("Kafka refuses the outcome of a delivery", delivery_id=delivery.id)
            self._buffer.append(entry, delivery.work)

        self._place(self._outcome_record(delivery, entry), delivery.work, placed, refused)

    def _produce_late_outcome(self, delivery: Delivery, entry: LogEntry) -> None:
        """Produce the outcome of a delivery that was handed over, then log it; nothing waits for it.

        Where that fails it isn't logged: whoever has the delivery now sends it once more, and produces an outcome.
        """

        def ended(done: "asyncio.Future[None]") -> None:
            if not done.cancelled() and done.exception() is None:
                self._metrics.outcomes.counts[entry.status] += 1
                self._buffer.append(entry, None)

        self._producer.produce(self._outcome_record(delivery, entry)).add_done_callback(ended)

    def _outcome_record(self, delivery: Delivery, entry: LogEntry) -> OutgoingRecord:
        value = delivery_finished(entry, entry.attempt or delivery.attempt - 1)
        return OutgoingRecord(self._names.outcomes, delivery.subscription_id.encode(), value, ())

    def _dead_letter(
        self, delivery: Delivery, reason: DeadLetterReason, entry: LogEntry, *, made: int, status: int
    ) -> None:
        entry.status = DeliveryStatus.FAILED
        entry.reason = reason.value
        self._failures.failed(entry)
        record = self._record(delivery, made=made, reason=reason.value)
        record.http_status, record.error = status, entry.error
        self._produce(delivery, self._names.dead_letter, record, entry, entry.at_ms)

    def _parked_ms(self, delivery: Delivery, now_ms: int) -> int:
        """Return how long a delivery has been waiting for its next step, which begins now where it hasn't."""
        # A time to come was noted by a clock that was ahead, and would make it wait for as long besides.
        if delivery.parked_since_ms is None or delivery.parked_since_ms > now_ms:
            delivery.parked_since_ms = now_ms
        return now_ms - delivery.parked_since_ms

    def _produce_to_first_tier(self, delivery: Delivery, reason: str, now_ms: int, *, spread: bool = False) -> None:
        tier = self._names.tiers[0]
        record = self._record(delivery, not_before_ms=now_ms + tier.delay_ms, reason=reason)
        self._produce(delivery, self._names.retry(tier), record, None, now_ms, spread=spread)

    def _record(
        self, delivery: Delivery, *, made: int | None = None, not_before_ms: int = 0, reason: str = ""
    ) -> DeliveryRecord:
        return DeliveryRecord(
            delivery.id,
            delivery.subscription_id,
            delivery.event.workspace_id,
            delivery.attempt - 1 if made is None else made,
            not_before_ms,
            delivery.first_attempt_ms,
            delivery.parked_since_ms,
            delivery.event.origin,
            reason,
            replay_id=delivery.run,
        )

    def _produce(
        self,
        delivery: Delivery,
        topic: str,
        record: DeliveryRecord,
        entry: LogEntry | None,
        now_ms: int,
        *,
        spread: bool = False,
    ) -> None:
        event = delivery.event
        kept, span = event.headers, None
        delivery.role.active.discard(delivery)
        if self._tracer is not None:
            kept, span = self._trace(delivery, topic)

        def placed() -> None:
            if entry is None:
                delivery.work.done()
                return
            if entry.status is DeliveryStatus.FAILED:
                self._metrics.dead_letters.counts[entry.reason] += 1
            self.log(delivery, entry)

        def refused() -> None:
            self._produce_pointer(delivery, record, entry or _entry(delivery, now_ms))

        outgoing = OutgoingRecord(topic, record.key, event.value, encode_headers(record, kept), spread)
        future = self._place(outgoing, delivery.work, placed, refused)
        if span is not None:
            future.add_done_callback(partial(_end_span, span))

    def _trace(self, delivery: Delivery, topic: str) -> tuple[RecordHeaders, Span | None]:
        """Begin the span of a produce; return it with the headers that make the next step its child."""
        event = delivery.event
        traceparent = event.traceparent if delivery.span is None else delivery.span.traceparent
        tracer = cast("Tracer", self._tracer)
        span = tracer.produce(traceparent, topic, event, delivery.subscription_id, delivery.id)
        return (event.headers if span is None else with_traceparent(event.headers, span.traceparent)), span

    def _produce_pointer(self, delivery: Delivery, record: DeliveryRecord, entry: LogEntry) -> None:
        """Dead-letter a delivery whose event Kafka will not take any more: its coordinates, without the bytes."""
        entry.status, entry.reason = DeliveryStatus.FAILED, DeadLetterReason.TOO_LARGE.value
        entry.next_attempt_at_ms = None
        record.reason = entry.reason
        # The key may be what makes it too large, and it is found at the origin.
        origin = record.origin
        record.origin = replace(origin, key=None)

        def placed() -> None:
            self._metrics.dead_letters.counts[entry.reason] += 1
            self.log(delivery, entry)

        outgoing = OutgoingRecord(self._names.dead_letter, record.key, None, encode_headers(record, ()))
        self._place(outgoing, delivery.work, placed, None)

    def _place(
        self, outgoing: OutgoingRecord, work: RecordWork, placed: Callable[[], None], refused: Callable[[], None] | None
    ) -> "asyncio.Future[None]":
        """Produce a record; one that is withdrawn leaves the record that it is for incomplete.

        Args:
            outgoing: What to produce.
            work: The record that it is for.
            placed: Called when it is durable.
            refused: Called where Kafka will never accept it; None where that is no outcome but a fault.
        """
        future = self._producer.produce(outgoing)
        partition = work.partition
        partition.produces.add(future)
        self.producing += 1

        def ended(done: "asyncio.Future[None]") -> None:
            self.producing -= 1
            partition.produces.discard(done)
            if done.cancelled():
                return
            fault = done.exception()
            if fault is None:
                placed()
            elif refused is None or not isinstance(fault, RejectedRecordError):
                self._fatal(fault)
            elif not partition.ended:
                refused()

        future.add_done_callback(ended)
        return future


def _end_span(span: Span, produced: "asyncio.Future[None]") -> None:
    """End a produce's span, whatever became of it: its id may be in the record already."""
    if produced.cancelled():
        span.end(error="withdrawn before Kafka acknowledged it")
    else:
        span.end(error="" if produced.exception() is None else "Kafka refuses the record")


def _entry(delivery: Delivery, now_ms: int) -> LogEntry:
    event = delivery.event
    return LogEntry(
        delivery.id,
        event.workspace_id,
        delivery.subscription_id,
        event.id,
        event.type,
        event.source,
        event.origin,
        delivery.run,
        0,
        DeliveryStatus.RETRYING,
        now_ms,
    )
