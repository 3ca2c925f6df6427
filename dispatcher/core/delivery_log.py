"""What the delivery log keeps, and how two writes about one delivery become one document.

Writes may come late, twice, or in another order than the attempts were made: from a second worker, after a
crash, from a forked retry chain. The merged document depends on the set of writes alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from dispatcher.core.model import Origin


class DeliveryStatus(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"
    RETRYING = "retrying"
    DELIVERED = "delivered"
    FAILED = "failed"
    SKIPPED = "skipped"


TERMINAL = frozenset({DeliveryStatus.DELIVERED, DeliveryStatus.FAILED, DeliveryStatus.SKIPPED})

RANK: Mapping[str, int] = MappingProxyType(
    {
        DeliveryStatus.PENDING: 0,
        DeliveryStatus.RETRYING: 1,
        DeliveryStatus.SKIPPED: 2,
        DeliveryStatus.FAILED: 2,
        DeliveryStatus.DELIVERED: 3,
    }
)
"""Which status wins within one run, whatever came later: what was delivered stays delivered."""

MAX_LOGGED_BODY_BYTES = 4096
MAX_LOGGED_ERROR_CHARS = 256


@dataclass(slots=True)
class LogEntry:
    """One step of one delivery, to be written to the log.

    Attributes:
        delivery_id: `del_…`; the document's id.
        workspace_id: The tenant.
        subscription_id: `wh_…`.
        event_id: The event's id.
        event_type: The event's type.
        source: CloudEvents source, else empty.
        origin: Where the event's bytes can be read again.
        run: Empty for the first way through; a replay's id for later ones. Later runs sort after earlier ones.
        attempt: Number of the attempt, from 1; 0 where a delivery was closed without one.
        status: Where the delivery stands after this step.
        at_ms: When the step ended, unix milliseconds.
        duration_ms: To the complete response headers, or to the failure.
        response_code: Status code, 0 where none came.
        error: What went wrong, in words; empty where nothing did.
        response_body: The response body's first bytes.
        reason: Dead letter's reason, or why it was skipped; empty otherwise.
        next_attempt_at_ms: When it is tried again; None where it isn't.
        test: True for test events.
    """

    delivery_id: str
    workspace_id: str
    subscription_id: str
    event_id: str
    event_type: str
    source: str
    origin: Origin
    run: str
    attempt: int
    status: DeliveryStatus
    at_ms: int
    duration_ms: float = 0.0
    response_code: int = 0
    error: str = ""
    response_body: bytes = b""
    reason: str = ""
    next_attempt_at_ms: int | None = None
    test: bool = False


@dataclass(slots=True)
class LoggedAttempt:
    """One attempt as the log shows it; fields as in `LogEntry`."""

    run: str
    attempt: int
    status: DeliveryStatus
    at_ms: int
    duration_ms: float
    response_code: int
    error: str
    response_body: bytes


@dataclass(slots=True)
class LoggedDelivery:
    """One delivery as the log shows it: the summary is that of its latest step in its latest run.

    Attributes:
        handled_at_ms: Since when its failure in that run counts as dealt with; None where it doesn't.
    """

    delivery_id: str
    workspace_id: str
    subscription_id: str
    event_id: str
    event_type: str
    source: str
    origin: Origin
    status: DeliveryStatus
    created_at_ms: int
    updated_at_ms: int
    attempts_made: int
    duration_ms: float
    response_code: int
    error: str
    reason: str
    next_attempt_at_ms: int | None
    run: str
    test: bool
    attempts: list[LoggedAttempt] = field(default_factory=list)
    handled_at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class FailedFilter:
    """Which failed deliveries that nobody has marked as handled; None filters nothing. Times are unix milliseconds.

    Attributes:
        subscription_id: `wh_…`.
        event_type: One type.
        reason: Why they failed for good.
        response_code: The last attempt's status code (`503`), a class of them (`5xx`), or `none`: no response came.
        since_ms: The first time of creation that counts.
        until_ms: The first that doesn't.
        delivery_ids: Only some of these.
    """

    subscription_id: str | None = None
    event_type: str | None = None
    reason: str | None = None
    response_code: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    delivery_ids: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class LoggedState:
    """The little of a logged delivery that decides whether its record is still to be worked on.

    Attributes:
        run: The latest run that the log knows.
        attempt: The highest attempt number logged in that run.
        status: Where it stands in that run.
    """

    run: str
    attempt: int
    status: DeliveryStatus


def already_done(logged: LoggedState | None, run: str, next_attempt: int) -> bool:
    """Say whether the log shows that a record's next attempt was made already, so that the record is closed.

    That is so where the same run reached an end, where it logged this attempt or a later one (a crash between
    log and commit, or a forked retry chain), and where a later run took over.

    Args:
        logged: What the log holds; None where it holds nothing.
        run: The record's run.
        next_attempt: The number of the attempt that the record asks for, from 1.
    """
    if logged is None or logged.run < run:
        return False
    if logged.run > run:
        return True
    return logged.status in TERMINAL or logged.attempt >= next_attempt


@dataclass(frozen=True, slots=True)
class Step:
    """One step as the merged document keeps it; keyed by run and number.

    Attributes:
        number: The attempt's number; 0 where the delivery was closed without one.
    """

    run: str
    number: int
    status: DeliveryStatus
    at_ms: int
    duration_ms: float
    response_code: int
    error: str
    reason: str
    next_attempt_at_ms: int | None
    response_body: bytes

    @property
    def precedence(self) -> tuple[object, ...]:
        """What steps are compared by: the greatest of all is where the delivery stands.

        The order is the one in which MongoDB compares the stored steps, field by field: latest run, best status,
        highest number, latest time, then the rest, so that two different steps are never equal.
        """
        due_ms = -1 if self.next_attempt_at_ms is None else self.next_attempt_at_ms
        outcome = (self.duration_ms, self.response_code, self.error, self.reason, due_ms)
        body = (len(self.response_body), self.response_body)
        return (self.run, RANK[self.status], self.number, self.at_ms, self.status.value, *outcome, *body)


@dataclass(frozen=True, slots=True, order=True)
class Occurrence:
    """Where an event stood on its source topic, and what it said it was; the latest one of an event is kept.

    The origin's key is not: it comes back with the record when that is read again.
    """

    timestamp_ms: int
    topic: str
    partition: int
    offset: int
    event_type: str
    test: bool


@dataclass(frozen=True, slots=True)
class DeliveryDocument:
    """All that the log holds of one delivery: a function of the set of entries, whatever their order.

    Attributes:
        created_at_ms: When the earliest known step ended.
        updated_at_ms: When the latest known step ended.
        steps: One for each run and number, in that order; never empty.
    """

    delivery_id: str
    workspace_id: str
    subscription_id: str
    event_id: str
    source: str
    occurrence: Occurrence
    created_at_ms: int
    updated_at_ms: int
    steps: tuple[Step, ...]

    @property
    def standing(self) -> Step:
        """The step that says where the delivery stands."""
        return max(self.steps, key=lambda step: step.precedence)

    @property
    def state(self) -> LoggedState:
        """What decides whether a record of this delivery is still to be worked on."""
        return LoggedState(self.steps[-1].run, self.steps[-1].number, self.standing.status)


def legible(text: str) -> str:
    """Return a text without what UTF-8 can't carry (lone surrogates become `?`)."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def step_of(entry: LogEntry) -> Step:
    """Return what is kept of one entry: error text and response body are cut to their bounds."""
    return Step(
        run=entry.run,
        number=entry.attempt,
        status=entry.status,
        at_ms=entry.at_ms,
        duration_ms=entry.duration_ms,
        response_code=entry.response_code,
        error=legible(entry.error[:MAX_LOGGED_ERROR_CHARS]),
        reason=entry.reason,
        next_attempt_at_ms=entry.next_attempt_at_ms,
        response_body=entry.response_body[:MAX_LOGGED_BODY_BYTES],
    )


