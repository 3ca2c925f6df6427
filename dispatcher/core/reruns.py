"""Runs after a delivery's first: their ids, and the record that starts one.

A run is told apart by the id of the replay that asked for it; the delivery log holds the later of two runs to be the
one with the greater id. So ids sort by time, as text.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from dispatcher.core.decoding import decode
from dispatcher.core.delivery_log import DeliveryStatus, FailedFilter, LogEntry, LoggedDelivery
from dispatcher.core.errors import GoneError, UndecodableError
from dispatcher.core.model import Event, Origin, ReadHeaders, RecordHeaders
from dispatcher.core.records import DeliveryRecord, encode_headers

RUN_PREFIX = "rpl_"
CHANCE_BYTES = 10

# In ASCII's order, so that the text sorts as the number does.
_DIGITS = "0123456789abcdefghijklmnopqrstuv"
_CHANCE_BITS = CHANCE_BYTES * 8
_LENGTH = 26


def new_run_id(now_ms: int, chance: bytes, *, after: str = "") -> str:
    """Return the id of a new run: `rpl_` and 26 characters that sort by time.

    Args:
        now_ms: Unix milliseconds.
        chance: `CHANCE_BYTES` random bytes.
        after: A run that the new one must sort behind, whatever the clocks say; empty: none.
    """
    run = _written(now_ms, chance)
    if run <= after and (then_ms := run_time_ms(after)) is not None:
        run = _written(then_ms + 1, chance)
    return run


def _written(at_ms: int, chance: bytes) -> str:
    number = at_ms << _CHANCE_BITS | int.from_bytes(chance)
    digits = (_DIGITS[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))
    return RUN_PREFIX + "".join(digits)


def run_time_ms(run: str) -> int | None:
    """Return when a run was asked for, unix milliseconds; None where its id doesn't say."""
    number = _number_of(run)
    return None if number is None else number >> _CHANCE_BITS


def run_rank(run: str, chance_bits: int) -> tuple[int, int] | None:
    """Return what of a run sorts as its id does: when it was asked for, and the first bits of its chance.

    Args:
        run: A run's id.
        chance_bits: How many of these bits.

    Returns:
        None where the id is none of `new_run_id`.
    """
    number = _number_of(run)
    if number is None:
        return None
    return number >> _CHANCE_BITS, number >> _CHANCE_BITS - chance_bits & (1 << chance_bits) - 1


def _number_of(run: str) -> int | None:
    digits = run.removeprefix(RUN_PREFIX)
    if len(digits) != _LENGTH or not set(digits) <= set(_DIGITS):
        return None
    return int(digits, 32)


def rerun_record(
    delivery: LoggedDelivery, run: str, value: bytes | None, headers: ReadHeaders, origin: Origin
) -> tuple[bytes, RecordHeaders]:
    """Start a delivery anew from the record that was read again at its coordinates.

    Args:
        delivery: As the log has it.
        run: The new run's id.
        value: The record's value.
        headers: The record's headers.
        origin: Its coordinates, time and key.

    Returns:
        Key and headers of the record to produce; its value is the same.

    Raises:
        GoneError: The record is another one than was logged.
    """
    try:
        event = decode(value, headers, origin, delivery.workspace_id)
    except UndecodableError:
        raise _replaced(origin) from None
    if (event.id, event.source, event.workspace_id) != (delivery.event_id, delivery.source, delivery.workspace_id):
        raise _replaced(origin)
    return new_run_record(event, delivery.delivery_id, delivery.subscription_id, run, headers)


def new_run_record(
    event: Event, delivery_id: str, subscription_id: str, run: str, headers: ReadHeaders
) -> tuple[bytes, RecordHeaders]:
    """Return key and headers of the record that starts a run of a delivery; its value is the event's record's.

    Args:
        event: As it was read at its coordinates.
        delivery_id: `del_…`.
        subscription_id: `wh_…`.
        run: The new run's id.
        headers: Those of the event's record.
    """
    record = DeliveryRecord(
        delivery_id,
        subscription_id,
        event.workspace_id,
        attempt=0,
        not_before_ms=0,
        first_attempt_ms=0,
        parked_since_ms=None,
        origin=event.origin,
        replay_id=run,
    )
    return record.key, encode_headers(record, headers)


def expired(origin: Origin) -> GoneError:
    """Say that an event's record is on its topic no more."""
    return GoneError(
        f"the event's record is kept no more: topic {origin.topic} has dropped partition {origin.partition}, "
        f"offset {origin.offset}; ask the publisher to send the event again"
    )


def _replaced(origin: Origin) -> GoneError:
    return GoneError(
        f"the event's record is kept no more: partition {origin.partition}, offset {origin.offset} of topic "
        f"{origin.topic} holds another one; ask the publisher to send the event again"
    )


def pending_entry(delivery: LoggedDelivery, run: str, now_ms: int) -> LogEntry:
    """Return the step that shows a delivery as waiting in a new run; no attempt is charged."""
    return LogEntry(
        delivery.delivery_id,
        delivery.workspace_id,
        delivery.subscription_id,
        delivery.event_id,
        delivery.event_type,
        delivery.source,
        delivery.origin,
        run,
        0,
        DeliveryStatus.PENDING,
        now_ms,
    )


def first_entry(event: Event, delivery_id: str, subscription_id: str, run: str, now_ms: int) -> LogEntry:
    """Return the step that shows a delivery as waiting that the log holds nothing of; no attempt is charged."""
    return LogEntry(
        delivery_id,
        event.workspace_id,
        subscription_id,
        event.id,
        event.type,
        event.source,
        event.origin,
        run,
        0,
        DeliveryStatus.PENDING,
        now_ms,
    )


class ReplaySource(StrEnum):
    """What a replay job goes through."""

    DELIVERIES = "deliveries"
    EVENTS = "events"
    DEAD_LETTERS = "dead_letters"


@dataclass(frozen=True, slots=True)
class SourceSpan:
    """The records of one partition of a source topic that a backfill still has to read.

    Attributes:
        topic: Source topic.
        partition: Its number.
        position: The next offset to read.
        end: The first offset that is not read.
    """

    topic: str
    partition: int
    position: int
    end: int


class ReplayStatus(StrEnum):
    """Where a replay job stands."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


UNFINISHED = (ReplayStatus.PENDING, ReplayStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class ReplayCounts:
    """What became of the deliveries that a job has gone through; of a backfill, of the records.

    Attributes:
        produced: Sent to the replay topic.
        gone: Their records are on their topics no more, or can't be read.
        skipped: Under way anyway, taken over by a later run, or (of dead letters) their webhook is not active. Of a
            backfill: not for the webhook, or in the delivery log already.
    """

    produced: int = 0
    gone: int = 0
    skipped: int = 0

    def __add__(self, other: "ReplayCounts") -> "ReplayCounts":
        return ReplayCounts(self.produced + other.produced, self.gone + other.gone, self.skipped + other.skipped)

    def __iter__(self) -> Iterator[int]:
        return iter((self.produced, self.gone, self.skipped))


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """A job that sends deliveries again, or events that a subscription never got. Times are unix milliseconds.

    Attributes:
        id: `rpl_…`; also the run of everything that it sends.
        workspace_id: The tenant.
        subscription_id: `wh_…`; empty: those of the whole workspace, of dead letters only.
        since_ms: The first time that counts, of deliveries' creation, or of the records of events.
        until_ms: The first that doesn't.
        wanted: Only deliveries in this status; None: all that reached an end.
        status: Where the job stands.
        error: Why it failed; empty where it didn't.
        selected: How many deliveries it found at its start, or offsets of records; None before.
        counts: What became of them so far.
        cursor: Time and id of the last delivery taken in hand; None before the first.
        in_hand: Ids of deliveries taken in hand and not counted yet: they are looked at again after a crash.
        finished_at_ms: When it ended; None while it hasn't.
        source: What it goes through.
        spans: Of a backfill: what is left to read.
        rate: Deliveries a second, at most; None: as fast as the runner does it.
        failed: Of dead letters: which ones, beside the times.
    """

    id: str
    workspace_id: str
    subscription_id: str
    since_ms: int
    until_ms: int
    wanted: DeliveryStatus | None
    created_at_ms: int
    updated_at_ms: int
    status: ReplayStatus = ReplayStatus.PENDING
    error: str = ""
    selected: int | None = None
    counts: ReplayCounts = field(default_factory=ReplayCounts)
    cursor: tuple[int, str] | None = None
    in_hand: tuple[str, ...] = ()
    finished_at_ms: int | None = None
    source: ReplaySource = ReplaySource.DELIVERIES
    spans: tuple[SourceSpan, ...] = ()
    rate: float | None = None
    failed: FailedFilter = field(default_factory=FailedFilter)

    @property
    def dead_letters(self) -> FailedFilter:
        """Which failed deliveries a job of dead letters is about."""
        only = self.subscription_id or None
        return replace(self.failed, subscription_id=only, since_ms=self.since_ms, until_ms=self.until_ms)