def merge(document: DeliveryDocument | None, entry: LogEntry) -> DeliveryDocument:
    """Add one entry to what the log holds of its delivery.

    Writing an entry twice changes nothing, and the result doesn't depend on the order of writes. Where two entries
    tell of the same run and number, the one of greater precedence stays: delivered, then another end, then the
    later one.

    Args:
        document: What the log holds; None where it holds nothing.
        entry: A step of the same delivery.
    """
    step, origin = step_of(entry), entry.origin
    occurrence = Occurrence(
        origin.timestamp_ms, origin.topic, origin.partition, origin.offset, entry.event_type, entry.test
    )
    steps = {(known.run, known.number): known for known in (document.steps if document else ())}
    rival = steps.get((step.run, step.number), step)
    steps[step.run, step.number] = max(step, rival, key=lambda either: either.precedence)
    return DeliveryDocument(
        delivery_id=entry.delivery_id,
        workspace_id=entry.workspace_id,
        subscription_id=entry.subscription_id,
        event_id=entry.event_id,
        source=entry.source,
        occurrence=max(occurrence, document.occurrence) if document else occurrence,
        created_at_ms=min(step.at_ms, document.created_at_ms) if document else step.at_ms,
        updated_at_ms=max(step.at_ms, document.updated_at_ms) if document else step.at_ms,
        steps=tuple(steps[key] for key in sorted(steps)),
    )


def shown(document: DeliveryDocument) -> LoggedDelivery:
    """Return a delivery as its owner sees it.

    The summary is that of the step where it stands; steps without an attempt (number 0) count there and are not
    among the attempts.
    """
    standing, occurrence = document.standing, document.occurrence
    return LoggedDelivery(
        delivery_id=document.delivery_id,
        workspace_id=document.workspace_id,
        subscription_id=document.subscription_id,
        event_id=document.event_id,
        event_type=occurrence.event_type,
        source=document.source,
        origin=Origin(occurrence.topic, occurrence.partition, occurrence.offset, occurrence.timestamp_ms),
        status=standing.status,
        created_at_ms=document.created_at_ms,
        updated_at_ms=document.updated_at_ms,
        attempts_made=document.state.attempt,
        duration_ms=standing.duration_ms,
        response_code=standing.response_code,
        error=standing.error,
        reason=standing.reason,
        next_attempt_at_ms=standing.next_attempt_at_ms,
        run=standing.run,
        test=occurrence.test,
        attempts=[_attempt(step) for step in document.steps if step.number],
    )


def _attempt(step: Step) -> LoggedAttempt:
    return LoggedAttempt(
        run=step.run,
        attempt=step.number,
        status=step.status,
        at_ms=step.at_ms,
        duration_ms=step.duration_ms,
        response_code=step.response_code,
        error=step.error,
        response_body=step.response_body,
    )
